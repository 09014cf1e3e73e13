// Docs/openapi.yaml as far as the tests need it: paths, methods, statuses. Read line by line; the
// file keeps to two spaces per level, and the reader fails on anything else under `paths`.

import Foundation

/// The operations of the file.
struct OpenAPIFile {
    struct Unreadable: Error {
        var line: Int
        var text: String
    }

    /// Documented statuses by `METHOD /path/{parameter}`.
    private(set) var statuses: [String: Set<Int>] = [:]
    /// The codes that a problem document may have.
    private(set) var problemCodes: Set<String> = []
    /// The pattern of each field of a schema that has one in single quotes; names are told apart
    /// by nothing else.
    private(set) var patterns: [String: String] = [:]

    static var location: URL {
        URL(filePath: #filePath).deletingLastPathComponent().appending(
            path: "../../Docs/openapi.yaml"
        )
    }

    init(_ url: URL = Self.location) throws {
        let text = try String(contentsOf: url, encoding: .utf8)
        var isInPaths = false
        var path = ""
        var method = ""
        var isInResponses = false
        for (index, line) in text.split(separator: "\n", omittingEmptySubsequences: false)
            .enumerated()
        {
            let content = line.drop { $0 == " " }
            let depth = line.count - content.count
            if content.isEmpty || content.hasPrefix("#") { continue }
            if depth == 0 { isInPaths = content == "paths:" }
            guard isInPaths, depth > 0 else {
                if content.hasPrefix("enum: [invalid_argument") {
                    problemCodes = Self.list(content)
                }
                if let match = content.firstMatch(of: /^([a-z_]+): .*pattern: '([^']*)'/) {
                    patterns[String(match.1)] = String(match.2)
                }
                continue
            }
            guard depth.isMultiple(of: 2) else {
                throw Unreadable(line: index + 1, text: String(line))
            }
            switch depth {
            case 2: path = String(content.dropLast())
            case 4:
                method = content.dropLast().uppercased()
                isInResponses = false
            case 6: isInResponses = content == "responses:"
            case 8 where isInResponses:
                guard content.hasPrefix("\""), let status = Int(content.dropFirst().prefix(3))
                else { throw Unreadable(line: index + 1, text: String(line)) }
                statuses["\(method) \(path)", default: []].insert(status)
            default: break
            }
        }
    }

    private static func list(_ content: Substring) -> Set<String> {
        guard let start = content.firstIndex(of: "["), let end = content.lastIndex(of: "]") else {
            return []
        }
        let items = content[content.index(after: start)..<end].split(separator: ",")
        return Set(items.map { $0.trimmingCharacters(in: .whitespaces) })
    }
}
