// Commands that move or compare blocks: the data path.

internal import BlockCore

/// The blocks that a command names.
struct BlockSpan: BitwiseCopyable {
    let address: UInt64
    let count: UInt64
}

extension SCSICommandBlock {
    /// The address and the transfer length, where commands of this length have them.
    ///
    /// Spec: SPC-4, section 4.3.2: the operation code's upper three bits tell the length.
    @inline(__always)
    var span: BlockSpan {
        switch operationCode >> 5 {
        case 0:
            let count = UInt64(self[4])
            return BlockSpan(
                address: UInt64(field32(0) & 0x1F_FFFF),
                count: count == 0 ? 256 : count
            )
        case 1, 2: return BlockSpan(address: UInt64(field32(2)), count: UInt64(field16(7)))
        case 5: return BlockSpan(address: UInt64(field32(2)), count: UInt64(field32(6)))
        default: return BlockSpan(address: field64(2), count: UInt64(field32(10)))
        }
    }

    /// DPO and FUA, where byte 1 has them.
    @inline(__always)
    var cacheFlags: BlockOperationFlags {
        guard operationCode >= 0x20 else { return [] }
        var flags: BlockOperationFlags = []
        if self[1] & 0x08 != 0 { flags.insert(.forceUnitAccess) }
        if self[1] & 0x10 != 0 { flags.insert(.disablePageOut) }
        return flags
    }

    /// DPO alone: in the commands that verify, FUA's bit means something else.
    var pageOutFlag: BlockOperationFlags { self[1] & 0x10 != 0 ? [.disablePageOut] : [] }
}

extension LogicalUnit {
    /// Why a span is refused; nil when it is fine.
    @inline(__always)
    private func refusal(_ span: BlockSpan, countMax: UInt64, field: Int) -> SCSISense? {
        guard geometry.contains(span.address, span.count) else {
            return SCSISense(.illegalRequest, .addressOutOfRange)
        }
        return span.count <= countMax ? nil : .invalidField(command: field)
    }

    /// The byte of the command in which the transfer length begins.
    private func lengthField(_ block: SCSICommandBlock) -> Int {
        switch block.operationCode >> 5 {
        case 0: 4
        case 1, 2: 7
        case 5: 6
        default: 10
        }
    }

    /// READ.
    ///
    /// What the initiator has no room for is not read: the residual count says it.
    func planRead(_ command: SCSICommand) -> SCSIPlan {
        let span = command.block.span
        if let sense = refusal(
            span,
            countMax: geometry.transferBlockCountMax,
            field: lengthField(command.block)
        ) {
            return .fail(sense)
        }
        let total = UInt32(truncatingIfNeeded: span.count << geometry.blockShift)
        let wanted = min(total, command.dataInByteCount)
        guard wanted > 0 else { return SCSIPlan(.reply(.good), dataInByteCount: total) }
        let block = UInt64(geometry.blockByteCount)
        let operation = BlockOperation(
            .read,
            offset: span.address << geometry.blockShift,
            byteCount: (UInt64(wanted) + block - 1) & ~(block - 1),
            flags: command.block.cacheFlags,
            dataInByteCount: wanted
        )
        return SCSIPlan(.perform(operation), dataInByteCount: total)
    }

    /// WRITE, ORWRITE.
    ///
    /// Whole blocks of what the initiator sends are written, no more.
    func planWrite(_ command: SCSICommand, _ kind: BlockOperation.Kind) -> SCSIPlan {
        let span = command.block.span
        if let sense = refusal(
            span,
            countMax: geometry.transferBlockCountMax,
            field: lengthField(command.block)
        ) {
            return .fail(sense)
        }
        return transferOut(command, span, kind, command.block.cacheFlags)
    }

    private func transferOut(
        _ command: SCSICommand,
        _ span: BlockSpan,
        _ kind: BlockOperation.Kind,
        _ flags: BlockOperationFlags
    ) -> SCSIPlan {
        let total = UInt32(truncatingIfNeeded: span.count << geometry.blockShift)
        let whole = min(total, command.dataOutByteCount) & ~(geometry.blockByteCount - 1)
        guard whole > 0 else { return SCSIPlan(.reply(.good), dataOutByteCount: total) }
        let operation = BlockOperation(
            kind,
            offset: span.address << geometry.blockShift,
            byteCount: UInt64(whole),
            flags: flags,
            dataOutByteCount: whole
        )
        return SCSIPlan(.perform(operation), dataOutByteCount: total)
    }

