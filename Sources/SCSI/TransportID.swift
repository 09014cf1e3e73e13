internal import BlockCore

/// The wire form of an initiator port in reservations.
///
/// | offset | size | field |
/// |---|---|---|
/// | 0 | 1 | format 01b in bits 7-6, protocol 5 (iSCSI) |
/// | 2 | 2 | bytes that follow, a multiple of 4, at least 20 |
/// | 4 | | name, `,i,0x`, the ISID in 12 hexadecimal digits, zero bytes |
///
/// Spec: SPC-4, section 7.6.4.6.
enum TransportID {
    private static var header: UInt8 { 0x45 }
    private static var separator: String { ",i,0x" }
    private static var isidDigitCount: Int { 12 }

    static func encode(_ port: InitiatorPort) -> [UInt8] {
        let digits = hexadecimal(port.isid, digitCount: isidDigitCount)
        var text = Array((port.name + separator + digits).utf8)
        repeat { text.append(0) } while text.count % 4 != 0 || text.count < 20
        return [header, 0, UInt8(text.count >> 8), UInt8(text.count & 0xFF)] + text
    }

    /// The port at the start of `bytes`, and its bytes there; nil for anything else.
    static func decode(_ bytes: ArraySlice<UInt8>) -> (port: InitiatorPort, byteCount: Int)? {
        let start = bytes.startIndex
        guard bytes.count >= 24, bytes[start] == header else { return nil }
        let count = Int(bytes[start + 2]) << 8 | Int(bytes[start + 3])
        guard count >= 20, count % 4 == 0, count <= bytes.count - 4 else { return nil }
        let field = bytes[(start + 4)..<(start + 4 + count)]
        guard let end = field.firstIndex(of: 0) else { return nil }
        let tail = separator.utf8.count + isidDigitCount
        let text = field[..<end]
        guard text.count > tail, text.count - tail <= InitiatorPort.nameByteCountMax else {
            return nil
        }
        let name = text.dropLast(tail)
        let rest = text.suffix(tail)
        guard name.allSatisfy({ $0 > 0x20 && $0 < 0x7F }),
            rest.starts(with: separator.utf8),
            let isid = number(rest.suffix(isidDigitCount))
        else { return nil }
        let port = InitiatorPort(name: String(decoding: name, as: UTF8.self), isid: isid)
        return (port, 4 + count)
    }

    private static func number(_ digits: ArraySlice<UInt8>) -> UInt64? {
        var value: UInt64 = 0
        for digit in digits {
            guard let nibble = Character(UnicodeScalar(digit)).hexDigitValue else { return nil }
            value = value << 4 | UInt64(nibble)
        }
        return value
    }
}

/// `value` in lower-case hexadecimal digits, filled up with zeroes.
func hexadecimal(_ value: UInt64, digitCount: Int) -> String {
    let digits = String(value, radix: 16)
    return String(repeating: "0", count: max(digitCount - digits.count, 0)) + digits
}
