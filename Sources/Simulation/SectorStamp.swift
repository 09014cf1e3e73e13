// What the simulation writes: sectors that say who wrote them.

import BlockCore

/// The contents of one 512-byte sector, and how to tell what a sector holds.
///
/// Every sector written names the run, its own position and the operation that wrote it, in
/// every word, so that stale, misplaced, torn and foreign contents are told apart.
///
/// Layout: 64 words, little-endian. Word 0 is the operation in the low half and
/// ``magic`` in the high half, word 1 the sector's number; word `i` of the others is
/// `base + i · step`, where `base` follows from run, sector and operation.
enum SectorStamp {
    /// Bytes in a sector: the smallest logical block.
    static var byteCount: Int { 512 }
    static var magic: UInt64 { 0x4341_4952 }
    static var step: UInt64 { 0x9E37_79B9_7F4A_7C15 }

    /// What a sector holds.
    enum Content: Equatable {
        case zero
        case operation(UInt32)
        case misplaced(operation: UInt32, sector: UInt64)
        case torn(operation: UInt32)
        case foreign
    }

    /// Fills `region` with the sectors that `operation` writes from `firstSector` on.
    static func fill(_ region: ByteRegion, firstSector: UInt64, operation: UInt32, run: UInt64) {
        for index in 0..<region.byteCount / byteCount {
            let sector = firstSector + UInt64(index)
            let offset = index * byteCount
            let base = base(run: run, sector: sector, operation: operation)
            region.store(UInt64(operation) | magic << 32, at: offset)
            region.store(sector, at: offset + 8)
            for word in 2..<64 {
                region.store(base &+ UInt64(word) &* step, at: offset + word * 8)
            }
        }
    }

    /// Tells what the sector at `offset` of `region` holds, which should be `sector` of `run`.
    static func identify(
        _ region: ByteRegion,
        at offset: Int,
        sector: UInt64,
        run: UInt64
    ) -> Content {
        let head = region.load(offset, as: UInt64.self)
        if head == 0 {
            return region.slice(offset, byteCount).isZero ? .zero : .foreign
        }
        guard head >> 32 == magic else { return .foreign }
        let operation = UInt32(truncatingIfNeeded: head)
        let written = region.load(offset + 8, as: UInt64.self)
        let base = base(run: run, sector: written, operation: operation)
        var difference: UInt64 = 0
        for word in 2..<64 {
            difference |=
                region.load(offset + word * 8, as: UInt64.self)
                ^ (base &+ UInt64(word) &* step)
        }
        guard difference == 0 else { return .torn(operation: operation) }
        guard written == sector else {
            return .misplaced(operation: operation, sector: written)
        }
        return .operation(operation)
    }

    private static func base(run: UInt64, sector: UInt64, operation: UInt32) -> UInt64 {
        SeededRandom.mix(SeededRandom.mix(run ^ sector &* step) ^ UInt64(operation))
    }
}
