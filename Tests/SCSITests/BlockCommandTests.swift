import BlockCore
import SCSI
import Testing

/// Commands that move or compare blocks, in the aspects of libiscsi's tests.
@Suite struct BlockCommandTests {
    private static let reads: [UInt8] = [0x08, 0x28, 0xA8, 0x88]
    private static let writes: [UInt8] = [0x0A, 0x2A, 0xAA, 0x8A, 0x8B, 0x9C, 0x2E, 0xAE, 0x8E]
    private static let verifies: [UInt8] = [0x2F, 0xAF, 0x8F]
    private static let withoutSix = (reads + writes + verifies).filter { $0 >= 0x20 }

    @Test("READ becomes a read of its range", arguments: reads)
    func read_simple_reads(_ code: UInt8) {
        let plan = TestUnit().plan(Blocks.any(code, 5, 3), room: 1536)
        #expect(
            plan.operation
                == BlockOperation(.read, offset: 2560, byteCount: 1536, dataInByteCount: 1536)
        )
        #expect(plan.dataInByteCount == 1536)
    }

    @Test("A length of 0 in READ (6) and WRITE (6) means 256 blocks")
    func six_zeroBlocks_means256() {
        let test = TestUnit()
        #expect(test.plan(Blocks.six(0x08, 0, 0)).operation?.byteCount == 256 * 512)
        let write = test.plan(Blocks.six(0x0A, 0, 0), dataOut: .max)
        #expect(write.operation?.byteCount == 256 * 512)
    }

    @Test("WRITE becomes a write of its range", arguments: writes)
    func write_simple_writes(_ code: UInt8) {
        let kinds: [UInt8: BlockOperation.Kind] = [
            0x8B: .orWrite, 0x2E: .writeAndVerify, 0xAE: .writeAndVerify, 0x8E: .writeAndVerify,
        ]
        let plan = TestUnit().plan(Blocks.any(code, 998, 2), dataOut: 1024)
        #expect(
            plan.operation
                == BlockOperation(
                    kinds[code] ?? .write,
                    offset: 998 * 512,
                    byteCount: 1024,
                    flags: code == 0x9C ? [.atomic] : [],
                    dataOutByteCount: 1024
                )
        )
        #expect(plan.dataOutByteCount == 1024)
    }

    @Test("What lies beyond the end is out of range", arguments: reads + writes + verifies)
    func any_beyondEnd_isOutOfRange(_ code: UInt8) {
        let test = TestUnit()
        for (address, count) in [(999, 2), (1000, 1), (1001, 1), (0x10_0000, 1)]
            as [(UInt64, UInt64)]
        {
            let plan = test.plan(Blocks.any(code, address, count), dataOut: 1 << 20)
            #expect(plan.code == .addressOutOfRange, "\(address)+\(count)")
        }
        guard code >= 0x80, code < 0xA0 else { return }
        for address in [1 << 63, UInt64.max] {
            #expect(
                test.plan(Blocks.any(code, address, 1), dataOut: 512).code == .addressOutOfRange
            )
        }
    }

    @Test("No blocks are GOOD inside the volume and out of range beyond", arguments: withoutSix)
    func any_zeroBlocks_isGoodInside(_ code: UInt8) {
        let test = TestUnit()
        #expect(test.plan(Blocks.any(code, 0, 0)).status == .good)
        #expect(test.plan(Blocks.any(code, 1000, 0)).status == .good)
        #expect(test.plan(Blocks.any(code, 1001, 0)).code == .addressOutOfRange)
    }

    @Test("More than the block limits page allows is an invalid field", arguments: withoutSix)
    func any_tooLong_isInvalidField(_ code: UInt8) {
        let most: UInt64 = code == 0x9C ? 64 : 256
        let test = TestUnit()
        #expect(test.plan(Blocks.any(code, 0, most), dataOut: 1 << 20).code == nil)
        #expect(
            test.plan(Blocks.any(code, 0, most + 1), dataOut: 1 << 20).code == .invalidFieldInCDB
        )
    }

    @Test(
        "DPO and FUA are obeyed",
        arguments: [0x28, 0xA8, 0x88, 0x2A, 0xAA, 0x8A, 0x8B] as [UInt8]
    )
    func any_dpoFua_areFlags(_ code: UInt8) {
        let test = TestUnit()
        let flags: [(UInt8, BlockOperationFlags)] = [
            (0x10, [.disablePageOut]), (0x08, [.forceUnitAccess]),
            (0x18, [.disablePageOut, .forceUnitAccess]), (0x02, []),
        ]
        for (bits, expected) in flags {
            let plan = test.plan(Blocks.any(code, 0, 1, bits), dataOut: 512)
            #expect(plan.operation?.flags == expected)
        }
    }

    @Test("Protection information is refused: there is none", arguments: withoutSix)
    func any_protect_isInvalidField(_ code: UInt8) {
        let test = TestUnit()
        for protect in 1...7 as ClosedRange<UInt8> {
            let plan = test.plan(Blocks.any(code, 0, 1, protect << 5), dataOut: 512)
            #expect(plan.code == .invalidFieldInCDB)
            #expect(plan.reply?.sense.fieldByte == 1)
        }
    }

    @Test("What changes the medium is write protected", arguments: writes + [0x89, 0x41, 0x93])
    func write_writeProtected_isRefused(_ code: UInt8) {
        var description = TestUnit.description()
        description.isReadOnly = true
        let test = TestUnit(description)
        let plan = test.plan(Blocks.any(code, 0, 1), dataOut: code == 0x89 ? 1024 : 512)
        #expect(plan.code == .writeProtected)
        #expect(plan.reply?.sense.key == .dataProtect)
        #expect(test.plan(Blocks.any(0x28, 0, 1)).operation?.kind == .read)
    }

    // MARK: - Residuals

    @Test("READ yields what the initiator has room for, and says what it would have")
    func read_residuals_areTold() {
        let test = TestUnit()
        let nothing = test.plan(Blocks.ten(0x28, 0, 1), room: 0)
        #expect(nothing.status == .good)
        #expect(nothing.dataInByteCount == 512)
        let part = test.plan(Blocks.ten(0x28, 0, 1), room: 200)
        #expect(part.operation?.byteCount == 512)
        #expect(part.operation?.dataInByteCount == 200)
        let one = test.plan(Blocks.ten(0x28, 0, 2), room: 512)
        #expect(one.operation?.byteCount == 512)
        #expect(one.dataInByteCount == 1024)
        let more = test.plan(Blocks.ten(0x28, 0, 1), room: 10000)
        #expect(more.operation?.dataInByteCount == 512)
        #expect(more.dataInByteCount == 512)
    }

    @Test(
        "WRITE writes whole blocks of what is sent, and says what it would have",
        arguments: [0x2A, 0xAA, 0x8A, 0x2E, 0xAE, 0x8E] as [UInt8]
    )
    func write_residuals_areTold(_ code: UInt8) {
        let test = TestUnit()
        for sent in [0, 200] as [UInt32] {
            let plan = test.plan(Blocks.any(code, 0, 1), dataOut: sent)
            #expect(plan.status == .good)
            #expect(plan.dataOutByteCount == 512)
        }
        let one = test.plan(Blocks.any(code, 0, 2), dataOut: 512)
        #expect(one.operation?.byteCount == 512)
        #expect(one.operation?.dataOutByteCount == 512)
        #expect(one.dataOutByteCount == 1024)
        let more = test.plan(Blocks.any(code, 0, 1), dataOut: 10000)
        #expect(more.operation?.byteCount == 512)
        #expect(more.dataOutByteCount == 512)
    }

    @Test("A part of WRITE ATOMIC is not written")
    func writeAtomic_shortData_isRefused() {
        let plan = TestUnit().plan(Blocks.any(0x9C, 0, 2), dataOut: 512)
        #expect(plan.code == .invalidFieldInCDB)
    }

    @Test("A store that cannot write atomically does not know the command")
    func writeAtomic_unsupported_isUnknown() {
        var description = TestUnit.description()
        description.limits.atomicByteCountMax = 0
        let plan = TestUnit(description).plan(Blocks.any(0x9C, 0, 1), dataOut: 512)
        #expect(plan.code == .invalidOperationCode)
    }

    // MARK: - Comparing

    @Test("BYTCHK says what VERIFY compares", arguments: verifies)
    func verify_byteCheck_decides(_ code: UInt8) {
        let test = TestUnit()
        let none = test.plan(Blocks.any(code, 1, 2))
        #expect(none.operation == BlockOperation(.verify, offset: 512, byteCount: 1024))
        let all = test.plan(Blocks.any(code, 1, 2, 0x02), dataOut: 1024)
        #expect(all.operation?.kind == .compare)
        #expect(all.operation?.dataOutByteCount == 1024)
        let one = test.plan(Blocks.any(code, 1, 2, 0x06), dataOut: 512)
        #expect(one.operation?.kind == .compareSame)
        #expect(one.operation?.byteCount == 1024)
        #expect(one.operation?.dataOutByteCount == 512)
        #expect(test.plan(Blocks.any(code, 1, 2, 0x04)).code == .invalidFieldInCDB)
    }

    @Test("BYTCHK says what WRITE AND VERIFY compares", arguments: [0x2E, 0xAE, 0x8E] as [UInt8])
    func writeAndVerify_byteCheck_decides(_ code: UInt8) {
        let test = TestUnit()
        let plan = test.plan(Blocks.any(code, 0, 1, 0x12), dataOut: 512)
        #expect(plan.operation?.kind == .writeAndCompare)
        #expect(plan.operation?.flags == [.disablePageOut])
        for check in [0x04, 0x06] as [UInt8] {
            #expect(
                test.plan(Blocks.any(code, 0, 1, check), dataOut: 512).code == .invalidFieldInCDB
            )
        }
    }

    @Test("COMPARE AND WRITE takes two halves, no more and no less")
    func compareAndWrite_sizes_areExact() {
        let test = TestUnit()
        let plan = test.plan(Blocks.compareAndWrite(4, 2, 0x08), dataOut: 2048)
        #expect(
            plan.operation
                == BlockOperation(
                    .compareAndWrite,
                    offset: 2048,
                    byteCount: 1024,
                    flags: [.forceUnitAccess],
                    dataOutByteCount: 2048
                )
        )
        for sent in [0, 1024, 2047, 4096] as [UInt32] {
            #expect(
                test.plan(Blocks.compareAndWrite(4, 2), dataOut: sent).code == .invalidFieldInCDB
            )
        }
        #expect(test.plan(Blocks.compareAndWrite(4, 0)).status == .good)
        #expect(test.plan(Blocks.compareAndWrite(0, 16), dataOut: 16384).operation != nil)
        #expect(test.plan(Blocks.compareAndWrite(0, 17), dataOut: 17408).code == .invalidFieldInCDB)
        #expect(
            test.plan(Blocks.compareAndWrite(1000, 1), dataOut: 1024).code == .addressOutOfRange
        )
    }

    // MARK: - Caches

    @Test("SYNCHRONIZE CACHE flushes", arguments: [0x35, 0x91] as [UInt8])
    func synchronize_simple_flushes(_ code: UInt8) {
        let test = TestUnit()
        #expect(
            test.plan(Blocks.any(code, 0, 0)).operation
                == BlockOperation(.flush, offset: 0, byteCount: 512_000)
        )
        #expect(test.plan(Blocks.any(code, 10, 5, 0x06)).operation?.byteCount == 2560)
        #expect(test.plan(Blocks.any(code, 1000, 0)).operation?.kind == .flush)
        #expect(test.plan(Blocks.any(code, 1000, 1)).code == .addressOutOfRange)
    }

    @Test("PRE-FETCH is a hint", arguments: [0x34, 0x90] as [UInt8])
    func prefetch_simple_prefetches(_ code: UInt8) {
        let test = TestUnit()
        var block = Blocks.any(code, 0, 1, 0x02)
        block[code == 0x34 ? 6 : 14] = 3
        #expect(test.plan(block).operation == BlockOperation(.prefetch, byteCount: 512))
        #expect(test.plan(Blocks.any(code, 999, 0)).operation?.byteCount == 512)
        #expect(test.plan(Blocks.any(code, 1000, 0)).status == .good)
        #expect(test.plan(Blocks.any(code, 1001, 0)).code == .addressOutOfRange)
    }

    // MARK: - Results

    @Test("Each result of an operation has its status and sense")
    func complete_everyResult_hasItsSense() {
        let unit = TestUnit().unit
        let operation = BlockOperation(.write, offset: 0, byteCount: 512)
        let table: [(BlockResult, SCSIStatus, SenseKey, SenseCode)] = [
            (.done, .good, .noSense, .none),
            (.miscompare(offset: 27), .checkCondition, .miscompare, .miscompare),
            (.unreadable(offset: 1024), .checkCondition, .mediumError, .unrecoveredReadError),
            (.writeFailed, .checkCondition, .mediumError, .writeError),
            (.noSpace, .checkCondition, .dataProtect, .spaceAllocationFailed),
            (.readOnly, .checkCondition, .dataProtect, .writeProtected),
            (.outOfRange, .checkCondition, .illegalRequest, .addressOutOfRange),
            (.notReady, .checkCondition, .notReady, .becomingReady),
            (.moved, .checkCondition, .notReady, .targetPortUnavailable),
            (.busy, .busy, .noSense, .none),
            (.peerUnreachable, .checkCondition, .copyAborted, .copyTargetNotReachable),
            (.failed, .checkCondition, .hardwareError, .internalFailure),
        ]
        for (result, status, key, code) in table {
            let reply = unit.complete(operation, result)
            #expect(reply.status == status)
            #expect(reply.sense.key == key)
            #expect(reply.sense.code == code)
        }
        #expect(unit.complete(operation, .miscompare(offset: 27)).sense.information == 27)
        #expect(unit.complete(operation, .unreadable(offset: 1024)).sense.information == 2)
    }
}
