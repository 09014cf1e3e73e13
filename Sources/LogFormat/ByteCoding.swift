// Little-endian writing and reading for the cold parts of the format.

/// Bytes that do not decode.
public enum LogFormatError: Error, Sendable, Hashable {
    /// Fewer bytes than the structure needs.
    case truncated
    /// A field outside its range, or a magic that does not match.
    case malformed
    /// The checksum does not match.
    case badChecksum
    /// Written by a newer version of this format.
    case versionTooNew(UInt32)
    /// Written by a version of this format that is not read any more.
    case versionTooOld(UInt32)
}

/// Appends little-endian fields to an array.
public struct ByteWriter: Sendable {
    /// What was written so far.
    public private(set) var bytes: [UInt8] = []

    /// Creates an empty writer.
    public init() {}

    /// Appends an integer.
    public mutating func write<T: FixedWidthInteger>(_ value: T) {
        var rest = value
        for _ in 0..<(T.bitWidth / 8) {
            bytes.append(UInt8(truncatingIfNeeded: rest))
            rest = T.bitWidth > 8 ? rest >> 8 : 0
        }
    }

    /// Appends bytes behind their count (UInt32).
    public mutating func write(counted value: [UInt8]) {
        write(UInt32(value.count))
        bytes.append(contentsOf: value)
    }

    /// Appends bytes as they are.
    public mutating func write(raw value: [UInt8]) { bytes.append(contentsOf: value) }
}

/// Takes little-endian fields from an array, never beyond its end.
public struct ByteReader: Sendable {
    private let bytes: [UInt8]
    private var position = 0

    /// Creates a reader of `bytes`.
    public init(_ bytes: [UInt8]) { self.bytes = bytes }

    /// Bytes not yet taken.
    public var remainingByteCount: Int { bytes.count - position }

    /// Takes an integer.
    public mutating func read<T: FixedWidthInteger>(_ type: T.Type) throws(LogFormatError) -> T {
        let count = T.bitWidth / 8
        guard remainingByteCount >= count else { throw .truncated }
        var value: T = 0
        for index in 0..<count {
            value |= T(truncatingIfNeeded: bytes[position + index]) << T(8 * index)
        }
        position += count
        return value
    }

    /// Takes bytes behind their count.
    ///
    /// - Parameter byteCountMax: More is ``LogFormatError/malformed``.
    /// - Returns: The bytes.
    /// - Throws: ``LogFormatError``.
    public mutating func readCounted(byteCountMax: Int) throws(LogFormatError) -> [UInt8] {
        let count = Int(try read(UInt32.self))
        guard count <= byteCountMax else { throw .malformed }
        guard remainingByteCount >= count else { throw .truncated }
        defer { position += count }
        return Array(bytes[position..<(position + count)])
    }
}
