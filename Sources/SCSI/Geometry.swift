/// What the data path needs of a description, computed once.
struct Geometry: BitwiseCopyable, Sendable {
    /// Bytes in a logical block.
    let blockByteCount: UInt32
    /// Log2 of ``blockByteCount``.
    let blockShift: UInt64
    /// Logical blocks in the volume.
    let blockCount: UInt64
    /// The most blocks of READ, WRITE and the like.
    let transferBlockCountMax: UInt64
    /// The most blocks of one half of COMPARE AND WRITE.
    let compareBlockCountMax: UInt64
    /// The most blocks of WRITE SAME.
    let writeSameBlockCountMax: UInt64
    /// The most blocks of an UNMAP.
    let unmapBlockCountMax: UInt64
    /// The most ranges of an UNMAP; as many as its parameters can hold.
    let unmapRangeCountMax: Int
    /// The most blocks of WRITE ATOMIC; 0 without.
    let atomicBlockCountMax: UInt64
    /// The most blocks of a copied segment.
    let copyBlockCountMax: UInt64
    /// Whether changes are refused by the volume itself.
    let isReadOnly: Bool

    init(_ description: LogicalUnitDescription) {
        let block = description.blockByteCount
        precondition(block == 512 || block == 4096, "a logical block has 512 or 4096 bytes")
        precondition(description.byteCount >= UInt64(block), "a volume has at least one block")
        precondition(description.byteCount % UInt64(block) == 0, "a volume has whole blocks")
        let limits = description.limits
        blockByteCount = block
        blockShift = UInt64(block.trailingZeroBitCount)
        let shift = blockShift
        blockCount = description.byteCount >> shift
        transferBlockCountMax = UInt64(limits.transferByteCountMax) >> shift
        compareBlockCountMax = min(UInt64(limits.compareByteCountMax) >> shift, 255)
        writeSameBlockCountMax = limits.writeSameByteCountMax >> shift
        unmapBlockCountMax = limits.unmapByteCountMax >> shift
        unmapRangeCountMax = min(
            Int(limits.unmapRangeCountMax),
            (LogicalUnit.parameterByteCountMax - 8) / 16
        )
        atomicBlockCountMax = min(
            UInt64(limits.atomicByteCountMax) >> shift,
            transferBlockCountMax
        )
        copyBlockCountMax = min(UInt64(limits.copyByteCountMax) >> shift, 0xFFFF)
        isReadOnly = description.isReadOnly
    }

    /// Whether `count` blocks from `address` on are in the volume.
    @inline(__always)
    func contains(_ address: UInt64, _ count: UInt64) -> Bool {
        address <= blockCount && count <= blockCount - address
    }
}
