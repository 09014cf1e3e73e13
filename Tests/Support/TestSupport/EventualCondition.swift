// The one way in which tests wait for something that nobody tells them about.

/// Waits until a condition holds, and says whether it came to hold.
///
/// The limit is no measure of anything: it is there so that what never comes ends the test rather
/// than hanging it, and long enough for a machine that is busy with other things.
///
/// - Parameters:
///   - limit: How long to wait at most.
///   - condition: Asked at once, then every millisecond; it may do what brings the condition about.
/// - Returns: Whether the condition held before the limit.
/// - Throws: What the condition throws, and a cancellation.
public func isEventually(
    within limit: Duration = .seconds(60),
    _ condition: () async throws -> Bool
) async throws -> Bool {
    let end = ContinuousClock.now + limit
    while true {
        if try await condition() { return true }
        guard ContinuousClock.now < end else { return false }
        try await Task.sleep(for: .milliseconds(1))
    }
}
