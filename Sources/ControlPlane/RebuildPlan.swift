// Metadata made anew from what the nodes have: which records there are to be. A pure function of
// the nodes' answers; Docs/rebuild.md has the reasons.

public import ControlAPI
public import Foundation
public import Metadata

/// What is to be written when the metadata was lost.
public struct RebuildPlan: Sendable {
    /// The records.
    public private(set) var cluster: RestoredCluster
    /// What is left alone, or not as it was, a line each.
    public internal(set) var findings: [String] = []

    /// What a host is called of which only its epoch is known.
    static var unknownHost: String { "unknown-host" }

    let time: Date
    /// The nodes that were asked, and those that are to be done without.
    let known: Set<String>

    /// A volume as one node has it.
    struct Copy {
        var node: String
        var held: NodeVolume
        var descriptor: VolumeDescriptor?
    }

    /// Decides what is to be written.
    ///
    /// - Parameters:
    ///   - surveys: What the nodes say.
    ///   - without: Nodes that are lost for good.
    ///   - time: Now, in whole seconds.
    /// - Throws: ``ControlError/Code/invalidArgument`` when a node was not asked, or asked twice.
    public init(
        _ surveys: [NodeSurvey],
        without: Set<String> = [],
        at time: Date
    ) throws(ControlError) {
        self.time = time
        cluster = RestoredCluster(epochFloor: UInt64(max(0, time.timeIntervalSince1970 * 1000)))
        known = without.union(surveys.map(\.report.name))
        try Self.requireDistinct(surveys, without)
        cluster.nodes = surveys.map(Self.node)
        var copies: [UInt64: [Copy]] = [:]
        for survey in surveys {
            for held in survey.volumes {
                let copy = Copy(
                    node: survey.report.name,
                    held: held,
                    descriptor: VolumeDescriptor(held.descriptor)
                )
                copies[held.id, default: []].append(copy)
            }
        }
        let services = surveys.flatMap { survey in
            survey.services.map { (node: survey.report.name, status: $0) }
        }
        var volumes: [RestoredVolume] = []
        for id in copies.keys.sorted() {
            let serving = services.filter { $0.status.volume == id }
            if let volume = try volume(copies[id] ?? [], serving) { volumes.append(volume) }
        }
        keepNewest(of: volumes)
        let epochMax = cluster.volumes.map(\.record.epoch).max() ?? 0
        cluster.epochFloor = max(cluster.epochFloor, epochMax)
    }

    private static func requireDistinct(
        _ surveys: [NodeSurvey],
        _ without: Set<String>
    ) throws(ControlError) {
        var byName: [String: NodeSurvey] = [:]
        var byStore: [String: NodeSurvey] = [:]
        for survey in surveys {
            let name = survey.report.name
            try ValidName.require(name, of: "node")
            let stores = survey.report.storeIdentities ?? [survey.report.storeIdentity]
            let other = byName[name] ?? stores.lazy.compactMap { byStore[$0] }.first
            if let other {
                throw ControlError(
                    .invalidArgument,
                    "\(other.endpoint) and \(survey.endpoint) are one node, '\(name)', or two with "
                        + "one name.",
                    help: "Name each node once."
                )
            }
            guard !without.contains(name) else {
                throw ControlError(
                    .invalidArgument,
                    "The node '\(name)' is at \(survey.endpoint), and to be done without.",
                    help: "Leave out '--without \(name)'."
                )
            }
            byName[name] = survey
            for store in stores { byStore[store] = survey }
        }
    }

    private static func node(_ survey: NodeSurvey) -> NodeRecord {
        let stores = survey.report.storeIdentities ?? []
        let first = survey.report.storeIdentity
        let others = stores.filter { $0 != first }
        return NodeRecord(
            name: survey.report.name,
            adminEndpoint: "\(survey.endpoint)",
            nbdEndpoint: survey.report.nbdEndpoint,
            nbdUnixPath: survey.report.nbdUnixPath,
            nbdTLS: nil,
            storeIdentity: first,
            otherStoreIdentities: others.isEmpty ? nil : others,
            version: survey.report.version,
            machineID: nil,
            draining: false,
            incarnation: 0
        )
    }

    /// Of volumes with one name keeps the one that was made last: the others had been forgotten.
    private mutating func keepNewest(of volumes: [RestoredVolume]) {
        var byName: [String: RestoredVolume] = [:]
        for volume in volumes.sorted(by: { $0.record.createdAt < $1.record.createdAt }) {
            let name = volume.record.name
            if let older = byName.updateValue(volume, forKey: name) {
                findings.append(
                    "\(name): an older volume of this name (id \(older.record.id), on "
                        + "\(older.record.holders.joined(separator: ", "))) is left alone"
                )
            }
        }
        cluster.volumes = byName.values.sorted { $0.record.name < $1.record.name }
    }

