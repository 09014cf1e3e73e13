// The metadata service itself: what `volmeta` does behind the routes of the control API.
//
// Every change of a volume goes: intent in the metadata, call of the node, end in the metadata.
//
// Invariants:
//   one operation per volume at a time, in this process by a lock, across processes by a compare;
//   an operation that is not pending has happened on the node entirely or not at all;
//   a pending operation is carried on by whoever finds it: a repetition by the client, the next
//   operation on the volume, the reconciler when its node is heard from;
//   what a node holds and the metadata does not know is reported, never deleted;
//   a lease epoch of a replicated volume is in the metadata before a node hears of it.
//
// Fault model: this process may die between any two steps, and any node call may be lost before
// or after the node acted on it. Not covered: a node whose store forgot an acknowledged change.

public import ControlAPI
import Foundation
public import Logging
public import Metadata

/// The metadata service of one cluster.
public final class ControlPlane: ControlService {
    /// Gives the API of a node; `NodeClient` in the program, a store in memory in the tests.
    public typealias Connector = @Sendable (NodeRecord) throws(ControlError) -> any NodeService

    let metadata: ClusterMetadata
    let connect: Connector
    let logger: Logger
    let locks = KeyedLocks<String>()
    let nodeTable = NodeTable()
    let serviceTable = ServiceTable()
    let followers = FollowerTable()
    /// Nodes to compare with the metadata soon: they have just registered.
    let reconcileSoon = NameQueue()
    /// Nodes whose pending operations are to be carried on soon.
    let resumeSoon = NameQueue()
    /// Replicated volumes, by id, that may not be served as they should be.
    let serveSoon = NameQueue()
    /// Volumes, by id, of which their nodes are to keep what is so now.
    let toDescribe = NameQueue()
    /// The volumes, by id, whose moves are to go on.
    let moveSoon = NameQueue()
    /// A node has come or gone, so that replicated volumes may need other primaries.
    let failOverSoon = NameQueue()
    /// Events to be noted in their turn: nobody waits for them.
    let happened = EventQueue()
    /// How long a node may be down before its replicas are replaced, in seconds; 0 for ever.
    let replaceSeconds: Double
    /// Happens when the service is told to stop.
    let stopped = OneShot()
    /// When this process was started, in milliseconds since 1970: the order of its requests to
    /// nodes among those of its predecessors.
    let term: UInt64
    /// Until when volumes whose primaries' nodes are down stay with them: nodes that lost their
    /// leases while nobody led come back first.
    let settledAt: ContinuousClock.Instant
    /// Whether it ends leases and looks at what is pending as time goes by.
    let keepsTime: Bool
    private let programVersion: String
    /// How long a change of a volume may wait for those before it and for the node, in
    /// milliseconds.
    let changeMillisecondsMax: Int64
    /// How long a node is waited for when what it says can be left out, in milliseconds.
    let viewMillisecondsMax: Int64
    /// By how much all limits of time on nodes' answers are multiplied.
    let patience: Int64

    /// Creates the service; ``run()`` does its background work.
    ///
    /// - Parameters:
    ///   - metadata: The cluster's metadata.
    ///   - version: The program's version.
    ///   - logger: Where to log.
    ///   - changeMillisecondsMax: How long a change of a volume may take.
    ///   - viewMillisecondsMax: How long a node may take to say what can be left out.
    ///   - replaceSeconds: How long a node may be down before its replicas are replaced; 0 for
    ///     ever.
    ///   - term: Greater than that of all processes before; nil for what the clock says.
    ///   - settleMilliseconds: How long nodes have to come back before their volumes are given to
    ///     others.
    ///   - patience: By how much all limits of time on nodes' answers are multiplied: for machines on
    ///     which a node that is late is no sign of anything.
    ///   - keepsTime: Whether it ends leases and looks at what is pending as time goes by; without,
    ///     only what is heard and asked makes it do something.
    ///   - connect: Gives the API of a node.
    public init(
        metadata: ClusterMetadata,
        version: String,
        logger: Logger,
        changeMillisecondsMax: Int64 = APILimits.nodeAnswerMillisecondsMax,
        viewMillisecondsMax: Int64 = APILimits.nodeViewMillisecondsMax,
        replaceSeconds: Double = APILimits.replaceSeconds,
        term: UInt64? = nil,
        settleMilliseconds: Int = 0,
        patience: Int64 = 1,
        keepsTime: Bool = true,
        connect: @escaping Connector = ControlPlane.connectOverHTTP
    ) {
        self.metadata = metadata
        self.logger = logger
        self.connect = connect
        self.changeMillisecondsMax = patience * changeMillisecondsMax
        self.viewMillisecondsMax = patience * viewMillisecondsMax
        self.patience = patience
        self.replaceSeconds = replaceSeconds
        self.term = term ?? UInt64(max(0, Date().timeIntervalSince1970 * 1000))
        settledAt = .now + .milliseconds(settleMilliseconds)
        self.keepsTime = keepsTime
        programVersion = version
    }

    /// Reaches a node where it said that its API is, and nobody else who may be there now.
    public static let connectOverHTTP: Connector = { node throws(ControlError) in
        NodeClient(
            endpoint: try APIEndpoint(node.adminEndpoint),
            storeIdentity: node.storeIdentity,
            otherStoreIdentities: node.otherStoreIdentities ?? []
        )
    }

