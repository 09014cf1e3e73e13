// Commands about space: UNMAP, WRITE SAME, GET LBA STATUS.

public import BlockCore

extension LogicalUnit {
    /// The most descriptors in an answer to GET LBA STATUS.
    static var statusCountMax: UInt32 { 256 }
    /// Bytes of UNMAP's header.
    ///
    /// Spec: SBC-3, table 90.
    private static var unmapHeaderByteCount: Int { 8 }
    /// Bytes of one of its descriptors.
    private static var unmapDescriptorByteCount: Int { 16 }

    // MARK: - UNMAP

    func planUnmap(_ command: SCSICommand) -> SCSIPlan {
        let byteCount = Int(command.block.field16(7))
        guard byteCount > 0 else { return .reply(.good) }
        guard byteCount >= Self.unmapHeaderByteCount else {
            return .fail(.illegalRequest, .parameterListLength)
        }
        return collect(command, byteCount: byteCount)
    }

    func finishUnmap(_ command: SCSICommand, _ parameters: ByteRegion) -> SCSIPlan {
        let said = Int(parameters.loadBigEndian(2, as: UInt16.self))
        let there = parameters.byteCount - Self.unmapHeaderByteCount
        let count = min(said, there) / Self.unmapDescriptorByteCount
        guard count <= geometry.unmapRangeCountMax else {
            return .fail(.invalidField(parameters: 2))
        }
        var total: UInt64 = 0
        for index in 0..<count {
            let offset = Self.unmapDescriptorOffset(index)
            let address = parameters.loadBigEndian(offset, as: UInt64.self)
            let blocks = UInt64(parameters.loadBigEndian(offset + 8, as: UInt32.self))
            guard geometry.contains(address, blocks) else {
                return .fail(.illegalRequest, .addressOutOfRange)
            }
            total += blocks
            guard total <= geometry.unmapBlockCountMax else {
                return .fail(.invalidField(parameters: offset + 8))
            }
        }
        let byteCount = UInt32(parameters.byteCount)
        guard total > 0 else { return SCSIPlan(.reply(.good), dataOutByteCount: byteCount) }
        let operation = BlockOperation(.unmap, rangeCount: UInt16(count))
        return SCSIPlan(.perform(operation), dataOutByteCount: byteCount)
    }

    /// A range to deallocate; may be empty.
    ///
    /// - Parameters:
    ///   - index: Below the operation's `rangeCount`.
    ///   - parameters: What the plan was made of, unchanged since.
    /// - Returns: A range inside the volume as it was when the plan was made.
    public func unmapRange(at index: Int, in parameters: ByteRegion) -> BlockRange {
        let offset = Self.unmapDescriptorOffset(index)
        let blocks = UInt64(parameters.loadBigEndian(offset + 8, as: UInt32.self))
        return BlockRange(
            offset: parameters.loadBigEndian(offset, as: UInt64.self) << geometry.blockShift,
            byteCount: blocks << geometry.blockShift
        )
    }

    private static func unmapDescriptorOffset(_ index: Int) -> Int {
        unmapHeaderByteCount + index * unmapDescriptorByteCount
    }

    // MARK: - WRITE SAME

    /// WRITE SAME.
    ///
    /// Without a length it is refused (WSNZ is 1): what a length that was forgotten would fill is
    /// everything. Spec: SBC-3, 5.44, 6.6.3.
    func planWriteSame(_ command: SCSICommand) -> SCSIPlan {
        let block = command.block
        if let refused = writeSameRange(block).refusal { return .fail(refused) }
        if block[1] & 0x08 != 0, !description.isThin {
            return .fail(.invalidField(command: 1, bit: 3))
        }
        if block.operationCode == 0x93, block[1] & 0x01 != 0 {
            return writeSame(block, isZero: true, dataOut: 0)
        }
        return collect(command, byteCount: Int(geometry.blockByteCount), isExact: true)
    }

    func finishWriteSame(_ command: SCSICommand, _ parameters: ByteRegion) -> SCSIPlan {
        if let refused = writeSameRange(command.block).refusal { return .fail(refused) }
        return writeSame(
            command.block,
            isZero: parameters.isZero,
            dataOut: geometry.blockByteCount
        )
    }

    private func writeSameRange(
        _ block: SCSICommandBlock
    ) -> (span: BlockSpan, refusal: SCSISense?) {
        let span = block.span
        guard geometry.contains(span.address, span.count) else {
            return (span, SCSISense(.illegalRequest, .addressOutOfRange))
        }
        let field = block.operationCode == 0x41 ? 7 : 10
        let isFine = span.count > 0 && span.count <= geometry.writeSameBlockCountMax
        return (span, isFine ? nil : .invalidField(command: field))
    }

    private func writeSame(
        _ block: SCSICommandBlock,
        isZero: Bool,
        dataOut: UInt32
    ) -> SCSIPlan {
        let span = writeSameRange(block).span
        let operation = BlockOperation(
            isZero ? .writeZeroes : .writeSame,
            offset: span.address << geometry.blockShift,
            byteCount: span.count << geometry.blockShift,
            flags: isZero && block[1] & 0x08 != 0 ? [.mayDeallocate] : []
        )
        return SCSIPlan(.perform(operation), dataOutByteCount: dataOut)
    }

    // MARK: - GET LBA STATUS

    /// GET LBA STATUS.
    ///
    /// Spec: SBC-3, 5.6.
    func planBlockStatus(_ command: SCSICommand) -> SCSIPlan {
        let address = command.block.field64(2)
        guard address < geometry.blockCount else {
            return .fail(.illegalRequest, .addressOutOfRange)
        }
        let room = command.block.field32(10)
        guard room > 0 else { return .reply(.good) }
        let count = room < 24 ? 1 : min((room - 8) / 16, Self.statusCountMax)
        let operation = BlockOperation(
            .blockStatus,
            offset: address << geometry.blockShift,
            byteCount: (geometry.blockCount - address) << geometry.blockShift,
            dataInByteCount: room,
            rangeCount: UInt16(count)
        )
        return SCSIPlan(.perform(operation))
    }
}
