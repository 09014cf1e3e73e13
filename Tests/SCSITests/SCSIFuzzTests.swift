import BlockCore
import SCSI
import TestSupport
import Testing

/// Whatever an initiator sends gets one answer, and nothing traps.
@Suite(.background) struct SCSIFuzzTests {
    /// Commands for each seed; a seed takes well under a second.
    private static let commandCount = 20000

    /// What holds for every plan, and carries it to its end.
    private func finish(
        _ plan: SCSIPlan,
        _ command: SCSICommand,
        _ test: TestUnit,
        _ random: inout TestRandom
    ) {
        switch plan.step {
        case .reply(let reply): check(reply, plan)
        case .collect(let byteCount):
            #expect(byteCount > 0)
            #expect(byteCount <= command.dataOutByteCount)
            #expect(Int(byteCount) <= LogicalUnit.parameterByteCountMax)
            let list = parameters(Int(byteCount), &random)
            let next = test.unit.plan(command, parameters: test.region(list), dataIn: test.dataIn)
            if case .collect = next.step { Issue.record("parameters are collected twice") }
            finish(next, command, list, test, &random)
        default: finish(plan, command, [], test, &random)
        }
    }

    private func finish(
        _ plan: SCSIPlan,
        _ command: SCSICommand,
        _ list: [UInt8],
        _ test: TestUnit,
        _ random: inout TestRandom
    ) {
        switch plan.step {
        case .reply(let reply): check(reply, plan)
        case .collect: break
        case .storeReservations:
            let outcome: StoreOutcome = random.next() % 8 == 0 ? .failed : .stored
            check(test.unit.reservationsStored(outcome).reply, plan)
            #expect(test.unit.reservations.isValid)
        case .perform(let operation): perform(operation, command, list, test, &random)
        }
    }

    private func check(_ reply: SCSIReply, _ plan: SCSIPlan) {
        #expect(Int(reply.dataInByteCount) <= LogicalUnit.dataInByteCountMax)
        #expect((reply.status == .checkCondition) == (reply.sense.key != .noSense))
        if reply.status != .good { #expect(reply.dataInByteCount == 0) }
    }

    private func perform(
        _ operation: BlockOperation,
        _ command: SCSICommand,
        _ list: [UInt8],
        _ test: TestUnit,
        _ random: inout TestRandom
    ) {
        let byteCount = test.unit.description.byteCount
        #expect(
            operation.offset <= byteCount && operation.byteCount <= byteCount - operation.offset
        )
        #expect(operation.offset % 512 == 0 && operation.byteCount % 512 == 0)
        #expect(operation.dataOutByteCount <= command.dataOutByteCount)
        if operation.kind != .blockStatus {
            #expect(operation.dataInByteCount <= command.dataInByteCount)
        }
        let region = test.region(list)
        for index in 0..<Int(operation.rangeCount) {
            if operation.kind == .unmap {
                let range = test.unit.unmapRange(at: index, in: region)
                #expect(range.offset <= byteCount && range.byteCount <= byteCount - range.offset)
            } else if operation.kind == .copy {
                let segment = test.unit.copySegment(at: index, in: region)
                #expect(segment.map { $0.destinationOffset + $0.byteCount <= byteCount } == true)
            }
        }
        if operation.kind == .blockStatus {
            let extents = [BlockExtent(byteCount: operation.byteCount, isAllocated: true)]
            _ = test.unit.completeStatus(operation, extents: extents, dataIn: test.dataIn)
        } else {
            let results: [BlockResult] = [.done, .noSpace, .miscompare(offset: .max), .failed]
            _ = test.unit.complete(operation, results[Int(random.next() % 4)])
        }
    }

    /// Bytes that look like parameters now and then: small numbers, few bits.
    private func parameters(_ byteCount: Int, _ random: inout TestRandom) -> [UInt8] {
        let style = random.next() % 4
        return (0..<byteCount).map { _ in
            let byte = UInt8(truncatingIfNeeded: random.next())
            switch style {
            case 0: return byte
            case 1: return byte % 3
            case 2: return random.next() % 8 == 0 ? byte & 0x3F : 0
            default: return 0
            }
        }
    }

    private func count(_ random: inout TestRandom) -> UInt32 {
        switch random.next() % 4 {
        case 0: 0
        case 1: UInt32(random.next() % 64)
        case 2: UInt32(random.next() % 10000)
        default: UInt32(truncatingIfNeeded: random.next())
        }
    }

    private func step(_ bytes: [UInt8], _ test: TestUnit, _ random: inout TestRandom) {
        let command = SCSICommand(
            block: SCSICommandBlock(bytes),
            nexus: NexusIndex(UInt8(random.next() % 3)),
            dataOutByteCount: count(&random),
            dataInByteCount: count(&random)
        )
        finish(test.unit.plan(command, dataIn: test.dataIn), command, test, &random)
    }

    private func removable() -> TestUnit {
        var description = TestUnit.description()
        description.isRemovable = true
        return TestUnit(description)
    }

    @Test("Random bytes", arguments: 1...4 as ClosedRange<UInt64>)
    func plan_randomBytes_isAnswered(_ seed: UInt64) {
        var random = TestRandom(state: seed)
        let test = removable()
        for _ in 0..<Self.commandCount {
            step((0..<16).map { _ in UInt8(truncatingIfNeeded: random.next()) }, test, &random)
        }
    }

    @Test("Valid commands with some bits changed", arguments: 5...12 as ClosedRange<UInt64>)
    func plan_mutatedCommands_isAnswered(_ seed: UInt64) {
        var random = TestRandom(state: seed)
        let test = removable()
        let data = test.data([0xA3, 0x0C, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0, 0])
        var known: [(UInt8, UInt8)] = []
        for index in stride(from: 4, to: data.count, by: 8) {
            known.append((data[index], data[index + 3]))
        }
        for turn in 0..<Self.commandCount {
            let (code, action) = known[Int(random.next() % UInt64(known.count))]
            var block = [code, action] + zeroes(14)
            for _ in 0..<(random.next() % 6) {
                let index = 1 + Int(random.next() % 15)
                block[index] ^= UInt8(truncatingIfNeeded: random.next() & random.next())
            }
            step(block, test, &random)
            if turn % 500 == 0 { test.unit.reset(.logicalUnit) }
            if turn % 700 == 0 {
                test.unit.detach(NexusIndex(1))
                test.unit.attach(NexusIndex(1), TestUnit.nexus(1))
            }
        }
    }

    @Test("Every operation code with every second byte")
    func plan_everyOpcode_isAnswered() {
        var random = TestRandom(state: 99)
        let test = removable()
        for code in 0...255 as ClosedRange<UInt8> {
            for second in 0...255 as ClosedRange<UInt8> {
                step([code, second], test, &random)
            }
        }
    }
}
