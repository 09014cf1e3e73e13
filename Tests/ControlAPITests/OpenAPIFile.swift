// Docs/openapi.yaml as far as the tests need it: operations, what they answer, and its schemas.

import Foundation
import Yams

/// The operations and schemas of the file.
struct OpenAPIFile: Sendable {
    /// Documented statuses by `METHOD /path/{parameter}`.
    let statuses: [String: Set<Int>]
    private let operations: [String: Operation]
    private let components: Components

    static var location: URL {
        URL(filePath: #filePath).deletingLastPathComponent().appending(
            path: "../../Docs/openapi.yaml"
        )
    }

    init(_ url: URL = Self.location) throws {
        let text = try String(contentsOf: url, encoding: .utf8)
        let document = try YAMLDecoder().decode(Document.self, from: text)
        var operations: [String: Operation] = [:]
        for (path, item) in document.paths {
            for (method, operation) in item.operations {
                operations["\(method) \(path)"] = operation
            }
        }
        self.operations = operations
        components = document.components
        statuses = operations.mapValues { Set($0.responses.keys.compactMap { Int($0) }) }
    }

    /// The codes that a problem document may have.
    var problemCodes: Set<String> {
        Set(components.schemas["Problem"]?.properties?["code"]?.values?.compactMap(\.self) ?? [])
    }

    /// The pattern of a field.
    func pattern(of field: String, in schema: String) -> String? {
        components.schemas[schema]?.properties?[field]?.pattern
    }

    /// Whether an answer is one that the file describes.
    ///
    /// - Parameters:
    ///   - body: The answer's body.
    ///   - mediaType: What it says it is.
    ///   - operation: What was asked, `METHOD /path/{parameter}`.
    ///   - status: The answer's status.
    /// - Returns: What is wrong with it; empty when nothing is.
    /// - Throws: `DecodingError` when it is no JSON.
    func problems(
        _ body: Data,
        _ mediaType: String,
        _ operation: String,
        _ status: Int
    ) throws -> [String] {
        guard let response = operations[operation]?.responses[String(status)] else {
            return ["\(operation) has no answer \(status)"]
        }
        let content = response.reference.map { components.responses[name($0)]?.content }
        guard let types = content ?? response.content else {
            return body.isEmpty ? [] : ["\(operation) answers \(status) without a body"]
        }
        guard let media = types[mediaType] else {
            return ["\(operation) does not answer \(mediaType)"]
        }
        // A stream of documents, which has no schema of its own.
        guard let schema = media.schema, mediaType.hasSuffix("json"), !mediaType.hasSuffix("ndjson")
        else { return [] }
        let value = try JSONDecoder().decode(JSONValue.self, from: body)
        return problems(value, schema, at: "\(operation) \(status)")
    }

    /// What about a value is not as a schema says.
    func problems(_ value: JSONValue, _ schema: OpenAPISchema, at place: String) -> [String] {
        if value == .null, schema.nullable == true { return [] }
        let named = schema.reference.flatMap { components.schemas[name($0)] }
        let others = (schema.allOf ?? []) + [named].compactMap(\.self)
        var problems = others.flatMap { self.problems(value, $0, at: place) }
        problems += schema.problems(value).map { "\(place): \($0)" }
        switch value {
        case .object(let fields):
            for (field, value) in fields {
                guard let schema = schema.properties?[field] else {
                    if others.isEmpty { problems.append("\(place).\(field) is not described") }
                    continue
                }
                problems += self.problems(value, schema, at: "\(place).\(field)")
            }
        case .array(let items):
            guard let schema = schema.items else { break }
            for (index, item) in items.enumerated() {
                problems += self.problems(item, schema, at: "\(place)[\(index)]")
            }
        case .null, .bool, .integer, .number, .string: break
        }
        return problems
    }

    /// The last part of `#/components/schemas/NAME`.
    private func name(_ reference: String) -> String {
        String(reference.split(separator: "/").last ?? "")
    }
}

private struct Document: Decodable {
    var paths: [String: PathItem]
    var components: Components
}

private struct PathItem: Decodable {
    var get, put, post, patch, delete: Operation?

    var operations: [(method: String, operation: Operation)] {
        [("GET", get), ("PUT", put), ("POST", post), ("PATCH", patch), ("DELETE", delete)]
            .compactMap { method, operation in operation.map { (method, $0) } }
    }
}

private struct Operation: Decodable, Sendable {
    var responses: [String: Response]
}

private struct Response: Decodable, Sendable {
    var reference: String?
    var content: [String: Media]?

    enum CodingKeys: String, CodingKey {
        case reference = "$ref"
        case content
    }
}

private struct Media: Decodable, Sendable {
    var schema: OpenAPISchema?
}

private struct Components: Decodable, Sendable {
    var schemas: [String: OpenAPISchema]
    var responses: [String: Response]
}
