// What operators are told of requests that a store could not serve: at once, then once a minute.

package import BlockCore

/// Gathers the failures of one store's requests.
package struct FailureWatch {
    /// How long nothing is said after some were told, in seconds: a client that reads a bad block
    /// reads it again and again.
    package static var silenceSeconds: UInt64 { 60 }

    /// Failures that were not told yet.
    package private(set) var count: UInt64 = 0
    private var silentUntil = Instant(nanoseconds: 0)

    /// Creates a watch that has seen none.
    package init() {}

    /// Notes one.
    package mutating func onFailed() { count &+= 1 }

    /// How many to tell of now, if any.
    package mutating func next(now: Instant) -> UInt64? {
        guard count > 0, now >= silentUntil else { return nil }
        silentUntil = now.advanced(byNanoseconds: Self.silenceSeconds * 1_000_000_000)
        defer { count = 0 }
        return count
    }
}
