// Data of the options that have a structure of their own.
//
// Spec: NetworkBlockDevice/nbd doc/proto.md, "NBD_OPT_INFO and NBD_OPT_GO",
// "NBD_OPT_LIST_META_CONTEXT", "NBD_OPT_SET_META_CONTEXT".

public import BlockCore

/// The data of INFO and GO: a view that borrows the option's bytes.
///
/// Layout: name length 4, name, number of requests 2, requests of 2 each.
@frozen
public struct NBDInfoQuery: BitwiseCopyable, Sendable {
    /// The export's name, not judged.
    public var name: ByteRegion
    /// The items asked for, 2 bytes each.
    public var requests: ByteRegion

    /// Decodes the whole of `data`.
    ///
    /// - Throws: `malformed` when the lengths and the data do not agree.
    @inlinable
    public static func decode(_ data: ByteRegion) throws(NBDWireError) -> Self {
        var reader = NBDDataReader(data)
        let name = try reader.counted()
        guard let count = reader.integer(UInt16.self), reader.restByteCount == 2 * Int(count)
        else { throw .malformed }
        return Self(name: name, requests: reader.rest)
    }

    /// Whether `kind` is among the items asked for.
    @inlinable
    public func contains(_ kind: NBDInfoKind) -> Bool {
        var position = 0
        while position < requests.byteCount {
            if requests.loadBigEndian(position, as: UInt16.self) == kind.rawValue { return true }
            position += 2
        }
        return false
    }

    @inlinable
    init(name: ByteRegion, requests: ByteRegion) {
        self.name = name
        self.requests = requests
    }

    /// Encodes data for INFO or GO at `position` of `bytes`.
    ///
    /// - Returns: The bytes used.
    public static func encode(
        name: String,
        kinds: [UInt16] = [],
        into bytes: ByteRegion,
        at position: Int = 0
    ) -> Int {
        var end = position + 4
        end += bytes.copy(utf8: name, at: end)
        bytes.storeBigEndian(UInt32(end - position - 4), at: position)
        bytes.storeBigEndian(UInt16(kinds.count), at: end)
        end += 2
        for kind in kinds {
            bytes.storeBigEndian(kind, at: end)
            end += 2
        }
        return end - position
    }
}

/// The data of LIST_META_CONTEXT and SET_META_CONTEXT: a view that borrows the option's bytes.
///
/// Layout: name length 4, name, number of queries 4, and per query length 4 and text.
@frozen
public struct NBDMetaQuery: BitwiseCopyable, Sendable {
    /// The export's name, not judged.
    public var name: ByteRegion
    /// The number of queries.
    public var queryCount: Int
    /// The queries, each behind its length; known to be well-formed.
    @usableFromInline var queries: ByteRegion

    /// Decodes the whole of `data` and checks that every query lies inside it.
    ///
    /// - Throws: `malformed` when the lengths and the data do not agree.
    @inlinable
    public static func decode(_ data: ByteRegion) throws(NBDWireError) -> Self {
        var reader = NBDDataReader(data)
        let name = try reader.counted()
        guard let count = reader.integer(UInt32.self) else { throw .malformed }
        let queries = reader.rest
        // A query takes 4 bytes at least, so this ends within the data whatever `count` claims.
        for _ in 0..<count { _ = try reader.counted() }
        guard reader.restByteCount == 0 else { throw .malformed }
        return Self(name: name, queryCount: Int(count), queries: queries)
    }

    @inlinable
    init(name: ByteRegion, queryCount: Int, queries: ByteRegion) {
        self.name = name
        self.queryCount = queryCount
        self.queries = queries
    }

    /// Calls `body` with each query's text, not judged.
    @inlinable
    public func forEachQuery(
        _ body: (ByteRegion) throws(NBDWireError) -> Void
    )
        throws(NBDWireError)
    {
        var reader = NBDDataReader(queries)
        for _ in 0..<queryCount { try body(reader.counted()) }
    }

    /// Encodes data for LIST_META_CONTEXT or SET_META_CONTEXT at `position` of `bytes`.
    ///
    /// - Returns: The bytes used.
    public static func encode(
        name: String,
        queries: [String],
        into bytes: ByteRegion,
        at position: Int = 0
    ) -> Int {
        var end = position + 4
        end += bytes.copy(utf8: name, at: end)
        bytes.storeBigEndian(UInt32(end - position - 4), at: position)
        bytes.storeBigEndian(UInt32(queries.count), at: end)
        end += 4
        for query in queries {
            let byteCount = bytes.copy(utf8: query, at: end + 4)
            bytes.storeBigEndian(UInt32(byteCount), at: end)
            end += 4 + byteCount
        }
        return end - position
    }
}

/// Takes fields off the front of an option's data.
@usableFromInline
struct NBDDataReader: BitwiseCopyable {
    @usableFromInline var rest: ByteRegion

    @inlinable
    init(_ data: ByteRegion) { rest = data }

    @inlinable
    var restByteCount: Int { rest.byteCount }

    /// The next integer, or nil at the end.
    @inlinable
    mutating func integer<T: FixedWidthInteger & BitwiseCopyable>(_ type: T.Type) -> T? {
        guard rest.byteCount >= MemoryLayout<T>.size else { return nil }
        let value = rest.loadBigEndian(0, as: type)
        rest = rest.suffix(from: MemoryLayout<T>.size)
        return value
    }

    /// The next bytes that stand behind their own 32-bit length.
    @inlinable
    mutating func counted() throws(NBDWireError) -> ByteRegion {
        guard let byteCount = integer(UInt32.self), UInt64(byteCount) <= UInt64(rest.byteCount)
        else { throw .malformed }
        let bytes = rest.slice(0, Int(byteCount))
        rest = rest.suffix(from: Int(byteCount))
        return bytes
    }
}
