// What operators are told of the room in a store: when it becomes scarce and when writes are
// refused, not with every request.

package import BlockCore

/// How much room a store has.
public enum RoomState: Hashable, Sendable {
    /// Enough.
    case ample
    /// Little: ``NodeLimits/scarceRoomPercent`` of it are used, or were and little has come free.
    case scarce
    /// It has refused requests for lack of room within the last minute, however much is used:
    /// small stores and those with bad places do before everything is.
    case refusing
    /// Writes wait: the file system that the store's file lies on has no space for it.
    case waiting
}

/// A store's room at one time.
public struct RoomReport: Hashable, Sendable {
    /// How much is used, in percent, cut.
    public var usedPercent: Int
    /// Whether that is too much.
    public var state: RoomState
}

/// Watches the room of one store; looked at once a second.
package struct RoomWatch {
    /// Something to tell.
    package enum Notice: Hashable, Sendable {
        /// The store has become this full, in percent.
        case scarce(usedPercent: Int)
        /// It has room again.
        case ample(usedPercent: Int)
        /// So many requests were refused for lack of room since this was last told.
        case refused(count: UInt64)
    }

    /// What is to be told of writes that wait for space on the store's file system.
    package enum SpaceWait: Hashable, Sendable {
        /// They have waited so long.
        case lasts(seconds: UInt64)
        /// They go on, after so long.
        case isOver(seconds: UInt64)
    }

    /// What has to come free again before room is ample, in percent of the store, so that one that
    /// stays near the limit is not reported again and again.
    package static var amplePercentBelow: Int { 5 }
    /// How long nothing is said of refusals after some were told, in seconds.
    ///
    /// Clients that find a store full try again and again. So long after the last refusal it still
    /// counts as refusing.
    package static var refusalSilenceSeconds: UInt64 { 60 }

    /// How long nothing is said of writes that wait after it was told, in seconds.
    package static var waitSilenceSeconds: UInt64 { 60 }

    private let scarcePercent: Int
    private var isScarce = false
    private var refusedCount: UInt64 = 0
    private var silentUntil = Instant(nanoseconds: 0)
    private var refusingUntil = Instant(nanoseconds: 0)
    private var spaceWaitCount: UInt64 = 0
    /// Whether a write has waited for space on the file system since the last look but one.
    package private(set) var isWaiting = false
    private var waitingSince = Instant(nanoseconds: 0)
    private var waitSilentUntil = Instant(nanoseconds: 0)
    private var waitLookDue = Instant(nanoseconds: 0)
    /// What was used when it was looked at last, in bytes.
    private var lookedByteCount: UInt64 = 0

    /// Creates a watch of a store with room.
    ///
    /// - Parameter scarcePercent: How much is used when room is scarce, in percent.
    package init(scarcePercent: Int) { self.scarcePercent = scarcePercent }

    /// Whether there may be something to tell although nobody uses the store.
    ///
    /// - Parameter liveByteCount: What is used of it, in bytes.
    /// - Returns: True when that has changed since it was looked at, or refusals were not told.
    package func needsLook(liveByteCount: UInt64) -> Bool {
        liveByteCount != lookedByteCount || refusedCount > 0
    }

    /// Notes that a request was refused for lack of room.
    package mutating func onRefused(now: Instant) {
        refusedCount &+= 1
        refusingUntil = now.advanced(byNanoseconds: Self.refusalSilenceSeconds * 1_000_000_000)
    }

    /// Notes how often a write has waited for space on the store's file system.
    ///
    /// - Parameters:
    ///   - spaceWaitCount: Of the device, since it was attached.
    ///   - now: The time.
    /// - Returns: That writes wait, at once and then once a minute, and that they go on.
    package mutating func onLook(spaceWaitCount: UInt64, now: Instant) -> SpaceWait? {
        // A write that waits is tried again four times a second: between two tries it seems to
        // have ended.
        guard now >= waitLookDue else { return nil }
        waitLookDue = now.advanced(byNanoseconds: 1_000_000_000)
        let waits = spaceWaitCount != self.spaceWaitCount
        self.spaceWaitCount = spaceWaitCount
        if waits, !isWaiting {
            isWaiting = true
            waitingSince = now
        } else if !waits {
            defer { isWaiting = false }
            return isWaiting ? .isOver(seconds: seconds(since: waitingSince, now)) : nil
        } else if now < waitSilentUntil {
            return nil
        }
        waitSilentUntil = now.advanced(byNanoseconds: Self.waitSilenceSeconds * 1_000_000_000)
        return .lasts(seconds: seconds(since: waitingSince, now))
    }

    private func seconds(since start: Instant, _ now: Instant) -> UInt64 {
        (now.nanoseconds - min(start.nanoseconds, now.nanoseconds)) / 1_000_000_000
    }

    /// How much room there is, as last looked at.
    package func state(now: Instant) -> RoomState {
        if isWaiting { return .waiting }
        if now < refusingUntil { return .refusing }
        return isScarce ? .scarce : .ample
    }

    /// How much is used, in percent, cut.
    package static func usedPercent(liveByteCount: UInt64, capacityByteCount: UInt64) -> Int {
        // In whole blocks a hundredfold of the largest store is far from overflowing.
        let capacityCount = max(capacityByteCount >> 12, 1)
        return min(Int((liveByteCount >> 12) * 100 / capacityCount), 100)
    }

    /// What is to be told now; called until it is nil.
    ///
    /// - Parameters:
    ///   - liveByteCount: What is used of it, in bytes.
    ///   - capacityByteCount: What the store can hold, in bytes.
    ///   - now: The time.
    /// - Returns: One notice; nil when there is nothing to tell.
    package mutating func next(
        liveByteCount: UInt64,
        capacityByteCount: UInt64,
        now: Instant
    ) -> Notice? {
        lookedByteCount = liveByteCount
        let usedPercent = Self.usedPercent(
            liveByteCount: liveByteCount,
            capacityByteCount: capacityByteCount
        )
        if isScarce != (usedPercent >= scarcePercent) {
            if !isScarce {
                isScarce = true
                return .scarce(usedPercent: usedPercent)
            }
            if usedPercent <= scarcePercent - Self.amplePercentBelow {
                isScarce = false
                return .ample(usedPercent: usedPercent)
            }
        }
        guard refusedCount > 0, now >= silentUntil else { return nil }
        silentUntil = now.advanced(byNanoseconds: Self.refusalSilenceSeconds * 1_000_000_000)
        defer { refusedCount = 0 }
        return .refused(count: refusedCount)
    }
}
