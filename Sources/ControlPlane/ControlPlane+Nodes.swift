// Nodes: registration, heartbeats, placement.

public import ControlAPI
import Foundation
import Metadata

extension ControlPlane {
    /// All nodes, by name.
    public func nodes() async throws(ControlError) -> [Node] {
        let records = try await meta(await metadata.nodes())
        let live = try await meta(await metadata.liveNodes())
        let load = try await volumeLoad()
        return records.map { record in
            document(record, isLive: live[record.name] != nil, load[record.name] ?? VolumeLoad())
        }
    }

    /// One node.
    public func node(_ name: String) async throws(ControlError) -> Node {
        let record = try await requireNode(name).value
        let live = try await meta(await metadata.liveNode(name))
        let load = try await volumeLoad()
        return document(record, isLive: live != nil, load[name] ?? VolumeLoad())
    }

    /// The volumes that a node has.
    private struct VolumeLoad {
        var count = 0
        var byteCount: UInt64 = 0
        /// Of these, those that it alone has.
        var soleCount = 0
        /// Replicated volumes that it serves to hosts.
        var primaryCount = 0
        /// Of its replicas, those that move elsewhere.
        var movingCount = 0

        mutating func add(_ volume: VolumeRecord) {
            count += 1
            if !volume.isReplicated { soleCount += 1 }
            byteCount += min(volume.byteCount, .max - byteCount)
        }
    }

    private func volumeLoad() async throws(ControlError) -> [String: VolumeLoad] {
        var load: [String: VolumeLoad] = [:]
        for volume in try await meta(await metadata.allVolumes()) {
            for node in Set(volume.value.holders + volume.value.allReplicas.map(\.node)) {
                load[node, default: VolumeLoad()].add(volume.value)
            }
            if let node = volume.value.leavingNode {
                load[node, default: VolumeLoad()].movingCount += 1
            }
            if volume.value.served != nil {
                load[volume.value.primary, default: VolumeLoad()].primaryCount += 1
            }
        }
        return load
    }

    func requireNode(_ name: String) async throws(ControlError) -> Versioned<NodeRecord> {
        let node = try await meta(await metadata.node(name))
        guard let node else { throw .nodeNotFound(name) }
        return node
    }

    private func document(_ record: NodeRecord, isLive: Bool, _ load: VolumeLoad) -> Node {
        let entry = nodeTable.entry(record.name)
        return Node(
            name: record.name,
            state: isLive ? .up : .down,
            draining: record.draining,
            adminEndpoint: record.adminEndpoint,
            nbdEndpoint: record.nbdEndpoint,
            nbdUnixPath: record.nbdUnixPath,
            nbdTLS: record.transportSecurity,
            storeIdentity: record.storeIdentity,
            version: record.version,
            space: entry?.space,
            stores: entry?.stores,
            volumeCount: load.count,
            replicaCount: load.count - load.soleCount,
            primaryCount: load.primaryCount,
            movingCount: record.draining ? load.movingCount : nil,
            drainProblem: record.draining ? nodeTable.drainProblem(record.name) : nil,
            provisionedByteCount: load.byteCount,
            lastSeenAt: entry?.lastSeenAt
        )
    }

    // MARK: - Registration

    /// Takes a node in, or back.
    public func registerNode(
        _ name: String,
        _ registration: NodeRegistration
    ) async throws(ControlError) -> NodeRegistrationResult {
        for _ in 0..<Self.conflictCountMax {
            let previous = try await meta(await metadata.node(name))
            let before = try await meta(await metadata.liveNode(name))
            do throws(ControlError) {
                try await requireSameStores(
                    name,
                    registration,
                    previous?.value,
                    isLive: before != nil
                )
            } catch {
                if previous != nil { await report(refusal: error, of: name) }
                throw error
            }
            let identities = registration.storeIdentities(knownBefore: previous?.value)
            let record = NodeRecord(
                name: name,
                adminEndpoint: registration.adminEndpoint,
                nbdEndpoint: registration.nbdEndpoint,
                nbdUnixPath: registration.nbdUnixPath,
                nbdTLS: registration.nbdTLS?.rawValue,
                storeIdentity: identities[0],
                otherStoreIdentities: identities.count > 1 ? Array(identities[1...]) : nil,
                version: registration.version,
                machineID: registration.machineID,
                draining: previous?.value.draining ?? false,
                incarnation: (previous?.value.incarnation ?? 0) + 1,
                peerEndpoint: registration.peerEndpoint,
                failureDomain: registration.failureDomain.map {
                    FailureDomainRecord(zone: $0.zone, rack: $0.rack, host: $0.host)
                }
            )
            let session = try await register(record, replacing: previous, before: before)
            guard let session else { continue }
            let entry = NodeTable.Entry(
                session: session,
                space: registration.space,
                stores: registration.stores,
                lastSeenAt: now
            )
            failOverSoon.yield(Self.allNodes)
            if let before = previous?.value, before.peerEndpoint != record.peerEndpoint {
                Task { await self.tellPrimaries(ofReplicasOn: name) }
            }
            await report(nodeTable.update(name, entry), on: name, entry)
            reconcileSoon.yield(name)
            return NodeRegistrationResult(
                session: session,
                heartbeatIntervalMilliseconds: APILimits.heartbeatIntervalMilliseconds
            )
        }
        throw ControlError(.busy, "Somebody else registers the node '\(name)'.")
    }

