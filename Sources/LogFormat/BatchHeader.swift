// A batch: one header block, then the payload of its records. The unit of group commit.

public import BlockCore

/// What a record of the log is.
@frozen
public enum RecordKind: UInt8, Sendable, BitwiseCopyable {
    /// Blocks of a layer. Tail: a CRC-32C per block. Payload: the blocks.
    case data = 1
    /// A range that reads as zero. No payload.
    case zero = 2
    /// Blocks moved by the cleaner. Tail per block: CRC, old location, sequence (20 bytes).
    case relocate = 3
    /// A map page. `level` and `firstBlock` (page index) name it. Tail: its CRC.
    case mapPage = 4
    /// A piece of a checkpoint's manifest. Tail: a CRC-32C per block.
    case manifest = 5
    /// A configuration change, encoded in the tail. No payload.
    case control = 6
}

/// What is said of a record beside its kind.
@frozen
public struct RecordFlags: OptionSet, BitwiseCopyable, Sendable, Hashable {
    /// The bits.
    public var rawValue: UInt8

    /// Creates a set from its bits.
    @inlinable
    public init(rawValue: UInt8) { self.rawValue = rawValue }

    /// A zero range that stays allocated.
    @inlinable public static var staysAllocated: Self { Self(rawValue: 1) }
    /// Data or zeroes whose number came from outside: block by block they hold only where the copy
    /// is older.
    @inlinable public static var numbered: Self { Self(rawValue: 2) }
    /// A numbered record that is the next of its volume's stream.
    @inlinable public static var streamed: Self { Self(rawValue: 4) }
}

/// The fixed part of a record.
///
/// Layout: 48 bytes, little-endian, followed by `tailByteCount` bytes.
///
/// | offset | size | field         | unit                                        |
/// |--------|------|---------------|---------------------------------------------|
/// | 0      | 1    | kind          | ``RecordKind``                              |
/// | 1      | 1    | flags         | ``RecordFlags``                             |
/// | 2      | 1    | level         | of a map page                               |
/// | 3      | 1    | reserved      | 0                                           |
/// | 4      | 4    | blockCount    | blocks covered                              |
/// | 8      | 8    | layer         | ``LayerID``                                 |
/// | 16     | 8    | firstBlock    | blocks from the volume's start              |
/// | 24     | 8    | epoch         | of the primary that ordered the write       |
/// | 32     | 8    | sequence      | of the write: the store's own count, or of  |
/// |        |      |               | a numbered record the number it came with   |
/// | 40     | 4    | shard         | index in the volume                         |
/// | 44     | 4    | tailByteCount | bytes                                       |
@frozen
public struct RecordHeader: BitwiseCopyable, Sendable, Equatable {
    /// What it is.
    public var kind: RecordKind
    /// Options.
    public var flags: RecordFlags
    /// A map page's level; 0 is the lowest.
    public var level: UInt8
    /// Blocks covered.
    public var blockCount: UInt32
    /// The layer that owns the blocks.
    public var layer: LayerID
    /// The first block covered.
    public var firstBlock: UInt64
    /// The epoch of the write.
    public var epoch: UInt64
    /// The number of the write.
    public var sequence: UInt64
    /// The shard of the range.
    public var shard: UInt32
    /// Bytes that follow.
    public var tailByteCount: UInt32

    /// Wire size, in bytes.
    @inlinable public static var byteCount: Int { 48 }

    /// Creates a record's fixed part.
    @inlinable
    public init(
        kind: RecordKind,
        flags: RecordFlags = [],
        level: UInt8 = 0,
        blockCount: UInt32,
        layer: LayerID,
        firstBlock: UInt64,
        epoch: UInt64 = 0,
        sequence: UInt64 = 0,
        shard: UInt32 = 0,
        tailByteCount: UInt32
    ) {
        self.kind = kind
        self.flags = flags
        self.level = level
        self.blockCount = blockCount
        self.layer = layer
        self.firstBlock = firstBlock
        self.epoch = epoch
        self.sequence = sequence
        self.shard = shard
        self.tailByteCount = tailByteCount
    }

    /// Payload blocks that belong to the record.
    @inlinable
    public var payloadBlockCount: UInt32 {
        switch kind {
        case .data, .relocate, .mapPage, .manifest: blockCount
        case .zero, .control: 0
        }
    }

