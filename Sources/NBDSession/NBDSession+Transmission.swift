// Transmission: headers are parsed and judged, refusals answered, payloads of refused requests
// skipped.

import BlockCore
import NBDWire

extension NBDSession {
    /// One step of transmission.
    func transmit(_ stream: inout Stream) -> NBDEvent {
        while true {
            switch phase {
            case .request:
                let headerByteCount = rules.mode.requestHeaderByteCount
                guard let bytes = gather(headerByteCount, from: &stream) else { return .needMore }
                guard let header = try? NBDRequestHeader.decode(bytes, mode: rules.mode) else {
                    return close(.badRequestMagic)
                }
                if let event = onHeader(header) { return event }
            case .filter:
                guard let bytes = gather(filterByteCount, from: &stream) else { return .needMore }
                phase = .request
                return onFilter(bytes)
            case .refusal:
                guard skip(&stream) else { return .needMore }
                phase = .request
                return refuse()
            default:
                // Whatever still comes is not looked at.
                _ = stream.take(stream.rest.byteCount)
                return .close(closeReason)
            }
        }
    }

    /// Acts on a request's header; nil when more of the stream belongs to it.
    @inline(__always)
    private func onHeader(_ header: NBDRequestHeader) -> NBDEvent? {
        let verdict = rules.judge(header)
        guard verdict == .accepted, let command = header.command else {
            return onOther(verdict, header)
        }
        return .request(rules.request(header, command))
    }

    /// Acts on a header that is not a request for the driver, or not yet.
    private func onOther(_ verdict: NBDVerdict, _ header: NBDRequestHeader) -> NBDEvent? {
        switch verdict {
        case .accepted:
            preconditionFailure("accepted without a command")
        case .acceptedEmpty:
            return succeedEmpty(header)
        case .refused(let refusal):
            refused = RefusedRequest(
                refusal: refusal,
                cookie: header.cookie,
                offset: header.offset
            )
            skipByteCount = rules.payloadByteCount(header)
            if skipByteCount == 0 { return refuse() }
            phase = .refusal
            return nil
        case .filterFollows:
            filterHeader = header
            filterByteCount = Int(header.byteCount)
            phase = .filter
            return nil
        case .disconnect:
            return close(.disconnected)
        case .payloadTooLarge:
            return close(.payloadTooLarge)
        }
    }

    /// Acts on the payload of a BLOCK_STATUS: effect length 8, then context ids of 4.
    private func onFilter(_ bytes: ByteRegion) -> NBDEvent {
        let byteCount = bytes.loadBigEndian(0, as: UInt64.self)
        var mask: UInt32 = 0
        var refusal = rules.statusRefusal(offset: filterHeader.offset, byteCount: byteCount)
        var position = 8
        while position < bytes.byteCount {
            let bit = contextBit(id: bytes.loadBigEndian(position, as: UInt32.self))
            if bit == 0 || mask & bit != 0 { refusal = .filterUnknown }
            mask |= bit
            position += 4
        }
        if let refusal {
            refused = RefusedRequest(
                refusal: refusal,
                cookie: filterHeader.cookie,
                offset: filterHeader.offset
            )
            return refuse()
        }
        return .request(
            NBDRequest(
                .blockStatus,
                flags: filterHeader.flags.subtracting(.payloadLength),
                cookie: filterHeader.cookie,
                offset: filterHeader.offset,
                byteCount: rules.statusByteCount(byteCount),
                contextMask: mask
            )
        )
    }

    /// The bit of the selected context with this id, or 0.
    private func contextBit(id: UInt32) -> UInt32 {
        for index in 0..<contextCount where selected[index].id == id { return 1 << index }
        return 0
    }

    /// Answers a request about no bytes: there is nothing to do and nothing to return.
    private func succeedEmpty(_ header: NBDRequestHeader) -> NBDEvent {
        // A READ may not be answered with a simple reply once chunks are negotiated.
        let isChunk = rules.mode == .extended || (rules.mode == .structured && header.isRead)
        if isChunk {
            outputByteCount = NBDReply.ending(
                cookie: header.cookie,
                offset: header.offset,
                rules.mode,
                output,
                0
            )
        } else {
            outputByteCount = NBDSimpleReplyHeader(error: nil, cookie: header.cookie)
                .encode(into: output)
        }
        return emit()
    }

    private func refuse() -> NBDEvent {
        outputByteCount = NBDReply.failure(
            cookie: refused.cookie,
            requestOffset: refused.offset,
            refused.refusal.error,
            text: refused.refusal.text,
            mode: rules.mode,
            into: output,
            at: 0
        )
        return emit()
    }
}

extension NBDRequestHeader {
    fileprivate var isRead: Bool { commandCode == NBDCommand.read.rawValue }
}
