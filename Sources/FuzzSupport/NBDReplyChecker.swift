// Judges accepted requests a second time, by rules written from the specification alone, and
// answers them in every way a driver may, reading each reply back.

import BlockCore
import NBDSession
import NBDWire

/// Checks requests and replies.
final class NBDReplyChecker {
    private let replies: ByteRegion
    private let extents: ByteRegion

    init(replies: ByteRegion, extents: ByteRegion) {
        self.replies = replies
        self.extents = extents
    }

    // MARK: - Requests

    /// Checks that a driver may carry `request` out without looking at it again.
    func check(
        _ request: NBDRequest,
        export: NBDExport,
        session: NBDSession
    ) throws(FuzzViolation) {
        let command = request.command
        try demand(command != .disconnect, "a disconnect as a request")
        try demand(!request.flags.contains(.payloadLength), "a payload flag in a request")
        let isChange = [.write, .trim, .writeZeroes].contains(command)
        try demand(!(isChange && export.isReadOnly), "a change of a read-only export")
        if command == .flush {
            try demand(request.offset == 0 && request.byteCount == 0, "a flush of a range")
            return
        }
        try demand(request.byteCount > 0, "a request about nothing")
        let (end, isOverflow) = request.offset.addingReportingOverflow(request.byteCount)
        try demand(!isOverflow && end <= export.byteCount, "beyond the end of the export")
        let block = UInt64(export.sizes.blockByteCountMin)
        try demand(request.offset % block == 0, "an unaligned offset")
        try demand(request.byteCount % block == 0, "an unaligned length")
        if command == .read || command == .write {
            let limit = UInt64(export.sizes.payloadByteCountMax)
            try demand(request.byteCount <= limit, "a payload above the maximum")
        }
        if command == .blockStatus {
            try demand(session.mode != .simple, "a status without chunks")
            let selected = (UInt32(1) << UInt32(session.contextCount)) - 1
            try demand(request.contextMask != 0, "a status of no context")
            try demand(request.contextMask & ~selected == 0, "a context that is not selected")
        } else {
            try demand(request.contextMask == 0, "contexts without a status")
        }
    }

    // MARK: - Replies

    /// Answers `request` and reads the answer back.
    func answer(
        _ request: NBDRequest,
        mode: NBDReplyMode,
        random: inout FuzzRandom
    ) throws(FuzzViolation) {
        switch request.command {
        case .read: try answerRead(request, mode, &random)
        case .blockStatus: try answerStatus(request, mode, &random)
        default:
            let isFailure = random.oneIn(4)
            let byteCount =
                isFailure
                ? NBDReply.failure(request, .inputOutput, text: "lost", mode: mode, into: replies)
                : NBDReply.success(request, mode: mode, into: replies)
            try readBack(request, mode, byteCount, isFailure: isFailure)
        }
    }

    /// Reads a reply of one message back.
    private func readBack(
        _ request: NBDRequest,
        _ mode: NBDReplyMode,
        _ byteCount: Int,
        isFailure: Bool
    ) throws(FuzzViolation) {
        let bytes = replies.slice(0, byteCount)
        if mode == .simple || (mode == .structured && !isFailure) {
            guard let header = try? NBDSimpleReplyHeader.decode(bytes) else {
                throw FuzzViolation(rule: "a simple reply that cannot be read")
            }
            try demand(byteCount == NBDSimpleReplyHeader.byteCount, "a simple reply with more")
            try demand(header.cookie == request.cookie, "another cookie")
            try demand((header.errorCode != 0) == isFailure, "another result")
            return
        }
        let (header, payload) = try chunk(request, mode, at: 0, end: byteCount)
        try demand(header.flags == .done, "an only chunk that is not the last")
        try demand(header.kind == (isFailure ? .error : NBDChunkKind.none), "another kind of chunk")
        if isFailure { _ = try errorPayload(payload, hasOffset: false) }
    }

    private func chunk(
        _ request: NBDRequest,
        _ mode: NBDReplyMode,
        at position: Int,
        end: Int
    ) throws(FuzzViolation) -> (NBDChunkHeader, ByteRegion) {
        let isExtended = mode == .extended
        let bytes = replies.slice(position, end - position)
        guard let header = try? NBDChunkHeader.decode(bytes, isExtended: isExtended) else {
            throw FuzzViolation(rule: "a chunk that cannot be read")
        }
        try demand(header.cookie == request.cookie, "another cookie")
        try demand(!isExtended || header.requestOffset == request.offset, "another offset")
        let payload = bytes.suffix(from: NBDChunkHeader.byteCount(isExtended: isExtended))
        return (header, payload)
    }

    private func errorPayload(
        _ payload: ByteRegion,
        hasOffset: Bool
    ) throws(FuzzViolation) -> NBDErrorPayload {
        guard let error = try? NBDErrorPayload.decode(payload, hasOffset: hasOffset) else {
            throw FuzzViolation(rule: "an error that cannot be read")
        }
        return error
    }

