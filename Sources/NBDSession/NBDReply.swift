// Replies of the transmission phase, encoded into memory that the caller gives.
//
// Pure: the mode decides the form, the caller decides when and in which order. No allocation.
// Spec: NetworkBlockDevice/nbd doc/proto.md, "Simple reply message", "Structured reply types";
// branch extension-ext-header.

public import BlockCore
public import NBDWire

/// Replies that are one message.
public enum NBDReply {
    /// The most bytes in front of the data of a READ reply, in any mode.
    @inlinable public static var dataHeaderByteCountMax: Int { 40 }
    /// The most bytes of a hole chunk.
    @inlinable public static var holeByteCountMax: Int { 44 }
    /// The most bytes of a failure, apart from its text.
    @inlinable public static var failureByteCountMax: Int { 46 }

    /// Encodes the success of a request that returns no data.
    ///
    /// In structured mode this is a simple reply, as the protocol allows: shorter, and what QEMU
    /// sends.
    ///
    /// - Returns: The bytes used.
    /// - Precondition: not for READ and BLOCK_STATUS, whose success has content.
    @inlinable
    public static func success(
        _ request: NBDRequest,
        mode: NBDReplyMode,
        into bytes: ByteRegion,
        at position: Int = 0
    ) -> Int {
        precondition(request.command != .read, "a read's success has content")
        precondition(request.command != .blockStatus, "a status has content")
        if mode == .extended {
            return ending(cookie: request.cookie, offset: request.offset, mode, bytes, position)
        }
        return NBDSimpleReplyHeader(error: nil, cookie: request.cookie)
            .encode(into: bytes, at: position)
    }

    /// Encodes the failure of a whole request, with text for people where the mode has room.
    ///
    /// - Returns: The bytes used: at most ``failureByteCountMax`` and the text.
    @inlinable
    public static func failure(
        _ request: NBDRequest,
        _ error: NBDError,
        text: String = "",
        mode: NBDReplyMode,
        into bytes: ByteRegion,
        at position: Int = 0
    ) -> Int {
        failure(
            cookie: request.cookie,
            requestOffset: request.offset,
            error,
            text: text,
            mode: mode,
            into: bytes,
            at: position
        )
    }

    /// Encodes one context's answer to BLOCK_STATUS.
    ///
    /// Adjacent extents of one value are joined. The answer ends where the request ends; with
    /// REQ_ONE after the first extent; and when `bytes` is full, which the protocol allows: the
    /// client asks again from there.
    ///
    /// `extents` holds per extent a UInt64 byte count and a UInt64 value, little-endian, in order
    /// from the request's offset on; the first has bytes. `isLast` marks the request's last
    /// context, which ends the reply. `bytes` has room for at least one descriptor, see
    /// ``blockStatusByteCount(descriptorCount:mode:)``.
    ///
    /// - Returns: The bytes used.
    public static func blockStatus(
        _ request: NBDRequest,
        contextID: UInt32,
        extents: ByteRegion,
        extentCount: Int,
        isLast: Bool,
        mode: NBDReplyMode,
        into bytes: ByteRegion,
        at position: Int = 0
    ) -> Int {
        precondition(mode != .simple, "a status needs chunks")
        precondition(extentCount > 0, "a status has at least one extent")
        let isExtended = mode == .extended
        let header = NBDChunkHeader.byteCount(isExtended: isExtended)
        let start = header + NBDBlockStatusHeader.byteCount(isExtended: isExtended)
        let each = NBDBlockStatusHeader.descriptorByteCount(isExtended: isExtended)
        let room = (bytes.byteCount - position - start) / each
        precondition(room > 0, "no room for one extent")
        let isOne = request.flags.contains(.oneExtent)
        let countMax = isOne ? 1 : min(room, NBDLimits.extentCountMax)

        var cursor = ExtentCursor(extents, count: extentCount, byteCountMax: request.byteCount)
        var count = 0
        var end = position + start
        while count < countMax, let extent = cursor.next() {
            end += NBDBlockStatusHeader.encodeDescriptor(
                byteCount: extent.byteCount,
                status: isExtended ? extent.value : UInt64(UInt32(clamping: extent.value)),
                into: bytes,
                at: end,
                isExtended: isExtended
            )
            count += 1
        }
        precondition(count > 0, "the first extent is empty")
        NBDChunkHeader(
            isExtended ? .blockStatusExtended : .blockStatus,
            flags: isLast ? .done : [],
            cookie: request.cookie,
            requestOffset: request.offset,
            payloadByteCount: UInt64(end - position - header)
        ).encode(into: bytes, at: position, isExtended: isExtended)
        NBDBlockStatusHeader(contextID: contextID, descriptorCount: count)
            .encode(into: bytes, at: position + header, isExtended: isExtended)
        return end - position
    }

