// Memory of replicated blocks: buffers that a window, a link and a replica hold at the same time.

internal import BlockCore
internal import PeerWire
internal import Replication

/// Buffers with a count of those who hold them, named by what the machines pass on.
///
/// Each holder releases what it took; the last one gives the buffer back. One thread owns it.
final class PayloadTable {
    private struct Entry: BitwiseCopyable {
        var buffer = ByteRegion.empty
        var byteCount = 0
        var holderCount: Int32 = 0
        /// Whether the checksums of its blocks are there.
        var hasChecksums = false
        /// Next in the list of free entries, or -1.
        var next: Int32 = -1
    }

    /// Lower numbers are not buffers: zeroes, and zeroes that stay allocated.
    private static let firstNumber: UInt64 = 16

    private let arena: MemoryArena
    private let pool: BufferPool
    /// Of each page of the pool its checksum, as far as it is known.
    private let checksumMemory: ByteRegion
    private var entries: [Entry] = []
    private var freeHead: Int32 = -1
    /// Grows when a buffer comes free: who waits for one tries again.
    private(set) var freedCount: UInt64 = 0

    /// Bytes of all buffers.
    var byteCount: Int { pool.byteCount }
    /// Bytes not in use.
    var freeByteCount: Int { pool.freeByteCount }

    /// Maps memory, which costs nothing until it is used.
    init(byteCount: Int) {
        let checksumByteCount = (byteCount / 4096 * 4 + 4095) & ~4095
        arena = MemoryArena(byteCount: byteCount + checksumByteCount, usesHugePages: false)
        checksumMemory = arena.allocate(byteCount: checksumByteCount)
        pool = BufferPool(region: arena.allocate(byteCount: byteCount))
    }

    /// Takes a buffer, held once; nil when there is no room now.
    func allocate(byteCount: Int) -> PayloadID? {
        guard let buffer = pool.allocate(byteCount: byteCount) else { return nil }
        let entry = Entry(buffer: buffer, byteCount: byteCount, holderCount: 1)
        guard freeHead >= 0 else {
            entries.append(entry)
            return PayloadID(UInt64(entries.count - 1) + Self.firstNumber)
        }
        let index = Int(freeHead)
        freeHead = entries[index].next
        entries[index] = entry
        return PayloadID(UInt64(index) + Self.firstNumber)
    }

    /// The bytes of a payload; empty for zeroes.
    func region(_ payload: PayloadID) -> ByteRegion {
        guard let index = index(payload) else { return .empty }
        return entries[index].buffer.slice(0, entries[index].byteCount)
    }

    /// The CRC-32C of each block, little-endian: kept from where the bytes came in, so that frames
    /// and stores need not go over them again; computed when nobody did.
    ///
    /// - Precondition: the bytes do not change any more.
    func checksums(_ payload: PayloadID) -> ByteRegion {
        guard let index = index(payload) else { return .empty }
        let checksums = checksumPlace(index)
        guard !entries[index].hasChecksums else { return checksums }
        let bytes = entries[index].buffer.slice(0, entries[index].byteCount)
        entries[index].hasChecksums = true
        return PeerFrameWriter.blockChecksums(of: bytes, into: checksums)
    }

    /// Keeps checksums that a payload was just found to have.
    func keep(_ checksums: ByteRegion, of payload: PayloadID) {
        guard let index = index(payload) else { return }
        checksumPlace(index).copy(from: checksums)
        entries[index].hasChecksums = true
    }

    private func checksumPlace(_ index: Int) -> ByteRegion {
        let page = pool.pageIndex(of: entries[index].buffer)
        return checksumMemory.slice(4 * page, 4 * (entries[index].byteCount / 4096))
    }

    /// Notes one more holder.
    func retain(_ payload: PayloadID) {
        guard let index = index(payload) else { return }
        entries[index].holderCount += 1
    }

    /// Notes one holder less.
    func release(_ payload: PayloadID) {
        guard let index = index(payload) else { return }
        entries[index].holderCount -= 1
        guard entries[index].holderCount == 0 else { return }
        pool.release(entries[index].buffer)
        entries[index] = Entry(next: freeHead)
        freeHead = Int32(index)
        freedCount &+= 1
    }

    private func index(_ payload: PayloadID) -> Int? {
        guard payload.rawValue >= Self.firstNumber else { return nil }
        let index = Int(payload.rawValue - Self.firstNumber)
        precondition(entries[index].holderCount > 0, "a payload that nobody holds")
        return index
    }
}
