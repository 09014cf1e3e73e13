// The order of a volume's changes on its node, kept against requests that arrive late.

internal import Synchronization

/// Lets the changes of each volume through one at a time, and none that is older than the last.
///
/// A client that gives a request up closes its connection, but the node may read it afterwards.
/// Every change carries the revision of the metadata that it carries out; repetitions of one
/// operation carry the same. What is remembered lives as long as the process, as do the
/// connections that something can arrive late on.
final class OperationGate: Sendable {
    /// Deleted volumes whose last operation is remembered.
    private static let deletedCountMax = 4096

    private struct State {
        var lastOperations: [UInt64: UInt64] = [:]
        var deleted: [UInt64] = []
    }

    private let locks = KeyedLocks<UInt64>()
    private let state = Mutex(State())

    /// Carries out a change of a volume.
    ///
    /// - Parameters:
    ///   - volume: The volume's id.
    ///   - operation: The revision that it belongs to; nil to ask for no order.
    ///   - body: The change.
    /// - Returns: What `body` returns.
    /// - Throws: ``ControlError/Code/outdated`` when a later operation came first; what `body`
    ///   throws.
    func change<Value: Sendable>(
        _ volume: UInt64,
        operation: UInt64?,
        _ body: @escaping @Sendable () async throws(ControlError) -> Value
    ) async throws(ControlError) -> Value {
        try await locks.withLock(volume) { [self] () throws(ControlError) in
            try admit(operation, on: volume)
            return try await body()
        }
    }

    private func admit(_ operation: UInt64?, on volume: UInt64) throws(ControlError) {
        guard let operation else { return }
        let last = state.withLock { state in
            let last = state.lastOperations[volume] ?? 0
            if operation > last { state.lastOperations[volume] = operation }
            return last
        }
        guard operation >= last else {
            throw ControlError(
                .outdated,
                "The operation \(operation) on the volume \(volume) came after operation \(last).",
                help: "Nothing is to be done: it was carried out or given up before."
            )
        }
    }

    /// Notes that a volume is gone, so that in the end it is forgotten.
    func forget(_ volume: UInt64) {
        state.withLock { state in
            state.deleted.append(volume)
            guard state.deleted.count > Self.deletedCountMax else { return }
            let oldest = state.deleted.removeFirst()
            state.lastOperations[oldest] = nil
        }
    }
}
