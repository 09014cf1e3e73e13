// Flag fields of the handshake and of transmission.
//
// Spec: NetworkBlockDevice/nbd doc/proto.md, "Flag fields"; branch extension-ext-header.

/// What the server announces in its greeting.
@frozen
public struct NBDHandshakeFlags: OptionSet, Sendable, Hashable, BitwiseCopyable {
    /// The bits.
    public var rawValue: UInt16

    /// Creates a set from its bits.
    @inlinable
    public init(rawValue: UInt16) { self.rawValue = rawValue }

    /// Options other than EXPORT_NAME, with replies (`NBD_FLAG_FIXED_NEWSTYLE`).
    @inlinable public static var fixedNewstyle: Self { Self(rawValue: 1 << 0) }
    /// EXPORT_NAME can be answered without 124 zero bytes (`NBD_FLAG_NO_ZEROES`).
    @inlinable public static var noZeroes: Self { Self(rawValue: 1 << 1) }
}

/// What the client answers to the greeting.
@frozen
public struct NBDClientFlags: OptionSet, Sendable, Hashable, BitwiseCopyable {
    /// The bits.
    public var rawValue: UInt32

    /// Creates a set from its bits.
    @inlinable
    public init(rawValue: UInt32) { self.rawValue = rawValue }

    /// The client knows option replies (`NBD_FLAG_C_FIXED_NEWSTYLE`).
    @inlinable public static var fixedNewstyle: Self { Self(rawValue: 1 << 0) }
    /// No 124 zero bytes, please (`NBD_FLAG_C_NO_ZEROES`).
    @inlinable public static var noZeroes: Self { Self(rawValue: 1 << 1) }
}

/// What an export can do, as told at the end of the handshake.
@frozen
public struct NBDTransmissionFlags: OptionSet, Sendable, Hashable, BitwiseCopyable {
    /// The bits.
    public var rawValue: UInt16

    /// Creates a set from its bits.
    @inlinable
    public init(rawValue: UInt16) { self.rawValue = rawValue }

    /// Always set (`NBD_FLAG_HAS_FLAGS`).
    @inlinable public static var hasFlags: Self { Self(rawValue: 1 << 0) }
    /// Changes are refused (`NBD_FLAG_READ_ONLY`).
    @inlinable public static var readOnly: Self { Self(rawValue: 1 << 1) }
    /// FLUSH is understood (`NBD_FLAG_SEND_FLUSH`).
    @inlinable public static var flush: Self { Self(rawValue: 1 << 2) }
    /// The FUA command flag is understood (`NBD_FLAG_SEND_FUA`).
    @inlinable public static var forceUnitAccess: Self { Self(rawValue: 1 << 3) }
    /// Behaves like a disk that turns (`NBD_FLAG_ROTATIONAL`).
    @inlinable public static var rotational: Self { Self(rawValue: 1 << 4) }
    /// TRIM is understood (`NBD_FLAG_SEND_TRIM`).
    @inlinable public static var trim: Self { Self(rawValue: 1 << 5) }
    /// WRITE_ZEROES and NO_HOLE are understood (`NBD_FLAG_SEND_WRITE_ZEROES`).
    @inlinable public static var writeZeroes: Self { Self(rawValue: 1 << 6) }
    /// The DF command flag is understood (`NBD_FLAG_SEND_DF`).
    @inlinable public static var doNotFragment: Self { Self(rawValue: 1 << 7) }
    /// A flush covers all connections to the export (`NBD_FLAG_CAN_MULTI_CONN`).
    @inlinable public static var multipleConnections: Self { Self(rawValue: 1 << 8) }
    /// CACHE is understood (`NBD_FLAG_SEND_CACHE`).
    @inlinable public static var cache: Self { Self(rawValue: 1 << 10) }
    /// The FAST_ZERO command flag is understood (`NBD_FLAG_SEND_FAST_ZERO`).
    @inlinable public static var fastZero: Self { Self(rawValue: 1 << 11) }
    /// BLOCK_STATUS takes a list of contexts (`NBD_FLAG_BLOCK_STATUS_PAYLOAD`).
    @inlinable public static var blockStatusPayload: Self { Self(rawValue: 1 << 12) }
}

/// How a command is to be done.
@frozen
public struct NBDCommandFlags: OptionSet, Sendable, Hashable, BitwiseCopyable {
    /// The bits.
    public var rawValue: UInt16

    /// Creates a set from its bits.
    @inlinable
    public init(rawValue: UInt16) { self.rawValue = rawValue }

    /// Reply only when the change is durable (`NBD_CMD_FLAG_FUA`).
    @inlinable public static var forceUnitAccess: Self { Self(rawValue: 1 << 0) }
    /// WRITE_ZEROES keeps the range allocated (`NBD_CMD_FLAG_NO_HOLE`).
    @inlinable public static var noHole: Self { Self(rawValue: 1 << 1) }
    /// READ is answered with one content chunk (`NBD_CMD_FLAG_DF`).
    @inlinable public static var doNotFragment: Self { Self(rawValue: 1 << 2) }
    /// BLOCK_STATUS is answered with one extent (`NBD_CMD_FLAG_REQ_ONE`).
    @inlinable public static var oneExtent: Self { Self(rawValue: 1 << 3) }
    /// WRITE_ZEROES fails unless it beats writing (`NBD_CMD_FLAG_FAST_ZERO`).
    @inlinable public static var fastZero: Self { Self(rawValue: 1 << 4) }
    /// The length counts a payload that follows (`NBD_CMD_FLAG_PAYLOAD_LEN`).
    @inlinable public static var payloadLength: Self { Self(rawValue: 1 << 5) }
}

/// Properties of a reply chunk.
@frozen
public struct NBDChunkFlags: OptionSet, Sendable, Hashable, BitwiseCopyable {
    /// The bits.
    public var rawValue: UInt16

    /// Creates a set from its bits.
    @inlinable
    public init(rawValue: UInt16) { self.rawValue = rawValue }

    /// The last chunk of the reply (`NBD_REPLY_FLAG_DONE`).
    @inlinable public static var done: Self { Self(rawValue: 1 << 0) }
}

/// What `base:allocation` says of an extent.
@frozen
public struct NBDAllocationState: OptionSet, Sendable, Hashable, BitwiseCopyable {
    /// The bits.
    public var rawValue: UInt64

    /// Creates a set from its bits.
    @inlinable
    public init(rawValue: UInt64) { self.rawValue = rawValue }

    /// Nothing is allocated (`NBD_STATE_HOLE`).
    @inlinable public static var hole: Self { Self(rawValue: 1 << 0) }
    /// It reads as zero (`NBD_STATE_ZERO`).
    @inlinable public static var zero: Self { Self(rawValue: 1 << 1) }
}
