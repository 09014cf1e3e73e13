// Text of logins and text requests: `key=value`, each ended by a NUL.

public import BlockCore

/// Why a text cannot be read.
@frozen
public enum ISCSITextError: Error, Sendable, Hashable, BitwiseCopyable {
    /// A pair without `=`, without its NUL, or with an empty or too long key.
    case malformed
    /// Bytes that no value may have.
    case badCharacter
    /// More pairs than anybody needs.
    case tooMany
}

/// A key and its value.
public struct ISCSITextPair: Sendable, Hashable {
    /// The key.
    public var key: String
    /// The value, as it is.
    public var value: String

    /// Creates a pair.
    public init(_ key: String, _ value: String) {
        self.key = key
        self.value = value
    }
}

/// Reading and writing of text.
///
/// For logins and other rare things: it allocates. Spec: RFC 7143, 6.1.
public enum ISCSIText {
    /// Pairs in one text; the protocol has some thirty keys.
    public static var pairCountMax: Int { 128 }

    /// Reads all pairs of a text.
    ///
    /// Empty pairs between NULs are passed over: some initiators pad with them.
    ///
    /// - Parameter bytes: A whole text; borrowed for the call.
    /// - Returns: The pairs in their order; a key may occur twice.
    /// - Throws: ``ISCSITextError``; nothing of the text is to be used.
    public static func pairs(_ bytes: ByteRegion) throws(ISCSITextError) -> [ISCSITextPair] {
        try pairs(bytes.array())
    }

    /// Reads all pairs of a text.
    public static func pairs(_ all: [UInt8]) throws(ISCSITextError) -> [ISCSITextPair] {
        var result: [ISCSITextPair] = []
        var start = 0
        while start < all.count {
            guard let end = all[start...].firstIndex(of: 0) else { throw .malformed }
            defer { start = end + 1 }
            guard end > start else { continue }
            guard result.count < pairCountMax else { throw .tooMany }
            guard let equals = all[start..<end].firstIndex(of: UInt8(ascii: "=")),
                equals > start, equals - start <= ISCSILimits.keyByteCountMax
            else { throw .malformed }
            // All that standard keys need is printable ASCII and what UTF-8 names have.
            guard all[start..<end].allSatisfy({ $0 >= 0x20 && $0 != 0x7F }),
                let key = String(validating: all[start..<equals], as: UTF8.self),
                let value = String(validating: all[(equals + 1)..<end], as: UTF8.self)
            else { throw .badCharacter }
            result.append(ISCSITextPair(key, value))
        }
        return result
    }

    /// Writes pairs as a text.
    public static func bytes(_ pairs: [ISCSITextPair]) -> [UInt8] {
        var result: [UInt8] = []
        for pair in pairs {
            result += Array(pair.key.utf8)
            result.append(UInt8(ascii: "="))
            result += Array(pair.value.utf8)
            result.append(0)
        }
        return result
    }

    /// A number: decimal, or hexadecimal behind `0x`; nil for anything else.
    public static func number(_ text: String) -> UInt64? {
        let lower = text.lowercased()
        if lower.hasPrefix("0x") {
            let digits = lower.dropFirst(2)
            guard digits.allSatisfy(\.isHexDigit) else { return nil }
            return UInt64(digits, radix: 16)
        }
        guard !text.isEmpty, text.allSatisfy({ $0.isASCII && $0.isNumber }) else { return nil }
        return UInt64(text)
    }

    /// A binary value: hexadecimal behind `0x`, or base64 behind `0b`; nil for anything else.
    public static func binary(_ text: String) -> [UInt8]? {
        let lower = text.prefix(2).lowercased()
        let rest = Array(text.utf8.dropFirst(2))
        switch lower {
        case "0x": return hexadecimal(rest)
        case "0b": return base64(rest)
        default: return nil
        }
    }

    /// A binary value in hexadecimal.
    public static func hexText(_ bytes: [UInt8]) -> String {
        var text = "0x"
        for byte in bytes {
            text += String(byte >> 4, radix: 16) + String(byte & 0xF, radix: 16)
        }
        return text
    }

    private static func hexadecimal(_ digits: [UInt8]) -> [UInt8]? {
        guard !digits.isEmpty else { return nil }
        var result: [UInt8] = []
        // An odd count has a zero in front that was left out.
        var pending: UInt8? = digits.count % 2 == 1 ? 0 : nil
        for digit in digits {
            guard let value = Character(UnicodeScalar(digit)).hexDigitValue, digit < 0x80 else {
                return nil
            }
            if let high = pending {
                result.append(high << 4 | UInt8(value))
                pending = nil
            } else {
                pending = UInt8(value)
            }
        }
        return result
    }

    private static func base64(_ digits: [UInt8]) -> [UInt8]? {
        let body = digits.prefix { $0 != UInt8(ascii: "=") }
        guard digits.count % 4 == 0, digits.count - body.count <= 2, !digits.isEmpty,
            digits.dropFirst(body.count).allSatisfy({ $0 == UInt8(ascii: "=") })
        else { return nil }
        var result: [UInt8] = []
        var bits: UInt32 = 0
        var bitCount = 0
        for digit in body {
            guard let value = base64Value(digit) else { return nil }
            bits = bits << 6 | UInt32(value)
            bitCount += 6
            if bitCount >= 8 {
                bitCount -= 8
                result.append(UInt8(truncatingIfNeeded: bits >> UInt32(bitCount)))
            }
        }
        return result
    }

    private static func base64Value(_ digit: UInt8) -> UInt8? {
        switch digit {
        case UInt8(ascii: "A")...UInt8(ascii: "Z"): digit - UInt8(ascii: "A")
        case UInt8(ascii: "a")...UInt8(ascii: "z"): digit - UInt8(ascii: "a") + 26
        case UInt8(ascii: "0")...UInt8(ascii: "9"): digit - UInt8(ascii: "0") + 52
        case UInt8(ascii: "+"): 62
        case UInt8(ascii: "/"): 63
        default: nil
        }
    }
}

/// Names of iSCSI nodes.
///
/// Spec: RFC 7143, 4.2.7.
public enum ISCSIName {
    /// Whether it is a name that a node may have: `iqn.`, `eui.` or `naa.`, in its normal form.
    ///
    /// Looser than the specification in what `iqn.` is followed by: names in use break its rules,
    /// and here they only have to be safe to compare and to print.
    public static func isValid(_ name: String) -> Bool {
        let bytes = Array(name.utf8)
        guard bytes.count <= ISCSILimits.nameByteCountMax, bytes.count > 4 else { return false }
        guard bytes.allSatisfy({ $0 > 0x20 && $0 < 0x7F }) else { return false }
        let isHexadecimal = bytes.dropFirst(4).allSatisfy {
            Character(UnicodeScalar($0)).isHexDigit
        }
        switch name.prefix(4) {
        case "iqn.": return true
        case "eui.": return isHexadecimal && bytes.count == 20
        case "naa.": return isHexadecimal && (bytes.count == 20 || bytes.count == 36)
        default: return false
        }
    }
}
