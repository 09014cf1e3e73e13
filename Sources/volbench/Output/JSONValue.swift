/// A JSON document, its fields in the order they were given.
package indirect enum JSONValue: Sendable {
    case string(String)
    case integer(UInt64)
    /// A number and its decimals.
    case number(Double, Int)
    case boolean(Bool)
    case array([JSONValue])
    case object([(String, JSONValue)])

    /// A number of six decimals, as fio prints them.
    package static func number(_ value: Double) -> JSONValue { .number(value, 6) }

    /// The document in one line.
    package var text: String {
        switch self {
        case .array(let values): "[" + values.map(\.text).joined(separator: ", ") + "]"
        case .object(let fields):
            "{"
                + fields.map { "\(JSONValue.quoted($0.0)): \($0.1.text)" }
                .joined(separator: ", ") + "}"
        default: scalar
        }
    }

    /// The document over many lines, as fio lays it out.
    package func laidOut(indent: Int = 0) -> String {
        let inner = String(repeating: "  ", count: indent + 1)
        let outer = String(repeating: "  ", count: indent)
        switch self {
        case .array(let values) where !values.isEmpty:
            let lines = values.map { inner + $0.laidOut(indent: indent + 1) }
            return "[\n" + lines.joined(separator: ",\n") + "\n\(outer)]"
        case .object(let fields) where !fields.isEmpty:
            let lines = fields.map { name, value in
                inner + JSONValue.quoted(name) + " : " + value.laidOut(indent: indent + 1)
            }
            return "{\n" + lines.joined(separator: ",\n") + "\n\(outer)}"
        default: return text
        }
    }

    private var scalar: String {
        switch self {
        case .string(let text): JSONValue.quoted(text)
        case .integer(let value): "\(value)"
        case .number(let value, let decimals): fixed(value, decimals)
        case .boolean(let value): "\(value)"
        case .array, .object: ""
        }
    }

    /// Text in quotes.
    ///
    /// Spec: RFC 8259, section 7.
    private static func quoted(_ text: String) -> String {
        var result = "\""
        for scalar in text.unicodeScalars {
            switch scalar {
            case "\"": result += "\\\""
            case "\\": result += "\\\\"
            case "\n": result += "\\n"
            case "\t": result += "\\t"
            case _ where scalar.value < 0x20:
                let digits = String(scalar.value, radix: 16)
                result += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
            default: result.unicodeScalars.append(scalar)
            }
        }
        return result + "\""
    }
}

/// `value` with `digitCount` decimals, without a formatting library.
package func fixed(_ value: Double, _ digitCount: Int) -> String {
    guard value.isFinite, value.magnitude < 1e12 else { return "0" }
    var scale = 1.0
    for _ in 0..<digitCount { scale *= 10 }
    let scaled = UInt64((value.magnitude * scale).rounded())
    let whole = scaled / UInt64(scale)
    let sign = value < 0 && scaled > 0 ? "-" : ""
    guard digitCount > 0 else { return "\(sign)\(whole)" }
    let digits = String(scaled % UInt64(scale))
    return "\(sign)\(whole)." + String(repeating: "0", count: digitCount - digits.count) + digits
}

/// `value` rounded, with commas between thousands.
package func grouped(_ value: Double) -> String {
    let digits = fixed(value, 0)
    var result = ""
    for (index, digit) in digits.enumerated() {
        if index > 0, (digits.count - index) % 3 == 0 { result += "," }
        result.append(digit)
    }
    return result
}
