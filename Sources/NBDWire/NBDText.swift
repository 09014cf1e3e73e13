// Strings on the wire: UTF-8, no NUL byte, at most 4096 bytes.
//
// Spec: NetworkBlockDevice/nbd doc/proto.md, "Conventions".

public import BlockCore

/// The rules for strings, in both directions.
public enum NBDText {
    /// Whether `text` may be sent as a name or description.
    @inlinable
    public static func isAllowed(_ text: String) -> Bool {
        let bytes = text.utf8
        return bytes.count <= NBDLimits.stringByteCountMax && !bytes.contains(0)
    }

    /// Decodes the whole of `bytes`.
    ///
    /// - Throws: `tooBig` above ``NBDLimits/stringByteCountMax``, `badString` for NUL bytes and
    ///   for what is not UTF-8.
    public static func decode(_ bytes: ByteRegion) throws(NBDWireError) -> String {
        guard bytes.byteCount <= NBDLimits.stringByteCountMax else { throw .tooBig }
        let array = bytes.array()
        guard !array.contains(0), let text = String(validating: array, as: UTF8.self) else {
            throw .badString
        }
        return text
    }
}

extension ByteRegion {
    /// Copies the UTF-8 of `text` to `position`; a literal costs no allocation.
    ///
    /// - Returns: The bytes used.
    @inlinable
    @discardableResult
    package func copy(utf8 text: String, at position: Int) -> Int {
        var end = position
        for byte in text.utf8 {
            store(byte, at: end)
            end += 1
        }
        return end - position
    }
}
