/// A breach of the wire format by the peer; one case per reaction a caller can have.
@frozen
public enum NBDWireError: Error, Hashable, Sendable, BitwiseCopyable {
    /// Fewer bytes than the message. The caller reads more; nothing is consumed.
    case needMoreBytes(missingByteCount: UInt32)
    /// The stream is out of step. The caller closes the connection.
    case badMagic
    /// Lengths inside a message contradict its size. The caller refuses the message.
    case malformed
    /// A string that is not UTF-8, or has a NUL byte. The caller refuses the message.
    case badString
    /// A string above ``NBDLimits/stringByteCountMax`` or a count above its limit. The caller
    /// refuses the message as too big.
    case tooBig
}

/// Limits that the protocol itself sets.
public enum NBDLimits {
    /// The longest string on the wire, in bytes ("Conventions").
    @inlinable public static var stringByteCountMax: Int { 4096 }
    /// The payload that every server must be ready for unless it says otherwise, in bytes; up to
    /// here a payload is no attack, whatever was advertised ("Size constraints").
    @inlinable public static var payloadByteCountDefault: UInt32 { 1 << 25 }
    /// The most status descriptors in one chunk ("NBD_REPLY_TYPE_BLOCK_STATUS").
    @inlinable public static var extentCountMax: Int { 1 << 20 }
    /// The largest minimum block, in bytes ("Size constraints").
    @inlinable public static var blockByteCountMinMax: UInt32 { 1 << 16 }
}

/// Magic numbers.
public enum NBDMagic {
    /// First 64 bits of the greeting, ASCII `NBDMAGIC`.
    @inlinable public static var greeting: UInt64 { 0x4E42_444D_4147_4943 }
    /// Second 64 bits of the greeting and start of every option, ASCII `IHAVEOPT`.
    @inlinable public static var option: UInt64 { 0x4948_4156_454F_5054 }
    /// Start of an option reply.
    @inlinable public static var optionReply: UInt64 { 0x0003_E889_0455_65A9 }
    /// Start of a compact request (`NBD_REQUEST_MAGIC`).
    @inlinable public static var request: UInt32 { 0x2560_9513 }
    /// Start of an extended request (`NBD_EXTENDED_REQUEST_MAGIC`).
    @inlinable public static var extendedRequest: UInt32 { 0x21E4_1C71 }
    /// Start of a simple reply (`NBD_SIMPLE_REPLY_MAGIC`).
    @inlinable public static var simpleReply: UInt32 { 0x6744_6698 }
    /// Start of a structured reply chunk (`NBD_STRUCTURED_REPLY_MAGIC`).
    @inlinable public static var structuredReply: UInt32 { 0x668E_33EF }
    /// Start of an extended reply chunk (`NBD_EXTENDED_REPLY_MAGIC`).
    @inlinable public static var extendedReply: UInt32 { 0x6E8A_278C }
}
