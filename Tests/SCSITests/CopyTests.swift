import BlockCore
import SCSI
import Testing

/// EXTENDED COPY from blocks to blocks, and what RECEIVE COPY RESULTS tells.
@Suite struct CopyTests {
    private static let naa: [UInt8] =
        [0x60, 0x2C, 0xA1, 0xD7, 0x89, 0xAB, 0xCD, 0xEF]
        + [0xFE, 0xDC, 0xBA, 0x98, 0x76, 0x54, 0x32, 0x10]

    /// An identification descriptor target descriptor.
    private func target(_ designator: [UInt8] = naa, kind: UInt8 = 3, code: UInt8 = 0xE4) -> [UInt8]
    {
        let head: [UInt8] = [code, 0, 0, 0, 1, kind, 0, UInt8(designator.count)]
        let body = Array(designator.prefix(20)) + zeroes(max(20 - designator.count, 0))
        return head + body + [0, 0, 2, 0]
    }

    private func segment(
        _ count: UInt64,
        from: UInt64,
        to: UInt64,
        targets: (UInt64, UInt64) = (0, 0),
        code: UInt8 = 0x02,
        flags: UInt8 = 0
    ) -> [UInt8] {
        [code, flags, 0, 24] + bytes(targets.0, 2) + bytes(targets.1, 2) + [0, 0] + bytes(count, 2)
            + bytes(from, 8) + bytes(to, 8)
    }

    private func list(_ targets: [[UInt8]], _ segments: [[UInt8]], id: UInt8 = 1) -> [UInt8] {
        let targetBytes = Array(targets.joined())
        let segmentBytes = Array(segments.joined())
        return [id, 0] + bytes(UInt64(targetBytes.count), 2) + zeroes(4)
            + bytes(UInt64(segmentBytes.count), 4) + zeroes(4) + targetBytes + segmentBytes
    }

    private func block(_ byteCount: Int) -> [UInt8] {
        [0x83] + zeroes(9) + bytes(UInt64(byteCount), 4) + [0, 0]
    }

    private func copy(_ test: TestUnit, _ list: [UInt8], nexus: UInt8 = 0) -> SCSIPlan {
        test.run(block(list.count), nexus: nexus, parameters: list)
    }

    /// Plans a copy and ends it; nil when it is refused.
    private func ended(_ test: TestUnit, _ list: [UInt8]) -> BlockOperation? {
        let operation = copy(test, list).operation
        if let operation { _ = test.unit.complete(operation, .done) }
        return operation
    }

    private func status(_ id: UInt8) -> [UInt8] {
        [0x84, 0, id] + zeroes(7) + [0, 0, 0, 255, 0, 0]
    }

    @Test("Segments become copies, in their order")
    func copy_simple_hasSegments() throws {
        let test = TestUnit()
        let list = list([target()], [segment(100, from: 0, to: 900), segment(1, from: 5, to: 6)])
        let operation = try #require(copy(test, list).operation)
        #expect(operation.kind == .copy)
        #expect(operation.rangeCount == 2)
        let region = test.region(list)
        let first = try #require(test.unit.copySegment(at: 0, in: region))
        #expect(first.sourceHandle == 7)
        #expect(first.destinationHandle == 7)
        #expect(first.sourceOffset == 0)
        #expect(first.destinationOffset == 900 * 512)
        #expect(first.byteCount == 51200)
        #expect(test.unit.copySegment(at: 1, in: region)?.destinationOffset == 3072)
    }

    @Test("Every designator of page 83h names the volume")
    func copy_everyDesignator_isKnown() {
        let test = TestUnit()
        let page = test.data([0x12, 1, 0x83, 0, 255, 0])
        var offset = 4
        var count = 0
        while offset < page.count {
            let byteCount = Int(page[offset + 3])
            let kind = page[offset + 1]
            if kind & 0x30 == 0 {
                let designator = Array(page[(offset + 4)..<(offset + 4 + byteCount)])
                var descriptor = target(designator, kind: kind & 0x0F)
                descriptor[4] = page[offset] & 0x0F
                let list = list([descriptor], [segment(1, from: 0, to: 1)])
                #expect(ended(test, list)?.kind == .copy)
                count += 1
            }
            offset += 4 + byteCount
        }
        #expect(count == 4)
    }

    @Test("Another volume is known when the unit was told of it")
    func copy_peer_isKnown() throws {
        let test = TestUnit()
        var peer = TestUnit.description(byteCount: 4096 * 10, blockByteCount: 4096)
        peer.identity = (1, 2)
        peer.handle = 8
        let other: [UInt8] = [0x60, 0x2C, 0xA1, 0xD0, 0, 0, 0, 1] + bytes(2, 8)
        let forth = segment(16, from: 0, to: 1, targets: (0, 1))
        let list = list([target(), target(other)], [forth])
        #expect(copy(test, list).reply?.sense.key == .copyAborted)
        test.unit.copyPeers = [peer]
        #expect(ended(test, list)?.rangeCount == 1)
        let found = try #require(test.unit.copySegment(at: 0, in: test.region(list)))
        #expect(found.destinationHandle == 8)
        #expect(found.destinationOffset == 4096)
        #expect(found.byteCount == 8192)
        // Counted in the destination's blocks: 16 of 4096 bytes are more than it has.
        let counted = segment(2, from: 0, to: 1, targets: (0, 1), flags: 0x02)
        let again = self.list([target(), target(other)], [counted])
        #expect(ended(test, again)?.rangeCount == 1)
        #expect(test.unit.copySegment(at: 0, in: test.region(again))?.byteCount == 8192)
        let uneven = self.list(
            [target(), target(other)],
            [segment(9, from: 0, to: 1, targets: (0, 1))]
        )
        #expect(copy(test, uneven).reply?.sense.key == .copyAborted)
        peer.isReadOnly = true
        test.unit.copyPeers = [peer]
        #expect(copy(test, list).reply?.sense.key == .copyAborted)
    }