    /// Answers a READ in parts, from both ends, as data, holes or a failure.
    private func answerRead(
        _ request: NBDRequest,
        _ mode: NBDReplyMode,
        _ random: inout FuzzRandom
    ) throws(FuzzViolation) {
        var reply = NBDReadReply(request, mode: mode)
        var low = request.offset
        var high = request.offset + request.byteCount
        while !reply.isFinished {
            let isFailure = random.oneIn(8)
            if isFailure {
                let failedOffset = random.oneIn(2) ? low : nil
                let byteCount = reply.failure(
                    .inputOutput,
                    text: "bad block",
                    failedOffset: failedOffset,
                    into: replies
                )
                try readFailure(request, mode, byteCount, failedOffset)
                break
            }
            let rest = high - low
            let byteCount = reply.mustBeWhole ? rest : min(rest, 1 + random.next() % (rest + 7))
            let offset = random.oneIn(2) ? low : high - byteCount
            if offset == low { low += byteCount } else { high -= byteCount }
            let isHole = mode != .simple && random.oneIn(3)
            let used =
                isHole
                ? reply.hole(offset: offset, byteCount: byteCount, into: replies)
                : reply.data(offset: offset, byteCount: byteCount, into: replies)
            try readPart(request, mode, used, isHole, (offset, byteCount), isLast: low == high)
        }
    }

    private func readFailure(
        _ request: NBDRequest,
        _ mode: NBDReplyMode,
        _ byteCount: Int,
        _ failedOffset: UInt64?
    ) throws(FuzzViolation) {
        guard mode != .simple else {
            return try readBack(request, mode, byteCount, isFailure: true)
        }
        let (header, payload) = try chunk(request, mode, at: 0, end: byteCount)
        try demand(header.flags == .done, "a failure that is not the end")
        let error = try errorPayload(payload, hasOffset: header.kind == .errorOffset)
        try demand(error.offset == failedOffset, "another place of failure")
    }

    private func readPart(
        _ request: NBDRequest,
        _ mode: NBDReplyMode,
        _ used: Int,
        _ isHole: Bool,
        _ part: (offset: UInt64, byteCount: UInt64),
        isLast: Bool
    ) throws(FuzzViolation) {
        guard mode != .simple else {
            return try demand(used == NBDSimpleReplyHeader.byteCount, "another header length")
        }
        let (header, payload) = try chunk(request, mode, at: 0, end: used)
        try demand(header.flags == (isLast ? .done : []), "DONE at the wrong part")
        if isHole {
            guard let hole = try? NBDOffsetHole.decode(payload) else {
                throw FuzzViolation(rule: "a hole that cannot be read")
            }
            try demand(used <= NBDReply.holeByteCountMax, "a hole longer than said")
            try demand(hole.offset == part.offset, "a hole elsewhere")
            try demand(UInt64(hole.holeByteCount) == part.byteCount, "a hole of another length")
        } else {
            try demand(used <= NBDReply.dataHeaderByteCountMax, "a header longer than said")
            try demand(header.payloadByteCount == part.byteCount + 8, "data of another length")
            let offset = payload.loadBigEndian(0, as: UInt64.self)
            try demand(offset == part.offset, "data from elsewhere")
        }
    }

    /// Answers a BLOCK_STATUS for every context asked for with random extents.
    private func answerStatus(
        _ request: NBDRequest,
        _ mode: NBDReplyMode,
        _ random: inout FuzzRandom
    ) throws(FuzzViolation) {
        var mask = request.contextMask
        while mask != 0 {
            let isLast = mask & (mask - 1) == 0
            mask &= mask - 1
            let extentCount = 1 + random.below(12)
            for index in 0..<extentCount {
                let byteCount = 1 + random.next() % (request.byteCount * 2)
                extents.store(byteCount, at: index * 16)
                extents.store(UInt64(random.below(4)), at: index * 16 + 8)
            }
            let room = NBDReply.blockStatusByteCount(
                descriptorCount: 1 + random.below(8),
                mode: mode
            )
            let used = NBDReply.blockStatus(
                request,
                contextID: 5,
                extents: extents,
                extentCount: extentCount,
                isLast: isLast,
                mode: mode,
                into: replies.slice(0, room)
            )
            try demand(used <= room, "a status beyond its room")
            try readStatus(request, mode, used, isLast)
        }
    }

    private func readStatus(
        _ request: NBDRequest,
        _ mode: NBDReplyMode,
        _ used: Int,
        _ isLast: Bool
    ) throws(FuzzViolation) {
        let isExtended = mode == .extended
        let (header, payload) = try chunk(request, mode, at: 0, end: used)
        try demand(header.flags == (isLast ? .done : []), "DONE at the wrong context")
        guard let status = try? NBDBlockStatusHeader.decode(payload, isExtended: isExtended) else {
            throw FuzzViolation(rule: "a status that cannot be read")
        }
        try demand(status.contextID == 5, "another context")
        let isOne = request.flags.contains(.oneExtent)
        try demand(!isOne || status.descriptorCount == 1, "more than one extent")
        var covered: UInt64 = 0
        var previous: UInt64?
        for index in 0..<status.descriptorCount {
            let extent = NBDBlockStatusHeader.descriptor(payload, at: index, isExtended: isExtended)
            try demand(extent.byteCount > 0, "an empty extent")
            try demand(previous != extent.status, "neighbours of one value")
            previous = extent.status
            covered += extent.byteCount
        }
        try demand(covered <= request.byteCount, "a status beyond the request")
    }
}
