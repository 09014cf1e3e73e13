internal import CLinux

/// What the processors that this runs on fetch at a time.
private let cacheLineByteCount = 64

/// An array whose length is decided at start and whose elements live outside Swift's arrays.
///
/// Elements change in place through a shared reference, so a `let` of a final class costs no
/// exclusivity check and no retain. One thread owns it.
///
/// It begins at a cache line's start; a large one lies in huge pages (``MemoryArena``).
@safe
public struct FixedArray<Element: BitwiseCopyable>: ~Copyable {
    @usableFromInline let base: UnsafeMutablePointer<Element>
    /// Bytes mapped for it alone; 0 when they came from the heap.
    private let mappedByteCount: Int

    /// The number of elements.
    public let count: Int

    /// Creates `count` elements, all equal to `element`.
    public init(repeating element: Element, count: Int) {
        precondition(count >= 0, "negative count")
        let byteCount = MemoryLayout<Element>.stride * max(count, 1)
        // SAFETY: allocated and initialized here for `count` elements, freed in deinit only; every
        // access checks its index.
        let memory: UnsafeMutableRawPointer
        if byteCount >= cbl_huge_page_byte_count {
            guard let mapped = unsafe cbl_map_anonymous(byteCount) else {
                preconditionFailure("the kernel refused the memory asked for at start-up")
            }
            unsafe memory = unsafe mapped
            mappedByteCount = byteCount
        } else {
            unsafe memory = .allocate(byteCount: byteCount, alignment: cacheLineByteCount)
            mappedByteCount = 0
        }
        unsafe base = memory.initializeMemory(as: Element.self, repeating: element, count: count)
        self.count = count
    }

    deinit {
        // SAFETY: the array is the only owner of `base`; elements are trivial.
        if mappedByteCount > 0 {
            unsafe cbl_unmap(base, mappedByteCount)
        } else {
            unsafe UnsafeMutableRawPointer(base).deallocate()
        }
    }

    /// The element at `index`.
    ///
    /// - Precondition: `0 ..< count` contains `index`.
    @inlinable
    public subscript(index: Int) -> Element {
        @inline(always)
        get {
            precondition(index >= 0 && index < count, "index out of range")
            return unsafe base[index]
        }
        @inline(always)
        nonmutating _modify {
            precondition(index >= 0 && index < count, "index out of range")
            yield unsafe &base[index]
        }
    }
}

/// A first-in, first-out queue of fixed capacity.
///
/// One thread owns it. Appending to a full ring traps: callers check ``isFull`` where fullness
/// is an expected outcome, and size it so that it is not one elsewhere.
@safe
public final class FixedRing<Element: BitwiseCopyable> {
    @usableFromInline let base: UnsafeMutablePointer<Element>
    @usableFromInline let mask: Int
    // Head and tail live beside the elements, so that no access pays an exclusivity check.
    @usableFromInline let cursors: UnsafeMutablePointer<(head: Int, tail: Int)>

    /// The number of elements it holds at most; a power of two.
    public let capacity: Int

    /// Creates an empty ring for at least `capacityMin` elements.
    public init(capacityMin: Int) {
        precondition(capacityMin > 0, "a ring needs room")
        var capacity = 1
        while capacity < capacityMin { capacity *= 2 }
        self.capacity = capacity
        mask = capacity - 1
        // SAFETY: both are allocated here and freed in deinit only; positions are masked with the
        // capacity, and a slot is read only between head and tail, where it was written.
        unsafe base = UnsafeMutablePointer<Element>.allocate(capacity: capacity)
        unsafe cursors = .allocate(capacity: 1)
        unsafe cursors.initialize(to: (head: 0, tail: 0))
    }

    // SAFETY: the ring is the only owner of both; elements are trivial.
    deinit {
        unsafe base.deallocate()
        unsafe cursors.deallocate()
    }

    @inlinable
    @inline(always)
    var head: Int {
        // SAFETY: initialised in init, freed in deinit.
        get { unsafe cursors.pointee.head }
        set { unsafe cursors.pointee.head = newValue }
    }

    @inlinable
    @inline(always)
    var tail: Int {
        // SAFETY: initialised in init, freed in deinit.
        get { unsafe cursors.pointee.tail }
        set { unsafe cursors.pointee.tail = newValue }
    }

    /// The number of elements queued.
    @inlinable
    public var count: Int { tail &- head }

    /// Whether nothing is queued.
    @inlinable
    public var isEmpty: Bool { tail == head }

    /// Whether an append would trap.
    @inlinable
    public var isFull: Bool { tail &- head == capacity }

    /// The number of elements that can still be appended.
    @inlinable
    public var roomCount: Int { capacity &- (tail &- head) }

    /// Queues `element` last.
    ///
    /// - Precondition: the ring is not full.
    @inlinable
    public func append(_ element: Element) {
        precondition(tail &- head < capacity, "ring overflow")
        // SAFETY: the index is masked into the allocation.
        unsafe (base + (tail & mask)).initialize(to: element)
        tail &+= 1
    }

    /// Takes the first element, or nil when nothing is queued.
    @inlinable
    public func popFirst() -> Element? {
        guard head != tail else { return nil }
        // SAFETY: the index is masked into the allocation and was initialised by `append`.
        let element = unsafe base[head & mask]
        head &+= 1
        return element
    }

    /// The first element, left in place.
    @inlinable
    public var first: Element? {
        // SAFETY: the index is masked into the allocation and was initialised by `append`.
        head == tail ? nil : unsafe base[head & mask]
    }
}
