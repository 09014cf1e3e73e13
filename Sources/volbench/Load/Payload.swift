package import BlockCore

/// What writes carry, and whether reads bring it back.
package struct Payload: Sendable {
    /// Bytes of the header before a block that is verified by checksum.
    ///
    /// Layout, little-endian: magic (0, 4), bytes of the block (4, 4), its place (8, 8), the number
    /// of the write (16, 8), zero (24, 4), CRC-32C of all other bytes of the block (28, 4).
    package static var headerByteCount: Int { 32 }
    private static var magic: UInt32 { 0x6B6C_6276 }
    /// Blocks of this size are told apart even where nobody verifies.
    private static var stampInterval: Int { BlockGeometry.blockByteCount }

    /// How blocks are known again.
    package let verification: Verification
    private let pattern: [UInt8]
    private let seed: UInt64

    /// Creates the payload of a job.
    package init(options: JobOptions, seed: UInt64) {
        verification = options.verification
        pattern = options.pattern
        self.seed = seed
    }

    /// Fills a lane's memory once: with the pattern, or with bytes that nobody can compress,
    /// deduplicate or mistake for zeroes.
    package func fill(_ region: ByteRegion, lane: Int) {
        guard verification != .pattern else {
            for offset in 0..<region.byteCount {
                region.store(pattern[offset % pattern.count], at: offset)
            }
            return
        }
        var random = SplitMix64(seed: seed &+ UInt64(lane) << 40)
        for offset in stride(from: 0, to: region.byteCount & ~7, by: 8) {
            region.store(random.next(), at: offset)
        }
    }

    /// Makes a write's block what it has to be.
    @inline(__always)
    package func prepare(_ region: ByteRegion, _ operation: Operation) {
        guard !region.isEmpty else { return }
        switch verification {
        case .none: stamp(region, operation)
        case .pattern: break
        case .crc32c: sign(region.slice(0, operation.byteCount), operation)
        }
    }

    /// Marks each block with its place and its write's number, so that no two are equal.
    @inline(__always)
    private func stamp(_ region: ByteRegion, _ operation: Operation) {
        var offset = 0
        while offset < operation.byteCount {
            region.store(operation.offset &+ UInt64(offset), at: offset)
            region.store(operation.serial, at: offset + 8)
            offset += Payload.stampInterval
        }
    }

    private func sign(_ block: ByteRegion, _ operation: Operation) {
        block.store(Payload.magic, at: 0)
        block.store(UInt32(operation.byteCount), at: 4)
        block.store(operation.offset, at: 8)
        block.store(operation.serial, at: 16)
        block.store(UInt32(0), at: 24)
        block.store(checksum(block), at: 28)
    }

    private func checksum(_ block: ByteRegion) -> UInt32 {
        let head = block.slice(0, 28).crc32c()
        return block.suffix(from: Payload.headerByteCount).crc32c(seed: head)
    }

    /// Whether a block that was read is one that was written there.
    package func isIntact(_ region: ByteRegion, _ operation: Operation) -> Bool {
        let block = region.slice(0, operation.byteCount)
        switch verification {
        case .none: return true
        case .crc32c:
            return block.load(0, as: UInt32.self) == Payload.magic
                && block.load(4, as: UInt32.self) == UInt32(operation.byteCount)
                && block.load(8, as: UInt64.self) == operation.offset
                && block.load(28, as: UInt32.self) == checksum(block)
        case .pattern:
            var offset = 0
            while offset < block.byteCount {
                if block.load(offset, as: UInt8.self) != pattern[offset % pattern.count] {
                    return false
                }
                offset += 1
            }
            return true
        }
    }
}

/// Which blocks a job wrote, for reading them back.
package final class WrittenBlocks {
    private let plan: JobPlan
    /// Bytes of the block that was written at a place, 0 for none.
    private let byteCounts: FixedArray<UInt32>
    private var next = 0

    /// Creates an empty record.
    package init(plan: JobPlan) {
        self.plan = plan
        byteCounts = FixedArray(repeating: 0, count: Int(plan.placeCount))
    }

    /// Remembers a write.
    package func insert(_ operation: Operation) {
        let place = (operation.offset - plan.offset) / UInt64(plan.options.placeByteCount)
        byteCounts[Int(place)] = UInt32(operation.byteCount)
    }

    /// The read of the next block, in ascending order; nil when all were read.
    package func nextRead() -> Operation? {
        while next < byteCounts.count {
            defer { next += 1 }
            guard byteCounts[next] > 0 else { continue }
            return Operation(
                kind: .read,
                offset: plan.offset + UInt64(next) * UInt64(plan.options.placeByteCount),
                byteCount: Int(byteCounts[next])
            )
        }
        return nil
    }
}
