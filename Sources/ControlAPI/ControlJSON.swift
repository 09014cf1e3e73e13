// How the documents of both APIs are written: snake_case keys, RFC 3339 times, sorted keys.

public import Foundation

/// The JSON dialect of both APIs.
///
/// Keys are snake_case, times RFC 3339 in UTC with whole seconds, byte counts plain integers.
/// Fields that a reader does not know are ignored, so that a newer peer can add some.
public enum ControlJSON {
    /// A new encoder of this dialect.
    public static func encoder(pretty: Bool = false) -> JSONEncoder {
        let encoder = JSONEncoder()
        encoder.keyEncodingStrategy = .convertToSnakeCase
        encoder.dateEncodingStrategy = .iso8601
        encoder.outputFormatting =
            pretty
            ? [.sortedKeys, .withoutEscapingSlashes, .prettyPrinted]
            : [.sortedKeys, .withoutEscapingSlashes]
        return encoder
    }

    /// A new decoder of this dialect.
    public static func decoder() -> JSONDecoder {
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        decoder.dateDecodingStrategy = .iso8601
        return decoder
    }

    /// Decodes a request body.
    ///
    /// - Throws: ``ControlError/Code/malformedRequest`` with the field at fault.
    public static func decodeRequest<Document: Decodable>(
        _ type: Document.Type,
        from data: Data
    ) throws(ControlError) -> Document {
        do {
            return try decoder().decode(type, from: data)
        } catch let error as DecodingError {
            throw ControlError(.malformedRequest, describe(error, of: data))
        } catch {
            throw ControlError(.malformedRequest, "The body is not a JSON document.")
        }
    }

    private static func describe(_ error: DecodingError, of data: Data) -> String {
        switch error {
        case .keyNotFound(let key, let context):
            return "The field '\(path(context.codingPath + [key]))' is missing."
        case .typeMismatch(let type, let context):
            return "The field '\(path(context.codingPath))' is not a \(name(of: type))."
        case .valueNotFound(let type, let context):
            return "The field '\(path(context.codingPath))' is null; a \(name(of: type)) is needed."
        case .dataCorrupted(let context):
            guard context.codingPath.isEmpty else {
                return "The field '\(path(context.codingPath))' has a value that is not allowed."
            }
            // Foundation calls a number that does not fit its field "not valid JSON".
            let isJSON = (try? JSONSerialization.jsonObject(with: data)) != nil
            return isJSON
                ? "A number in the body is negative, fractional or too large for its field."
                : "The body is not a JSON document."
        @unknown default:
            return "The body is not the JSON document that this route takes."
        }
    }

    private static func path(_ keys: [any CodingKey]) -> String {
        keys.isEmpty
            ? "(the document)" : keys.map { snakeCase($0.stringValue) }.joined(separator: ".")
    }

    /// `byteCount` as it is spelled on the wire: `byte_count`.
    private static func snakeCase(_ key: String) -> String {
        var result = ""
        for character in key {
            if character.isUppercase { result += "_" }
            result += character.lowercased()
        }
        return result
    }

    private static func name(of type: any Any.Type) -> String {
        switch type {
        case is String.Type: "string"
        case is Bool.Type: "boolean"
        case is any BinaryInteger.Type: "whole number in its range"
        case is any Sequence.Type: "list"
        default: "value of the right type"
        }
    }
}
