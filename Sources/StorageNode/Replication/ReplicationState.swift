// What a reactor keeps for replicated volumes.

internal import BlockCore
internal import LogStore
internal import PeerWire
internal import Reactor
internal import Replication

/// The replicas, primaries and links of one reactor.
final class ReplicationState {
    /// This process, as replicas give it grants.
    let process: PrimaryID
    let payloads: PayloadTable
    var replicas: [ReplicaHost] = []
    var replicasByVolume: [VolumeID: ReplicaHost] = [:]
    /// By their place; nil for places that are free.
    var primaries: [PrimaryHost?] = []
    /// What the resyncs of all volumes served here may have on their way.
    let resyncs = ResyncBudget(
        countMax: ReplicationState.resyncCountMax,
        busyCountMax: ReplicationState.busyResyncCountMax
    )
    var links: [PeerLink?] = []
    private var linkGeneration: UInt32 = 0
    private var lastLink: UInt64 = 0
    private var requests: [ReplicaRequest] = []
    private var freeRequest: Int32 = -1

    // Those with something to do before the turn ends.
    var markedReplicas: [Int32] = []
    var markedPrimaries: [Int32] = []
    var markedLinks: [Int32] = []
    /// Replicas whose store refused something for good.
    var failed: [ReplicaHost] = []
    /// Somebody wanted memory and there was none; and how much had come free then.
    var isStarved = false
    var starvedMark: UInt64 = 0
    /// Handshakes that failed and were told of.
    var failures = PeerFailureWatch()
    /// When clocks are looked at next; nil when nobody has one.
    var tickAt: Instant?

    /// Blocks on their way to replicas that lack them, while no client wants anything, and while
    /// clients do.
    static let resyncCountMax = 64
    static let busyResyncCountMax = 4
    /// Writes that a primary keeps for its replicas.
    static let windowCountMax = 4096
    /// Bytes of them, when it has the memory for itself.
    static let windowByteCountLimit = 64 << 20
    /// Before volumes whose resyncs waited for others hear that there is room: all are looked at.
    static let resyncPauseNanoseconds: UInt64 = 2_000_000
    /// Between two looks at the clocks: a third of the quarter of a grant.
    static let tickNanoseconds: UInt64 = 50_000_000
    /// The same while something is to be connected.
    static let shortTickNanoseconds: UInt64 = 10_000_000

    /// Creates an empty state with so much memory for payloads.
    init(process: PrimaryID, byteCount: Int) {
        self.process = process
        payloads = PayloadTable(byteCount: byteCount)
    }

    /// Whether there is anything replicated here.
    var isUsed: Bool { !replicasByVolume.isEmpty || primaryCount > 0 || linkCount > 0 }
    /// Volumes served.
    private(set) var primaryCount = 0
    private(set) var linkCount = 0

    /// What each primary may keep for replicas that lag: a quarter of the memory, in equal parts.
    ///
    /// As much may be kept for a link that lags, and the rest is for what is in work.
    var windowByteCountMax: Int {
        min(payloads.byteCount / 4 / max(primaryCount, 1), Self.windowByteCountLimit)
    }

    /// What a peer that does not read may keep: all that a window can have, with the tail of a
    /// takeover, is sent at once to a replica that comes back.
    var linkByteCountMax: Int { 2 * windowByteCountMax + Self.linkByteCountMin }
    private static let linkByteCountMin = 1 << 20

    /// A name for a link that no other one had.
    func nextLink() -> LinkID {
        lastLink += 1
        return LinkID(lastLink)
    }

    /// Has the clocks looked at soon.
    func scheduleTick(_ now: Instant) { tickAt = min(tickAt ?? now, now) }

    /// Lets go of everything: the reactor has ended.
    func forgetAll() {
        replicas = []
        replicasByVolume = [:]
        primaries = []
        links = []
        failed = []
    }

    // MARK: - Tables

    func add(_ assignment: ServiceAssignment) -> PrimaryHost {
        let place = primaries.firstIndex { $0 == nil } ?? primaries.count
        let primary = PrimaryHost(index: Int32(place), assignment: assignment)
        if place == primaries.count {
            primaries.append(primary)
        } else {
            primaries[place] = primary
        }
        primaryCount += 1
        shareWindow()
        return primary
    }

    func remove(_ primary: PrimaryHost) {
        guard primaries[Int(primary.index)] === primary else { return }
        primaries[Int(primary.index)] = nil
        primaryCount -= 1
        shareWindow()
    }

    private func shareWindow() {
        for case let primary? in primaries {
            primary.machine?.limitWindow(byteCount: windowByteCountMax)
        }
    }

    func addLink(
        _ socket: Socket,
        _ state: PeerLink.State,
        _ role: PeerLink.Role,
        _ session: TLSSession?,
        _ now: Instant
    ) -> PeerLink? {
        let place = links.firstIndex { $0 == nil } ?? links.count
        linkGeneration = (linkGeneration + 1) & Token.generationMask
        let link = PeerLink(
            index: Int32(place),
            generation: linkGeneration,
            socket: socket,
            state: state,
            role: role,
            session: session,
            now: now
        )
        guard let link else { return nil }
        if place == links.count { links.append(link) } else { links[place] = link }
        linkCount += 1
        scheduleTick(now)
        return link
    }

    func remove(_ link: PeerLink) {
        links[Int(link.index)] = nil
        linkCount -= 1
    }

    func take(_ request: ReplicaRequest) -> Int32 {
        guard freeRequest >= 0 else {
            requests.append(request)
            return Int32(requests.count - 1)
        }
        let index = freeRequest
        freeRequest = requests[Int(index)].next
        requests[Int(index)] = request
        return index
    }

    func release(_ index: Int32) -> ReplicaRequest {
        let request = requests[Int(index)]
        requests[Int(index)] = ReplicaRequest()
        requests[Int(index)].next = freeRequest
        freeRequest = index
        return request
    }
}