    /// Encodes at `offset` of a header block.
    @inlinable
    public func encode(into block: ByteRegion, at offset: Int) {
        block.store(kind.rawValue, at: offset)
        block.store(flags.rawValue, at: offset &+ 1)
        block.store(level, at: offset &+ 2)
        block.store(0 as UInt8, at: offset &+ 3)
        block.store(blockCount, at: offset &+ 4)
        block.store(layer.rawValue, at: offset &+ 8)
        block.store(firstBlock, at: offset &+ 16)
        block.store(epoch, at: offset &+ 24)
        block.store(sequence, at: offset &+ 32)
        block.store(shard, at: offset &+ 40)
        block.store(tailByteCount, at: offset &+ 44)
    }

    /// Decodes the record at `offset`, or nil when it is not one or does not fit.
    @inlinable
    public static func decode(_ block: ByteRegion, at offset: Int) -> RecordHeader? {
        guard offset >= 0, offset &+ byteCount <= block.byteCount else { return nil }
        guard let kind = RecordKind(rawValue: block.load(offset, as: UInt8.self)) else {
            return nil
        }
        let record = RecordHeader(
            kind: kind,
            flags: RecordFlags(rawValue: block.load(offset &+ 1, as: UInt8.self)),
            level: block.load(offset &+ 2, as: UInt8.self),
            blockCount: block.load(offset &+ 4, as: UInt32.self),
            layer: LayerID(block.load(offset &+ 8, as: UInt64.self)),
            firstBlock: block.load(offset &+ 16, as: UInt64.self),
            epoch: block.load(offset &+ 24, as: UInt64.self),
            sequence: block.load(offset &+ 32, as: UInt64.self),
            shard: block.load(offset &+ 40, as: UInt32.self),
            tailByteCount: block.load(offset &+ 44, as: UInt32.self)
        )
        let room = block.byteCount &- offset &- byteCount
        guard UInt64(record.tailByteCount) <= UInt64(room) else { return nil }
        guard record.tailIsWellFormed, record.placeIsWellFormed, record.numberIsWellFormed
        else { return nil }
        return record
    }

    /// Bytes of tail per payload block, by kind.
    @inlinable
    public static func tailByteCountPerBlock(_ kind: RecordKind) -> UInt32 {
        switch kind {
        case .data, .mapPage, .manifest: 4
        case .relocate: 20
        case .zero, .control: 0
        }
    }

    /// The highest number that the store counts to, of which map entries keep 56 bits.
    @inlinable public static var sequenceMax: UInt64 { 1 << 55 }
    /// Numbers that come from outside have so many bits, which is what a map entry has room for.
    @inlinable public static var numberBitCount: UInt64 { 56 }

    /// Whether a record's number can be: the store counts on from what it finds, but not from
    /// numbers of others, which a moved block may carry too.
    @inlinable
    var numberIsWellFormed: Bool {
        if flags.contains(.numbered) {
            guard kind == .data || kind == .zero, sequence > 0 else { return false }
            return sequence >> RecordHeader.numberBitCount == 0
        }
        guard !flags.contains(.streamed) else { return false }
        return kind == .relocate
            ? sequence >> RecordHeader.numberBitCount == 0 : sequence <= RecordHeader.sequenceMax
    }

    /// Blocks lie in one leaf of the largest volume; pages in its map.
    @inlinable
    var placeIsWellFormed: Bool {
        let volumeBlockCount = BlockGeometry.volumeByteCountMax >> BlockGeometry.blockShift
        switch kind {
        case .data, .zero, .relocate:
            let leafRest = UInt64(MapEntry.countPerPage) - firstBlock & 255
            return firstBlock < volumeBlockCount && UInt64(blockCount) <= leafRest
        case .mapPage: return blockCount == 1 && firstBlock < volumeBlockCount >> MapEntry.pageShift
        case .manifest, .control: return true
        }
    }

    @inlinable
    var tailIsWellFormed: Bool {
        switch kind {
        case .control: true
        case .zero: tailByteCount == 0
        case .data, .relocate, .mapPage, .manifest:
            UInt64(tailByteCount)
                == UInt64(blockCount) * UInt64(RecordHeader.tailByteCountPerBlock(kind))
        }
    }
}

