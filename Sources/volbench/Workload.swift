internal import BlockCore

/// What to do to a target, in the words of `fio`.
package struct Workload: Sendable, Equatable {
    /// In which order offsets are visited.
    package enum Order: Sendable, Equatable {
        /// Uniformly random, independently drawn.
        case random
        /// Ascending from the start of the lane's own stretch, around and around.
        case sequential
    }

    /// Reads among reads and writes, in percent.
    package var readPercent: Int = 100
    /// In which order offsets are visited.
    package var order: Order = .random
    /// Bytes per operation.
    package var blockByteCount: Int = 4096
    /// The first byte used.
    package var spanOffset: UInt64 = 0
    /// Bytes used; the target's size decides when nil.
    package var spanByteCount: UInt64?
    /// Whether each write must be durable when it completes (FUA).
    package var forceUnitAccess = false
    /// After how many writes a lane flushes; 0 never.
    package var flushInterval: Int = 0
    /// The seed of all choices.
    package var seed: UInt64 = 1

    /// Creates the default: random 4 KiB reads of everything.
    package init() {}
}

/// One operation that a lane does.
@frozen
package struct Operation: BitwiseCopyable, Sendable {
    /// What is done.
    @frozen
    package enum Kind: UInt8, Sendable, BitwiseCopyable, CaseIterable {
        /// Reads the range.
        case read
        /// Writes the range.
        case write
        /// Makes all writes completed so far durable.
        case flush
    }

    /// What is done.
    package var kind: Kind
    /// Whether a write is durable when it completes.
    package var forceUnitAccess: Bool
    /// Bytes from the start of the target.
    package var offset: UInt64
    /// Bytes addressed; 0 for a flush.
    package var byteCount: Int
    /// Which write of the run it is, so that no two blocks written are equal.
    package var serial: UInt64
}

/// Draws the operations of all lanes of one thread from a workload.
///
/// A lane is one request in flight: it has its own place in the sequence and its own count of
/// unflushed writes, so that "a flush after each write" means write, flush, write, flush in
/// every lane, at any depth.
package final class OperationSource {
    private struct Lane: BitwiseCopyable {
        var nextBlock: UInt64
        var firstBlock: UInt64
        var lastBlock: UInt64
        var unflushedWriteCount: Int
    }

    private let workload: Workload
    private let blockCount: UInt64
    private let lanes: FixedArray<Lane>
    private let streamDepth: Int
    private var random: SplitMix64
    private var serial: UInt64 = 0

    /// Creates the source for `laneCount` lanes over a target of `targetByteCount` bytes.
    ///
    /// Sequential streams have equal stretches of the span; the lanes of a stream share its
    /// cursor, as one reader with that many requests in flight would.
    ///
    /// - Precondition: the span holds at least one block per lane; options were validated.
    package init(workload: Workload, laneCount: Int, streamCount: Int, targetByteCount: UInt64) {
        let available = targetByteCount - min(workload.spanOffset, targetByteCount)
        let span = min(workload.spanByteCount ?? available, available)
        blockCount = span / UInt64(workload.blockByteCount)
        precondition(blockCount > 0, "the span is smaller than a block")
        self.workload = workload
        random = SplitMix64(seed: workload.seed)
        let empty = Lane(nextBlock: 0, firstBlock: 0, lastBlock: 0, unflushedWriteCount: 0)
        lanes = FixedArray(repeating: empty, count: laneCount)
        streamDepth = laneCount / streamCount
        for index in 0..<laneCount {
            let stream = UInt64(index / streamDepth)
            let first = blockCount * stream / UInt64(streamCount)
            let end = blockCount * (stream + 1) / UInt64(streamCount)
            let last = max(first + 1, end) - 1
            lanes[index].firstBlock = first
            lanes[index].lastBlock = last
            lanes[index].nextBlock = first
        }
    }

    /// The next operation of `lane`.
    package func next(lane: Int) -> Operation {
        if workload.flushInterval > 0, lanes[lane].unflushedWriteCount >= workload.flushInterval {
            lanes[lane].unflushedWriteCount = 0
            return Operation(
                kind: .flush,
                forceUnitAccess: false,
                offset: 0,
                byteCount: 0,
                serial: serial
            )
        }
        let isRead: Bool
        switch workload.readPercent {
        case 100: isRead = true
        case 0: isRead = false
        default: isRead = random.next(below: 100) < UInt64(workload.readPercent)
        }
        if !isRead {
            lanes[lane].unflushedWriteCount += 1
            serial &+= 1
        }
        let block = workload.order == .random ? random.next(below: blockCount) : advance(lane)
        return Operation(
            kind: isRead ? .read : .write,
            forceUnitAccess: !isRead && workload.forceUnitAccess,
            offset: workload.spanOffset + block * UInt64(workload.blockByteCount),
            byteCount: workload.blockByteCount,
            serial: serial
        )
    }

    /// The next block of the lane's stream; all lanes of a stream share one cursor.
    private func advance(_ lane: Int) -> UInt64 {
        let leader = lane - lane % streamDepth
        let block = lanes[leader].nextBlock
        let isLast = block >= lanes[leader].lastBlock
        lanes[leader].nextBlock = isLast ? lanes[leader].firstBlock : block + 1
        return block
    }
}

/// A small, fast, seeded generator: SplitMix64.
///
/// Source: Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (2014).
package struct SplitMix64: RandomNumberGenerator, Sendable {
    private var state: UInt64

    /// Creates a generator whose sequence `seed` decides.
    package init(seed: UInt64) { state = seed }

    /// The next 64 bits.
    package mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var z = state
        z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
        z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
        return z ^ (z >> 31)
    }

    /// A number in `0 ..< bound`, by multiplication: one part in 2^32 of bias is far below noise.
    package mutating func next(below bound: UInt64) -> UInt64 {
        next().multipliedFullWidth(by: bound).high
    }
}
