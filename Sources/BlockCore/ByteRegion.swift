internal import CLinux

/// A bounds-checked view of memory that an arena owns.
///
/// The currency of the data path: requests, replies, device transfers and log batches all name
/// their bytes with one. Copying a region copies the view, never the bytes.
///
/// The invariant that makes it safe: regions are cut only from a ``MemoryArena`` (or from static
/// memory), and an arena outlives every machine, ring and region that uses it. Two owners never
/// write one region at a time: a region travels with its request.
@frozen
@safe
public struct ByteRegion: BitwiseCopyable, @unchecked Sendable {
    @usableFromInline let base: UnsafeMutableRawPointer?

    /// The number of bytes in view.
    public let byteCount: Int

    /// A view of `byteCount` bytes at `base`.
    ///
    /// SAFETY: the caller vouches that the memory outlives every copy of the region.
    @inlinable
    @unsafe
    public init(base: UnsafeMutableRawPointer?, byteCount: Int) {
        unsafe self.base = base
        self.byteCount = byteCount
    }

    /// A view of nothing.
    @inlinable
    public static var empty: ByteRegion { unsafe ByteRegion(base: nil, byteCount: 0) }

    /// Whether the region views no bytes.
    @inlinable
    public var isEmpty: Bool { byteCount == 0 }

    /// The address of the first byte, for the kernel and for C.
    @inlinable
    @unsafe
    public var address: UnsafeMutableRawPointer {
        guard let base = unsafe base else { preconditionFailure("address of an empty region") }
        return unsafe base
    }

    /// The `byteCount` bytes from `offset` on.
    ///
    /// - Precondition: `offset ... offset + byteCount` lies within the region.
    @inlinable
    public func slice(_ offset: Int, _ byteCount: Int) -> ByteRegion {
        precondition(offset >= 0 && byteCount >= 0, "negative slice")
        precondition(byteCount <= self.byteCount &- offset, "slice beyond the region")
        guard byteCount > 0 else { return .empty }
        // SAFETY: bounds checked above; same owner, same lifetime.
        return unsafe ByteRegion(base: address + offset, byteCount: byteCount)
    }

    /// The bytes from `offset` to the end.
    @inlinable
    public func suffix(from offset: Int) -> ByteRegion { slice(offset, byteCount &- offset) }

    // MARK: - Integers

    /// Loads a little-endian integer at `offset`, bounds-checked, without alignment needs.
    @inlinable
    @inline(always)
    public func load<T: FixedWidthInteger & BitwiseCopyable>(_ offset: Int, as type: T.Type) -> T {
        checkAccess(offset, MemoryLayout<T>.size)
        // SAFETY: bounds checked above; every bit pattern of a fixed-width integer is valid.
        return unsafe T(littleEndian: address.loadUnaligned(fromByteOffset: offset, as: T.self))
    }

    /// Stores `value` little-endian at `offset`, bounds-checked, without alignment needs.
    @inlinable
    @inline(always)
    public func store<T: FixedWidthInteger & BitwiseCopyable>(_ value: T, at offset: Int) {
        checkAccess(offset, MemoryLayout<T>.size)
        // SAFETY: bounds checked above; the region's holder is the only writer.
        unsafe address.storeBytes(of: value.littleEndian, toByteOffset: offset, as: T.self)
    }

    /// Loads a big-endian integer at `offset`, bounds-checked, without alignment needs.
    @inlinable
    @inline(always)
    public func loadBigEndian<T: FixedWidthInteger & BitwiseCopyable>(
        _ offset: Int,
        as type: T.Type
    ) -> T {
        checkAccess(offset, MemoryLayout<T>.size)
        // SAFETY: bounds checked above; every bit pattern of a fixed-width integer is valid.
        return unsafe T(bigEndian: address.loadUnaligned(fromByteOffset: offset, as: T.self))
    }

    /// Stores `value` big-endian at `offset`, bounds-checked, without alignment needs.
    @inlinable
    @inline(always)
    public func storeBigEndian<T: FixedWidthInteger & BitwiseCopyable>(_ value: T, at offset: Int) {
        checkAccess(offset, MemoryLayout<T>.size)
        // SAFETY: bounds checked above; the region's holder is the only writer.
        unsafe address.storeBytes(of: value.bigEndian, toByteOffset: offset, as: T.self)
    }

