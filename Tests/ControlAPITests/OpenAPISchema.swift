// The part of OpenAPI 3.0's schema objects that Docs/openapi.yaml uses.

import Foundation

/// A schema object (OpenAPI Specification 3.0.3, section 4.7.24).
final class OpenAPISchema: Decodable, Sendable {
    let reference: String?
    let type: String?
    let nullable: Bool?
    /// The values that are allowed, as text.
    let values: [String?]?
    let allOf: [OpenAPISchema]?
    let properties: [String: OpenAPISchema]?
    let required: [String]?
    let items: OpenAPISchema?
    let pattern: String?
    let minimum: Int64?
    let maximum: Int64?
    let multipleOf: Int64?
    let minLength: Int?
    let maxLength: Int?
    let maxItems: Int?

    enum CodingKeys: String, CodingKey {
        case reference = "$ref"
        case values = "enum"
        case type, nullable, allOf, properties, required, items, pattern, minimum, maximum
        case multipleOf, minLength, maxLength, maxItems
    }

    /// What about a value itself, without its parts, is not as the schema says.
    func problems(_ value: JSONValue) -> [String] {
        var problems: [String] = []
        if let type, value.type != type, !(type == "number" && value.type == "integer") {
            problems.append("is \(value.type), not \(type)")
        }
        if let values, !values.contains(value.text) {
            problems.append("\(value) is none of the values")
        }
        switch value {
        case .string(let text):
            let count = text.unicodeScalars.count
            if count < minLength ?? 0 || count > maxLength ?? .max {
                problems.append("has \(count) characters")
            }
            let matches = pattern.map { text.range(of: $0, options: .regularExpression) != nil }
            if matches == false { problems.append("'\(text)' does not match") }
        case .integer(let number):
            if number < minimum ?? .min || number > maximum ?? .max {
                problems.append("\(number) is outside its limits")
            }
            if let multipleOf, !number.isMultiple(of: multipleOf) {
                problems.append("\(number) is no multiple of \(multipleOf)")
            }
        case .array(let items):
            if items.count > maxItems ?? .max { problems.append("has \(items.count) items") }
        case .object(let fields):
            let missing = (required ?? []).filter { fields[$0] == nil }
            if !missing.isEmpty { problems.append("lacks \(missing)") }
        case .null, .bool, .number: break
        }
        return problems
    }
}

/// A JSON document.
enum JSONValue: Decodable, Sendable, Equatable {
    case null
    case bool(Bool)
    case integer(Int64)
    case number(Double)
    case string(String)
    case array([JSONValue])
    case object([String: JSONValue])

    init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        if container.decodeNil() {
            self = .null
        } else if let value = try? container.decode(Bool.self) {
            self = .bool(value)
        } else if let value = try? container.decode(Int64.self) {
            self = .integer(value)
        } else if let value = try? container.decode(Double.self) {
            self = .number(value)
        } else if let value = try? container.decode(String.self) {
            self = .string(value)
        } else if let value = try? container.decode([JSONValue].self) {
            self = .array(value)
        } else {
            self = .object(try container.decode([String: JSONValue].self))
        }
    }

    /// Its type's name in a schema.
    var type: String {
        switch self {
        case .null: "null"
        case .bool: "boolean"
        case .integer: "integer"
        case .number: "number"
        case .string: "string"
        case .array: "array"
        case .object: "object"
        }
    }

    /// A value that may stand in an `enum`, as text; nil for null.
    var text: String? {
        switch self {
        case .bool(let value): String(value)
        case .integer(let value): String(value)
        case .number(let value): String(value)
        case .string(let value): value
        case .null, .array, .object: nil
        }
    }
}