/// The first block of a batch.
///
/// Layout: 4096 bytes, little-endian: 64 bytes of fields, then the records one after another.
///
/// | offset | size | field             | unit                                      |
/// |--------|------|-------------------|-------------------------------------------|
/// | 0      | 4    | magic             | "CBAT"                                    |
/// | 4      | 4    | crc               | CRC-32C of the block with this field zero |
/// | 8      | 8    | identity          | lower half of the store's                 |
/// | 16     | 8    | incarnation       | life of the log                           |
/// | 24     | 8    | sequence          | batches since the store was formatted     |
/// | 32     | 8    | location          | this block's own place, in blocks         |
/// | 40     | 4    | payloadBlockCount | blocks that follow                        |
/// | 44     | 4    | recordCount       |                                           |
/// | 48     | 4    | recordByteCount   | bytes of records after byte 64            |
/// | 52     | 4    | reserved          | 0                                         |
/// | 56     | 8    | promisedSequence  | of a batch, 0 for none                    |
@frozen
public struct BatchHeader: BitwiseCopyable, Sendable, Equatable {
    /// "CBAT".
    @inlinable public static var magic: UInt32 { 0x5441_4243 }
    /// Where records begin.
    @inlinable public static var recordsOffset: Int { 64 }
    /// Bytes for records.
    @inlinable public static var recordByteCountMax: Int { 4096 - 64 }

    /// Lower half of the store's identity.
    public var identity: UInt64
    /// Life of the log.
    public var incarnation: UInt64
    /// Number of the batch.
    public var sequence: UInt64
    /// Its own place, in blocks: a misdirected write is not mistaken for a batch.
    public var location: UInt64
    /// Payload blocks that follow.
    public var payloadBlockCount: UInt32
    /// Number of records.
    public var recordCount: UInt32
    /// Bytes of records.
    public var recordByteCount: UInt32
    /// The last batch that replay repeats and that was durable when this one was sealed: what of
    /// them is missing behind a checkpoint is lost, and was not cut short by a crash.
    public var promisedSequence: UInt64

    /// Creates a header.
    @inlinable
    public init(
        identity: UInt64,
        incarnation: UInt64,
        sequence: UInt64,
        location: UInt64,
        payloadBlockCount: UInt32,
        recordCount: UInt32,
        recordByteCount: UInt32,
        promisedSequence: UInt64
    ) {
        self.identity = identity
        self.incarnation = incarnation
        self.sequence = sequence
        self.location = location
        self.payloadBlockCount = payloadBlockCount
        self.recordCount = recordCount
        self.recordByteCount = recordByteCount
        self.promisedSequence = promisedSequence
    }

    /// Writes the fields and the checksum; the records are in `block` already.
    @inlinable
    public func encode(into block: ByteRegion) {
        block.store(BatchHeader.magic, at: 0)
        block.store(0 as UInt32, at: 4)
        block.store(identity, at: 8)
        block.store(incarnation, at: 16)
        block.store(sequence, at: 24)
        block.store(location, at: 32)
        block.store(payloadBlockCount, at: 40)
        block.store(recordCount, at: 44)
        block.store(recordByteCount, at: 48)
        block.store(0 as UInt32, at: 52)
        block.store(promisedSequence, at: 56)
        let used = BatchHeader.recordsOffset &+ Int(recordByteCount)
        if used < 4096 { block.slice(used, 4096 &- used).zero() }
        block.store(block.slice(0, 4096).crc32c(), at: 4)
    }

    /// Decodes and verifies the header in `block`; nil when it is not a batch's.
    public static func decode(_ block: ByteRegion) -> BatchHeader? {
        guard block.byteCount >= 4096, block.load(0, as: UInt32.self) == magic else { return nil }
        let stored = block.load(4, as: UInt32.self)
        block.store(0 as UInt32, at: 4)
        let actual = block.slice(0, 4096).crc32c()
        block.store(stored, at: 4)
        guard stored == actual else { return nil }
        let header = BatchHeader(
            identity: block.load(8, as: UInt64.self),
            incarnation: block.load(16, as: UInt64.self),
            sequence: block.load(24, as: UInt64.self),
            location: block.load(32, as: UInt64.self),
            payloadBlockCount: block.load(40, as: UInt32.self),
            recordCount: block.load(44, as: UInt32.self),
            recordByteCount: block.load(48, as: UInt32.self),
            promisedSequence: block.load(56, as: UInt64.self)
        )
        guard header.recordByteCount <= UInt32(recordByteCountMax),
            header.promisedSequence < header.sequence
        else { return nil }
        return header.recordsAreWellFormed(block) ? header : nil
    }

    private func recordsAreWellFormed(_ block: ByteRegion) -> Bool {
        var walk = records(in: block)
        while walk.next() != nil {}
        return walk.isComplete && walk.payloadBlockCount == Int(payloadBlockCount)
    }

    /// The batch's records, which lie in its header block.
    public func records(in block: ByteRegion) -> RecordWalk {
        let records = block.slice(BatchHeader.recordsOffset, Int(recordByteCount))
        return RecordWalk(records, count: recordCount)
    }
}
