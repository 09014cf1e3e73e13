// What filling replicas may cost those who are served meanwhile: blocks on their way, counted over
// all volumes of a thread, fewer while clients want something.

public import BlockCore

/// How many blocks may be on their way to replicas that lack them, over all volumes that one thread
/// serves.
///
/// Not covered, because somebody waits for them: the tail of a takeover, strays, repairs, and the
/// replicas of a volume of which fewer than W are complete.
///
/// Invariant: ``inflightCount`` is the number of fetches for that purpose in all machines that have
/// this budget and are not stopped.
public final class ResyncBudget {
    /// Blocks at a time while no client wants anything: enough to keep disks and network busy.
    public let countMax: Int
    /// Blocks at a time while clients do.
    public let busyCountMax: Int
    /// Blocks that are on their way.
    public private(set) var inflightCount = 0
    /// Whether a volume was refused a block since this was last asked and taken back: when there is
    /// room again, it has to hear of it.
    private var isWanted = false
    private var lastRequestAt: Instant?

    /// Nanoseconds after a request during which clients count as wanting something.
    public static var busyNanoseconds: UInt64 { 100_000_000 }

    /// Creates a budget that nobody has used.
    ///
    /// - Parameters:
    ///   - countMax: Blocks at a time while no client wants anything.
    ///   - busyCountMax: Blocks at a time while clients do; at least one, so that it ends.
    public init(countMax: Int = 64, busyCountMax: Int = 4) {
        precondition(busyCountMax > 0 && countMax >= busyCountMax, "a budget that ends nothing")
        self.countMax = countMax
        self.busyCountMax = busyCountMax
    }

    /// Tells once that somebody waits for room, and there is some.
    ///
    /// - Parameter now: The time.
    /// - Returns: Whether that is so, and was not told yet.
    public func takeWish(now: Instant) -> Bool {
        guard isWanted, hasRoom(now) else { return false }
        isWanted = false
        return true
    }

    /// Whether another block may be fetched.
    func admits(now: Instant) -> Bool {
        if hasRoom(now) { return true }
        isWanted = true
        return false
    }

    private func hasRoom(_ now: Instant) -> Bool {
        inflightCount < (isBusy(now) ? busyCountMax : countMax)
    }

    private func isBusy(_ now: Instant) -> Bool {
        guard let lastRequestAt else { return false }
        return now < lastRequestAt.advanced(byNanoseconds: ResyncBudget.busyNanoseconds)
    }

    /// A client wants something.
    func noteRequest(now: Instant) { lastRequestAt = now }

    /// A block is on its way.
    func begin() { inflightCount += 1 }

    /// Blocks have come, or are not waited for any more.
    func end(_ count: Int = 1) {
        inflightCount -= count
        assert(inflightCount >= 0, "more blocks ended than were begun")
    }
}
