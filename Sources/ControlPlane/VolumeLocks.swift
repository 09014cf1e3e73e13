// One operation at a time per volume, first come, first served.

import ControlAPI

/// Locks by volume name.
actor VolumeLocks {
    /// Operations that may wait for one volume.
    static let waiterCountMax = 64

    private var waiters: [String: [CheckedContinuation<Void, Never>]] = [:]

    /// Runs `body` while nobody else runs one under the same name.
    ///
    /// `body` is not interrupted when the client goes away: an operation that has begun ends.
    nonisolated func withLock<Value: Sendable>(
        _ name: String,
        _ body: @escaping @Sendable () async throws(ControlError) -> Value
    ) async throws(ControlError) -> Value {
        try await acquire(name)
        // Unstructured: the cancellation of a request must not cut an operation in two.
        let task = Task { () -> Result<Value, ControlError> in
            do throws(ControlError) {
                return .success(try await body())
            } catch {
                return .failure(error)
            }
        }
        let result = await task.value
        await release(name)
        return try result.get()
    }

    private func acquire(_ name: String) async throws(ControlError) {
        guard let queue = waiters[name] else {
            waiters[name] = []
            return
        }
        guard queue.count < Self.waiterCountMax else {
            throw ControlError(
                .busy,
                "\(Self.waiterCountMax) operations wait for the volume '\(name)'.",
                help: "Try again when they have ended."
            )
        }
        await withCheckedContinuation { continuation in
            waiters[name]?.append(continuation)
        }
    }

    private func release(_ name: String) {
        guard var queue = waiters[name], !queue.isEmpty else {
            waiters[name] = nil
            return
        }
        let next = queue.removeFirst()
        waiters[name] = queue
        next.resume()
    }
}
