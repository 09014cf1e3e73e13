// EXTENDED COPY with a list identifier of one byte: blocks to blocks, and its results.
//
// Spec: SPC-4, sections 6.17, 6.24 and 5.17.

public import BlockCore

/// The most that an EXTENDED COPY may say; told by RECEIVE COPY RESULTS.
enum CopyLimits {
    static var targetCountMax: Int { 4 }
    static var segmentCountMax: Int { 32 }
    /// Bytes of all descriptors: enough for the most of both.
    static var listByteCountMax: Int { 1024 }
    /// Copies whose results are kept; the oldest goes first.
    static var recordCountMax: Int { 16 }
}

/// Sizes and codes of the parameter list.
///
/// Spec: SPC-4, tables 122 to 150.
private enum CopyList {
    static var headerByteCount: Int { 16 }
    static var targetByteCount: Int { 32 }
    static var segmentByteCount: Int { 28 }
    /// Identification descriptor target descriptor.
    static var identification: UInt8 { 0xE4 }
    /// Block device to block device.
    static var blockToBlock: UInt8 { 0x02 }
    /// LIST ID USAGE: the copy has no list identifier, and nobody asks for its results.
    static var noListIdentifier: UInt8 { 0x03 }
}

/// What is known of a copy, for RECEIVE COPY RESULTS.
struct CopyRecord: BitwiseCopyable, Sendable {
    let nexus: NexusIndex
    let listIdentifier: UInt8
    let mark: UInt16
    let segmentCount: UInt16
    /// Spec: COPY STATUS: 0 in progress, 1 done, 2 failed.
    var status: UInt8
}

/// The last copies.
struct CopyRecords {
    /// The mark of a copy that nobody will ask for.
    static var noMark: UInt16 { 0 }

    private var records: [CopyRecord] = []
    private var nextMark: UInt16 = 1

    func find(_ nexus: NexusIndex, _ listIdentifier: UInt8) -> CopyRecord? {
        records.last { $0.nexus == nexus && $0.listIdentifier == listIdentifier }
    }

    /// Notes a new copy, in place of one with the same identifier.
    mutating func begin(_ nexus: NexusIndex, _ list: UInt8, _ segments: UInt16) -> UInt16 {
        records.removeAll { $0.nexus == nexus && $0.listIdentifier == list }
        if records.count >= CopyLimits.recordCountMax { records.removeFirst() }
        let mark = nextMark
        nextMark = nextMark == .max ? 1 : nextMark + 1
        records.append(
            CopyRecord(
                nexus: nexus,
                listIdentifier: list,
                mark: mark,
                segmentCount: segments,
                status: 0
            )
        )
        return mark
    }

    mutating func end(_ mark: UInt16, succeeded: Bool) {
        guard let index = records.lastIndex(where: { $0.mark == mark }) else { return }
        records[index].status = succeeded ? 1 : 2
    }

    mutating func forget(_ nexus: NexusIndex) { records.removeAll { $0.nexus == nexus } }
}

extension LogicalUnit {
    // MARK: - EXTENDED COPY

    func planExtendedCopy(_ command: SCSICommand) -> SCSIPlan {
        let byteCount = Int(clamping: command.block.field32(10))
        guard byteCount > 0 else { return .reply(.good) }
        guard byteCount >= CopyList.headerByteCount else {
            return .fail(.illegalRequest, .parameterListLength)
        }
        return collect(command, byteCount: byteCount)
    }

    func finishExtendedCopy(_ command: SCSICommand, _ parameters: ByteRegion) -> SCSIPlan {
        let layout = CopyLayout(parameters)
        if let sense = layout.refusal(parameters) { return .fail(sense) }
        let list = parameters.load(0, as: UInt8.self)
        let isTracked = layout.listIdentifierUsage != CopyList.noListIdentifier
        if !isTracked, list != 0 { return .fail(.invalidField(parameters: 0)) }
        if isTracked, copies.find(command.nexus, list)?.status == 0 {
            return .fail(.illegalRequest, .operationInProgress)
        }
        var total: UInt64 = 0
        for index in 0..<layout.segmentCount {
            guard let segment = segment(index, layout, parameters), isAllowed(segment) else {
                return .fail(.copyAborted, .none)
            }
            total += segment.byteCount
        }
        let dataOut = UInt32(parameters.byteCount)
        let count = UInt16(layout.segmentCount)
        let mark = isTracked ? copies.begin(command.nexus, list, count) : CopyRecords.noMark
        guard total > 0 else {
            copies.end(mark, succeeded: true)
            return SCSIPlan(.reply(.good), dataOutByteCount: dataOut)
        }
        let operation = BlockOperation(
            .copy,
            rangeCount: count,
            tag: mark
        )
        return SCSIPlan(.perform(operation), dataOutByteCount: dataOut)
    }

