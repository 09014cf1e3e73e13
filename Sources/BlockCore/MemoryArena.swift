internal import CLinux

/// A page-aligned span of memory, mapped once, from which regions are cut until it is full.
///
/// Capacity is decided at start; nothing is given back before the arena itself goes. The owner
/// keeps the arena alive for as long as any machine, ring or region uses its memory.
public final class MemoryArena: @unchecked Sendable {
    // SAFETY (Sendable): `allocate` is called by the owner while it sets up, before it shares
    // anything; afterwards the arena is immutable.

    /// All of the arena's memory, for registration with the kernel.
    public let region: ByteRegion
    private var usedByteCount = 0

    /// Maps `byteCount` bytes of zeroed memory.
    ///
    /// - Parameters:
    ///   - byteCount: Bytes wanted; rounded up to whole pages.
    ///   - usesHugePages: Whether 2 MiB come into memory where one byte is touched: right for what
    ///     is used all over, wrong for what is sparse. Without, pages never touched cost nothing.
    /// - Precondition: the kernel grants the memory; start-up cannot go on without it, and asks
    ///   ``canMap(byteCount:)`` first.
    public init(byteCount: Int, usesHugePages: Bool = true) {
        let rounded = Self.wholePages(byteCount)
        let mapped = unsafe usesHugePages ? cbl_map_anonymous(rounded) : cbl_map_sparse(rounded)
        guard let base = unsafe mapped else {
            preconditionFailure("the kernel refused the memory asked for at start-up")
        }
        // SAFETY: freshly mapped; unmapped only in deinit.
        unsafe region = ByteRegion(base: base, byteCount: rounded)
    }

    /// Maps `byteCount` bytes of zeroed memory in ordinary pages, if the kernel grants them.
    ///
    /// For what can be done without when the process may not have more.
    public init?(sparseByteCountIfGranted byteCount: Int) {
        let rounded = Self.wholePages(byteCount)
        guard let base = unsafe cbl_map_sparse(rounded) else { return nil }
        // SAFETY: freshly mapped; unmapped only in deinit.
        unsafe region = ByteRegion(base: base, byteCount: rounded)
    }

    /// Whether the kernel would grant `byteCount` bytes now: a limit of address space, or of what
    /// all processes together may be promised, can be in the way.
    public static func canMap(byteCount: Int) -> Bool {
        MemoryArena(sparseByteCountIfGranted: byteCount) != nil
    }

    private static func wholePages(_ byteCount: Int) -> Int { (max(byteCount, 1) + 4095) & ~4095 }

    /// Memory for the length of a call; for cold paths.
    ///
    /// - Parameters:
    ///   - byteCount: Bytes wanted.
    ///   - body: What is done with them; the region must not outlive it.
    /// - Returns: What `body` returns.
    /// - Throws: What `body` throws.
    public static func withTemporary<Result, Failure: Error>(
        byteCount: Int,
        _ body: (ByteRegion) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        let arena = MemoryArena(byteCount: byteCount, usesHugePages: false)
        defer { withExtendedLifetime(arena) {} }
        return try body(arena.region.slice(0, byteCount))
    }

    deinit { unsafe cbl_unmap(region.address, region.byteCount) }

    /// Cuts the next `byteCount` bytes, aligned to `alignment`.
    ///
    /// - Precondition: the arena has room; capacity is decided at start.
    public func allocate(byteCount: Int, alignment: Int = 4096) -> ByteRegion {
        precondition(alignment > 0 && alignment & (alignment - 1) == 0, "alignment: power of two")
        let offset = (usedByteCount + alignment - 1) & ~(alignment - 1)
        precondition(byteCount <= region.byteCount - offset, "arena exhausted: raise its limit")
        usedByteCount = offset + byteCount
        return region.slice(offset, byteCount)
    }
}
