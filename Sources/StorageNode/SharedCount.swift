internal import Synchronization

/// A bounded count that all reactors share; touched per connection, never per request.
final class SharedCount: Sendable {
    private let count = Atomic<Int>(0)

    /// Counts one more, unless there are `limit` already.
    func add(limit: Int) -> Bool {
        let old = count.add(1, ordering: .relaxed).oldValue
        guard old >= limit else { return true }
        count.subtract(1, ordering: .relaxed)
        return false
    }

    /// Counts one less.
    func remove() { count.subtract(1, ordering: .relaxed) }

    /// The count now.
    var value: Int { count.load(ordering: .relaxed) }
}
