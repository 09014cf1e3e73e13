// The records of a batch, one after another.

public import BlockCore

/// A record of a batch, and where its parts lie.
public struct PlacedRecord: BitwiseCopyable, Sendable, Equatable {
    /// The record's fixed part.
    public var header: RecordHeader
    /// Where its tail begins: bytes from the start of the batch's records.
    public var tailOffset: Int
    /// The first block of its payload, counted from the first of the batch's.
    public var payloadIndex: Int
}

/// Walks over the records of a batch, up to the first that is not well formed.
public struct RecordWalk: Sequence, IteratorProtocol {
    private let records: ByteRegion
    private var restCount: UInt32
    private var offset = 0
    /// Blocks of payload of the records walked over.
    public private(set) var payloadBlockCount = 0

    /// Begins at the first record.
    ///
    /// - Parameters:
    ///   - records: The bytes of a batch's records.
    ///   - count: How many there are.
    public init(_ records: ByteRegion, count: UInt32) {
        self.records = records
        restCount = count
    }

    /// Whether every record was walked over, and nothing but records was there.
    public var isComplete: Bool { restCount == 0 && offset == records.byteCount }

    /// The next record.
    ///
    /// - Returns: nil behind the last, and where the next is not well formed.
    public mutating func next() -> PlacedRecord? {
        guard restCount > 0, let header = RecordHeader.decode(records, at: offset) else {
            return nil
        }
        let record = PlacedRecord(
            header: header,
            tailOffset: offset + RecordHeader.byteCount,
            payloadIndex: payloadBlockCount
        )
        restCount -= 1
        offset = record.tailOffset + Int(header.tailByteCount)
        payloadBlockCount += Int(header.payloadBlockCount)
        return record
    }
}
