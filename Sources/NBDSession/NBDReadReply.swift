// The reply to a READ, which can be many messages.
//
// Spec: NetworkBlockDevice/nbd doc/proto.md, "NBD_CMD_READ".

public import BlockCore
public import NBDWire

/// The reply to one READ in the making; a driver keeps it in the request's slot.
///
/// Parts may be sent in any order as they become ready, each byte of the request exactly once.
/// The part that completes the request carries the DONE flag, so there is no closing message.
/// Where ``mustBeWhole`` the reply is a single part: simple replies have one header, and DF asks
/// for one chunk. A header is encoded only when its data is at hand: behind it nothing can fail.
///
/// After a failure the reply is over, whatever has been sent: the client may use the cookie
/// again, so later parts are dropped by their owner (see ``isFinished``).
@frozen
public struct NBDReadReply: Sendable, BitwiseCopyable {
    /// The READ.
    public let request: NBDRequest
    /// The form.
    public let mode: NBDReplyMode
    /// Bytes not yet answered for.
    public private(set) var restByteCount: UInt64
    /// Whether the last message has been encoded.
    public private(set) var isFinished: Bool

    /// Begins the reply to `request`.
    public init(_ request: NBDRequest, mode: NBDReplyMode) {
        precondition(request.command == .read, "a reply to a read")
        self.request = request
        self.mode = mode
        restByteCount = request.byteCount
        isFinished = false
    }

    /// Whether all data must be sent as one part.
    public var mustBeWhole: Bool { mode == .simple || request.flags.contains(.doNotFragment) }

    /// Encodes what stands in front of `byteCount` bytes of data from `offset` of the export on;
    /// the driver sends the data right behind it.
    ///
    /// - Returns: The bytes used, at most ``NBDReply/dataHeaderByteCountMax``.
    /// - Precondition: the part lies inside the request and is not empty; all of it where
    ///   ``mustBeWhole``.
    public mutating func data(
        offset: UInt64,
        byteCount: UInt64,
        into bytes: ByteRegion,
        at position: Int = 0
    ) -> Int {
        let flags = take(offset: offset, byteCount: byteCount)
        guard mode != .simple else {
            return NBDSimpleReplyHeader(error: nil, cookie: request.cookie)
                .encode(into: bytes, at: position)
        }
        let header = chunk(.offsetData, flags, UInt64(NBDOffsetData.byteCount) + byteCount)
            .encode(into: bytes, at: position, isExtended: mode == .extended)
        return header + NBDOffsetData(offset: offset).encode(into: bytes, at: position + header)
    }

    /// Encodes `byteCount` bytes of zeroes from `offset` of the export on, without data.
    ///
    /// - Returns: The bytes used, at most ``NBDReply/holeByteCountMax``.
    /// - Precondition: as for data, and `mode` is not `simple`.
    public mutating func hole(
        offset: UInt64,
        byteCount: UInt64,
        into bytes: ByteRegion,
        at position: Int = 0
    ) -> Int {
        precondition(mode != .simple, "a simple reply has no holes")
        let flags = take(offset: offset, byteCount: byteCount)
        let header = chunk(.offsetHole, flags, UInt64(NBDOffsetHole.byteCount))
            .encode(into: bytes, at: position, isExtended: mode == .extended)
        // A READ is at most the maximum payload, which has 32 bits.
        let hole = NBDOffsetHole(offset: offset, holeByteCount: UInt32(byteCount))
        return header + hole.encode(into: bytes, at: position + header)
    }

    /// Encodes the failure of the request, and ends the reply.
    ///
    /// With `failedOffset`, the place in the export where it happened, parts already sent stay
    /// valid for the client.
    ///
    /// - Returns: The bytes used: at most ``NBDReply/failureByteCountMax`` and the text.
    public mutating func failure(
        _ error: NBDError,
        text: String = "",
        failedOffset: UInt64? = nil,
        into bytes: ByteRegion,
        at position: Int = 0
    ) -> Int {
        precondition(!isFinished, "the reply is over")
        isFinished = true
        return NBDReply.failure(
            cookie: request.cookie,
            requestOffset: request.offset,
            error,
            text: text,
            failedOffset: failedOffset,
            mode: mode,
            into: bytes,
            at: position
        )
    }

    /// Counts a part as answered for.
    private mutating func take(offset: UInt64, byteCount: UInt64) -> NBDChunkFlags {
        precondition(!isFinished, "the reply is over")
        precondition(byteCount > 0, "an empty part")
        precondition(offset >= request.offset, "a part in front of the request")
        precondition(byteCount <= restByteCount, "more data than asked for")
        precondition(
            offset - request.offset <= request.byteCount - byteCount,
            "a part behind the request"
        )
        precondition(!mustBeWhole || byteCount == request.byteCount, "a part of a whole reply")
        restByteCount -= byteCount
        isFinished = restByteCount == 0
        return isFinished ? .done : []
    }

    private func chunk(
        _ kind: NBDChunkKind,
        _ flags: NBDChunkFlags,
        _ payloadByteCount: UInt64
    ) -> NBDChunkHeader {
        NBDChunkHeader(
            kind,
            flags: flags,
            cookie: request.cookie,
            requestOffset: request.offset,
            payloadByteCount: payloadByteCount
        )
    }
}
