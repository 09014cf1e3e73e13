// PDUs out of a stream of bytes: header, data, padding and digests.

import BlockCore
import ISCSIWire

extension ISCSISession {
    /// Takes steps until there is something for the driver.
    func step(_ stream: inout Stream) -> ISCSIEvent {
        while true {
            switch phase {
            case .header:
                if login.isNews {
                    login.isNews = false
                    return .loggedIn
                }
                if pendingTask >= 0 {
                    let task = pendingTask
                    pendingTask = -1
                    if let event = advanceData(task) { return event }
                }
                guard let bytes = gatherHeader(&stream) else { return .needMore }
                if let event = onHeader(bytes) { return event }
            case .segment:
                if let event = takeSegment(&stream) { return event }
            case .tail:
                guard let bytes = gatherTail(&stream) else { return .needMore }
                phase = .header
                if let event = onTail(bytes) { return event }
            case .closing:
                return close(.orderly)
            case .closed:
                // Whatever still comes is not looked at.
                _ = stream.take(stream.rest.byteCount)
                return .close(closeReason)
            }
        }
    }

    private var headerDigestByteCount: Int {
        login.isDone && parameters.hasHeaderDigest ? ISCSILimits.digestByteCount : 0
    }

    private var hasDataDigest: Bool {
        login.isDone && parameters.hasDataDigest && header.dataByteCount > 0
    }

    // MARK: - Headers

    /// The next header with what belongs to it, in place when it is all there.
    private func gatherHeader(_ stream: inout Stream) -> ByteRegion? {
        let basic = ISCSILimits.headerByteCount
        if gatheredByteCount == 0, stream.rest.byteCount >= basic {
            let byteCount = headerByteCount(stream.rest)
            if stream.rest.byteCount >= byteCount { return stream.take(byteCount) }
        }
        while true {
            let wanted = gatheredByteCount < basic ? basic : headerByteCount(gathering)
            let part = stream.take(min(wanted - gatheredByteCount, stream.rest.byteCount))
            gathering.copy(from: part, at: gatheredByteCount)
            gatheredByteCount += part.byteCount
            guard gatheredByteCount == wanted else { return nil }
            guard wanted == headerByteCount(gathering) else { continue }
            gatheredByteCount = 0
            return gathering.slice(0, wanted)
        }
    }

    /// Bytes of a header, its additional headers and its digest.
    private func headerByteCount(_ bytes: ByteRegion) -> Int {
        ISCSILimits.headerByteCount + 4 * Int(bytes.load(4, as: UInt8.self)) + headerDigestByteCount
    }

    private func onHeader(_ bytes: ByteRegion) -> ISCSIEvent? {
        if headerDigestByteCount > 0 {
            let covered = bytes.byteCount - headerDigestByteCount
            let digest = ISCSIDigest.load(bytes, at: covered)
            guard bytes.slice(0, covered).crc32c() == digest else { return close(.headerDigest) }
        }
        header = ISCSIHeader(decoding: bytes)
        guard header.dataByteCount <= segmentLimit else { return close(.tooLarge) }
        let additional = bytes.slice(ISCSILimits.headerByteCount, header.additionalByteCount)
        sink = .skip
        sinkOffset = 0
        segmentByteCount = Int(header.dataByteCount)
        restByteCount = segmentByteCount
        checksum = 0
        phase = segmentByteCount > 0 ? .segment : .header
        let event = login.isDone ? onRequest(additional) : onLoginHeader()
        if event != nil || segmentByteCount > 0 { return event }
        return onSegmentEnd(isIntact: true)
    }

    /// The most data in a PDU to us now.
    private var segmentLimit: UInt32 {
        login.isDone ? Self.segmentByteCountMax : UInt32(ISCSILimits.segmentByteCountDefault)
    }

    // MARK: - Data

    /// Takes what there is of a data segment; nil to go on.
    private func takeSegment(_ stream: inout Stream) -> ISCSIEvent? {
        guard restByteCount > 0 else {
            gatheredByteCount = 0
            phase = .tail
            return nil
        }
        guard !stream.rest.isEmpty else { return .needMore }
        let bytes = stream.take(min(restByteCount, stream.rest.byteCount))
        let offset = segmentByteCount - restByteCount
        restByteCount -= bytes.byteCount
        if hasDataDigest { checksum = bytes.crc32c(seed: checksum) }
        switch sink {
        case .skip: return nil
        case .gather:
            // Echoes are cut to what is gathered.
            let room = max(0, Self.gatheringByteCount - offset)
            if room > 0 {
                gathering.copy(from: bytes.slice(0, min(room, bytes.byteCount)), at: offset)
            }
            return nil
        case .task(let task):
            return deliver(bytes, at: sinkOffset + UInt32(offset), task)
        }
    }

    /// Hands out the part of data that its task wants.
    private func deliver(_ bytes: ByteRegion, at offset: UInt32, _ task: Int32) -> ISCSIEvent? {
        let wanted = tasks[Int(task)].wantedByteCount
        guard offset < wanted else { return nil }
        let byteCount = min(bytes.byteCount, Int(wanted - offset))
        return .data(task: task, offset: offset, bytes: bytes.slice(0, byteCount))
    }

    /// Padding and digest, gathered: they are at most seven bytes.
    private func gatherTail(_ stream: inout Stream) -> ByteRegion? {
        let padding = header.paddedByteCount - segmentByteCount
        let wanted = padding + (hasDataDigest ? ISCSILimits.digestByteCount : 0)
        let part = stream.take(min(wanted - gatheredByteCount, stream.rest.byteCount))
        tail.copy(from: part, at: gatheredByteCount)
        gatheredByteCount += part.byteCount
        guard gatheredByteCount == wanted else { return nil }
        gatheredByteCount = 0
        return tail.slice(0, wanted)
    }

    private func onTail(_ bytes: ByteRegion) -> ISCSIEvent? {
        var isIntact = true
        if hasDataDigest {
            let covered = bytes.byteCount - ISCSILimits.digestByteCount
            checksum = bytes.slice(0, covered).crc32c(seed: checksum)
            isIntact = checksum == ISCSIDigest.load(bytes, at: covered)
        }
        return onSegmentEnd(isIntact: isIntact)
    }

    /// Acts on a PDU of which everything has come.
    private func onSegmentEnd(isIntact: Bool) -> ISCSIEvent? {
        guard login.isDone else { return onLoginText(gathering.slice(0, segmentByteCount)) }
        switch sink {
        case .task(let task): return onTaskData(task, isIntact: isIntact)
        case .skip:
            guard isIntact else { return reject(.dataDigest) }
            return nil
        case .gather:
            guard isIntact else { return reject(.dataDigest) }
            return onGathered()
        }
    }
}
