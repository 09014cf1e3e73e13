internal import BlockCore

/// Writes an answer's bytes, front to back, into a region; what does not fit is counted only.
struct DataWriter {
    private let region: ByteRegion
    /// Bytes written, also those that did not fit.
    private(set) var count = 0

    /// Bytes that did fit.
    var storedCount: Int { min(count, region.byteCount) }

    init(_ region: ByteRegion) { self.region = region }

    mutating func append<T: FixedWidthInteger & BitwiseCopyable>(_ value: T) {
        let width = MemoryLayout<T>.size
        if count + width <= region.byteCount { region.storeBigEndian(value, at: count) }
        count += width
    }

    /// Appends `byteCount` zero bytes.
    mutating func skip(_ byteCount: Int) {
        for _ in 0..<byteCount { append(UInt8(0)) }
    }

    /// Appends zero bytes up to `end`.
    mutating func pad(to end: Int) { skip(max(end - count, 0)) }

    mutating func append(_ bytes: some Sequence<UInt8>) {
        for byte in bytes { append(byte) }
    }

    /// Appends the ASCII of `text`, filled up with spaces or cut to `byteCount`.
    mutating func append(_ text: String, byteCount: Int) {
        var rest = text.utf8.prefix(byteCount).map { $0 >= 0x20 && $0 < 0x7F ? $0 : 0x5F }
        while rest.count < byteCount { rest.append(0x20) }
        append(rest)
    }

    /// Puts `value` over what was written at `offset`.
    func patch<T: FixedWidthInteger & BitwiseCopyable>(_ value: T, at offset: Int) {
        guard offset + MemoryLayout<T>.size <= region.byteCount else { return }
        region.storeBigEndian(value, at: offset)
    }
}
