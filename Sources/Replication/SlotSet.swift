// Sets of a primary's slots.

/// Some of the slots.
struct SlotSet: BitwiseCopyable, Equatable {
    private var bits: UInt8 = 0

    /// All slots there may be: one for each replica, and one for a replica that takes another's
    /// place.
    static var all: SlotSet { SlotSet(bits: .max) }

    init() {}

    private init(bits: UInt8) { self.bits = bits }

    /// The slots below a number.
    init(below count: Int) { bits = UInt8(truncatingIfNeeded: 1 << count - 1) }

    var isEmpty: Bool { bits == 0 }
    var count: Int { bits.nonzeroBitCount }

    func contains(_ slot: Int) -> Bool { bits & 1 << UInt8(slot) != 0 }

    mutating func insert(_ slot: Int) { bits |= 1 << UInt8(slot) }

    mutating func remove(_ slot: Int) { bits &= ~(1 << UInt8(slot)) }

    func union(_ other: SlotSet) -> SlotSet { SlotSet(bits: bits | other.bits) }

    func intersection(_ other: SlotSet) -> SlotSet { SlotSet(bits: bits & other.bits) }

    func subtracting(_ other: SlotSet) -> SlotSet { SlotSet(bits: bits & ~other.bits) }
}
