import BlockCore
import SCSI
import TestSupport
import Testing

/// What a unit tells of its capacity, its commands, its ports and its state.
@Suite(.background) struct ReportTests {
    // MARK: - Capacity

    @Test("READ CAPACITY (10) tells the last block, or that it cannot")
    func readCapacity10_everyByte() {
        let block: [UInt8] = [0x25] + zeroes(9)
        #expect(TestUnit().data(block) == bytes(999, 4) + bytes(512, 4))
        let large = TestUnit(TestUnit.description(byteCount: 1 << 42))
        #expect(large.data(block) == bytes(0xFFFF_FFFF, 4) + bytes(512, 4))
        #expect(TestUnit().plan([0x25, 0, 0, 0, 0, 1, 0, 0, 0, 0]).code == .invalidFieldInCDB)
        #expect(TestUnit().data([0x25, 0, 0, 0, 0, 1, 0, 0, 1, 0]).count == 8)
    }

    @Test("READ CAPACITY (16)")
    func readCapacity16_everyByte() {
        let test = TestUnit()
        let whole = bytes(999, 8) + bytes(512, 4) + [0, 3, 0xC0, 0] + zeroes(16)
        for room in 0...40 as ClosedRange<UInt8> {
            let block = [0x9E, 0x10] + zeroes(8) + [0, 0, 0, room, 0, 0]
            #expect(test.data(block) == Array(whole.prefix(Int(room))))
        }
        var description = TestUnit.description(byteCount: 4096, blockByteCount: 4096)
        description.isThin = false
        let block = [0x9E, 0x10] + zeroes(8) + [0, 0, 0, 32, 0, 0]
        #expect(TestUnit(description).data(block) == bytes(0, 8) + bytes(4096, 4) + zeroes(20))
    }

    @Test("There are no defects")
    func readDefects_everyByte() {
        let test = TestUnit()
        #expect(test.data([0x37, 0, 0x1D, 0, 0, 0, 0, 0, 32, 0]) == [0, 0x1D, 0, 0])
        #expect(test.data([0xB7, 0x18, 0, 0, 0, 0, 0, 0, 0, 32, 0, 0]) == [0, 0x18] + zeroes(6))
    }

    // MARK: - Commands

    private func opcodes(_ options: UInt8, _ code: UInt8 = 0, _ action: UInt64 = 0) -> [UInt8] {
        [0xA3, 0x0C, options, code] + bytes(action, 2) + bytes(65535, 4) + [0, 0]
    }

    /// What REPORT SUPPORTED OPERATION CODES lists: code, action or nil, byte count.
    private func listed(_ test: TestUnit) -> [(code: UInt8, action: UInt8?, byteCount: Int)] {
        let data = test.data(opcodes(0))
        var entries: [(code: UInt8, action: UInt8?, byteCount: Int)] = []
        for index in stride(from: 4, to: data.count, by: 8) {
            let hasAction = data[index + 5] & 1 != 0
            let action: UInt8? = hasAction ? data[index + 3] : nil
            entries.append((data[index], action, Int(data[index + 7])))
        }
        return entries
    }

    @Test("All commands are listed, each once, with a length that fits its code")
    func opcodes_all_areListed() {
        let test = TestUnit()
        let all = listed(test)
        #expect(all.count == 61)
        #expect(Set(all.map { Int($0.code) << 8 | Int($0.action ?? 0) }).count == all.count)
        for entry in all {
            let lengths: [UInt8: Int] = [0: 6, 1: 10, 2: 10, 4: 16, 5: 12]
            #expect(lengths[entry.code >> 5] == entry.byteCount)
        }
        let data = test.data(opcodes(0x80))
        #expect(data.count == 4 + 20 * all.count)
        #expect(Array(data[0..<4]) == bytes(UInt64(20 * all.count), 4))
        #expect(data[9] & 2 != 0)
        #expect(Array(data[12..<24]) == [0, 10] + zeroes(10))
    }