    /// Registers with a new lease and ends the old one; nil when somebody else was faster.
    private func register(
        _ record: NodeRecord,
        replacing previous: Versioned<NodeRecord>?,
        before: NodeLiveRecord?
    ) async throws(ControlError) -> UInt64? {
        let store = metadata.store
        let lease = try await meta(
            await store.grantLease(milliseconds: APILimits.heartbeatTimeoutMilliseconds)
        )
        let event = EventRecord(
            time: now,
            kind: "node.up",
            subject: record.name,
            message: previous == nil
                ? "joined, API at \(record.adminEndpoint)"
                : "came back, API at \(record.adminEndpoint)" + without(previous?.value, record)
        )
        let isRegistered = try await meta(
            await metadata.registerNode(
                record,
                replacing: previous,
                lease: lease,
                event: event
            )
        )
        let unused = isRegistered ? before.map { MetaLease(Int64($0.session)) } : lease
        if let unused {
            do throws(MetadataError) {
                try await store.revoke(unused)
            } catch {
                // It ends by itself, and no key hangs on it.
            }
        }
        return isRegistered ? UInt64(lease.rawValue) : nil
    }

    /// What an event says of stores that a node came back without.
    private func without(_ previous: NodeRecord?, _ record: NodeRecord) -> String {
        let lost = Set(previous?.storeIdentities ?? []).subtracting(record.storeIdentities).sorted()
        guard !lost.isEmpty else { return "" }
        return ", without the store" + (lost.count > 1 ? "s " : " ") + lost.joined(separator: ", ")
    }

    /// Refuses a store under another's name, and a node without a store that it had: volumes would
    /// seem to be lost, or double.
    private func requireSameStores(
        _ name: String,
        _ registration: NodeRegistration,
        _ previous: NodeRecord?,
        isLive: Bool
    ) async throws(ControlError) {
        let told = registration.storeIdentitiesTold
        if let previous {
            let isOther = Set(previous.storeIdentities).isDisjoint(with: told)
            // Two that take turns under one name would each lose what it is given.
            guard !isOther || !isLive else {
                let seconds = APILimits.heartbeatTimeoutMilliseconds / 1000
                throw ControlError(
                    .alreadyExists,
                    "A node '\(name)' with another store is up, API at \(previous.adminEndpoint).",
                    help: "If that one is dead, it counts as down after \(seconds) s, and this one "
                        + "registers by itself then; if it lives, stop it, or start volnode with "
                        + "another --name."
                )
            }
            if let missing = registration.missingStores(of: previous).first {
                let count = try await volumeLoad()[name]?.count ?? 0
                guard count == 0 else {
                    throw isOther
                        ? .otherStore(name, missing, told[0], volumeCount: count)
                        : .storeMissing(name, missing, volumeCount: count)
                }
            }
        }
        let all = try await meta(await metadata.nodes())
        for other in all where other.name != name {
            guard let taken = told.first(where: other.storeIdentities.contains) else { continue }
            throw ControlError(
                .alreadyExists,
                "The store \(taken) belongs to the node '\(other.name)'.",
                help: "Start volnode with --name \(other.name)."
            )
        }
    }

    /// Notes that a node lives.
    public func heartbeat(
        _ name: String,
        _ heartbeat: NodeHeartbeat
    ) async throws(ControlError) {
        let forgotten = ControlError(
            .nodeNotFound,
            "The session of the node '\(name)' has ended.",
            help: "The node registers again by itself."
        )
        if nodeTable.entry(name)?.session != heartbeat.session {
            let live = try await meta(await metadata.liveNode(name))
            guard live?.session == heartbeat.session else { throw forgotten }
        }
        guard let lease = Int64(exactly: heartbeat.session) else { throw forgotten }
        do throws(MetadataError) {
            try await metadata.store.keepAlive(MetaLease(lease))
        } catch .leaseNotFound {
            throw forgotten
        } catch {
            throw ControlError(error)
        }
        let entry = NodeTable.Entry(
            session: heartbeat.session,
            space: heartbeat.space,
            stores: heartbeat.stores,
            lastSeenAt: now
        )
        if let services = heartbeat.services { hear(services, from: name) }
        await report(nodeTable.update(name, entry), on: name, entry)
    }

    /// Takes a node out of placement or back in.
    public func updateNode(
        _ name: String,
        _ update: NodeUpdate
    ) async throws(ControlError) -> Node {
        for _ in 0..<Self.conflictCountMax {
            var record = try await requireNode(name)
            guard record.value.draining != update.draining else { return try await node(name) }
            record.value.draining = update.draining
            let event = EventRecord(
                time: now,
                kind: update.draining ? "node.draining" : "node.undrained",
                subject: name,
                message: update.draining
                    ? "takes no new volumes, and its replicas move elsewhere"
                    : "takes new volumes again"
            )
            let changed = record
            let isUpdated = try await meta(await metadata.updateNode(changed, event: event))
            guard isUpdated else { continue }
            nodeTable.noteDrain(name, problem: nil)
            moveSoon.yield(Self.allVolumes)
            return try await node(name)
        }
        throw ControlError(.busy, "The node '\(name)' is being changed by somebody else.")
    }

