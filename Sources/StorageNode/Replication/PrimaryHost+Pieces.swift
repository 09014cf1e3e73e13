// How a client's request on a replicated volume is cut into pieces that the machine takes.

internal import BlockCore
internal import LogStore
internal import Reactor
internal import Replication

/// How requests are cut.
enum Piece {
    /// Blocks of a read or a write in one piece: what one record of a replica's log and one frame of
    /// the wire take.
    static let dataBlockCount: UInt64 = 64
    /// Blocks of zeroes in one piece: a leaf of the map.
    static let zeroBlockCount: UInt64 = 256

    /// Where the piece that begins at `block` ends.
    static func end(_ block: UInt64, isZero: Bool, before limit: UInt64) -> UInt64 {
        let count = isZero ? zeroBlockCount : dataBlockCount
        return min((block / count + 1) * count, limit)
    }

    // Marks of a machine's request: which operation, and which piece of it.
    private static let edgeBit: UInt64 = 1 << 31

    static func token(_ operation: Int32, offset: UInt64) -> UInt64 {
        UInt64(UInt32(bitPattern: operation)) << 32 | offset
    }
    static func edgeToken(_ operation: Int32, isTail: Bool) -> UInt64 {
        token(operation, offset: edgeBit | (isTail ? 1 : 0))
    }
    static func operation(_ token: UInt64) -> Int32 { Int32(truncatingIfNeeded: token >> 32) }
    static func isEdge(_ token: UInt64) -> Bool { token & edgeBit != 0 }
    static func isTail(_ token: UInt64) -> Bool { token & 1 != 0 }
    static func offset(_ token: UInt64) -> UInt64 { token & (edgeBit - 1) }
}

extension Worker {
    /// Hands out the next piece; false when there is no room for it now.
    func issue(
        _ index: Int32,
        _ primary: PrimaryHost,
        _ machine: PrimaryMachine
    ) -> Bool {
        let operation = primary.operations[index]
        let block = operation.cursor
        let isZero = isZeroPiece(operation, block)
        var limit = operation.end
        if operation.request.kind == .writeZeroes {
            if !isZero {
                limit = block + 1
            } else if !operation.coversTail {
                limit = operation.end - 1
            }
        }
        let end = Piece.end(block, isZero: isZero, before: limit)
        let range = BlockRange(first: block, count: UInt32(end - block))
        let token = Piece.token(index, offset: block - operation.first)
        if operation.request.kind == .read {
            guard machine.submitRead(token: token, range: range, now: now) else { return false }
        } else {
            guard let payload = payload(operation, range, isZero: isZero) else { return false }
            let isForced = operation.request.flags.contains(.forceUnitAccess)
            guard
                machine.submitWrite(
                    token: token,
                    range: range,
                    payload: payload,
                    isForced: isForced,
                    now: now
                )
            else {
                replication.payloads.release(payload)
                return false
            }
        }
        primary.operations[index].cursor = end
        primary.operations[index].pendingCount += 1
        return true
    }

    private func isZeroPiece(_ operation: VolumeOperation, _ block: UInt64) -> Bool {
        switch operation.request.kind {
        case .trim: true
        case .writeZeroes:
            !(block == operation.first && !operation.coversHead)
                && !(block == operation.end - 1 && !operation.coversTail)
        default: false
        }
    }

    /// The bytes of a piece, over what its partial blocks held; nil when there is no room.
    private func payload(
        _ operation: VolumeOperation,
        _ range: BlockRange,
        isZero: Bool
    ) -> PayloadID? {
        let request = operation.request
        if isZero {
            let keepsBlocks = request.kind == .writeZeroes && request.flags.contains(.noHole)
            return keepsBlocks ? .allocatedZeroes : .zeroes
        }
        guard let payload = replication.payloads.allocate(byteCount: range.byteCount) else {
            replication.isStarved = true
            return nil
        }
        let region = replication.payloads.region(payload)
        if range.first == operation.first, !operation.coversHead {
            lay(operation.head, into: region.slice(0, 4096))
        }
        if range.first + UInt64(range.count) == operation.end, !operation.coversTail {
            // Of a single block there is one copy, the head's.
            let old = operation.end - operation.first == 1 ? operation.head : operation.tail
            lay(old, into: region.suffix(from: range.byteCount - 4096))
        }
        let start = range.first << BlockGeometry.blockShift
        let from = max(start, request.offset)
        let to = min(start + UInt64(range.byteCount), request.offset + request.byteCount)
        let target = region.slice(Int(from - start), Int(to - from))
        if request.kind == .writeZeroes {
            target.zero()
        } else {
            target.copy(from: request.region.slice(Int(from - request.offset), Int(to - from)))
        }
        // Here, where the client's bytes come in: frames and stores hand them on.
        _ = replication.payloads.checksums(payload)
        return payload
    }

    private func lay(_ old: PayloadID, into block: ByteRegion) {
        let bytes = replication.payloads.region(old)
        if bytes.isEmpty { block.zero() } else { block.copy(from: bytes) }
    }

    // MARK: - Blocks that are covered in part

    /// Reads the first and the last block, as far as they are covered in part.
    func readEdges(
        _ index: Int32,
        _ primary: PrimaryHost,
        _ machine: PrimaryMachine
    ) -> Bool {
        let operation = primary.operations[index]
        let isOneBlock = operation.end - operation.first == 1
        let needsHead = !operation.coversHead || isOneBlock
        let needsTail = !operation.coversTail && !isOneBlock
        guard machine.roomCount >= 2 else { return false }
        primary.operations[index].state = .readingEdges
        if needsHead { readEdge(index, operation.first, isTail: false, primary, machine) }
        if needsTail { readEdge(index, operation.end - 1, isTail: true, primary, machine) }
        return true
    }

    private func readEdge(
        _ index: Int32,
        _ block: UInt64,
        isTail: Bool,
        _ primary: PrimaryHost,
        _ machine: PrimaryMachine
    ) {
        let token = Piece.edgeToken(index, isTail: isTail)
        primary.operations[index].pendingCount += 1
        let isTaken = machine.submitRead(
            token: token,
            range: BlockRange(first: block, count: 1),
            now: now
        )
        precondition(isTaken, "there was room for two requests")
    }
}
