// What operators are told of the room in a store: when it becomes scarce and when writes are
// refused, not with every request.

package import BlockCore

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

    /// What has to come free again before room is ample, in percent of the store, so that one that
    /// stays near the limit is not reported again and again.
    package static var amplePercentBelow: Int { 5 }
    /// How long nothing is said of refusals after some were told, in seconds: clients that find a
    /// store full try again and again.
    package static var refusalSilenceSeconds: UInt64 { 60 }

    private let scarcePercent: Int
    private var isScarce = false
    private var refusedCount: UInt64 = 0
    private var silentUntil = Instant(nanoseconds: 0)

    /// Creates a watch of a store with room.
    ///
    /// - Parameter scarcePercent: How much is used when room is scarce, in percent.
    package init(scarcePercent: Int) { self.scarcePercent = scarcePercent }

    /// Whether there may be something to tell although nobody uses the store: it may get room, and
    /// refusals may not have been told.
    package var needsLook: Bool { isScarce || refusedCount > 0 }

    /// Notes that a request was refused for lack of room.
    package mutating func onRefused() { refusedCount &+= 1 }

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
        // In whole blocks a hundredfold of the largest store is far from overflowing.
        let capacityCount = max(capacityByteCount >> 12, 1)
        let usedPercent = min(Int((liveByteCount >> 12) * 100 / capacityCount), 100)
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
