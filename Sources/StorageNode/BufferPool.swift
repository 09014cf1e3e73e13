// Request buffers: a buddy allocator over one arena that the kernel knows.

public import BlockCore

/// Hands out page-aligned buffers of 4 KiB to 2 MiB from one arena.
///
/// A binary buddy allocator that gives back the excess: a buffer of n pages costs n pages, not
/// the next power of two, because the stores ask for one block more than the payload. The two
/// sizes that requests use all day (one and two pages) are recycled through short stacks, so
/// that the steady state neither splits nor merges.
///
/// Invariants: a page is free in exactly one block, or cached, or handed out;
/// `freePageCount` counts the first two.
///
/// One thread owns it. Complexity of every call: O(log n), no allocation.
public final class BufferPool {
    /// The largest buffer, in bytes: a 1 MiB payload and the block that the stores add.
    public static var bufferByteCountMax: Int { 2 << 20 }

    private static var pageByteCount: Int { 4096 }
    /// Orders 0 (one page) to 9 (512 pages, 2 MiB).
    private static var orderCount: Int { 10 }
    /// Buffers of one and of two pages kept aside, each: 128 connections of depth 4.
    private static var cachedCountMax: Int { 512 }
    private static var none: Int32 { -1 }
    private static var notFree: UInt8 { 0xFF }

    private let region: ByteRegion
    private let pageCount: Int
    // Per page: the order of the free block that starts there, and its neighbours in its list.
    private let orders: FixedArray<UInt8>
    private let nexts: FixedArray<Int32>
    private let previouses: FixedArray<Int32>
    private let heads: FixedArray<Int32>
    private let cachedSingles: FixedArray<Int32>
    private let cachedPairs: FixedArray<Int32>
    private let state: FixedArray<State>

    private struct State: BitwiseCopyable {
        var freePageCount = 0
        var cachedSingleCount = 0
        var cachedPairCount = 0
        var failureCount: UInt64 = 0
        /// Bit k is set when the list of order k is not empty.
        var orderMask: UInt32 = 0
    }

    /// Creates a pool over `region`, which the caller keeps mapped as long as the pool lives.
    ///
    /// - Precondition: `region` is page-aligned and holds at least one page.
    public init(region: ByteRegion) {
        pageCount = region.byteCount / Self.pageByteCount
        precondition(pageCount > 0 && pageCount < Int(Int32.max), "a pool needs pages")
        self.region = region.slice(0, pageCount * Self.pageByteCount)
        orders = FixedArray(repeating: Self.notFree, count: pageCount)
        nexts = FixedArray(repeating: Self.none, count: pageCount)
        previouses = FixedArray(repeating: Self.none, count: pageCount)
        heads = FixedArray(repeating: Self.none, count: Self.orderCount)
        cachedSingles = FixedArray(repeating: 0, count: Self.cachedCountMax)
        cachedPairs = FixedArray(repeating: 0, count: Self.cachedCountMax)
        state = FixedArray(repeating: State(), count: 1)
        releasePages(from: 0, count: pageCount)
    }

    /// Bytes not handed out; a large buffer may still be refused when they are scattered.
    public var freeByteCount: Int { state[0].freePageCount * Self.pageByteCount }

    /// All bytes of the pool.
    public var byteCount: Int { region.byteCount }

    /// The number of buffers refused so far.
    public var failureCount: UInt64 { state[0].failureCount }

    /// Takes a buffer of at least `byteCount` bytes, or nil when none is free.
    ///
    /// - Precondition: `byteCount` is positive and at most ``bufferByteCountMax``.
    public func allocate(byteCount: Int) -> ByteRegion? {
        precondition(byteCount > 0, "an empty buffer")
        precondition(byteCount <= Self.bufferByteCountMax, "a buffer beyond the largest")
        let count = (byteCount + Self.pageByteCount - 1) / Self.pageByteCount
        if let page = takeCached(count) ?? takePages(count) { return buffer(page, count) }
        dropCaches()
        if let page = takePages(count) { return buffer(page, count) }
        state[0].failureCount &+= 1
        return nil
    }

    /// Gives back a buffer exactly as it was handed out.
    public func release(_ buffer: ByteRegion) {
        precondition(buffer.byteCount % Self.pageByteCount == 0, "part of a buffer")
        let page = pageIndex(of: buffer)
        let count = buffer.byteCount / Self.pageByteCount
        if putCached(page, count) { return }
        releasePages(from: page, count: count)
    }