    // MARK: - Volumes

    private mutating func volume(
        _ copies: [Copy],
        _ serving: [(node: String, status: NodeServiceStatus)]
    ) throws(ControlError) -> RestoredVolume? {
        let whole = copies.filter { $0.held.replica == nil }
        guard !whole.isEmpty else { return try replicated(copies, serving) }
        if copies.count > 1 {
            let nodes = copies.map(\.node).joined(separator: ", ")
            findings.append(
                "\(whole[0].held.name): several nodes have it (\(nodes)), and it is no replica; that "
                    + "of \(whole[0].node) is taken"
            )
        }
        return unreplicated(whole[0])
    }

    private mutating func unreplicated(_ copy: Copy) -> RestoredVolume {
        let held = copy.held
        var record = record(of: copy, on: [copy.node])
        record.epoch = held.epoch
        var volume = RestoredVolume(record: record)
        if held.access != .none {
            volume.attachments = attachments(
                epoch: held.epoch,
                isReadOnly: held.access == .readOnly,
                [copy.descriptor],
                held.name
            )
        }
        volume.snapshots = held.snapshots.map(snapshot)
        volume.images = images(copy.descriptor, of: volume)
        return volume
    }

    /// What all volumes have.
    func record(of copy: Copy, on nodes: [String]) -> VolumeRecord {
        let held = copy.held
        let source = copy.descriptor?.source.map {
            VolumeRecord.Source(
                volumeID: $0.volumeId,
                volumeName: $0.volumeName,
                snapshot: $0.snapshot
            )
        }
        return VolumeRecord(
            id: held.id,
            name: held.name,
            byteCount: held.byteCount,
            logicalBlockByteCount: held.logicalBlockByteCount,
            durability: held.durability.rawValue,
            state: .ready,
            primary: nodes[0],
            replicas: nodes,
            source: source,
            createdAt: copy.descriptor?.createdAt ?? time
        )
    }

    /// A snapshot as it was; one of a replica has lost its name, which only the metadata knew, and is
    /// called as its replicas call it.
    func snapshot(_ held: NodeSnapshot) -> SnapshotRecord {
        SnapshotRecord(
            name: held.name,
            layer: held.replica == nil ? held.layer : 0,
            byteCount: held.byteCount,
            createdAt: time,
            mark: held.replica.map { SnapshotMarkRecord(id: $0.id, number: $0.number) }
        )
    }

    func images(
        _ descriptor: VolumeDescriptor?,
        of volume: RestoredVolume
    ) -> [ImageRecord] {
        (descriptor?.images ?? []).compactMap { image in
            let snapshot = volume.snapshots.first { $0.name == image.snapshot }
            guard let snapshot, ValidName.check(image.name), ValidName.check(image.version) else {
                return nil
            }
            return ImageRecord(
                name: image.name,
                version: image.version,
                volumeID: volume.record.id,
                volumeName: volume.record.name,
                snapshot: image.snapshot,
                byteCount: snapshot.byteCount,
                description: image.description ?? "",
                sha256: image.sha256,
                createdAt: image.createdAt
            )
        }
    }

    /// The hosts that have a volume under an epoch.
    mutating func attachments(
        epoch: UInt64,
        isReadOnly: Bool,
        _ descriptors: [VolumeDescriptor?],
        _ name: String
    ) -> AttachmentsRecord {
        let hosts = descriptors.lazy.compactMap(\.self).first { descriptor in
            descriptor.epoch == epoch && descriptor.hosts?.isEmpty == false
                && descriptor.hosts?.allSatisfy { ValidName.check($0.name) } == true
        }?.hosts
        if hosts == nil {
            findings.append(
                "\(name): the host that has it is not known; it is '\(Self.unknownHost)'"
            )
        }
        var record = AttachmentsRecord()
        for host in hosts ?? [.init(name: Self.unknownHost, readOnly: isReadOnly)] {
            record.current.append(
                AttachmentRecord(
                    host: host.name,
                    protocol: "nbd",
                    readOnly: isReadOnly,
                    epoch: epoch,
                    attachedAt: time
                )
            )
            // One writes; only readers are several.
            if !isReadOnly { break }
        }
        return record
    }
}
