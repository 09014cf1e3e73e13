// The replica record as bytes, which its store keeps with the volume.

internal import BlockCore

extension ReplicaRecord {
    /// Bytes before the lineage.
    private static var fixedByteCount: Int { 56 }
    private static var version: UInt8 { 1 }

    /// The most bytes that ``encoded()`` gives.
    public static var encodedByteCountMax: Int { fixedByteCount + 8 * Lineage.stepCountMax }

    /// The record as bytes, little-endian: version, flags (bit 0 complete, 1 remembers, 2 blank), two
    /// reserved, the number of lineage steps (32 bits), instance, promised, accepted, common,
    /// streamed, a reserved word, then the lineage's ends.
    public func encoded() -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(Self.fixedByteCount + 8 * lineage.ends.count)
        let flags: UInt8 =
            (isComplete ? 1 : 0) | (remembers ? 2 : 0) | (isBlank ? 4 : 0)
        bytes += [Self.version, flags, 0, 0]
        Self.append(UInt64(lineage.ends.count), byteCount: 4, to: &bytes)
        let words = [
            instance.rawValue, promised.rawValue, accepted.rawValue, common.rawValue, streamed, 0,
        ]
        for word in words { Self.append(word, byteCount: 8, to: &bytes) }
        for end in lineage.ends { Self.append(end.rawValue, byteCount: 8, to: &bytes) }
        return bytes
    }

    /// Reads a record; nil when the bytes are not one.
    public init?(decoding bytes: [UInt8]) {
        guard bytes.count >= Self.fixedByteCount, bytes[0] == Self.version, bytes[1] < 8,
            bytes[2] == 0, bytes[3] == 0
        else { return nil }
        let stepCount = Int(Self.load(bytes, 4, byteCount: 4))
        guard stepCount <= Lineage.stepCountMax,
            bytes.count == Self.fixedByteCount + 8 * stepCount
        else { return nil }
        func word(_ index: Int) -> UInt64 { Self.load(bytes, 8 + 8 * index, byteCount: 8) }
        let promised = Epoch(word(1))
        let accepted = Epoch(word(2))
        let common = WriteNumber(rawValue: word(3))
        let ends = (0..<stepCount).map { WriteNumber(rawValue: word(6 + $0)) }
        guard promised <= WriteNumber.epochMax, accepted <= promised, common.isValid,
            word(4) <= WriteNumber.counterMax,
            let lineage = Lineage(checking: ends, of: accepted)
        else { return nil }
        self.init(
            instance: ReplicaInstance(word(0)),
            promised: promised,
            accepted: accepted,
            lineage: lineage,
            isComplete: bytes[1] & 1 != 0,
            common: common,
            streamed: word(4),
            remembers: bytes[1] & 2 != 0,
            isBlank: bytes[1] & 4 != 0
        )
    }

    private static func append(_ value: UInt64, byteCount: Int, to bytes: inout [UInt8]) {
        for index in 0..<byteCount {
            bytes.append(UInt8(truncatingIfNeeded: value >> UInt64(8 * index)))
        }
    }

    private static func load(_ bytes: [UInt8], _ offset: Int, byteCount: Int) -> UInt64 {
        var value: UInt64 = 0
        for index in 0..<byteCount { value |= UInt64(bytes[offset + index]) << UInt64(8 * index) }
        return value
    }
}
