internal import BlockCore

/// What writes carry: bytes that nobody can compress, deduplicate or mistake for zeroes.
enum Payload {
    /// Fills `region` with the random bytes that `seed` decides.
    static func fill(_ region: ByteRegion, seed: UInt64) {
        var random = SplitMix64(seed: seed)
        for offset in stride(from: 0, to: region.byteCount & ~7, by: 8) {
            region.store(random.next(), at: offset)
        }
    }

    /// Marks each block with its place and its write's number, so that no two are equal.
    @inline(__always)
    static func stamp(_ region: ByteRegion, _ operation: Operation) {
        var offset = 0
        while offset < operation.byteCount {
            region.store(operation.offset &+ UInt64(offset), at: offset)
            region.store(operation.serial, at: offset + 8)
            offset += BlockGeometry.blockByteCount
        }
    }
}
