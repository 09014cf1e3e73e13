// A limit in time on something that ends early when it is told to.

/// Runs `body`, and gives it up when it has not ended in time.
///
/// - Parameters:
///   - milliseconds: How long it has.
///   - body: Ends soon after its task was cancelled; the caller waits for that.
/// - Returns: What it gave, or nil when its time was over.
package func withTimeLimit<Value: Sendable>(
    milliseconds: Int64,
    _ body: @escaping @Sendable () async -> Value
) async -> Value? {
    await withTaskGroup(of: Value?.self) { group in
        group.addTask { await body() }
        group.addTask {
            try? await Task.sleep(for: .milliseconds(milliseconds))
            return nil
        }
        defer { group.cancelAll() }
        return await group.next() ?? nil
    }
}
