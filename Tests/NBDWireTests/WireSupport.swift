import BlockCore

/// Memory for one test: a region and the arena that owns it.
final class Scratch {
    let arena: MemoryArena
    var region: ByteRegion { arena.region }

    init(byteCount: Int = 16 << 10) { arena = MemoryArena(byteCount: byteCount) }

    /// A region with just these bytes.
    func region(_ bytes: [UInt8]) -> ByteRegion {
        let region = arena.region.slice(0, bytes.count)
        region.copy(from: bytes)
        return region
    }
}

/// Bytes from annotated hex: everything behind `#` is a comment.
func hex(_ text: String) -> [UInt8] {
    var bytes: [UInt8] = []
    for line in text.split(separator: "\n") {
        let digits = line.prefix { $0 != "#" }.filter { $0 != " " }
        var rest = Substring(digits)
        while rest.count >= 2 {
            bytes.append(UInt8(rest.prefix(2), radix: 16) ?? 0)
            rest = rest.dropFirst(2)
        }
    }
    return bytes
}
