// What operators are told of requests that a store could not serve: at once, then once a minute.

package import BlockCore

/// What a store could not serve.
public struct FailureReport: Hashable, Sendable {
    /// Whether the store has stopped: it takes no changes, and nobody opens its volumes; who has
    /// one open can read.
    public var isStopped: Bool
    /// Requests that failed since the node was started while the store was serving: blocks were
    /// damaged, or the device could not read them.
    public var requestCount: UInt64
    /// The volume of the last of those, while it exists.
    public var volume: String?
}

/// Gathers the failures of one store's requests.
package struct FailureWatch {
    /// How long nothing is said after some were told, in seconds: a client that reads a bad block
    /// reads it again and again.
    package static var silenceSeconds: UInt64 { 60 }

    /// Failures that were not told yet.
    package private(set) var count: UInt64 = 0
    /// All there were.
    package private(set) var totalCount: UInt64 = 0
    /// The volume of the last one.
    package private(set) var volume: VolumeID?
    private var silentUntil = Instant(nanoseconds: 0)

    /// Creates a watch that has seen none.
    package init() {}

    /// Notes one.
    package mutating func onFailed(_ volume: VolumeID?) {
        count &+= 1
        totalCount &+= 1
        self.volume = volume
    }

    /// How many to tell of now, if any.
    package mutating func next(now: Instant) -> UInt64? {
        guard count > 0, now >= silentUntil else { return nil }
        silentUntil = now.advanced(byNanoseconds: Self.silenceSeconds * 1_000_000_000)
        defer { count = 0 }
        return count
    }
}
