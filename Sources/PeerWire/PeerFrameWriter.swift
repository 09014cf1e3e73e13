// Frames out.
//
// What is encoded here is our own: what does not fit the format is a bug, and traps.

public import BlockCore
public import Replication

/// Encodes header and body of a frame; the payload is sent from where it lies.
public enum PeerFrameWriter {
    /// Encodes a message of a primary.
    ///
    /// - Parameters:
    ///   - message: What is said. Its payload is only asked whether it has bytes.
    ///   - volume: Of which volume.
    ///   - payloadByteCount: Bytes of the payload, which the caller sends behind what is encoded;
    ///     0 when it has none.
    ///   - blockChecksums: Of each block of the payload its CRC-32C, little-endian.
    ///   - bytes: Where to; ``PeerLimits/frameByteCountMax`` bytes are always enough.
    /// - Returns: The bytes used.
    /// - Precondition: the message is within the format's limits, and `bytes` has room.
    /// - Complexity: O(body); no allocation.
    public static func encode(
        primary message: PrimaryMessage,
        volume: VolumeID,
        payloadByteCount: Int = 0,
        blockChecksums: ByteRegion = .empty,
        into bytes: ByteRegion
    ) -> Int {
        let frame = Outgoing(
            kind: PeerFrameKind(message.body),
            volume: volume,
            instance: message.instance,
            epoch: message.epoch,
            process: message.primary.rawValue,
            payloadByteCount: payloadByteCount
        )
        var body = BodyWriter(bytes.suffix(from: PeerLimits.headerByteCount))
        put(message.body, into: &body, payloadByteCount: payloadByteCount)
        return finish(frame, &body, blockChecksums, bytes)
    }

    /// Encodes a message of a replica; as with a primary's.
    public static func encode(
        replica message: ReplicaMessage,
        volume: VolumeID,
        payloadByteCount: Int = 0,
        blockChecksums: ByteRegion = .empty,
        into bytes: ByteRegion
    ) -> Int {
        let frame = Outgoing(
            kind: PeerFrameKind(message.body),
            volume: volume,
            instance: message.instance,
            epoch: message.epoch,
            process: message.incarnation.rawValue,
            payloadByteCount: payloadByteCount
        )
        if case .sealed(let status) = message.body {
            precondition(status.record.instance == message.instance, "another replica's record")
        }
        var body = BodyWriter(bytes.suffix(from: PeerLimits.headerByteCount))
        put(message.body, into: &body, hasBytes: payloadByteCount > 0)
        return finish(frame, &body, blockChecksums, bytes)
    }

    /// Encodes a hello.
    ///
    /// - Returns: The bytes used.
    public static func encode(_ hello: PeerHello, into bytes: ByteRegion) -> Int {
        let frame = Outgoing(
            kind: .hello,
            volume: hello.volume,
            instance: hello.instance,
            epoch: Epoch(0),
            process: hello.process.rawValue,
            payloadByteCount: 0
        )
        precondition(isVolumeByteCount(hello.volumeByteCount), "a size that no volume has")
        precondition(hello.version >= PeerWireVersion.current, "the version at hand is spoken")
        var body = BodyWriter(bytes.suffix(from: PeerLimits.headerByteCount))
        body.put(hello.volumeByteCount)
        body.put(hello.version)
        body.putReserved(7)
        return finish(frame, &body, .empty, bytes)
    }

    /// Encodes the answer to a hello.
    ///
    /// - Returns: The bytes used.
    public static func encode(_ answer: PeerHelloAnswer, into bytes: ByteRegion) -> Int {
        let frame = Outgoing(
            kind: .helloAnswer,
            volume: answer.volume,
            instance: answer.instance,
            epoch: Epoch(0),
            process: answer.process.rawValue,
            payloadByteCount: 0
        )
        precondition(answer.version >= PeerWireVersion.current, "the version at hand is spoken")
        var body = BodyWriter(bytes.suffix(from: PeerLimits.headerByteCount))
        body.put(answer.refusal?.rawValue ?? 0)
        body.put(answer.version)
        body.putReserved(6)
        return finish(frame, &body, .empty, bytes)
    }

    /// Computes what `blockChecksums` wants, where the store does not have it.
    ///
    /// - Parameters:
    ///   - payload: Whole blocks.
    ///   - checksums: Room for 4 bytes for each of them.
    /// - Returns: The part of `checksums` that was filled.
    public static func blockChecksums(
        of payload: ByteRegion,
        into checksums: ByteRegion
    ) -> ByteRegion {
        let blockByteCount = BlockGeometry.blockByteCount
        precondition(payload.byteCount % blockByteCount == 0, "a payload is whole blocks")
        let count = payload.byteCount / blockByteCount
        for block in 0..<count {
            let crc = payload.slice(block * blockByteCount, blockByteCount).crc32c()
            checksums.store(crc, at: 4 * block)
        }
        return checksums.slice(0, 4 * count)
    }

    // MARK: - Common parts

    /// A header that is to be written once the body is there.
    private struct Outgoing {
        var kind: PeerFrameKind
        var volume: VolumeID
        var instance: ReplicaInstance
        var epoch: Epoch
        var process: UInt64
        var payloadByteCount: Int
    }

    /// Ends a body with its checksums, and writes the header in front of it.
    private static func finish(
        _ frame: Outgoing,
        _ body: inout BodyWriter,
        _ blockChecksums: ByteRegion,
        _ bytes: ByteRegion
    ) -> Int {
        let blockCount = frame.payloadByteCount / BlockGeometry.blockByteCount
        precondition(frame.payloadByteCount >= 0, "a payload of less than nothing")
        precondition(
            blockCount * BlockGeometry.blockByteCount == frame.payloadByteCount,
            "a payload is whole blocks"
        )
        precondition(blockCount <= frame.kind.payloadBlockCountMax, "a payload of too many blocks")
        precondition(blockChecksums.byteCount == 4 * blockCount, "a checksum for each block")
        precondition(
            frame.kind.isGreeting
                || frame.epoch.rawValue > 0 && frame.epoch <= WriteNumber.epochMax,
            "an epoch that cannot exist"
        )
        precondition(frame.volume != .none || frame.kind == .helloAnswer, "no volume is named")
        body.put(blockChecksums)
        precondition(body.byteCount <= PeerLimits.bodyByteCountMax, "a body of too many bytes")
        bytes.store(PeerFrameHeader.magic, at: 0)
        bytes.store(PeerWireVersion.current, at: 4)
        bytes.store(frame.kind.rawValue, at: 5)
        bytes.store(UInt16(0), at: 6)
        bytes.store(UInt32(body.byteCount), at: 12)
        bytes.store(UInt32(frame.payloadByteCount), at: 16)
        bytes.store(UInt32(0), at: 20)
        bytes.store(frame.volume.rawValue, at: 24)
        bytes.store(frame.instance.rawValue, at: 32)
        bytes.store(frame.epoch.rawValue, at: 40)
        bytes.store(frame.process, at: 48)
        bytes.store(UInt64(0), at: 56)
        let headerChecksum = PeerFrameHeader.checksum(of: bytes)
        let written = bytes.slice(PeerLimits.headerByteCount, body.byteCount)
        bytes.store(written.crc32c(seed: headerChecksum), at: 8)
        return PeerLimits.headerByteCount + body.byteCount
    }

    /// Whether a volume can have so many bytes.
    static func isVolumeByteCount(_ count: UInt64) -> Bool {
        count > 0 && count <= BlockGeometry.volumeByteCountMax
            && count % UInt64(BlockGeometry.blockByteCount) == 0
    }
}