    // MARK: - Bytes

    /// Copies all of `source` to `offset`; the two may not overlap.
    @inlinable
    public func copy(from source: ByteRegion, at offset: Int = 0) {
        guard source.byteCount > 0 else { return }
        checkAccess(offset, source.byteCount)
        // SAFETY: both ranges are inside their regions; regions of two owners never overlap.
        unsafe (address + offset).copyMemory(from: source.address, byteCount: source.byteCount)
    }

    /// Copies the bytes of `source` to `offset`.
    @inlinable
    public func copy(from source: borrowing RawSpan, at offset: Int = 0) {
        guard source.byteCount > 0 else { return }
        checkAccess(offset, source.byteCount)
        let destination = unsafe address + offset
        // SAFETY: bounds checked above; the span is valid for the call.
        unsafe source.withUnsafeBytes { bytes in
            guard let first = bytes.baseAddress else { return }
            unsafe destination.copyMemory(from: first, byteCount: bytes.count)
        }
    }

    /// Copies an array's bytes to `offset`; for cold paths and tests.
    @inlinable
    public func copy(from source: [UInt8], at offset: Int = 0) {
        // SAFETY: the array is borrowed for the call.
        unsafe copy(from: source.span.bytes, at: offset)
    }

    /// The bytes as an array; for cold paths and tests.
    @inlinable
    public func array() -> [UInt8] {
        guard byteCount > 0 else { return [] }
        // SAFETY: the view covers exactly `byteCount` valid bytes.
        return unsafe Array(UnsafeRawBufferPointer(start: address, count: byteCount))
    }

    /// Sets every byte to zero.
    @inlinable
    public func zero() {
        guard byteCount > 0 else { return }
        // SAFETY: the view covers exactly `byteCount` writable bytes.
        unsafe address.initializeMemory(as: UInt8.self, repeating: 0, count: byteCount)
    }

    /// Whether the region and `other` hold the same bytes.
    @inlinable
    public func equals(_ other: ByteRegion) -> Bool {
        guard byteCount == other.byteCount else { return false }
        return byteCount == 0 || cblCompare(self, other) == 0
    }

    /// Whether every byte is zero.
    @inlinable
    public var isZero: Bool {
        guard byteCount > 0 else { return true }
        guard load(0, as: UInt8.self) == 0 else { return false }
        guard byteCount > 1 else { return true }
        return cblCompare(slice(0, byteCount - 1), slice(1, byteCount - 1)) == 0
    }

    /// CRC-32C (Castagnoli) of the bytes, continuing from `seed`.
    ///
    /// Spec: RFC 3720, appendix B.4. Source: ISA-L `crc32_iscsi`.
    @inlinable
    public func crc32c(seed: UInt32 = 0) -> UInt32 {
        guard byteCount > 0 else { return seed }
        return cblChecksum(self, seed: seed)
    }

    /// Calls `body` with the bytes as a span that cannot outlive the call.
    @inlinable
    public func withSpan<Result, Failure: Error>(
        _ body: (RawSpan) throws(Failure) -> Result
    ) throws(Failure) -> Result {
        guard byteCount > 0 else { return try body(RawSpan()) }
        // SAFETY: the view covers exactly `byteCount` valid bytes for the call.
        return try unsafe body(
            UnsafeRawBufferPointer(start: address, count: byteCount).bytes
        )
    }

    @inlinable
    @inline(always)
    func checkAccess(_ offset: Int, _ count: Int) {
        precondition(offset >= 0, "access before the region")
        precondition(count <= byteCount &- offset, "access beyond the region")
    }
}

// The C calls are not inlinable across modules: one call each, no Swift code around them.

@usableFromInline
@safe
func cblCompare(_ left: ByteRegion, _ right: ByteRegion) -> Int32 {
    // SAFETY: callers pass equal, non-zero counts.
    unsafe memcmp(left.address, right.address, left.byteCount)
}

@usableFromInline
@safe
func cblChecksum(_ region: ByteRegion, seed: UInt32) -> UInt32 {
    // SAFETY: the region is valid and not empty.
    unsafe cbl_crc32c(seed, region.address, region.byteCount)
}
