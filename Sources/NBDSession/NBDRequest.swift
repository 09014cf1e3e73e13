public import NBDWire

/// A request that has been judged: known command, fitting flags, aligned, inside the export.
@frozen
public struct NBDRequest: Sendable, Hashable, BitwiseCopyable {
    // Widest first, so that an event with a request in it is 32 bytes and moves in two halves:
    // odd sizes cost a store-forwarding stall per copy (10 ns each, measured).

    /// For the reply.
    public var cookie: UInt64
    /// Bytes from the start of the export; 0 for FLUSH.
    public var offset: UInt64
    /// Bytes addressed: not 0 except for FLUSH, at most the maximum payload for READ and WRITE,
    /// up to the whole export (64 bits) for the others.
    ///
    /// A BLOCK_STATUS, whose length is a hint, has it rounded down to whole blocks.
    public var byteCount: UInt64
    /// For BLOCK_STATUS: bit `i` stands for ``NBDSession/context(at:)`` `i`; otherwise 0.
    public var contextMask: UInt32
    /// How it is to be done; only flags that the command has.
    ///
    /// `payloadLength` is gone: what it said is in the other fields.
    public var flags: NBDCommandFlags
    /// The command; never `disconnect`.
    public var command: NBDCommand

    /// Creates a request.
    @inlinable
    public init(
        _ command: NBDCommand,
        flags: NBDCommandFlags = [],
        cookie: UInt64,
        offset: UInt64 = 0,
        byteCount: UInt64 = 0,
        contextMask: UInt32 = 0
    ) {
        self.command = command
        self.flags = flags
        self.cookie = cookie
        self.offset = offset
        self.byteCount = byteCount
        self.contextMask = contextMask
    }

    /// Whether `byteCount` bytes of payload follow in the stream.
    @inlinable
    public var hasPayload: Bool { command == .write }
}