    /// Forgets a node that is down and has no volumes; with `isLost`, its volumes too.
    public func deleteNode(_ name: String, isLost: Bool) async throws(ControlError) {
        let record = try await requireNode(name)
        guard try await meta(await metadata.liveNode(name)) == nil else { throw .nodeUp(name) }
        if isLost { try await forgetVolumes(of: record.value) }
        let load = try await volumeLoad()[name] ?? VolumeLoad()
        // Replicas that are lost with it are replaced.
        let count = isLost ? load.soleCount : load.count
        guard count == 0 else {
            throw ControlError(
                .inUse,
                "The node '\(name)' holds \(counted(count, "volume")).",
                help:
                    "'volctl volume list' shows which; they are deleted while the node is up. If its "
                    + "disk is lost, '--lost' forgets them with it."
            )
        }
        let event = EventRecord(
            time: now,
            kind: "node.deleted",
            subject: name,
            message: "forgotten"
        )
        let isDeleted = try await meta(await metadata.deleteNode(record, event: event))
        guard isDeleted else { throw .nodeUp(name) }
        nodeTable.remove(name)
    }

    /// Forgets the volumes of a node that will not come back, so that their names are free.
    private func forgetVolumes(of record: NodeRecord) async throws(ControlError) {
        let node = record.name
        let lost = try await meta(await metadata.allVolumes()).filter {
            $0.value.primary == node && !$0.value.isReplicated
        }
        for volume in lost {
            try await locks.withLock(volume.value.name) { [self] () throws(ControlError) in
                guard try await meta(await metadata.liveNode(node)) == nil else {
                    throw .nodeUp(node)
                }
                let event = EventRecord(
                    time: now,
                    kind: "volume.lost",
                    subject: volume.value.name,
                    message: "forgotten with its node '\(node)'"
                )
                let current = try await meta(await metadata.volume(id: volume.value.id))
                guard let current else { return }
                let isForgotten = try await meta(
                    await metadata.forgetVolume(
                        current,
                        ofStores: record.storeIdentities,
                        event: event
                    )
                )
                guard isForgotten else {
                    throw ControlError(
                        .busy,
                        "The volume '\(current.value.name)' is being changed by somebody else.",
                        help: "Try again."
                    )
                }
            }
        }
    }
}

extension NodeRegistration {
    /// The identities that the node tells, in lower case, the first store's first.
    fileprivate var storeIdentitiesTold: [String] {
        let first = storeIdentity.lowercased()
        let others = (stores ?? []).compactMap { $0.identity?.lowercased() }
        return [first] + others.filter { $0 != first }
    }

    /// Whether the node says of each of its stores which one it is.
    private var tellsAllStores: Bool {
        guard let stores else { return false }
        return stores.allSatisfy { $0.identity != nil }
    }

    /// The stores that the node had, and neither has nor says to be lost.
    fileprivate func missingStores(of previous: NodeRecord) -> [String] {
        let lost = (lostStores ?? []).map { $0.lowercased() }
        let present = storeIdentitiesTold + lost
        // What a node does not tell is unknown, not missing; but of the first it always does.
        let compared = tellsAllStores ? previous.storeIdentities : [previous.storeIdentity]
        return compared.filter { !present.contains($0) }
    }

    /// The identities of the node's stores, with those known before of which it does not tell.
    fileprivate func storeIdentities(knownBefore previous: NodeRecord?) -> [String] {
        let told = storeIdentitiesTold
        guard !tellsAllStores, let previous, previous.storeIdentities.contains(told[0]) else {
            return told
        }
        let lost = (lostStores ?? []).map { $0.lowercased() }
        return told + previous.storeIdentities.filter { !(told + lost).contains($0) }
    }
}

extension ControlError {
    fileprivate static func otherStore(
        _ name: String,
        _ known: String,
        _ told: String,
        volumeCount: Int
    ) -> Self {
        ControlError(
            .alreadyExists,
            "The node '\(name)' has the store \(known) with \(counted(volumeCount, "volume")); "
                + "this one is \(told).",
            help: "Start volnode with that store, or with another --name."
        )
    }

    fileprivate static func storeMissing(
        _ name: String,
        _ missing: String,
        volumeCount: Int
    ) -> Self {
        ControlError(
            .alreadyExists,
            "The node '\(name)' has \(counted(volumeCount, "volume")), and came without its store "
                + "\(missing).",
            help: "Start volnode with that store too. If its disk is lost for good, '--lost-store "
                + "\(missing)' has the node come back without it; then 'volctl events' says which "
                + "volumes are missing, and they can be deleted."
        )
    }

    fileprivate static func nodeUp(_ name: String) -> Self {
        ControlError(
            .inUse,
            "The node '\(name)' is up.",
            help: "Stop it first; it counts as down after a few seconds."
        )
    }
}
