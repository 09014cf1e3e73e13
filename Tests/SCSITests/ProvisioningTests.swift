import BlockCore
import SCSI
import Testing

/// UNMAP, WRITE SAME and GET LBA STATUS.
@Suite struct ProvisioningTests {
    private func unmap(_ ranges: [(UInt64, UInt64)], listed: Int? = nil) -> [UInt8] {
        var descriptors: [UInt8] = []
        for (address, blocks) in ranges {
            descriptors += bytes(address, 8) + bytes(blocks, 4) + [0, 0, 0, 0]
        }
        let count = listed ?? descriptors.count
        return bytes(UInt64(count + 6), 2) + bytes(UInt64(count), 2) + [0, 0, 0, 0] + descriptors
    }

    private func command(_ list: [UInt8]) -> [UInt8] {
        [0x42, 0, 0, 0, 0, 0, 0] + bytes(UInt64(list.count), 2) + [0]
    }

    @Test("UNMAP's ranges are those of its list")
    func unmap_simple_hasRanges() {
        let test = TestUnit()
        let list = unmap([(0, 1), (10, 0), (998, 2)])
        let plan = test.run(command(list), parameters: list)
        #expect(plan.operation == BlockOperation(.unmap, rangeCount: 3))
        #expect(plan.dataOutByteCount == 56)
        let region = test.region(list)
        let ranges = (0..<3).map { test.unit.unmapRange(at: $0, in: region) }
        #expect(
            ranges == [
                BlockRange(offset: 0, byteCount: 512), BlockRange(offset: 5120, byteCount: 0),
                BlockRange(offset: 998 * 512, byteCount: 1024),
            ]
        )
    }

    @Test("UNMAP of nothing is GOOD, also at the end")
    func unmap_zeroBlocks_isGood() {
        let test = TestUnit()
        #expect(test.plan([0x42] + zeroes(9)).status == .good)
        for list in [unmap([]), unmap([(1000, 0)]), unmap([(5, 0), (5, 0)])] {
            #expect(test.run(command(list), parameters: list).status == .good)
        }
    }

    @Test("UNMAP refuses what is beyond the end, too many ranges and too many blocks")
    func unmap_invalid_isRefused() {
        var description = TestUnit.description()
        description.limits.unmapByteCountMax = 100 * 512
        let test = TestUnit(description)
        let table: [([(UInt64, UInt64)], SenseCode)] = [
            ([(999, 2)], .addressOutOfRange), ([(1001, 0)], .addressOutOfRange),
            ([(.max, 1)], .addressOutOfRange), ([(0, 101)], .invalidFieldInParameters),
            ([(0, 60), (100, 41)], .invalidFieldInParameters),
            (Array(repeating: (0, 1), count: 9), .invalidFieldInParameters),
        ]
        for (ranges, code) in table {
            let list = unmap(ranges)
            #expect(test.run(command(list), parameters: list).code == code)
        }
        #expect(test.plan(command([1, 2, 3]), dataOut: 3).code == .parameterListLength)
        #expect(test.plan(command(unmap([(0, 1)])), dataOut: 10).code == .parameterListLength)
        var anchored = command(unmap([(0, 1)]))
        anchored[1] = 1
        #expect(test.plan(anchored, dataOut: 24).code == .invalidFieldInCDB)
    }

    @Test("A descriptor that is not all there does not count")
    func unmap_truncated_isCut() {
        let test = TestUnit()
        let list = Array(unmap([(0, 1), (1, 1)]).dropLast(3))
        #expect(test.run(command(list), parameters: list).operation?.rangeCount == 1)
        let said = unmap([(0, 1)], listed: 64)
        #expect(test.run(command(said), parameters: said).operation?.rangeCount == 1)
    }

    @Test("A volume that is not thin does not know UNMAP")
    func unmap_notThin_isUnknown() {
        var description = TestUnit.description()
        description.isThin = false
        let test = TestUnit(description)
        #expect(test.plan(command(unmap([])), dataOut: 8).code == .invalidOperationCode)
        #expect(test.plan(Blocks.ten(0x41, 0, 1, 0x08), dataOut: 512).code == .invalidFieldInCDB)
    }

    // MARK: - WRITE SAME

    @Test("WRITE SAME fills with a pattern, or with zeroes", arguments: [0x41, 0x93] as [UInt8])
    func writeSame_pattern_decides(_ code: UInt8) {
        let test = TestUnit()
        let zeroes = [UInt8](repeating: 0, count: 512)
        var pattern = zeroes
        pattern[511] = 1
        let table: [([UInt8], UInt8, BlockOperation.Kind, BlockOperationFlags)] = [
            (zeroes, 0x00, .writeZeroes, []), (zeroes, 0x08, .writeZeroes, [.mayDeallocate]),
            (pattern, 0x00, .writeSame, []), (pattern, 0x08, .writeSame, []),
        ]
        for (data, bits, kind, flags) in table {
            let plan = test.run(Blocks.any(code, 3, 4, bits), parameters: data)
            #expect(
                plan.operation == BlockOperation(kind, offset: 1536, byteCount: 2048, flags: flags)
            )
            #expect(plan.dataOutByteCount == 512)
        }
    }

    @Test("WRITE SAME (16) with NDOB needs no data")
    func writeSame_noData_zeroes() {
        let plan = TestUnit().plan(Blocks.sixteen(0x93, 0, 2, 0x09))
        #expect(
            plan.operation == BlockOperation(.writeZeroes, byteCount: 1024, flags: [.mayDeallocate])
        )
        #expect(
            TestUnit().plan(Blocks.ten(0x41, 0, 2, 0x01), dataOut: 512).code == .invalidFieldInCDB
        )
    }

    @Test(
        "WRITE SAME without a length is refused, and so is one beyond the limit or the end",
        arguments: [0x41, 0x93] as [UInt8]
    )
    func writeSame_zeroBlocks_isRefused(_ code: UInt8) {
        let test = TestUnit()
        let data = [UInt8](repeating: 7, count: 512)
        for address in [0, 200, 999, 1000] as [UInt64] {
            #expect(
                test.run(Blocks.any(code, address, 0), parameters: data).code == .invalidFieldInCDB
            )
        }
        #expect(test.run(Blocks.any(code, 200, 800), parameters: data).operation != nil)
        #expect(test.run(Blocks.any(code, 0, 801), parameters: data).code == .invalidFieldInCDB)
        #expect(test.run(Blocks.any(code, 1001, 0), parameters: data).code == .addressOutOfRange)
        #expect(test.run(Blocks.any(code, 999, 2), parameters: data).code == .addressOutOfRange)
    }

    @Test(
        "WRITE SAME takes one block of data, no more and no less",
        arguments: [0x41, 0x93] as [UInt8]
    )
    func writeSame_dataSizes_areExact(_ code: UInt8) {
        let test = TestUnit()
        for sent in [0, 256, 511, 1024] as [UInt32] {
            let plan = test.plan(Blocks.any(code, 0, 1, 0x08), dataOut: sent)
            #expect(plan.reply?.sense.key == .illegalRequest)
        }
        for bits in [0x02, 0x04, 0x10, 0x20] as [UInt8] {
            #expect(
                test.plan(Blocks.any(code, 0, 1, bits), dataOut: 512).code == .invalidFieldInCDB
            )
        }
    }

    // MARK: - GET LBA STATUS

    private func status(_ address: UInt64, _ room: UInt64) -> [UInt8] {
        [0x9E, 0x12] + bytes(address, 8) + bytes(room, 4) + [0, 0]
    }

    @Test("GET LBA STATUS tells extents from its address on")
    func blockStatus_simple_tellsExtents() throws {
        let test = TestUnit()
        let operation = try #require(test.plan(status(10, 40)).operation)
        #expect(operation.kind == .blockStatus)
        #expect(operation.range == BlockRange(offset: 5120, byteCount: 990 * 512))
        #expect(operation.rangeCount == 2)
        let reply = test.unit.completeStatus(
            operation,
            extents: [
                BlockExtent(byteCount: 4096, isAllocated: true),
                BlockExtent(byteCount: 512, isAllocated: false),
                BlockExtent(byteCount: 512, isAllocated: true),
            ],
            dataIn: test.dataIn
        )
        #expect(reply.status == .good)
        let data = test.dataIn.slice(0, Int(reply.dataInByteCount)).array()
        #expect(
            data == bytes(36, 4) + bytes(0, 4) + bytes(10, 8) + bytes(8, 4) + [0, 0, 0, 0]
                + bytes(18, 8) + bytes(1, 4) + [1, 0, 0, 0]
        )
    }

    @Test("GET LBA STATUS with little room tells one extent, cut")
    func blockStatus_littleRoom_isCut() throws {
        let test = TestUnit()
        let operation = try #require(test.plan(status(0, 10)).operation)
        #expect(operation.rangeCount == 1)
        let extents = [BlockExtent(byteCount: 512_000, isAllocated: true)]
        let reply = test.unit.completeStatus(operation, extents: extents, dataIn: test.dataIn)
        #expect(reply.dataInByteCount == 10)
        #expect(test.plan(status(0, 0)).status == .good)
    }

    @Test("GET LBA STATUS beyond the end is out of range")
    func blockStatus_beyondEnd_isOutOfRange() {
        let test = TestUnit()
        for address in [1000, 1001, 1 << 63, UInt64.max] {
            #expect(test.plan(status(address, 24)).code == .addressOutOfRange)
        }
    }

    @Test("An extent of more blocks than a descriptor can say is told in parts")
    func blockStatus_hugeExtent_isSplit() throws {
        let test = TestUnit(TestUnit.description(byteCount: 1 << 42))
        let operation = try #require(test.plan(status(0, 4096)).operation)
        let extents = [BlockExtent(byteCount: 1 << 42, isAllocated: false)]
        let reply = test.unit.completeStatus(operation, extents: extents, dataIn: test.dataIn)
        #expect(reply.dataInByteCount == 8 + 3 * 16)
        #expect(test.dataIn.loadBigEndian(16, as: UInt32.self) == .max)
        #expect(test.dataIn.loadBigEndian(24, as: UInt64.self) == UInt64(UInt32.max))
    }
}
