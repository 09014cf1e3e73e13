import BlockCore
import SCSI
import Testing

/// MODE SENSE and MODE SELECT.
@Suite struct ModeTests {
    private let caching: [UInt8] = [0x08, 18, 0x04] + zeroes(17)

    private func control(_ sense: UInt8 = 0, _ protect: UInt8 = 0) -> [UInt8] {
        [0x0A, 10, sense, 0x10, protect, 0, 0, 0, 0xFF, 0xFF, 0, 0]
    }

    private func sense6(_ page: UInt8, _ flags: UInt8 = 0, room: UInt8 = 255) -> [UInt8] {
        [0x1A, flags, page, 0, room, 0]
    }

    private func select6(_ list: [UInt8], _ flags: UInt8 = 0x10) -> [UInt8] {
        [0x15, flags, 0, 0, UInt8(list.count), 0]
    }

    @Test("MODE SENSE (6) of all pages")
    func sense6_allPages_everyByte() {
        let recovery: [UInt8] = [0x01, 10] + zeroes(10)
        let exceptions: [UInt8] = [0x1C, 10] + zeroes(10)
        let pages = recovery + caching + control() + exceptions
        let descriptor = bytes(1000, 4) + bytes(512, 4)
        let test = TestUnit()
        #expect(test.data(sense6(0x3F)) == [67, 0, 0x10, 8] + descriptor + pages)
        #expect(test.data(sense6(0x3F, 0x08)) == [59, 0, 0x10, 0] + pages)
        #expect(test.data(sense6(0x0A, 0x08)) == [15, 0, 0x10, 0] + control())
        #expect(test.data(sense6(0x3F, room: 4)) == [67, 0, 0x10, 8])
    }

    @Test("MODE SENSE (10), with long block addresses too")
    func sense10_descriptors_everyByte() {
        let test = TestUnit(TestUnit.description(byteCount: 1 << 42))
        let short = test.data([0x5A, 0, 0x0A, 0, 0, 0, 0, 1, 0, 0])
        #expect(short == [0, 26, 0, 0x10, 0, 0, 0, 8] + bytes(.max, 4) + bytes(512, 4) + control())
        let long = test.data([0x5A, 0x10, 0x0A, 0, 0, 0, 0, 1, 0, 0])
        #expect(
            long == [0, 34, 0, 0x10, 1, 0, 0, 16] + bytes(1 << 33, 8) + zeroes(4) + bytes(512, 4)
                + control()
        )
    }

    @Test("The caching page tells the durability mode, the header the write protection")
    func sense6_description_isTold() {
        var description = TestUnit.description()
        description.caching = .writethrough
        description.isReadOnly = true
        let data = TestUnit(description).data(sense6(0x08, 0x08))
        #expect(data[2] == 0x90)
        #expect(data[6] == 0)
    }

    @Test("Changeable and default values; saved ones there are none")
    func sense6_pageControl_decides() {
        let test = TestUnit()
        let changeable = test.data(sense6(0x40 | 0x0A, 0x08)).dropFirst(4)
        #expect(Array(changeable) == [0x0A, 10, 0x04, 0, 0x08] + zeroes(7))
        let list = zeroes(4) + control(0x04)
        #expect(test.run(select6(list), parameters: list).status == .good)
        #expect(Array(test.data(sense6(0x0A, 0x08)).dropFirst(4)) == control(0x04))
        #expect(Array(test.data(sense6(0x8A, 0x08)).dropFirst(4)) == control())
        #expect(test.plan(sense6(0xCA)).code == .savingNotSupported)
    }

    @Test("Unknown pages and subpages are invalid")
    func sense6_unknown_isRefused() {
        let test = TestUnit()
        #expect(test.plan(sense6(0x02)).code == .invalidFieldInCDB)
        #expect(test.plan([0x1A, 0, 0x0A, 1, 255, 0]).code == .invalidFieldInCDB)
        #expect(test.data([0x1A, 8, 0x3F, 0xFF, 255, 0]) == test.data(sense6(0x3F, 0x08)))
    }

    @Test("SWP protects from writing, for all, until it is taken back")
    func select_swp_protects() {
        let test = TestUnit()
        let list = zeroes(8) + control(0, 0x08)
        let select: [UInt8] = [0x55, 0x10, 0, 0, 0, 0, 0, 0, UInt8(list.count), 0]
        #expect(test.run(select, parameters: list).status == .good)
        #expect(
            test.plan(Blocks.ten(0x2A, 0, 1), nexus: 1, dataOut: 512).code == .modeParametersChanged
        )
        #expect(test.plan(Blocks.ten(0x2A, 0, 1), nexus: 1, dataOut: 512).code == .writeProtected)
        #expect(test.data(sense6(0x0A))[2] == 0x90)
        let back = zeroes(4) + control()
        #expect(test.run(select6(back), parameters: back).status == .good)
        #expect(test.plan(Blocks.ten(0x2A, 0, 1), dataOut: 512).operation != nil)
    }

    @Test("D_SENSE decides the format of sense data")
    func select_dSense_isTold() {
        let test = TestUnit()
        #expect(!test.unit.isDescriptorSense)
        let list = zeroes(4) + control(0x04)
        _ = test.run(select6(list), parameters: list)
        #expect(test.unit.isDescriptorSense)
        test.unit.reset(.logicalUnit, cause: NexusIndex(0))
        #expect(!test.unit.isDescriptorSense)
    }

    @Test("What MODE SENSE says can be selected back; that tells nobody")
    func select_unchanged_isGood() {
        let test = TestUnit()
        var list = test.data(sense6(0x3F))
        list[0] = 0
        #expect(test.run(select6(list), parameters: list).status == .good)
        #expect(test.run([0, 0, 0, 0, 0, 0], nexus: 1).status == .good)
        #expect(test.plan(select6([])).status == .good)
    }

    @Test("Lists that are wrong are refused whole")
    func select_wrong_isRefused() {
        let test = TestUnit()
        let table: [([UInt8], SenseCode)] = [
            ([0, 0, 0], .parameterListLength),
            ([0, 0, 0, 8, 0, 0], .parameterListLength),
            ([0, 0, 0, 7] + zeroes(7), .invalidFieldInParameters),
            ([0, 0, 0, 8] + zeroes(4) + bytes(4096, 4), .invalidFieldInParameters),
            ([0, 0, 0, 8] + bytes(999, 4) + zeroes(4), .invalidFieldInParameters),
            (zeroes(4) + [0x0A], .parameterListLength),
            (zeroes(4) + control().dropLast(), .parameterListLength),
            (zeroes(4) + [0x0A, 9] + zeroes(9), .invalidFieldInParameters),
            (zeroes(4) + [0x02, 10] + zeroes(10), .invalidFieldInParameters),
            (zeroes(4) + [0x4A, 10] + zeroes(10), .invalidFieldInParameters),
            (zeroes(4) + control(0x06), .invalidFieldInParameters),
            (zeroes(4) + control(0x04) + [0x08, 18] + zeroes(18), .invalidFieldInParameters),
        ]
        for (list, code) in table {
            #expect(test.run(select6(list), parameters: list).code == code, "\(list)")
        }
        #expect(!test.unit.isDescriptorSense)
        #expect(test.plan(select6(zeroes(4), 0x11), dataOut: 4).code == .invalidFieldInCDB)
        #expect(test.plan(select6(zeroes(4)), dataOut: 3).code == .parameterListLength)
    }
}
