// The replies that go out to one connection in one send.

internal import BlockCore

/// Replies gathered for one vectored send: a chunk of small ones, and large data by reference.
///
/// A connection has two: one fills while the other is on its way. Headers and small payloads
/// are written one after the other into the chunk, so that a turn's replies are one region;
/// large payloads stay in their request's buffer, which the batch owns until it was sent.
///
/// One thread owns it. Nothing allocates after `init`.
final class ReplyBatch {
    /// Regions in one send at most: what ``Reactor`` takes.
    static let regionCountMax = 64

    /// Where small replies are written; empty when the batch has none.
    private(set) var chunk: ByteRegion = .empty
    /// Whether the chunk is the connection's own, not the pool's.
    private(set) var usesOwnChunk = false
    private var fillByteCount = 0
    /// The start of what was written since the last region was closed.
    private var openOffset = 0
    private(set) var regions: [ByteRegion] = []
    private var ownedBuffers: [ByteRegion] = []
    /// All bytes of the closed regions.
    private var closedByteCount = 0

    init() {
        regions.reserveCapacity(Self.regionCountMax)
        ownedBuffers.reserveCapacity(Self.regionCountMax)
    }

    /// Whether there is nothing to send.
    var isEmpty: Bool { fillByteCount == openOffset && regions.isEmpty }

    /// Bytes to send.
    var byteCount: Int { closedByteCount + fillByteCount - openOffset }

    /// Regions that one large payload takes at most: what was written before it, and itself.
    static let regionsPerPayload = 2

    /// Whether it can take so many regions, and one for what is written afterwards.
    func hasRoom(regionCount: Int) -> Bool {
        regions.count + regionCount < Self.regionCountMax
    }

    /// Room in the chunk, in bytes.
    var roomByteCount: Int { chunk.byteCount - fillByteCount }

    /// The unwritten rest of the chunk.
    var room: ByteRegion { chunk.suffix(from: fillByteCount) }

    /// Gives the batch a chunk to write into.
    func adopt(chunk: ByteRegion, isOwn: Bool) {
        precondition(self.chunk.isEmpty, "a batch has one chunk")
        self.chunk = chunk
        usesOwnChunk = isOwn
        fillByteCount = 0
        openOffset = 0
    }

    /// Counts bytes written at the start of ``room``.
    func didWrite(byteCount: Int) {
        precondition(byteCount <= roomByteCount, "written beyond the chunk")
        fillByteCount += byteCount
    }

    /// Adds `data` by reference; `buffer` is released after the send when it is not empty.
    func append(data: ByteRegion, owning buffer: ByteRegion) {
        closeRegion()
        regions.append(data)
        closedByteCount += data.byteCount
        if !buffer.isEmpty { ownedBuffers.append(buffer) }
        precondition(regions.count < Self.regionCountMax, "too many regions in a batch")
    }

    /// Makes ``regions`` cover everything.
    func closeRegion() {
        guard fillByteCount > openOffset else { return }
        let written = chunk.slice(openOffset, fillByteCount - openOffset)
        regions.append(written)
        closedByteCount += written.byteCount
        openOffset = fillByteCount
    }

    /// Forgets what was sent and gives its buffers back; the chunk stays for the next turn.
    ///
    /// - Returns: The bytes of the pool given back.
    func reset(pool: BufferPool) -> Int {
        var releasedByteCount = 0
        for index in ownedBuffers.indices {
            releasedByteCount += ownedBuffers[index].byteCount
            pool.release(ownedBuffers[index])
        }
        ownedBuffers.removeAll(keepingCapacity: true)
        regions.removeAll(keepingCapacity: true)
        fillByteCount = 0
        openOffset = 0
        closedByteCount = 0
        return releasedByteCount
    }

    /// Gives the chunk of an empty batch back.
    func releaseChunk(pool: BufferPool) {
        precondition(isEmpty, "a chunk with unsent replies")
        if !usesOwnChunk, !chunk.isEmpty { pool.release(chunk) }
        chunk = .empty
        usesOwnChunk = false
        fillByteCount = 0
        openOffset = 0
    }
}
