// One operation at a time per volume, first come, first served.

/// Locks of volumes, by whatever names them.
package actor KeyedLocks<Key: Hashable & Sendable> {
    /// Operations that may wait for one volume.
    package static var waiterCountMax: Int { 64 }

    private var waiters: [Key: [CheckedContinuation<Void, Never>]] = [:]

    /// Creates locks that nobody holds.
    package init() {}

    /// Runs `body` while nobody else runs one under the same key.
    ///
    /// `body` is not interrupted when the client goes away: an operation that has begun ends.
    package nonisolated func withLock<Value: Sendable>(
        _ key: Key,
        _ body: @escaping @Sendable () async throws(ControlError) -> Value
    ) async throws(ControlError) -> Value {
        try await acquire(key)
        // Unstructured: the cancellation of a request must not cut an operation in two.
        let task = Task { () -> Result<Value, ControlError> in
            do throws(ControlError) {
                return .success(try await body())
            } catch {
                return .failure(error)
            }
        }
        let result = await task.value
        await release(key)
        return try result.get()
    }

    private func acquire(_ key: Key) async throws(ControlError) {
        guard let queue = waiters[key] else {
            waiters[key] = []
            return
        }
        guard queue.count < Self.waiterCountMax else {
            throw ControlError(
                .busy,
                "\(Self.waiterCountMax) operations wait for the volume '\(key)'.",
                help: "Try again when they have ended."
            )
        }
        await withCheckedContinuation { continuation in
            waiters[key]?.append(continuation)
        }
    }

    private func release(_ key: Key) {
        guard var queue = waiters[key], !queue.isEmpty else {
            waiters[key] = nil
            return
        }
        let next = queue.removeFirst()
        waiters[key] = queue
        next.resume()
    }
}