    /// Which page of the pool a buffer begins with.
    func pageIndex(of buffer: ByteRegion) -> Int {
        // SAFETY: only the distance between two addresses is computed.
        let offset = unsafe buffer.address - region.address
        precondition(offset >= 0, "a buffer below its pool")
        precondition(buffer.byteCount <= region.byteCount - offset, "a buffer beyond its pool")
        precondition(offset % Self.pageByteCount == 0, "a buffer off its page")
        return offset / Self.pageByteCount
    }

    private func buffer(_ page: Int, _ count: Int) -> ByteRegion {
        region.slice(page * Self.pageByteCount, count * Self.pageByteCount)
    }

    // MARK: - The sizes of every day

    private func takeCached(_ count: Int) -> Int? {
        if count == 2, state[0].cachedPairCount > 0 {
            state[0].cachedPairCount -= 1
            state[0].freePageCount -= 2
            return Int(cachedPairs[state[0].cachedPairCount])
        }
        if count == 1, state[0].cachedSingleCount > 0 {
            state[0].cachedSingleCount -= 1
            state[0].freePageCount -= 1
            return Int(cachedSingles[state[0].cachedSingleCount])
        }
        return nil
    }

    private func putCached(_ page: Int, _ count: Int) -> Bool {
        if count == 2, state[0].cachedPairCount < Self.cachedCountMax {
            cachedPairs[state[0].cachedPairCount] = Int32(truncatingIfNeeded: page)
            state[0].cachedPairCount += 1
            state[0].freePageCount += 2
            return true
        }
        if count == 1, state[0].cachedSingleCount < Self.cachedCountMax {
            cachedSingles[state[0].cachedSingleCount] = Int32(truncatingIfNeeded: page)
            state[0].cachedSingleCount += 1
            state[0].freePageCount += 1
            return true
        }
        return false
    }

    /// Merges what was kept aside back into the lists, for a buffer that did not fit.
    private func dropCaches() {
        while let page = takeCached(1) { releasePages(from: page, count: 1) }
        while let page = takeCached(2) { releasePages(from: page, count: 2) }
    }

    // MARK: - Buddies

    private func takePages(_ count: Int) -> Int? {
        let order = Self.order(atLeast: count)
        let candidates = (state[0].orderMask >> UInt32(order)) << UInt32(order)
        guard candidates != 0 else { return nil }
        var found = candidates.trailingZeroBitCount
        let page = Int(heads[found])
        unlink(page, order: found)
        while found > order {
            found -= 1
            link(page + (1 << found), order: found)
        }
        state[0].freePageCount -= 1 << order
        let excess = (1 << order) - count
        if excess > 0 { releasePages(from: page + count, count: excess) }
        return page
    }

    /// Frees pages as the largest aligned blocks they make up.
    private func releasePages(from first: Int, count: Int) {
        var page = first
        let end = first + count
        while page < end {
            let alignment = page == 0 ? Self.orderCount - 1 : page.trailingZeroBitCount
            let fit = Int.bitWidth - 1 - (end - page).leadingZeroBitCount
            let order = min(alignment, fit, Self.orderCount - 1)
            releaseBlock(page, order: order)
            page += 1 << order
        }
        state[0].freePageCount += count
    }

    private func releaseBlock(_ first: Int, order firstOrder: Int) {
        var page = first
        var order = firstOrder
        precondition(orders[page] == Self.notFree, "a buffer released twice")
        while order < Self.orderCount - 1 {
            let buddy = page ^ (1 << order)
            guard buddy + (1 << order) <= pageCount, orders[buddy] == UInt8(order) else { break }
            unlink(buddy, order: order)
            page = min(page, buddy)
            order += 1
        }
        link(page, order: order)
    }

    private static func order(atLeast count: Int) -> Int {
        count <= 1 ? 0 : Int.bitWidth - (count - 1).leadingZeroBitCount
    }

    private func link(_ page: Int, order: Int) {
        let index = Int32(truncatingIfNeeded: page)
        let head = heads[order]
        orders[page] = UInt8(truncatingIfNeeded: order)
        nexts[page] = head
        previouses[page] = Self.none
        if head != Self.none { previouses[Int(head)] = index }
        heads[order] = index
        state[0].orderMask |= 1 << UInt32(order)
    }

    private func unlink(_ page: Int, order: Int) {
        let next = nexts[page]
        let previous = previouses[page]
        if next != Self.none { previouses[Int(next)] = previous }
        if previous != Self.none { nexts[Int(previous)] = next } else { heads[order] = next }
        orders[page] = Self.notFree
        if heads[order] == Self.none { state[0].orderMask &= ~(1 << UInt32(order)) }
    }
}