    /// A segment to copy; may be empty.
    ///
    /// - Parameters:
    ///   - index: Below the operation's `rangeCount`.
    ///   - parameters: What the plan was made of, unchanged since.
    /// - Returns: The segment; nil when ``copyPeers`` lost its volume since the plan.
    public func copySegment(at index: Int, in parameters: ByteRegion) -> CopySegment? {
        segment(index, CopyLayout(parameters), parameters)
    }

    private func segment(
        _ index: Int,
        _ layout: CopyLayout,
        _ parameters: ByteRegion
    ) -> CopySegment? {
        let offset = layout.segmentOffset(index)
        let source = Int(parameters.loadBigEndian(offset + 4, as: UInt16.self))
        let destination = Int(parameters.loadBigEndian(offset + 6, as: UInt16.self))
        guard source < layout.targetCount, destination < layout.targetCount,
            let from = volume(layout.targetOffset(source), parameters),
            let to = volume(layout.targetOffset(destination), parameters)
        else { return nil }
        // DC: blocks are counted in the destination's size.
        let isInDestination = parameters.load(offset + 1, as: UInt8.self) & 0x02 != 0
        let unit = isInDestination ? to.blockByteCount : from.blockByteCount
        let blocks = UInt64(parameters.loadBigEndian(offset + 10, as: UInt16.self))
        let first = parameters.loadBigEndian(offset + 12, as: UInt64.self)
        let second = parameters.loadBigEndian(offset + 20, as: UInt64.self)
        let byteCount = blocks * UInt64(unit)
        guard let sourceOffset = Self.offset(first, byteCount, in: from),
            let destinationOffset = Self.offset(second, byteCount, in: to)
        else { return nil }
        return CopySegment(
            sourceHandle: from.handle,
            destinationHandle: to.handle,
            sourceOffset: sourceOffset,
            destinationOffset: destinationOffset,
            byteCount: byteCount
        )
    }

    /// The byte at which `byteCount` bytes begin; nil when they are not all in the volume, or not
    /// whole blocks of it.
    private static func offset(
        _ address: UInt64,
        _ byteCount: UInt64,
        in volume: LogicalUnitDescription
    ) -> UInt64? {
        let block = UInt64(volume.blockByteCount)
        guard byteCount % block == 0, Geometry(volume).contains(address, byteCount / block) else {
            return nil
        }
        return address * block
    }

    /// The volume that a target descriptor names.
    private func volume(_ offset: Int, _ parameters: ByteRegion) -> LogicalUnitDescription? {
        let codeSet = parameters.load(offset + 4, as: UInt8.self) & 0x0F
        let kind = parameters.load(offset + 5, as: UInt8.self) & 0x3F
        let byteCount = Int(parameters.load(offset + 7, as: UInt8.self))
        // 20 bytes are there; of a longer designator those have to do.
        let bytes = parameters.slice(offset + 8, min(byteCount, 20)).array()
        return ([description] + copyPeers).first { peer in
            Self.unitDesignators(peer).contains { designator in
                designator.codeSet == codeSet && designator.kind == kind
                    && designator.bytes.count == byteCount && designator.bytes.starts(with: bytes)
            }
        }
    }

    private func isAllowed(_ segment: CopySegment) -> Bool {
        guard segment.byteCount <= geometry.copyBlockCountMax << geometry.blockShift else {
            return false
        }
        let destination = ([description] + copyPeers).first {
            $0.handle == segment.destinationHandle
        }
        return destination?.isReadOnly == false
    }

    /// The answer to EXTENDED COPY: the errors of its volumes are the copy's.
    func completeCopy(_ operation: BlockOperation, _ result: BlockResult) -> SCSIReply {
        copies.end(operation.tag, succeeded: result == .done)
        var reply = reply(result)
        guard reply.status == .checkCondition else { return reply }
        reply.sense.key = .copyAborted
        return reply
    }

    // MARK: - RECEIVE COPY RESULTS