    @Test("One command, asked for in the way that fits it")
    func opcodes_one_fitsItsForm() {
        let test = TestUnit()
        for entry in listed(test) {
            let plain = test.plan(opcodes(1, entry.code))
            let acting = test.plan(opcodes(2, entry.code, UInt64(entry.action ?? 0)))
            #expect((plain.code == .invalidFieldInCDB) == (entry.action != nil))
            #expect((acting.code == .invalidFieldInCDB) == (entry.action == nil))
            let data = test.data(opcodes(3, entry.code, UInt64(entry.action ?? 0)))
            #expect(data.count == 4 + entry.byteCount)
            #expect(data[1] == 3)
            #expect(data[4] == entry.code)
            if let action = entry.action { #expect(data[5] & 0x1F == action) }
        }
        #expect(test.data(opcodes(1, 0xEE)) == [0, 1, 0, 0])
        #expect(test.data(opcodes(2, 0x9E, 0x1F)) == [0, 1, 0, 0])
        #expect(test.data(opcodes(3, 0x28, 1)) == [0, 1, 0, 0])
        #expect(test.plan(opcodes(4)).code == .invalidFieldInCDB)
        #expect(test.data(opcodes(0x81, 0x28)).count == 4 + 10 + 12)
    }

    @Test("READ (10) is reported with the bits that it looks at")
    func opcodes_read10_everyByte() {
        #expect(
            TestUnit().data(opcodes(1, 0x28))
                == [0, 3, 0, 10, 0x28, 0x1A, 0xFF, 0xFF, 0xFF, 0xFF, 0x1F, 0xFF, 0xFF, 0]
        )
    }

    @Test("A bit outside what is reported is refused: the dispatcher uses the same table")
    func opcodes_everyBit_isObeyed() {
        let test = TestUnit()
        for entry in listed(test) {
            let usage = Array(
                test.data(opcodes(3, entry.code, UInt64(entry.action ?? 0))).dropFirst(4)
            )
            for index in 1..<entry.byteCount {
                for bit in 0..<8 as Range<UInt8> where usage[index] & 1 << bit == 0 {
                    // A service action's bits choose another command.
                    if index == 1, entry.action != nil, bit < 5 { continue }
                    var block = zeroes(entry.byteCount)
                    block[0] = entry.code
                    block[1] = entry.action ?? 0
                    block[index] |= 1 << bit
                    let plan = test.plan(block, dataOut: 1 << 20)
                    #expect(plan.code == .invalidFieldInCDB, "\(block)")
                    #expect(plan.reply?.sense.fieldByte == UInt16(index), "\(block)")
                }
            }
        }
    }

    @Test("What is not listed is unknown, and a service action that is not is invalid")
    func dispatch_unlisted_isUnknown() {
        let test = TestUnit()
        let all = listed(test)
        for code in 0...255 as ClosedRange<UInt8> {
            let mine = all.filter { $0.code == code }
            if mine.isEmpty {
                #expect(test.plan([code]).code == .invalidOperationCode)
            } else if mine[0].action != nil {
                for action in 0..<32 as Range<UInt8>
                where !mine.contains(where: { $0.action == action }) {
                    #expect(test.plan([code, action]).code == .invalidFieldInCDB)
                }
            }
        }
    }

    @Test("Task management functions")
    func taskManagement_everyByte() {
        let test = TestUnit()
        func block(_ flags: UInt8, _ room: UInt8) -> [UInt8] {
            [0xA3, 0x0D, flags, 0, 0, 0, 0, 0, 0, room, 0, 0]
        }
        #expect(test.data(block(0, 255)) == [0xD8, 0, 0, 0])
        #expect(test.data(block(0x80, 255)) == [0xD8, 0, 0, 12] + zeroes(12))
        #expect(test.plan(block(0, 3)).code == .invalidFieldInCDB)
    }

    // MARK: - LUNs and ports