    /// Whether it can serve.
    public func health() async throws(ControlError) -> HealthReport {
        let revision = try await meta(await metadata.revision())
        let nodes = try await meta(await metadata.nodes())
        let live = try await meta(await metadata.liveNodes())
        let upCount = nodes.count { live[$0.name] != nil }
        return HealthReport(
            status: "ok",
            nodesUp: upCount,
            nodesDown: nodes.count - upCount,
            revision: revision
        )
    }

    /// What runs.
    public func version() -> VersionReport {
        VersionReport(program: "volmeta", version: programVersion)
    }

    // MARK: - Shared by the files beside this one

    /// Now, in the whole seconds that documents and records keep.
    var now: Date { Date(timeIntervalSince1970: Date().timeIntervalSince1970.rounded(.down)) }

    /// A limit of time on a node's answer.
    func patient(_ milliseconds: Int64) -> Duration { .milliseconds(patience * milliseconds) }

    /// Calls the metadata and gives its errors the API's type.
    func meta<Value: Sendable>(
        _ body: @autoclosure () async throws(MetadataError) -> Value
    ) async throws(ControlError) -> Value {
        do throws(MetadataError) {
            return try await body()
        } catch {
            throw ControlError(error)
        }
    }

    /// The API of a node.
    func nodeService(_ name: String) async throws(ControlError) -> any NodeService {
        let node = try await meta(await metadata.node(name))
        guard let node else { throw .nodeNotFound(name) }
        return try connect(node.value)
    }

    /// The API of the node that serves a volume, for a change that this record tells of.
    func nodeService(
        of volume: Versioned<VolumeRecord>,
        isFirstAttempt: Bool = true
    ) async throws(ControlError) -> any NodeService {
        let record = volume.value
        let epochMax = record.pending?.kind.epochMax(
            after: record.epoch,
            isFirstAttempt: isFirstAttempt
        )
        let operation = NodeOperation(
            term: term,
            revision: volume.revision,
            epochMax: epochMax ?? record.epoch
        )
        return try await nodeService(record.primary).carryingOut(operation)
    }

    /// What a node, or several questions to it, gives before `deadline`.
    ///
    /// - Throws: What `questions` throws; ``ControlError/Code/unavailable`` when there was no time
    ///   to ask, and ``ControlError/Code/outcomeUnknown`` when time was up before the answer came.
    func answered<Value: Sendable>(
        by name: String,
        until deadline: ContinuousClock.Instant,
        _ questions: @escaping @Sendable () async throws(ControlError) -> Value
    ) async throws(ControlError) -> Value {
        let milliseconds = (deadline - .now) / .milliseconds(1)
        guard milliseconds > 0 else { throw .nodeSilent(name) }
        let answer = await withTimeLimit(milliseconds: Int64(milliseconds.rounded(.up))) {
            () -> Result<Value, ControlError> in
            do throws(ControlError) {
                return .success(try await questions())
            } catch {
                return .failure(error)
            }
        }
        guard let answer else {
            throw ControlError(.outcomeUnknown, "The node '\(name)' has not answered in time.")
        }
        return try answer.get()
    }

    /// Refuses to ask a node for a change that sends no heartbeats and, asked for something
    /// harmless, does not answer at once.
    ///
    /// A program that is stopped still has connections taken by the kernel, so that nobody could
    /// say whether it will act on a change one day.
    ///
    /// - Throws: ``ControlError/Code/unavailable`` or ``ControlError/Code/unreachable``.
    func requireAnswer(
        of name: String,
        until deadline: ContinuousClock.Instant
    ) async throws(ControlError) {
        guard try await meta(await metadata.liveNode(name)) == nil else { return }
        let node = try await nodeService(name)
        let limit = ContinuousClock.now + .milliseconds(viewMillisecondsMax)
        do throws(ControlError) {
            _ = try await answered(by: name, until: min(limit, deadline)) {
                () throws(ControlError) in
                try await node.report()
            }
        } catch  where error.code == .outcomeUnknown {
            throw .nodeSilent(name)
        } catch  where error.code == .unavailable || error.code == .unreachable {
            throw error
        } catch {
            // A refusal is an answer; what it means for the change, the change will tell.
        }
    }

    /// The volume of this name, or the error that says there is none.
    func requireVolume(_ name: String) async throws(ControlError) -> Versioned<VolumeRecord> {
        let volume = try await meta(await metadata.volume(named: name))
        guard let volume else { throw .volumeNotFound(name) }
        return volume
    }
}

extension ControlError {
    /// What the API says of a failure of the metadata.
    init(_ error: MetadataError) {
        let code: Code =
            switch error {
            case .compacted: .revisionCompacted
            // Also when this very transaction did nothing: those before it may have.
            case .unavailable, .outcomeUnknown, .notLeader: .outcomeUnknown
            default: .internalError
            }
        self.init(code, error.description, help: error.help)
    }

    static func volumeNotFound(_ name: String) -> Self {
        ControlError(
            .volumeNotFound,
            "There is no volume '\(name)'.",
            help: "'volctl volume list' shows those that are."
        )
    }

    static func snapshotNotFound(_ name: String, of volume: String) -> Self {
        ControlError(
            .snapshotNotFound,
            "The volume '\(volume)' has no snapshot '\(name)'.",
            help: "'volctl snapshot list \(volume)' shows those that it has."
        )
    }

    static func nodeNotFound(_ name: String) -> Self {
        ControlError(
            .nodeNotFound,
            "There is no node '\(name)'.",
            help: "'volctl node list' shows those that are."
        )
    }

    static func imageNotFound(_ name: String, version: String) -> Self {
        ControlError(
            .imageNotFound,
            "There is no image '\(name):\(version)'.",
            help: "'volctl image list' shows those that are."
        )
    }
}
