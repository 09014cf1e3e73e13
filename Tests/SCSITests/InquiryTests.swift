import BlockCore
import SCSI
import Testing

/// INQUIRY, byte by byte.
@Suite struct InquiryTests {
    private func inquiry(_ page: UInt8? = nil, room: UInt64 = 0xFFFF) -> [UInt8] {
        [0x12, page == nil ? 0 : 1, page ?? 0] + bytes(room, 2) + [0]
    }

    @Test("Standard data")
    func standard_everyByte() {
        let data = TestUnit().data(inquiry())
        var expected: [UInt8] = [0, 0, 6, 0x12, 91, 0x18, 0, 2]
        expected += Array("CAIRN   VOLUME          0001".utf8) + zeroes(22)
        expected += [0x00, 0xA0, 0x04, 0x60, 0x04, 0xC0, 0x09, 0x60] + zeroes(30)
        #expect(data == expected)
    }

    @Test("Standard data of a removable medium behind two ports")
    func standard_removableMultiport_saysSo() {
        var description = TestUnit.description()
        description.isRemovable = true
        description.portGroups.append(TargetPortGroup(group: 2, targetPort: 2, state: .standby))
        let data = TestUnit(description).data(inquiry())
        #expect(data[1] == 0x80)
        #expect(data[6] == 0x10)
    }

    @Test("Data are cut to the allocation length, whatever it is")
    func any_allocationLength_cuts() {
        let test = TestUnit()
        let whole = test.data(inquiry())
        for room in 0..<300 {
            #expect(test.data(inquiry(room: UInt64(room))) == Array(whole.prefix(room)))
        }
    }

    @Test("A page without EVPD, an unknown page and CMDDT are invalid")
    func page_invalid_isRefused() {
        let test = TestUnit()
        #expect(test.plan([0x12, 0, 1, 1, 0, 0]).code == .invalidFieldInCDB)
        #expect(test.plan([0x12, 0, 0x83, 1, 0, 0]).code == .invalidFieldInCDB)
        #expect(test.plan([0x12, 2, 0, 1, 0, 0]).code == .invalidFieldInCDB)
        let known: Set<UInt8> = [0x00, 0x80, 0x83, 0x86, 0x87, 0xB0, 0xB1, 0xB2]
        for page in 0...255 as ClosedRange<UInt8> {
            #expect(test.data(inquiry(page)).isEmpty != known.contains(page), "\(page)")
        }
    }

