public import BlockCore
public import StorageIO

public final class Reactor {
    /// Wakes this reactor from other threads; give it to its mailboxes.
    public let waker: Waker
    /// What was found and decided at start.
    public private(set) var report: EngineReport
    /// The monotonic clock, sampled once a turn.
    public private(set) var now: Instant
    /// Counts since start.
    public private(set) var counters = ReactorCounters()
    public var freeOperationCount: Int { fatalError() }

    /// Probes, sets an engine up. May be called on another thread than the one that turns it.
    public init(options: ReactorOptions = ReactorOptions()) throws(ReactorError) { fatalError() }

    /// Registers arenas as fixed buffers (once, before the first turn). Falls back unregistered
    /// and says so in `report`.
    public func registerBuffers(_ arenas: [MemoryArena]) { fatalError() }

    // Devices
    public func attach(_ device: Device) -> DeviceHandle { fatalError() }
    public func detach(_ handle: DeviceHandle) { fatalError() }
    /// Completion: token as given, requestToken = request.token, result = byteCount/0 or -errno.
    public func submit(_ request: DeviceRequest, to device: DeviceHandle, token: UInt64) {
        fatalError()
    }

    // Sockets. At most one receive and one send in flight per socket.
    /// Repeated: one completion per connection (result = descriptor), `isFinal` false, until it
    /// is cancelled, closed, or fails for good (EMFILE and the like: arm it again later).
    public func accept(_ listener: Socket, token: UInt64) { fatalError() }
    /// Completes with 1...byteCount, 0 at the end of the stream, or -errno.
    public func receive(_ socket: Socket, into region: ByteRegion, token: UInt64) { fatalError() }
    /// Completes with the whole byte count, or -errno.
    public func send(_ socket: Socket, _ region: ByteRegion, token: UInt64) { fatalError() }
    /// At most 64 regions, sent in order; the span is only borrowed for the call.
    public func send(_ socket: Socket, _ regions: Span<ByteRegion>, token: UInt64) { fatalError() }
    /// Completes once with a PollEvents mask.
    public func poll(_ socket: Socket, for events: PollEvents, token: UInt64) { fatalError() }
    /// Ends operations with this token early if possible; each still completes
    /// (-ECANCELED, or its result).
    public func cancel(token: UInt64) { fatalError() }
    /// Cancels what is in flight on the socket, waits for its end, closes; completes with 0.
    public func close(_ socket: Socket, token: UInt64) { fatalError() }

    // The loop
    /// Submits, waits until the deadline (nil: for ever), a completion or a wake; returns the
    /// number of completions to take with `nextCompletion()` in this turn.
    public func turn(deadline: Instant?) -> Int { fatalError() }
    /// The next completion of this turn; nil when all were taken.
    public func nextCompletion() -> Completion? { fatalError() }
}
