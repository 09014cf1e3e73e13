import BlockCore
import FuzzSupport
import PeerWire
import Replication
import Testing

/// Memory for one test, and frames in it.
final class PeerBench {
    let arena = MemoryArena(byteCount: 512 << 10)
    let frame: ByteRegion
    let payload: ByteRegion
    let checksums: ByteRegion

    init() {
        frame = arena.allocate(byteCount: 2 * PeerLimits.frameByteCountMax)
        payload = arena.allocate(byteCount: PeerLimits.payloadByteCountMax)
        checksums = arena.allocate(byteCount: 4096)
        var random = FuzzRandom(seed: 5)
        for offset in stride(from: 0, to: payload.byteCount, by: 8) {
            payload.store(random.next(), at: offset)
        }
    }

    /// A sample's bytes, without its payload's.
    func bytes(_ sample: PeerSample) -> [UInt8] {
        let count = sample.encode(payload: payload, into: frame, scratch: checksums)
        return frame.slice(0, count).array()
    }

    /// The bytes of a message of a primary, of volume 9, instance 8 and epoch 5, without payload.
    func bytes(_ body: PrimaryMessage.Body) -> [UInt8] {
        let message = PrimaryMessage(
            instance: ReplicaInstance(8),
            epoch: Epoch(5),
            primary: PrimaryID(7),
            body: body
        )
        let volume = VolumeID(9)
        let count = PeerFrameWriter.encode(primary: message, volume: volume, into: frame)
        return frame.slice(0, count).array()
    }

    /// The same of a message of a replica.
    func bytes(_ body: ReplicaMessage.Body) -> [UInt8] {
        let message = ReplicaMessage(
            instance: ReplicaInstance(8),
            incarnation: Incarnation(7),
            epoch: Epoch(5),
            body: body
        )
        let volume = VolumeID(9)
        let count = PeerFrameWriter.encode(replica: message, volume: volume, into: frame)
        return frame.slice(0, count).array()
    }

    /// Decodes bytes behind which others follow.
    func decode(_ bytes: [UInt8]) throws(PeerWireError) -> PeerFrame {
        frame.zero()
        frame.copy(from: bytes)
        return try decode(frame)
    }

    func decode(_ region: ByteRegion) throws(PeerWireError) -> PeerFrame {
        let header = try PeerFrameReader.header(region)
        let body = region.suffix(from: PeerLimits.headerByteCount)
        return try PeerFrameReader.frame(header, body: body, payload: PeerSample.payload)
    }

    /// Decodes bytes whose checksum is made to match first.
    func decodeMended(_ bytes: [UInt8]) throws(PeerWireError) -> PeerFrame {
        frame.zero()
        frame.copy(from: bytes)
        let bodyByteCount = Int(frame.load(12, as: UInt32.self))
        if bodyByteCount <= PeerLimits.bodyByteCountMax {
            let start = frame.slice(0, 8).crc32c()
            let rest = frame.slice(12, PeerLimits.headerByteCount - 12 + bodyByteCount)
            frame.store(rest.crc32c(seed: start), at: 8)
        }
        return try decode(frame)
    }

    /// Why bytes are refused although their checksum matches; nil when they are not.
    func refusal(_ bytes: [UInt8]) -> PeerWireError? {
        do throws(PeerWireError) {
            _ = try decodeMended(bytes)
            return nil
        } catch {
            return error
        }
    }
}

extension [UInt8] {
    /// The bytes with an integer at an offset, little-endian.
    func with<T: FixedWidthInteger>(_ value: T, at offset: Int) -> [UInt8] {
        var result = self
        for index in 0..<T.bitWidth / 8 {
            let shifted = value >> T(truncatingIfNeeded: 8 * index)
            result[offset + index] = UInt8(truncatingIfNeeded: shifted)
        }
        return result
    }
}

/// Bytes from annotated hex: everything behind `#` is a comment.
func hex(_ text: String) -> [UInt8] {
    var bytes: [UInt8] = []
    for line in text.split(separator: "\n") {
        var rest = Substring(line.prefix { $0 != "#" }.filter { $0 != " " })
        while rest.count >= 2 {
            bytes.append(UInt8(rest.prefix(2), radix: 16) ?? 0)
            rest = rest.dropFirst(2)
        }
    }
    return bytes
}