    /// COPY STATUS.
    ///
    /// Spec: SPC-4, 6.24.2.
    func planCopyStatus(_ command: SCSICommand, _ dataIn: ByteRegion) -> SCSIPlan {
        guard let record = copies.find(command.nexus, command.block[2]) else {
            return .fail(.invalidField(command: 2))
        }
        var data = DataWriter(dataIn)
        data.append(UInt32(8))
        data.append(record.status)
        data.append(record.status == 1 ? record.segmentCount : 0)
        data.skip(5)
        return answer(data, allocation: Int(clamping: command.block.field32(10)))
    }

    /// OPERATING PARAMETERS.
    ///
    /// Spec: SPC-4, 6.24.4.
    func planCopyParameters(_ command: SCSICommand, _ dataIn: ByteRegion) -> SCSIPlan {
        var data = DataWriter(dataIn)
        data.skip(4)
        // SNLID: a list without identifier is served.
        data.append(UInt8(0x01))
        data.skip(3)
        data.append(UInt16(CopyLimits.targetCountMax))
        data.append(UInt16(CopyLimits.segmentCountMax))
        data.append(UInt32(CopyLimits.listByteCountMax))
        data.append(UInt32(geometry.copyBlockCountMax << geometry.blockShift))
        data.pad(to: 34)
        // At a time: in all, and begun in this way.
        data.append(UInt16(CopyLimits.recordCountMax))
        data.append(UInt8(CopyLimits.recordCountMax))
        data.append(UInt8(geometry.blockShift))
        data.pad(to: 43)
        data.append([2, CopyList.blockToBlock, CopyList.identification] as [UInt8])
        data.patch(UInt32(data.count - 4), at: 0)
        return answer(data, allocation: Int(clamping: command.block.field32(10)))
    }
}

/// Where the descriptors of an EXTENDED COPY lie.
private struct CopyLayout {
    let targetByteCount: Int
    let segmentByteCount: Int
    let inlineByteCount: Int
    let listIdentifierUsage: UInt8

    init(_ parameters: ByteRegion) {
        listIdentifierUsage = parameters.load(1, as: UInt8.self) >> 3 & 0x03
        targetByteCount = Int(parameters.loadBigEndian(2, as: UInt16.self))
        segmentByteCount = Int(parameters.loadBigEndian(8, as: UInt32.self))
        inlineByteCount = Int(parameters.loadBigEndian(12, as: UInt32.self))
    }

    var targetCount: Int { targetByteCount / CopyList.targetByteCount }
    var segmentCount: Int { segmentByteCount / CopyList.segmentByteCount }

    func targetOffset(_ index: Int) -> Int {
        CopyList.headerByteCount + index * CopyList.targetByteCount
    }

    func segmentOffset(_ index: Int) -> Int {
        CopyList.headerByteCount + targetByteCount + index * CopyList.segmentByteCount
    }

    /// Why the list is refused as a whole; its segments are not judged.
    func refusal(_ parameters: ByteRegion) -> SCSISense? {
        let total = targetByteCount + segmentByteCount
        guard total <= CopyLimits.listByteCountMax,
            CopyList.headerByteCount + total + inlineByteCount <= parameters.byteCount
        else { return SCSISense(.illegalRequest, .parameterListLength) }
        guard targetCount <= CopyLimits.targetCountMax else {
            return SCSISense(.illegalRequest, .tooManyTargetDescriptors)
        }
        guard segmentCount <= CopyLimits.segmentCountMax else {
            return SCSISense(.illegalRequest, .tooManySegmentDescriptors)
        }
        guard inlineByteCount == 0 else { return .invalidField(parameters: 12) }
        // A descriptor that is begun counts: those of other types have other lengths.
        for index in 0..<Self.begun(targetByteCount, CopyList.targetByteCount)
        where parameters.load(targetOffset(index), as: UInt8.self) != CopyList.identification {
            return SCSISense(.illegalRequest, .unsupportedTargetDescriptor)
        }
        guard targetByteCount % CopyList.targetByteCount == 0 else {
            return .invalidField(parameters: 2)
        }
        for index in 0..<Self.begun(segmentByteCount, CopyList.segmentByteCount)
        where parameters.load(segmentOffset(index), as: UInt8.self) != CopyList.blockToBlock {
            return SCSISense(.illegalRequest, .unsupportedSegmentDescriptor)
        }
        guard segmentByteCount % CopyList.segmentByteCount == 0 else {
            return .invalidField(parameters: 8)
        }
        return nil
    }

    private static func begun(_ byteCount: Int, _ descriptorByteCount: Int) -> Int {
        (byteCount + descriptorByteCount - 1) / descriptorByteCount
    }
}
