// The one place where requests are judged.
//
// Spec: NetworkBlockDevice/nbd doc/proto.md, "Request types", "Error values", "Size constraints";
// branch extension-ext-header, "NBD_CMD_FLAG_PAYLOAD_LEN".

import NBDWire

/// Why a request is refused: the table of errors and of texts for people.
enum NBDRefusal: UInt8, Sendable, BitwiseCopyable, CaseIterable {
    case unknownCommand
    case unknownFlags
    case commandNotOffered
    case payloadMissing
    case payloadUnexpected
    case payloadEmpty
    case readOnly
    case flushWithRange
    case beyondEndOfChange
    case beyondEnd
    case unaligned
    case writeTooLarge
    case readTooLarge
    case readTooLargeForChunk
    case noContexts
    case statusOfNothing
    case filterMalformed
    case filterUnknown
    case shuttingDown

    var error: NBDError {
        switch self {
        case .readOnly: .notPermitted
        case .beyondEndOfChange: .noSpace
        case .readTooLargeForChunk: .overflow
        case .shuttingDown: .shutdown
        default: .invalid
        }
    }

    /// At most ``NBDSession/refusalTextByteCountMax`` bytes.
    var text: String {
        switch self {
        case .unknownCommand: "unknown command"
        case .unknownFlags: "a command flag that is unknown or not valid here"
        case .commandNotOffered: "a command that this export does not offer"
        case .payloadMissing: "a write without the payload flag"
        case .payloadUnexpected: "a payload that this command does not take"
        case .payloadEmpty: "a payload of no bytes"
        case .readOnly: "the export is read-only"
        case .flushWithRange: "a flush has no offset and no length"
        case .beyondEndOfChange: "beyond the end of the export"
        case .beyondEnd: "beyond the end of the export"
        case .unaligned: "not aligned to the minimum block size"
        case .writeTooLarge: "longer than the maximum payload"
        case .readTooLarge: "longer than the maximum payload"
        case .readTooLargeForChunk: "longer than the maximum payload"
        case .noContexts: "no metadata context is selected"
        case .statusOfNothing: "a status of no bytes"
        case .filterMalformed: "a list of contexts with the wrong length"
        case .filterUnknown: "a list with an unknown or repeated context"
        case .shuttingDown: "the server is shutting down"
        }
    }
}

/// What becomes of a request; small, so that it travels in registers.
enum NBDVerdict: BitwiseCopyable, Equatable {
    /// The driver carries it out: ``NBDRules/request(_:_:)``.
    case accepted
    /// It is about no bytes at all: answered at once.
    case acceptedEmpty
    /// It is answered with an error, after ``NBDRules/payloadByteCount(_:)`` bytes are skipped.
    case refused(NBDRefusal)
    /// Its list of contexts follows, as payload.
    case filterFollows
    /// The client says goodbye.
    case disconnect
    /// It claims a payload that cannot be meant.
    case payloadTooLarge
}

/// What is valid on one connection; set when it enters transmission.
///
/// A class, so that judging a request reads fields and copies nothing.
final class NBDRules {
    private(set) var mode: NBDReplyMode = .simple
    private(set) var flags: NBDTransmissionFlags = []
    private(set) var exportByteCount: UInt64 = 0
    private(set) var payloadByteCountMax: UInt64 = 0
    private(set) var contextMask: UInt32 = 0
    /// The bits below a block, which is a power of two.
    private var blockMask: UInt64 = 0
    var isShuttingDown = false

    /// Forgets everything.
    func reset() {
        mode = .simple
        flags = []
        exportByteCount = 0
        payloadByteCountMax = 0
        contextMask = 0
        blockMask = 0
        isShuttingDown = false
    }

    /// Sets the rules for requests to `export`.
    func enter(
        _ export: NBDExport,
        mode: NBDReplyMode,
        flags: NBDTransmissionFlags,
        contextCount: Int
    ) {
        self.mode = mode
        self.flags = flags
        exportByteCount = export.byteCount
        payloadByteCountMax = UInt64(export.sizes.payloadByteCountMax)
        contextMask = (1 << UInt32(contextCount)) - 1
        blockMask = UInt64(export.sizes.blockByteCountMin) - 1
    }

    /// The payload up to which a refused request is skipped, not dropped.
    var payloadByteCountTolerated: UInt64 {
        max(payloadByteCountMax, UInt64(NBDLimits.payloadByteCountDefault))
    }

    /// Judges a request by its header.
    func judge(_ header: NBDRequestHeader) -> NBDVerdict {
        guard payloadByteCount(header) <= payloadByteCountTolerated else {
            return .payloadTooLarge
        }
        guard let command = header.command else { return .refused(.unknownCommand) }
        if command == .disconnect { return .disconnect }
        if let refusal = refusal(header, command) { return .refused(refusal) }
        if command == .blockStatus, header.flags.contains(.payloadLength) {
            return judgeFilter(header.byteCount)
        }
        return header.byteCount == 0 && command != .flush ? .acceptedEmpty : .accepted
    }

    /// The request of an accepted header.
    func request(_ header: NBDRequestHeader, _ command: NBDCommand) -> NBDRequest {
        let isStatus = command == .blockStatus
        return NBDRequest(
            command,
            flags: header.flags.subtracting(.payloadLength),
            cookie: header.cookie,
            offset: header.offset,
            byteCount: isStatus ? statusByteCount(header.byteCount) : header.byteCount,
            contextMask: isStatus ? contextMask : 0
        )
    }

