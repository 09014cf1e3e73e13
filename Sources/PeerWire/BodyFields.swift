// A body's fields, one after the other.

internal import BlockCore
internal import Replication

/// What stands for a payload in a body.
enum PayloadMark: UInt8 {
    /// Bytes follow, and their checksums are the end of the body.
    case bytes = 0
    /// ``PayloadID/zeroes``
    case zeroes = 1
    /// ``PayloadID/allocatedZeroes``
    case allocatedZeroes = 2
}

/// Puts fields into a body.
struct BodyWriter {
    private let bytes: ByteRegion
    /// Bytes put so far.
    private(set) var byteCount = 0

    init(_ bytes: ByteRegion) { self.bytes = bytes }

    mutating func put<T: FixedWidthInteger & BitwiseCopyable>(_ value: T) {
        bytes.store(value, at: byteCount)
        byteCount += MemoryLayout<T>.size
    }

    mutating func put(_ number: WriteNumber) {
        precondition(number.isValid, "a number beyond 56 bits")
        put(number.rawValue)
    }

    mutating func put(counter: UInt64) {
        precondition(counter <= WriteNumber.counterMax, "a counter beyond 36 bits")
        put(counter)
    }

    mutating func put(_ range: BlockRange) {
        precondition(range.isValid, "a range beyond any volume")
        put(range.first)
        put(range.count)
    }

    mutating func put(block: UInt64) {
        precondition(block < BlockRange.blockCountMax, "a block beyond any volume")
        put(block)
    }

    mutating func put(_ flag: Bool) { put(UInt8(flag ? 1 : 0)) }

    /// Puts zeroes where nothing is said yet.
    mutating func putReserved(_ count: Int) {
        for _ in 0..<count { put(UInt8(0)) }
    }

    /// Puts what stands for a payload, in 4 bytes.
    mutating func put(_ payload: PayloadID, hasBytes: Bool) {
        precondition(payload.hasBytes == hasBytes, "a payload's bytes are sent, others have none")
        let mark: PayloadMark =
            hasBytes ? .bytes : payload == .zeroes ? .zeroes : .allocatedZeroes
        put(mark.rawValue)
        putReserved(3)
    }

    mutating func put(_ lineage: Lineage) {
        for end in lineage.ends { put(end) }
    }

    mutating func put(_ mark: SnapshotMark) {
        precondition(mark.isValid, "a snapshot that cannot exist")
        put(mark.id)
        put(mark.number)
    }

    /// Puts what is looked at: a snapshot's id, or 0 for the volume as it is.
    mutating func put(_ view: ReplicaView) {
        switch view {
        case .volume: put(UInt64(0))
        case .snapshot(let id): put(id)
        }
    }

    mutating func put(_ source: ByteRegion) {
        bytes.copy(from: source, at: byteCount)
        byteCount += source.byteCount
    }
}

/// Takes fields from a body, never beyond its end, and judges each.
struct BodyReader {
    private let bytes: ByteRegion
    private var position = 0

    init(_ bytes: ByteRegion) { self.bytes = bytes }

    /// Bytes not yet taken.
    var remainingByteCount: Int { bytes.byteCount - position }

    mutating func take<T: FixedWidthInteger & BitwiseCopyable>(
        _ type: T.Type
    ) throws(PeerWireError) -> T {
        guard remainingByteCount >= MemoryLayout<T>.size else { throw .bodyTooShort }
        defer { position += MemoryLayout<T>.size }
        return bytes.load(position, as: type)
    }

    mutating func takeNumber() throws(PeerWireError) -> WriteNumber {
        let number = WriteNumber(rawValue: try take(UInt64.self))
        guard number.isValid else { throw .badNumber }
        return number
    }

    mutating func takeCounter(atLeast minimum: UInt64 = 0) throws(PeerWireError) -> UInt64 {
        let counter = try take(UInt64.self)
        guard counter >= minimum, counter <= WriteNumber.counterMax else { throw .badCounter }
        return counter
    }

    mutating func takeEpoch() throws(PeerWireError) -> Epoch {
        let epoch = Epoch(try take(UInt64.self))
        guard epoch <= WriteNumber.epochMax else { throw .badEpoch }
        return epoch
    }

    mutating func takeInstant() throws(PeerWireError) -> Instant {
        Instant(nanoseconds: try take(UInt64.self))
    }

    /// Takes a range that is valid and has no more than `countMax` blocks.
    mutating func takeRange(countMax: Int) throws(PeerWireError) -> BlockRange {
        let range = BlockRange(first: try take(UInt64.self), count: try take(UInt32.self))
        guard range.isValid, range.count <= UInt32(countMax) else { throw .badRange }
        return range
    }

    mutating func takeBlock() throws(PeerWireError) -> UInt64 {
        let block = try take(UInt64.self)
        guard block < BlockRange.blockCountMax else { throw .badBlock }
        return block
    }

    mutating func takeFlag() throws(PeerWireError) -> Bool {
        let code = try take(UInt8.self)
        guard code <= 1 else { throw .badCode(code) }
        return code == 1
    }

    mutating func takeReserved(_ count: Int) throws(PeerWireError) {
        for _ in 0..<count {
            guard try take(UInt8.self) == 0 else { throw .reservedNotZero }
        }
    }

    /// Takes what stands for a payload; `name` is what it is called here when it has bytes.
    mutating func takePayload(
        of header: PeerFrameHeader,
        name: PayloadID
    ) throws(PeerWireError) -> PayloadID {
        let code = try take(UInt8.self)
        guard let mark = PayloadMark(rawValue: code) else { throw .badCode(code) }
        guard (mark == .bytes) == (header.payloadByteCount > 0) else { throw .payloadNotOfRange }
        try takeReserved(3)
        switch mark {
        case .bytes: return name
        case .zeroes: return .zeroes
        case .allocatedZeroes: return .allocatedZeroes
        }
    }

    mutating func takeMark() throws(PeerWireError) -> SnapshotMark {
        let mark = SnapshotMark(id: try take(UInt64.self), number: try takeNumber())
        guard mark.isValid else { throw .badSnapshot }
        return mark
    }

    mutating func takeView() throws(PeerWireError) -> ReplicaView {
        let id = try take(UInt64.self)
        return id == 0 ? .volume : .snapshot(id)
    }

    /// Takes the snapshots of a replica; allocates.
    mutating func takeMarks(count: UInt32) throws(PeerWireError) -> [SnapshotMark] {
        guard count <= SnapshotMark.heldCountMax else { throw .tooManyEntries(count: Int(count)) }
        var marks: [SnapshotMark] = []
        marks.reserveCapacity(Int(count))
        for _ in 0..<count { marks.append(try takeMark()) }
        guard SnapshotMark.areValid(marks) else { throw .badOrder }
        return marks
    }

    /// Takes the steps of an epoch's lineage; allocates.
    mutating func takeLineage(
        count: UInt32,
        of epoch: Epoch
    ) throws(PeerWireError) -> Lineage {
        guard count <= Lineage.stepCountMax else { throw .tooManyEntries(count: Int(count)) }
        var ends: [WriteNumber] = []
        ends.reserveCapacity(Int(count))
        for _ in 0..<count { ends.append(try takeNumber()) }
        guard let lineage = Lineage(checking: ends, of: epoch) else { throw .badLineage }
        return lineage
    }
}
