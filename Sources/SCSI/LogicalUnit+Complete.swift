// From the end of a block operation to status and sense: the one table of SCSI's errors.

public import BlockCore

extension LogicalUnit {
    /// The answer to a command whose block operation ended.
    ///
    /// | result | sense |
    /// |---|---|
    /// | `miscompare` | MISCOMPARE, miscompare during verify, offset of the first difference |
    /// | `unreadable` | MEDIUM ERROR, unrecovered read error, block address |
    /// | `writeFailed` | MEDIUM ERROR, write error |
    /// | `noSpace` | DATA PROTECT, space allocation failed write protect |
    /// | `readOnly` | DATA PROTECT, write protected |
    /// | `outOfRange` | ILLEGAL REQUEST, logical block address out of range |
    /// | `notReady` | NOT READY, becoming ready |
    /// | `moved` | NOT READY, target port in unavailable state: use another path |
    /// | `peerUnreachable` | COPY ABORTED, copy target device not reachable |
    /// | `failed` | HARDWARE ERROR, internal target failure |
    ///
    /// `busy` is the status BUSY.
    ///
    /// An operation that was aborted ends here, too, with ``BlockResult/failed``: the caller then
    /// throws the answer away.
    public func complete(_ operation: BlockOperation, _ result: BlockResult) -> SCSIReply {
        if operation.kind == .copy { return completeCopy(operation, result) }
        return reply(result)
    }

    func reply(_ result: BlockResult) -> SCSIReply {
        switch result {
        case .done: .good
        case .miscompare(let offset):
            SCSIReply(SCSISense(.miscompare, .miscompare).with(information: offset))
        case .unreadable(let offset):
            SCSIReply(
                SCSISense(.mediumError, .unrecoveredReadError)
                    .with(information: offset >> geometry.blockShift)
            )
        case .writeFailed: SCSIReply(.mediumError, .writeError)
        case .noSpace: SCSIReply(.dataProtect, .spaceAllocationFailed)
        case .readOnly: SCSIReply(.dataProtect, .writeProtected)
        case .outOfRange: SCSIReply(.illegalRequest, .addressOutOfRange)
        case .notReady: SCSIReply(.notReady, .becomingReady)
        case .moved: SCSIReply(.notReady, .targetPortUnavailable)
        case .busy: SCSIReply(.busy)
        case .peerUnreachable: SCSIReply(.copyAborted, .copyTargetNotReachable)
        case .failed: SCSIReply(.hardwareError, .internalFailure)
        }
    }

    /// The answer to GET LBA STATUS.
    ///
    /// - Parameters:
    ///   - operation: The operation, of kind ``BlockOperation/Kind/blockStatus``.
    ///   - extents: What lies at its offset and after it, without gaps; at least one, and more than
    ///     `rangeCount` are not looked at.
    ///   - dataIn: At least ``dataInByteCountMax`` bytes.
    /// - Returns: GOOD, with the data that is in `dataIn`.
    public func completeStatus(
        _ operation: BlockOperation,
        extents: some Sequence<BlockExtent>,
        dataIn: ByteRegion
    ) -> SCSIReply {
        var data = DataWriter(dataIn)
        data.skip(8)
        var address = operation.offset >> geometry.blockShift
        var room = Int(operation.rangeCount)
        for extent in extents {
            var blocks = extent.byteCount >> geometry.blockShift
            while blocks > 0, room > 0 {
                let count = min(blocks, UInt64(UInt32.max))
                data.append(address)
                data.append(UInt32(count))
                data.append(UInt8(extent.isAllocated ? 0 : 1))
                data.skip(3)
                address += count
                blocks -= count
                room -= 1
            }
        }
        data.patch(UInt32(data.count - 4), at: 0)
        return SCSIReply(
            .good,
            dataInByteCount: UInt32(min(data.count, Int(operation.dataInByteCount)))
        )
    }
}