    /// The bytes of a BLOCK_STATUS answer with `descriptorCount` descriptors.
    @inlinable
    public static func blockStatusByteCount(descriptorCount: Int, mode: NBDReplyMode) -> Int {
        let isExtended = mode == .extended
        return NBDChunkHeader.byteCount(isExtended: isExtended)
            + NBDBlockStatusHeader.byteCount(isExtended: isExtended)
            + descriptorCount * NBDBlockStatusHeader.descriptorByteCount(isExtended: isExtended)
    }

    // MARK: - Parts

    @inlinable
    static func ending(
        cookie: UInt64,
        offset: UInt64,
        _ mode: NBDReplyMode,
        _ bytes: ByteRegion,
        _ position: Int
    ) -> Int {
        NBDChunkHeader(
            .none,
            flags: .done,
            cookie: cookie,
            requestOffset: offset,
            payloadByteCount: 0
        ).encode(into: bytes, at: position, isExtended: mode == .extended)
    }

    @usableFromInline
    static func failure(
        cookie: UInt64,
        requestOffset: UInt64,
        _ error: NBDError,
        text: String,
        failedOffset: UInt64? = nil,
        mode: NBDReplyMode,
        into bytes: ByteRegion,
        at position: Int
    ) -> Int {
        guard mode != .simple else {
            return NBDSimpleReplyHeader(error: error, cookie: cookie)
                .encode(into: bytes, at: position)
        }
        let isExtended = mode == .extended
        let header = NBDChunkHeader.byteCount(isExtended: isExtended)
        let payload = NBDErrorPayload.encode(
            error,
            text: text,
            offset: failedOffset,
            into: bytes,
            at: position + header
        )
        NBDChunkHeader(
            failedOffset == nil ? .error : .errorOffset,
            flags: .done,
            cookie: cookie,
            requestOffset: requestOffset,
            payloadByteCount: UInt64(payload)
        ).encode(into: bytes, at: position, isExtended: isExtended)
        return header + payload
    }
}

/// Walks extents, joining neighbours of one value and stopping at the request's end.
private struct ExtentCursor {
    private let extents: ByteRegion
    private let count: Int
    private var index = 0
    private var restByteCount: UInt64

    init(_ extents: ByteRegion, count: Int, byteCountMax: UInt64) {
        self.extents = extents
        self.count = count
        restByteCount = byteCountMax
    }

    mutating func next() -> (byteCount: UInt64, value: UInt64)? {
        var byteCount: UInt64 = 0
        var value: UInt64 = 0
        while index < count, restByteCount > 0 {
            let length = extents.load(index * 16, as: UInt64.self)
            let nextValue = extents.load(index * 16 + 8, as: UInt64.self)
            if byteCount > 0, length > 0, nextValue != value { break }
            if length > 0 { value = nextValue }
            let taken = min(length, restByteCount)
            byteCount += taken
            restByteCount -= taken
            index += 1
        }
        return byteCount > 0 ? (byteCount, value) : nil
    }
}
