/// A first-in, first-out queue that grows to what was needed at some time, and then allocates
/// nothing more.
struct GrowingQueue<Element> {
    private var elements: [Element?] = Array(repeating: nil, count: 16)
    private var head = 0
    /// The number of elements queued.
    private(set) var count = 0

    /// Whether nothing is queued.
    var isEmpty: Bool { count == 0 }

    /// The first element, left in place.
    var first: Element? { count == 0 ? nil : elements[head] }

    /// Queues `element` last.
    mutating func append(_ element: Element) {
        if count == elements.count { grow() }
        elements[(head + count) & (elements.count - 1)] = element
        count += 1
    }

    /// Takes the first element, or nil when nothing is queued.
    mutating func popFirst() -> Element? {
        guard count > 0 else { return nil }
        let element = elements[head]
        elements[head] = nil
        head = (head + 1) & (elements.count - 1)
        count -= 1
        return element
    }

    private mutating func grow() {
        var larger: [Element?] = Array(repeating: nil, count: elements.count * 2)
        for index in 0..<count { larger[index] = elements[(head + index) & (elements.count - 1)] }
        elements = larger
        head = 0
    }
}
