// What a node counts, as plain numbers that the control plane samples.

/// The counters of one reactor, or of all when added up.
///
/// They only grow while the node runs; the two gauges end in `Now`.
@frozen
public struct NodeCounters: Sendable, Hashable, BitwiseCopyable {
    /// Client requests taken in.
    public var requestCount: UInt64 = 0
    /// Of these, the ones answered with an error.
    public var errorCount: UInt64 = 0
    /// Bytes of data sent in replies to reads.
    public var readByteCount: UInt64 = 0
    /// Bytes of data received with writes.
    public var writtenByteCount: UInt64 = 0
    /// Parts that requests above ``NodeLimits/partByteCountMax`` were cut into.
    public var partCount: UInt64 = 0
    /// Sends: the replies of one turn of the loop to one connection go out in one.
    public var sendCount: UInt64 = 0
    /// Receives that brought bytes.
    public var receiveCount: UInt64 = 0
    /// Times that a connection waited because no slot or buffer was free.
    public var resourceWaitCount: UInt64 = 0
    /// Requests that crossed to the reactor of their store.
    public var hopCount: UInt64 = 0
    /// Connections accepted.
    public var acceptedCount: UInt64 = 0
    /// Connections refused because the table was full, or TLS had used up its part of the pool.
    public var refusedCount: UInt64 = 0
    /// Connections dropped because a time limit passed.
    public var timedOutCount: UInt64 = 0
    /// Connections dropped because the other side broke the protocol.
    public var violationCount: UInt64 = 0
    /// TLS connections that ended without the protocol's word for it (close_notify).
    public var truncatedCount: UInt64 = 0
    /// Open connections.
    public var connectionCountNow: UInt64 = 0
    /// Requests in work.
    public var requestCountNow: UInt64 = 0

    /// Creates counters at zero.
    @inlinable
    public init() {}

    /// Adds another reactor's.
    public static func += (left: inout NodeCounters, right: NodeCounters) {
        left.requestCount &+= right.requestCount
        left.errorCount &+= right.errorCount
        left.readByteCount &+= right.readByteCount
        left.writtenByteCount &+= right.writtenByteCount
        left.partCount &+= right.partCount
        left.sendCount &+= right.sendCount
        left.receiveCount &+= right.receiveCount
        left.resourceWaitCount &+= right.resourceWaitCount
        left.hopCount &+= right.hopCount
        left.acceptedCount &+= right.acceptedCount
        left.refusedCount &+= right.refusedCount
        left.timedOutCount &+= right.timedOutCount
        left.violationCount &+= right.violationCount
        left.truncatedCount &+= right.truncatedCount
        left.connectionCountNow &+= right.connectionCountNow
        left.requestCountNow &+= right.requestCountNow
    }

    /// The counters under the names of the node API.
    public var byName: [(name: String, value: UInt64)] {
        [
            ("nbd.requests", requestCount),
            ("nbd.errors", errorCount),
            ("nbd.read_bytes", readByteCount),
            ("nbd.written_bytes", writtenByteCount),
            ("nbd.parts", partCount),
            ("nbd.sends", sendCount),
            ("nbd.receives", receiveCount),
            ("nbd.resource_waits", resourceWaitCount),
            ("nbd.hops", hopCount),
            ("nbd.accepted", acceptedCount),
            ("nbd.refused", refusedCount),
            ("nbd.timed_out", timedOutCount),
            ("nbd.violations", violationCount),
            ("nbd.tls_truncated", truncatedCount),
            ("nbd.connections.now", connectionCountNow),
            ("nbd.requests.now", requestCountNow),
        ]
    }
}
