// Request headers of the transmission phase, in both their forms.
//
// Spec: NetworkBlockDevice/nbd doc/proto.md, "Request message"; branch extension-ext-header.

public import BlockCore

/// What a client can ask for in the transmission phase.
@frozen
public enum NBDCommand: UInt16, Sendable, Hashable, BitwiseCopyable, CaseIterable {
    /// Spec: `NBD_CMD_READ`.
    case read = 0
    /// Spec: `NBD_CMD_WRITE`.
    case write = 1
    /// Ends the session after what is in flight (`NBD_CMD_DISC`).
    case disconnect = 2
    /// Spec: `NBD_CMD_FLUSH`.
    case flush = 3
    /// Spec: `NBD_CMD_TRIM`.
    case trim = 4
    /// Spec: `NBD_CMD_CACHE`.
    case cache = 5
    /// Spec: `NBD_CMD_WRITE_ZEROES`.
    case writeZeroes = 6
    /// Spec: `NBD_CMD_BLOCK_STATUS`.
    case blockStatus = 7
}

/// Which headers a connection uses, as negotiated.
@frozen
public enum NBDReplyMode: UInt8, Sendable, Hashable, BitwiseCopyable, CaseIterable {
    /// Compact requests, simple replies.
    case simple
    /// Compact requests, structured reply chunks.
    case structured
    /// Extended requests, extended reply chunks.
    case extended

    /// Bytes in a request header: 28 or 32.
    @inlinable
    public var requestHeaderByteCount: Int { self == .extended ? 32 : 28 }
}

/// One request header, as it stands on the wire: nothing in it has been judged.
///
/// Layout: 28 bytes (compact) or 32 (extended), big-endian, no padding.
///
/// | offset | size   | field   | unit                                      |
/// |--------|--------|---------|-------------------------------------------|
/// | 0      | 4      | magic   | `0x2560_9513` or `0x21E4_1C71`            |
/// | 4      | 2      | flags   | bit set                                   |
/// | 6      | 2      | command | `NBD_CMD_*`                               |
/// | 8      | 8      | cookie  | opaque, echoed unchanged                  |
/// | 16     | 8      | offset  | bytes from the start of the export        |
/// | 24     | 4 or 8 | length  | bytes; of payload when the flag says so   |
@frozen
public struct NBDRequestHeader: Hashable, Sendable, BitwiseCopyable {
    /// How the command is to be done.
    public var flags: NBDCommandFlags
    /// The command's number, known or not.
    public var commandCode: UInt16
    /// Opaque, echoed in the reply.
    public var cookie: UInt64
    /// Bytes from the start of the export.
    public var offset: UInt64
    /// Bytes addressed, or bytes of payload when ``NBDCommandFlags/payloadLength`` says so.
    public var byteCount: UInt64

    /// The command, when it is a known one.
    @inlinable
    public var command: NBDCommand? { NBDCommand(rawValue: commandCode) }

    /// Creates a header from its fields.
    @inlinable
    public init(
        flags: NBDCommandFlags,
        commandCode: UInt16,
        cookie: UInt64,
        offset: UInt64,
        byteCount: UInt64
    ) {
        self.flags = flags
        self.commandCode = commandCode
        self.cookie = cookie
        self.offset = offset
        self.byteCount = byteCount
    }

    /// Creates a header of a known command.
    @inlinable
    public init(
        _ command: NBDCommand,
        flags: NBDCommandFlags = [],
        cookie: UInt64,
        offset: UInt64 = 0,
        byteCount: UInt64 = 0
    ) {
        self.init(
            flags: flags,
            commandCode: command.rawValue,
            cookie: cookie,
            offset: offset,
            byteCount: byteCount
        )
    }

    /// Decodes the header at the start of `bytes`; what follows it is ignored.
    ///
    /// - Throws: `needMoreBytes` or `badMagic`; nothing is consumed.
    @inlinable
    public static func decode(
        _ bytes: ByteRegion,
        mode: NBDReplyMode
    ) throws(NBDWireError) -> NBDRequestHeader {
        let headerByteCount = mode.requestHeaderByteCount
        guard bytes.byteCount >= headerByteCount else {
            let missing = UInt32(truncatingIfNeeded: headerByteCount &- bytes.byteCount)
            throw .needMoreBytes(missingByteCount: missing)
        }
        let isExtended = mode == .extended
        let magic = bytes.loadBigEndian(0, as: UInt32.self)
        guard magic == (isExtended ? NBDMagic.extendedRequest : NBDMagic.request) else {
            throw .badMagic
        }
        return NBDRequestHeader(
            flags: NBDCommandFlags(rawValue: bytes.loadBigEndian(4, as: UInt16.self)),
            commandCode: bytes.loadBigEndian(6, as: UInt16.self),
            cookie: bytes.loadBigEndian(8, as: UInt64.self),
            offset: bytes.loadBigEndian(16, as: UInt64.self),
            byteCount: isExtended
                ? bytes.loadBigEndian(24, as: UInt64.self)
                : UInt64(bytes.loadBigEndian(24, as: UInt32.self))
        )
    }

    /// Encodes the header at `offset` of `bytes`.
    ///
    /// - Returns: The bytes used, 28 or 32.
    /// - Precondition: a compact header's `byteCount` fits 32 bits; `bytes` has room.
    @inlinable
    @discardableResult
    public func encode(into bytes: ByteRegion, at offset: Int = 0, mode: NBDReplyMode) -> Int {
        let isExtended = mode == .extended
        bytes.storeBigEndian(
            isExtended ? NBDMagic.extendedRequest : NBDMagic.request,
            at: offset
        )
        bytes.storeBigEndian(flags.rawValue, at: offset + 4)
        bytes.storeBigEndian(commandCode, at: offset + 6)
        bytes.storeBigEndian(cookie, at: offset + 8)
        bytes.storeBigEndian(self.offset, at: offset + 16)
        if isExtended {
            bytes.storeBigEndian(byteCount, at: offset + 24)
        } else {
            precondition(byteCount <= UInt64(UInt32.max), "compact length above 32 bits")
            bytes.storeBigEndian(UInt32(truncatingIfNeeded: byteCount), at: offset + 24)
        }
        return mode.requestHeaderByteCount
    }
}