    /// WRITE AND VERIFY.
    ///
    /// Spec: SBC-3, 5.40: BYTCHK 00b and 01b.
    func planWriteAndVerify(_ command: SCSICommand) -> SCSIPlan {
        let check = command.block[1] >> 1 & 0x03
        guard check < 2 else { return .fail(.invalidField(command: 1, bit: 2)) }
        let span = command.block.span
        if let sense = refusal(
            span,
            countMax: geometry.transferBlockCountMax,
            field: lengthField(command.block)
        ) {
            return .fail(sense)
        }
        return transferOut(
            command,
            span,
            check == 0 ? .writeAndVerify : .writeAndCompare,
            command.block.pageOutFlag
        )
    }

    /// VERIFY.
    ///
    /// Spec: SBC-3, 5.29: BYTCHK 00b, 01b and 11b.
    func planVerify(_ command: SCSICommand) -> SCSIPlan {
        let check = command.block[1] >> 1 & 0x03
        guard check != 2 else { return .fail(.invalidField(command: 1, bit: 2)) }
        let span = command.block.span
        if let sense = refusal(
            span,
            countMax: geometry.transferBlockCountMax,
            field: lengthField(command.block)
        ) {
            return .fail(sense)
        }
        let flags = command.block.pageOutFlag
        if check == 1 { return transferOut(command, span, .compare, flags) }
        guard span.count > 0 else { return .reply(.good) }
        if check == 3, command.dataOutByteCount != geometry.blockByteCount {
            return .fail(.illegalRequest, .invalidFieldInCDB)
        }
        let data = check == 3 ? geometry.blockByteCount : 0
        let operation = BlockOperation(
            check == 3 ? .compareSame : .verify,
            offset: span.address << geometry.blockShift,
            byteCount: span.count << geometry.blockShift,
            flags: flags,
            dataOutByteCount: data
        )
        return SCSIPlan(.perform(operation), dataOutByteCount: data)
    }

    /// SYNCHRONIZE CACHE.
    ///
    /// With IMMED, too, the answer waits until it is true.
    ///
    /// Durable: the caller answers the operation when everything acknowledged before is.
    func planSynchronize(_ command: SCSICommand) -> SCSIPlan {
        let span = command.block.span
        guard geometry.contains(span.address, span.count) else {
            return .fail(.illegalRequest, .addressOutOfRange)
        }
        let count = span.count == 0 ? geometry.blockCount - span.address : span.count
        let operation = BlockOperation(
            .flush,
            offset: span.address << geometry.blockShift,
            byteCount: count << geometry.blockShift
        )
        return SCSIPlan(.perform(operation))
    }

    /// PRE-FETCH.
    func planPrefetch(_ command: SCSICommand) -> SCSIPlan {
        let span = command.block.span
        guard geometry.contains(span.address, span.count) else {
            return .fail(.illegalRequest, .addressOutOfRange)
        }
        let count = span.count == 0 ? geometry.blockCount - span.address : span.count
        guard count > 0 else { return .reply(.good) }
        let operation = BlockOperation(
            .prefetch,
            offset: span.address << geometry.blockShift,
            byteCount: count << geometry.blockShift
        )
        return SCSIPlan(.perform(operation))
    }

    /// COMPARE AND WRITE.
    ///
    /// Both halves have to come, and nothing else. Spec: SBC-3, 5.2.
    func planCompareAndWrite(_ command: SCSICommand) -> SCSIPlan {
        let span = BlockSpan(
            address: command.block.field64(2),
            count: UInt64(command.block[13])
        )
        if let sense = refusal(span, countMax: geometry.compareBlockCountMax, field: 13) {
            return .fail(sense)
        }
        let byteCount = UInt32(truncatingIfNeeded: span.count << geometry.blockShift)
        guard command.dataOutByteCount == 2 * byteCount else {
            return .fail(.invalidField(command: 13))
        }
        guard byteCount > 0 else { return .reply(.good) }
        let operation = BlockOperation(
            .compareAndWrite,
            offset: span.address << geometry.blockShift,
            byteCount: UInt64(byteCount),
            flags: command.block.cacheFlags,
            dataOutByteCount: 2 * byteCount
        )
        return SCSIPlan(.perform(operation), dataOutByteCount: 2 * byteCount)
    }

    /// WRITE ATOMIC (16).
    ///
    /// Spec: SBC-4, 5.48; boundaries inside the transfer are not served.
    func planWriteAtomic(_ command: SCSICommand) -> SCSIPlan {
        let span = BlockSpan(
            address: command.block.field64(2),
            count: UInt64(command.block.field16(12))
        )
        if let sense = refusal(span, countMax: geometry.atomicBlockCountMax, field: 12) {
            return .fail(sense)
        }
        // A part of it would not be all of it.
        guard UInt64(command.dataOutByteCount) >= span.count << geometry.blockShift else {
            return .fail(.invalidField(command: 12))
        }
        var flags = command.block.cacheFlags
        flags.insert(.atomic)
        return transferOut(command, span, .write, flags)
    }
}
