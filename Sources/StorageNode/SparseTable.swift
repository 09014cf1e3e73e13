// A table for the worst case that costs what is used of it.

/// Elements at fixed addresses, which come into being one after the other as they are first taken.
///
/// The memory behind the last one has not been touched. One thread owns it; nothing allocates
/// after `init`.
@safe
struct SparseTable<Element: BitwiseCopyable>: ~Copyable {
    private let base: UnsafeMutablePointer<Element>
    // Beside the elements, so that it changes without exclusivity checks.
    private let used: UnsafeMutablePointer<Int>

    /// How many elements there can be.
    let capacity: Int

    init(capacity: Int) {
        precondition(capacity >= 0, "negative capacity")
        self.capacity = capacity
        // SAFETY: both are allocated here and freed in deinit only; an element is reached only
        // below the count of those that `append` has initialised.
        unsafe base = .allocate(capacity: max(capacity, 1))
        unsafe used = .allocate(capacity: 1)
        unsafe used.initialize(to: 0)
    }

    // SAFETY: the table is the only owner of both; elements are trivial.
    deinit {
        unsafe base.deallocate()
        unsafe used.deallocate()
    }

    /// The number of elements.
    var count: Int {
        // SAFETY: initialised in init, freed in deinit.
        unsafe used.pointee
    }

    /// Adds an element; its index.
    ///
    /// - Precondition: there are fewer than `capacity`.
    func append(_ element: Element) -> Int {
        let index = count
        precondition(index < capacity, "a table beyond its capacity")
        // SAFETY: checked to be within the allocation.
        unsafe (base + index).initialize(to: element)
        unsafe used.pointee = index + 1
        return index
    }

    subscript(index: Int) -> Element {
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