    @Test("REPORT LUNS lists the target's units")
    func reportLUNs_everyByte() {
        let test = TestUnit()
        test.unit.lunInventory = [0, 0x0001 << 48]
        func block(_ select: UInt8, _ room: UInt64) -> [UInt8] {
            [0xA0, 0, select, 0, 0, 0] + bytes(room, 4) + [0, 0]
        }
        let whole = bytes(16, 4) + zeroes(4) + zeroes(8) + [0, 1] + zeroes(6)
        #expect(test.data(block(0, 255)) == whole)
        #expect(test.data(block(2, 16)) == Array(whole.prefix(16)))
        #expect(test.data(block(1, 255)) == zeroes(8))
        #expect(test.plan(block(3, 255)).code == .invalidFieldInCDB)
        #expect(test.plan(block(0, 15)).code == .invalidFieldInCDB)
    }

    @Test("REPORT TARGET PORT GROUPS tells every group once, with its ports")
    func reportPortGroups_everyByte() {
        var description = TestUnit.description()
        description.portGroups = [
            TargetPortGroup(group: 1, targetPort: 1, state: .activeOptimized),
            TargetPortGroup(group: 2, targetPort: 2, state: .activeNonOptimized),
            TargetPortGroup(group: 1, targetPort: 3, state: .activeOptimized),
        ]
        let test = TestUnit(description)
        let first: [UInt8] = [0x80, 0x8F, 0, 1, 0, 2, 0, 2, 0, 0, 0, 1, 0, 0, 0, 3]
        let second: [UInt8] = [0x01, 0x8F, 0, 2, 0, 2, 0, 1, 0, 0, 0, 2]
        func block(_ format: UInt8, _ room: UInt8 = 255) -> [UInt8] {
            [0xA3, 0x0A | format << 5, 0, 0, 0, 0, 0, 0, 0, room, 0, 0]
        }
        #expect(test.data(block(0)) == bytes(28, 4) + first + second)
        #expect(test.data(block(1)) == bytes(32, 4) + [0x10, 0, 0, 0] + first + second)
        #expect(test.data(block(0, 4)) == bytes(28, 4))
        #expect(test.plan(block(2)).code == .invalidFieldInCDB)
    }

    @Test("A path that does not lead to the medium says why")
    func access_notActive_isNotReady() {
        let table: [(AccessState, SenseCode?)] = [
            (.activeOptimized, nil), (.activeNonOptimized, nil), (.standby, .targetPortStandby),
            (.unavailable, .targetPortUnavailable), (.transitioning, .accessStateTransition),
        ]
        for (state, code) in table {
            var description = TestUnit.description()
            description.portGroups[0].state = state
            let test = TestUnit(description)
            #expect(test.plan(Blocks.ten(0x28, 0, 1)).code == code)
            #expect(test.plan([0, 0, 0, 0, 0, 0]).code == code)
            #expect(!test.data([0x12, 0, 0, 0, 255, 0]).isEmpty)
        }
    }

    // MARK: - Sense data

    @Test("Fixed and descriptor sense data")
    func sense_bothFormats_everyByte() {
        let test = TestUnit()
        func encode(_ sense: SCSISense, _ isDescriptor: Bool) -> [UInt8] {
            let count = sense.encode(into: test.dataIn, isDescriptorFormat: isDescriptor)
            return test.dataIn.slice(0, count).array()
        }
        let field = SCSISense.invalidField(command: 2, bit: 5)
        #expect(
            encode(field, false)
                == [0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x24, 0, 0, 0xCD, 0, 2]
        )
        #expect(
            encode(field, true)
                == [0x72, 5, 0x24, 0, 0, 0, 0, 8, 2, 6, 0, 0, 0xCD, 0, 2, 0]
        )
        let miscompare = SCSISense(.miscompare, .miscompare).with(information: 27)
        #expect(
            encode(miscompare, false)
                == [0xF0, 0, 14, 0, 0, 0, 27, 10, 0, 0, 0, 0, 0x1D, 0, 0, 0, 0, 0]
        )
        #expect(
            encode(miscompare.with(information: 1 << 33), true)
                == [0x72, 14, 0x1D, 0, 0, 0, 0, 12, 0, 10, 0x80, 0] + bytes(1 << 33, 8)
        )
        #expect(encode(miscompare.with(information: 1 << 33), false)[0] == 0x70)
        let list = SCSISense.invalidField(parameters: 300)
        #expect(Array(encode(list, false)[15...]) == [0x80, 1, 44])
    }
}
