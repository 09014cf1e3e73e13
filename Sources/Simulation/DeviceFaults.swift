// What a simulated device may do wrong, and how often.

/// The faults that a scenario lets a device have; all off by default.
///
/// Two classes, told apart because the promises differ (Docs/FAULT_MODEL.md):
///
/// - *Honest* faults say so: an errno, or a crash. Nothing that was acknowledged as durable may
///   be lost, whatever their number.
/// - *Damage* says nothing: the device claims success and holds something else. With one replica
///   it cannot be repaired; it must be detected and must never come out as data.
public struct DeviceFaults: Sendable, Hashable {
    // MARK: - Honest faults, per million requests

    /// Reads that fail once and succeed when repeated.
    public var readErrorPerMillion = 0
    /// Writes that fail; they may have happened in part.
    public var writeErrorPerMillion = 0
    /// Flushes that fail; some of what they covered is gone (as after a failed fsync).
    public var flushErrorPerMillion = 0
    /// Requests that take a hundred times as long.
    public var slowPerMillion = 0

    // MARK: - Damage

    /// How many pieces of damage a run may suffer in all.
    public var damageCountMax = 0
    /// Writes that are acknowledged and never happen, per million.
    public var lostWritePerMillion = 0
    /// Writes that land on another page that was written before, per million.
    public var misdirectedWritePerMillion = 0
    /// Requests at which a page written before changes some bits, per million.
    public var rotPerMillion = 0
    /// Requests at which a page written before becomes unreadable, per million.
    public var unreadablePerMillion = 0
    /// Whether damage may hit the superblocks; never more than one of the two.
    public var mayDamageSuperblock = false

    // MARK: - Time

    /// Nanoseconds of the quickest request.
    public var latencyNanosecondsMin: UInt64 = 20_000
    /// Nanoseconds of the slowest, unless it is one of the slow ones.
    public var latencyNanosecondsMax: UInt64 = 200_000

    /// Creates a device without faults.
    public init() {}
}

/// What a crash does to writes that were not flushed.
public enum CrashKind: Sendable, Hashable {
    /// The process died: the device keeps what it acknowledged, and in-flight writes may have
    /// happened in part.
    case process
    /// The power failed: each unflushed page is kept or lost on its own.
    case power(keptPerMille: Int)
    /// The power failed, and within a page each 512-byte sector is kept or lost on its own.
    case tornPower(keptPerMille: Int)
}
