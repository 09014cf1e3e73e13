// Lists threaded through the slots of a table: joining and leaving take one step, and the memory
// is there from the start.

internal import BlockCore

/// The ends of one list.
struct SlotList: BitwiseCopyable {
    /// The slot that joined first, or -1.
    var first: Int32 = -1
    /// The slot that joined last, or -1.
    var last: Int32 = -1

    var isEmpty: Bool { first < 0 }
}

/// The links between slots; each slot is in one list at most.
struct SlotLinks: ~Copyable {
    // Not private: debug builds of Swift 6.3 break on it (Docs/WORKAROUNDS.md).
    struct Link: BitwiseCopyable {
        var next: Int32 = -1
        var previous: Int32 = -1
        var isListed = false
    }

    private let links: FixedArray<Link>

    init(count: Int) { links = FixedArray(repeating: Link(), count: count) }

    /// Whether a slot is in a list.
    @inline(always)
    func isListed(_ slot: Int) -> Bool { links[slot].isListed }

    /// The slot behind `slot`, or -1.
    @inline(always)
    func next(_ slot: Int) -> Int32 { links[slot].next }

    /// Puts a slot at the end of a list.
    func append(_ slot: Int, to list: inout SlotList) {
        precondition(!links[slot].isListed, "already in a list")
        links[slot] = Link(next: -1, previous: list.last, isListed: true)
        if list.last >= 0 {
            links[Int(list.last)].next = Int32(slot)
        } else {
            list.first = Int32(slot)
        }
        list.last = Int32(slot)
    }

    /// Takes a slot out of the list it is in.
    func remove(_ slot: Int, from list: inout SlotList) {
        let link = links[slot]
        precondition(link.isListed, "not in a list")
        if link.previous >= 0 {
            links[Int(link.previous)].next = link.next
        } else {
            list.first = link.next
        }
        if link.next >= 0 {
            links[Int(link.next)].previous = link.previous
        } else {
            list.last = link.previous
        }
        links[slot] = Link()
    }
}