    @Test("Segments that cannot be are COPY ABORTED")
    func copy_wrongSegment_isAborted() {
        let test = TestUnit()
        let wrong = [
            segment(10, from: 0, to: 0, targets: (0, 1)),
            segment(10, from: 0, to: 0, targets: (1, 0)),
            segment(2, from: 0, to: 999), segment(2, from: 999, to: 0),
            segment(1, from: .max, to: 0),
        ]
        for each in wrong {
            let plan = copy(test, list([target()], [each]))
            #expect(plan.reply?.sense.key == .copyAborted)
            #expect(plan.code == SenseCode.none)
        }
    }

    @Test("Lists that are too long, cut or of unknown descriptors are refused")
    func copy_wrongList_isRefused() {
        let test = TestUnit()
        let one = segment(1, from: 0, to: 1)
        let whole = list([target()], [one])
        let table: [([UInt8], SenseCode)] = [
            (Array(whole.dropLast()), .parameterListLength),
            (Array(whole.prefix(47)), .parameterListLength),
            (Array(whole.prefix(15)), .parameterListLength),
            (list(Array(repeating: target(), count: 5), [one]), .tooManyTargetDescriptors),
            (list([target()], Array(repeating: one, count: 33)), .tooManySegmentDescriptors),
            (
                list(Array(repeating: target(), count: 5), Array(repeating: one, count: 31)),
                .parameterListLength
            ),
            (list([target(code: 0xE0)], [one]), .unsupportedTargetDescriptor),
            (
                list([target()], [segment(1, from: 0, to: 1, code: 0x03)]),
                .unsupportedSegmentDescriptor
            ),
        ]
        for (list, code) in table { #expect(copy(test, list).code == code) }
        #expect(test.plan(block(0)).status == .good)
        #expect(copy(test, list([target()], [])).status == .good)
        #expect(copy(test, list([], [])).status == .good)
    }

    @Test("COPY STATUS tells of a copy, before and after its end, to its nexus")
    func status_copy_isTold() throws {
        let test = TestUnit()
        #expect(test.plan(status(1)).code == .invalidFieldInCDB)
        let list = list([target()], [segment(1, from: 0, to: 1)])
        let operation = try #require(copy(test, list).operation)
        #expect(test.data(status(1)) == [0, 0, 0, 8, 0] + zeroes(7))
        #expect(copy(test, list).code == .operationInProgress)
        #expect(test.unit.complete(operation, .done).status == .good)
        #expect(test.data(status(1)) == [0, 0, 0, 8, 1, 0, 1] + zeroes(5))
        #expect(test.plan(status(1), nexus: 1).code == .invalidFieldInCDB)
        let second = try #require(copy(test, list).operation)
        let reply = test.unit.complete(second, .noSpace)
        #expect(reply.sense.key == .copyAborted)
        #expect(reply.sense.code == .spaceAllocationFailed)
        #expect(test.data(status(1))[4] == 2)
        test.unit.detach(NexusIndex(0))
        test.unit.attach(NexusIndex(0), TestUnit.nexus(0))
        _ = test.run(zeroes(6))
        #expect(test.plan(status(1)).code == .invalidFieldInCDB)
    }

    @Test("A copy without a list identifier is not tracked, and any number run")
    func copy_noListIdentifier_isNotTracked() {
        let test = TestUnit()
        var list = list([target()], [segment(1, from: 0, to: 1)], id: 0)
        list[1] = 0x18
        #expect(copy(test, list).operation?.kind == .copy)
        #expect(copy(test, list).operation?.kind == .copy)
        #expect(test.plan(status(0)).code == .invalidFieldInCDB)
        list[0] = 1
        #expect(copy(test, list).code == .invalidFieldInParameters)
    }

    @Test("OPERATING PARAMETERS tells the limits that are kept")
    func parameters_everyByte() {
        let expected =
            bytes(42, 4) + [1, 0, 0, 0] + bytes(4, 2) + bytes(32, 2) + bytes(1024, 4)
            + bytes(16 << 20, 4)
        let tail: [UInt8] = zeroes(14) + [0, 16, 16, 9] + zeroes(5) + [2, 0x02, 0xE4]
        let data = TestUnit().data([0x84, 3] + zeroes(8) + [0, 0, 1, 0, 0, 0])
        #expect(data == expected + tail)
    }
}