    /// The bytes that follow a header, whatever else is wrong with it.
    func payloadByteCount(_ header: NBDRequestHeader) -> UInt64 {
        let hasPayload =
            mode == .extended
            ? header.flags.contains(.payloadLength)
            : header.commandCode == NBDCommand.write.rawValue
        return hasPayload ? header.byteCount : 0
    }

    /// Judges the range of a BLOCK_STATUS, which may stand in its payload.
    func statusRefusal(offset: UInt64, byteCount: UInt64) -> NBDRefusal? {
        if byteCount == 0 { return .statusOfNothing }
        guard isInside(offset: offset, byteCount: byteCount) else { return .beyondEnd }
        let isAligned = offset & blockMask == 0 && statusByteCount(byteCount) > 0
        return isAligned ? nil : .unaligned
    }

    /// The bytes that a BLOCK_STATUS is answered for: whole blocks.
    ///
    /// Its length is a hint, and clients that walk an export ask for 2^32 - 1 bytes: an answer
    /// may be shorter, and its extents must be multiples of the block.
    func statusByteCount(_ byteCount: UInt64) -> UInt64 { byteCount & ~blockMask }

    // MARK: - Parts

    /// Judges the length of a list of contexts: effect length 8, ids of 4.
    private func judgeFilter(_ payloadByteCount: UInt64) -> NBDVerdict {
        let idsByteCount = payloadByteCount &- 8
        guard payloadByteCount > 8, idsByteCount % 4 == 0 else {
            return .refused(.filterMalformed)
        }
        // More ids than can be selected must name one twice, or an unknown one.
        guard idsByteCount / 4 <= UInt64(NBDSession.contextCountMax) else {
            return .refused(.filterUnknown)
        }
        return .filterFollows
    }

    private func refusal(_ header: NBDRequestHeader, _ command: NBDCommand) -> NBDRefusal? {
        if isShuttingDown { return .shuttingDown }
        if let refusal = flagRefusal(header.flags, command) { return refusal }
        switch command {
        case .disconnect:
            return nil
        case .flush:
            guard flags.contains(.flush) else { return .commandNotOffered }
            return header.offset == 0 && header.byteCount == 0 ? nil : .flushWithRange
        case .read:
            if let refusal = rangeRefusal(header, beyondEnd: .beyondEnd) { return refusal }
            guard header.byteCount > payloadByteCountMax else { return nil }
            return mode == .simple ? .readTooLarge : .readTooLargeForChunk
        case .write:
            if mode == .extended, header.byteCount == 0 { return .payloadEmpty }
            if let refusal = changeRefusal(header, isOffered: true) { return refusal }
            return header.byteCount <= payloadByteCountMax ? nil : .writeTooLarge
        case .writeZeroes:
            return changeRefusal(header, isOffered: flags.contains(.writeZeroes))
        case .trim:
            if flags.contains(.readOnly) { return .readOnly }
            guard flags.contains(.trim) else { return .commandNotOffered }
            return rangeRefusal(header, beyondEnd: .beyondEnd)
        case .cache:
            guard flags.contains(.cache) else { return .commandNotOffered }
            return rangeRefusal(header, beyondEnd: .beyondEnd)
        case .blockStatus:
            if contextMask == 0 { return .noContexts }
            // With a payload the length is the payload's; the range is judged when it is here.
            if header.flags.contains(.payloadLength) { return nil }
            return statusRefusal(offset: header.offset, byteCount: header.byteCount)
        }
    }

    /// The flags that `command` may have on this connection.
    private func flagRefusal(_ given: NBDCommandFlags, _ command: NBDCommand) -> NBDRefusal? {
        var allowed: NBDCommandFlags = flags.contains(.forceUnitAccess) ? .forceUnitAccess : []
        var payloadAllowed = false
        switch command {
        case .read:
            if flags.contains(.doNotFragment) { allowed.insert(.doNotFragment) }
        case .write:
            payloadAllowed = mode == .extended
            if payloadAllowed, !given.contains(.payloadLength) { return .payloadMissing }
        case .writeZeroes:
            allowed.insert(.noHole)
            if flags.contains(.fastZero) { allowed.insert(.fastZero) }
        case .blockStatus:
            allowed.insert(.oneExtent)
            payloadAllowed = flags.contains(.blockStatusPayload)
        case .disconnect, .flush, .trim, .cache:
            break
        }
        if mode == .extended, given.contains(.payloadLength), !payloadAllowed {
            return .payloadUnexpected
        }
        if payloadAllowed { allowed.insert(.payloadLength) }
        return given.isSubset(of: allowed) ? nil : .unknownFlags
    }

    private func changeRefusal(
        _ header: NBDRequestHeader,
        isOffered: Bool
    ) -> NBDRefusal? {
        if flags.contains(.readOnly) { return .readOnly }
        guard isOffered else { return .commandNotOffered }
        return rangeRefusal(header, beyondEnd: .beyondEndOfChange)
    }

    private func rangeRefusal(
        _ header: NBDRequestHeader,
        beyondEnd: NBDRefusal
    ) -> NBDRefusal? {
        guard isInside(offset: header.offset, byteCount: header.byteCount) else {
            return beyondEnd
        }
        return (header.offset | header.byteCount) & blockMask == 0 ? nil : .unaligned
    }

    private func isInside(offset: UInt64, byteCount: UInt64) -> Bool {
        offset <= exportByteCount && byteCount <= exportByteCount - offset
    }
}
