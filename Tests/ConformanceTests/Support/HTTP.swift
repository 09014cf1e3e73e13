import Foundation
import Testing

/// HTTP with JSON bodies through curl: a client that is not ours.
enum HTTP {
    /// Sends a request that must succeed and returns the answer's object.
    static func json(
        _ method: String,
        _ url: URL,
        body: [String: Any]? = nil,
        sourceLocation: SourceLocation = #_sourceLocation
    ) async throws -> [String: Any] {
        var arguments = [
            "--silent", "--show-error", "--fail-with-body", "-X", method, url.absoluteString,
        ]
        if let body {
            let data = try JSONSerialization.data(withJSONObject: body)
            arguments += ["-H", "Content-Type: application/json"]
            arguments += ["--data-binary", String(decoding: data, as: UTF8.self)]
        }
        let curl = try #require(TestEnvironment.tool("curl"), "curl is not installed")
        let result = try await run(curl, arguments, within: 60)
        try #require(result.exitCode == 0, "\(result.report)", sourceLocation: sourceLocation)
        return result.json ?? [:]
    }
}