    @Test("Supported pages, in ascending order")
    func page00_everyByte() {
        #expect(
            TestUnit().data(inquiry(0x00))
                == [0, 0, 0, 8, 0x00, 0x80, 0x83, 0x86, 0x87, 0xB0, 0xB1, 0xB2]
        )
    }

    @Test("The serial number is the volume's identity")
    func page80_everyByte() {
        #expect(
            TestUnit().data(inquiry(0x80))
                == [0, 0x80, 0, 32] + Array("0123456789abcdeffedcba9876543210".utf8)
        )
    }

    @Test("Designators of the unit, the port and the target")
    func page83_everyByte() {
        let low: [UInt8] = [0xFE, 0xDC, 0xBA, 0x98, 0x76, 0x54, 0x32, 0x10]
        let high: [UInt8] = [0x01, 0x23, 0x45, 0x67, 0x89, 0xAB, 0xCD, 0xEF]
        var expected: [UInt8] = []
        expected += [0x01, 0x03, 0, 16] + [0x60, 0x2C, 0xA1, 0xD7, 0x89, 0xAB, 0xCD, 0xEF] + low
        expected += [0x01, 0x02, 0, 16] + low + [0x02, 0xCA, 0x1D, 0x67, 0x89, 0xAB, 0xCD, 0xEF]
        expected += [0x02, 0x01, 0, 40] + Array("CAIRN   0123456789abcdeffedcba9876543210".utf8)
        expected += [0x01, 0x0A, 0, 18, 0x10, 0] + high + low
        expected += [0x51, 0x94, 0, 4, 0, 0, 0, 1]
        expected += [0x51, 0x95, 0, 4, 0, 0, 0, 1]
        let name = Array("iqn.2026-01.cairn:vm01".utf8)
        expected += [0x53, 0x98, 0, 32] + name + Array(",t,0x0001".utf8) + [0]
        expected += [0x53, 0xA8, 0, 24] + name + [0, 0]
        let data = TestUnit().data(inquiry(0x83))
        #expect(data == [0, 0x83, 0, UInt8(expected.count)] + expected)
    }

    @Test("The port that is told is the one that asked")
    func page83_otherPort_isNamed() {
        var description = TestUnit.description()
        description.portGroups.append(
            TargetPortGroup(group: 300, targetPort: 2, state: .activeNonOptimized)
        )
        let test = TestUnit(description, nexusCount: 0)
        test.unit.attach(NexusIndex(0), TestUnit.nexus(0, targetPort: 2))
        let data = test.data(inquiry(0x83))
        let ports: [UInt8] = [0x51, 0x94, 0, 4, 0, 0, 0, 2, 0x51, 0x95, 0, 4, 0, 0, 1, 44]
        let starts = data.indices.filter { Array(data[$0...].prefix(16)) == ports }
        #expect(starts.count == 1)
    }

    @Test("Extended inquiry data tell of the volatile cache")
    func page86_everyByte() {
        #expect(TestUnit().data(inquiry(0x86)) == [0, 0x86, 0, 60, 0, 7, 1, 1] + zeroes(56))
        var description = TestUnit.description()
        description.caching = .writethrough
        #expect(TestUnit(description).data(inquiry(0x86))[6] == 0)
    }

    @Test("Mode pages are shared by all nexuses")
    func page87_everyByte() {
        #expect(TestUnit().data(inquiry(0x87)) == [0, 0x87, 0, 4, 0x3F, 0xFF, 0, 0])
    }

    @Test("Block limits")
    func pageB0_everyByte() {
        var expected: [UInt8] = [0, 0xB0, 0, 60, 1, 16]
        expected += bytes(8, 2) + bytes(256, 4) + bytes(2048, 4) + zeroes(4)
        expected += bytes(0xFFFF_FFFF, 4) + bytes(8, 4) + bytes(8, 4) + bytes(0x8000_0000, 4)
        expected += bytes(800, 8) + bytes(64, 4) + zeroes(16)
        #expect(TestUnit().data(inquiry(0xB0)) == expected)
    }

    @Test("Block limits of a volume that is not thin, and of one with fewer blocks to unmap")
    func pageB0_unmap_saysItsLimit() {
        var description = TestUnit.description()
        description.limits.unmapByteCountMax = 100 * 512
        #expect(Array(TestUnit(description).data(inquiry(0xB0))[20..<24]) == bytes(100, 4))
        description.isThin = false
        #expect(Array(TestUnit(description).data(inquiry(0xB0))[20..<36]) == zeroes(16))
    }

    @Test("Block device characteristics: nothing rotates")
    func pageB1_everyByte() {
        #expect(TestUnit().data(inquiry(0xB1)) == [0, 0xB1, 0, 60, 0, 1] + zeroes(58))
    }

    @Test("Logical block provisioning")
    func pageB2_everyByte() {
        #expect(TestUnit().data(inquiry(0xB2)) == [0, 0xB2, 0, 4, 0, 0xE4, 2, 0])
        var description = TestUnit.description()
        description.isThin = false
        #expect(TestUnit(description).data(inquiry(0xB2)) == [0, 0xB2, 0, 4, 0, 0, 0, 0])
    }

    @Test(
        "Every page says its own length, for both block sizes",
        arguments: [512, 4096] as [UInt32]
    )
    func pages_all_sayTheirLength(_ block: UInt32) {
        let description = TestUnit.description(byteCount: 1 << 40, blockByteCount: block)
        let test = TestUnit(description)
        for page in test.data(inquiry(0x00)).dropFirst(4) {
            let data = test.data(inquiry(page))
            #expect(data.count == 4 + (Int(data[2]) << 8 | Int(data[3])))
            #expect(data[1] == page)
        }
    }

    @Test("A LUN that is not there says so")
    func absentUnit_commands_areAnswered() {
        let test = TestUnit()
        func plan(_ block: [UInt8]) -> SCSIPlan {
            LogicalUnit.planForAbsentUnit(
                SCSICommand(
                    block: SCSICommandBlock(block),
                    nexus: NexusIndex(0),
                    dataOutByteCount: 0,
                    dataInByteCount: 255
                ),
                lunInventory: [0, 1 << 48],
                dataIn: test.dataIn
            )
        }
        #expect(plan(inquiry()).dataInByteCount == 36)
        #expect(test.dataIn.load(0, as: UInt8.self) == 0x7F)
        #expect(plan(inquiry(0x83)).code == .invalidFieldInCDB)
        #expect(plan([0xA0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]).dataInByteCount == 24)
        #expect(test.dataIn.loadBigEndian(16, as: UInt64.self) == 1 << 48)
        #expect(plan([0x03, 0, 0, 0, 18, 0]).dataInByteCount == 18)
        #expect(test.dataIn.loadBigEndian(12, as: UInt16.self) == 0x2500)
        #expect(plan(Blocks.ten(0x28, 0, 1)).code == .unitNotSupported)
        #expect(plan([0xFF]).code == .unitNotSupported)
    }
}
