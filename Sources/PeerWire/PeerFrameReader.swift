// Frames in.
//
// Everything here comes from a peer: no bytes trap, and what is wrong in any way is refused.

public import BlockCore
public import Replication

/// Decodes frames: the header when it is there, the rest when all that it announces is.
public enum PeerFrameReader {
    /// Decodes the header at the start of `bytes`: how much follows, and where it is to go.
    ///
    /// - Parameter bytes: ``PeerLimits/headerByteCount`` bytes; what follows is ignored.
    /// - Returns: The header. Its counts are within their limits; nothing else may be relied on
    ///   before the checksum was.
    /// - Throws: ``PeerWireError``; nothing is consumed.
    public static func header(_ bytes: ByteRegion) throws(PeerWireError) -> PeerFrameHeader {
        try PeerFrameHeader.decode(bytes)
    }

    /// Decodes a frame.
    ///
    /// - Parameters:
    ///   - header: Its header.
    ///   - body: What follows that; behind `bodyByteCount` bytes it is ignored.
    ///   - payload: What the caller calls the payload, which it frees where the frame is refused;
    ///     not looked at when there is none.
    /// - Returns: The frame, every field of which is within the format's limits.
    /// - Throws: ``PeerWireError``; nothing is consumed.
    /// - Precondition: `payload` has bytes when the frame has.
    /// - Complexity: O(body); no allocation but for lineages and the entries of a scan.
    public static func frame(
        _ header: PeerFrameHeader,
        body: ByteRegion,
        payload: PayloadID
    ) throws(PeerWireError) -> PeerFrame {
        precondition(
            header.payloadByteCount == 0 || payload.hasBytes,
            "a payload with bytes is called like one without"
        )
        guard body.byteCount >= header.bodyByteCount else {
            throw .needMoreBytes(missingByteCount: header.bodyByteCount - body.byteCount)
        }
        let body = body.slice(0, header.bodyByteCount)
        guard body.crc32c(seed: header.headerChecksum) == header.checksum else {
            throw .badChecksum
        }
        var fields = BodyReader(body.slice(0, header.bodyByteCount - header.checksumsByteCount))
        let frame = try frame(header, &fields, payload)
        guard fields.remainingByteCount == 0 else {
            throw .bodyNotConsumed(byteCount: fields.remainingByteCount)
        }
        return frame
    }

    /// The checksums of a payload's blocks, CRC-32C, little-endian, 4 bytes each.
    ///
    /// - Parameters:
    ///   - header: The frame's header.
    ///   - body: The body that ``frame(_:body:payload:)`` has decoded.
    /// - Returns: The part of `body` that holds them; it lives as long as that.
    /// - Precondition: `body` has the header's `bodyByteCount` bytes.
    public static func blockChecksums(of header: PeerFrameHeader, body: ByteRegion) -> ByteRegion {
        let count = header.checksumsByteCount
        return body.slice(header.bodyByteCount - count, count)
    }

    /// Whether every block of a payload has its checksum.
    ///
    /// - Parameters:
    ///   - payload: The bytes as they came.
    ///   - checksums: As ``blockChecksums(of:body:)`` gave them.
    /// - Returns: False as well when the two are of different counts of blocks.
    public static func payloadMatches(_ payload: ByteRegion, checksums: ByteRegion) -> Bool {
        let blockByteCount = BlockGeometry.blockByteCount
        let count = checksums.byteCount / 4
        guard checksums.byteCount == 4 * count, payload.byteCount == blockByteCount * count else {
            return false
        }
        for block in 0..<count {
            let crc = payload.slice(block * blockByteCount, blockByteCount).crc32c()
            guard crc == checksums.load(4 * block, as: UInt32.self) else { return false }
        }
        return true
    }

    private static func frame(
        _ header: PeerFrameHeader,
        _ fields: inout BodyReader,
        _ payload: PayloadID
    ) throws(PeerWireError) -> PeerFrame {
        switch header.kind {
        case .hello: return .hello(try hello(header, &fields))
        case .helloAnswer: return .helloAnswer(try helloAnswer(header, &fields))
        case .seal, .open, .write, .flush, .renew, .complete, .recall, .read, .scan, .fetch,
            .fill, .release, .repair, .snapshot, .keep, .weigh:
            return .primary(
                PrimaryMessage(
                    instance: header.instance,
                    epoch: header.epoch,
                    primary: PrimaryID(header.process),
                    body: try primaryBody(header, &fields, payload)
                )
            )
        case .sealed, .refused, .opened, .progress, .granted, .completed, .readDone,
            .readRefused, .scanned, .fetched, .filled, .readFailed, .fetchFailed, .kept,
            .viewMissing, .room, .fillRefused, .weighed:
            return .replica(
                ReplicaMessage(
                    instance: header.instance,
                    incarnation: Incarnation(header.process),
                    epoch: header.epoch,
                    body: try replicaBody(header, &fields, payload)
                )
            )
        }
    }

    private static func hello(
        _ header: PeerFrameHeader,
        _ fields: inout BodyReader
    ) throws(PeerWireError) -> PeerHello {
        let volumeByteCount = try fields.take(UInt64.self)
        guard PeerFrameWriter.isVolumeByteCount(volumeByteCount) else {
            throw .badVolumeByteCount
        }
        let version = try takeVersion(&fields)
        try fields.takeReserved(7)
        return PeerHello(
            volume: header.volume,
            instance: header.instance,
            process: PrimaryID(header.process),
            volumeByteCount: volumeByteCount,
            version: version
        )
    }

    private static func helloAnswer(
        _ header: PeerFrameHeader,
        _ fields: inout BodyReader
    ) throws(PeerWireError) -> PeerHelloAnswer {
        let code = try fields.take(UInt8.self)
        let refusal = PeerRefusal(rawValue: code)
        guard code == 0 || refusal != nil else { throw .badCode(code) }
        let version = try takeVersion(&fields)
        try fields.takeReserved(6)
        return PeerHelloAnswer(
            volume: header.volume,
            instance: header.instance,
            process: PrimaryID(header.process),
            version: version,
            refusal: refusal
        )
    }

    /// Takes the highest version that somebody speaks: at least the one that the frame is in.
    private static func takeVersion(_ fields: inout BodyReader) throws(PeerWireError) -> UInt8 {
        let version = try fields.take(UInt8.self)
        guard version >= PeerWireVersion.current else { throw .badCode(version) }
        return version
    }
}
