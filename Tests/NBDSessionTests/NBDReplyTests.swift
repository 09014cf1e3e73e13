import BlockCore
import NBDSession
import NBDWire
import Testing

@Suite struct NBDBlockStatusReplyTests {
    private let arena = MemoryArena(byteCount: 64 << 10)
    private var extents: ByteRegion { arena.region.slice(0, 4096) }
    private var output: ByteRegion { arena.region.slice(8192, 16384) }

    /// Encodes and reads back.
    private func status(
        _ given: [(UInt64, UInt64)],
        byteCount: UInt64,
        flags: NBDCommandFlags = [],
        mode: NBDReplyMode,
        room: Int? = nil
    ) throws -> [[UInt64]] {
        for (index, extent) in given.enumerated() {
            extents.store(extent.0, at: index * 16)
            extents.store(extent.1, at: index * 16 + 8)
        }
        let request = NBDRequest(
            .blockStatus,
            flags: flags,
            cookie: 1,
            offset: 4096,
            byteCount: byteCount,
            contextMask: 1
        )
        let used = NBDReply.blockStatus(
            request,
            contextID: 1,
            extents: extents,
            extentCount: given.count,
            isLast: true,
            mode: mode,
            into: room.map { output.slice(0, $0) } ?? output
        )
        let isExtended = mode == .extended
        let header = try NBDChunkHeader.decode(output, isExtended: isExtended)
        #expect(header.flags == .done)
        let payload = output.slice(0, used)
            .suffix(from: NBDChunkHeader.byteCount(isExtended: isExtended))
        #expect(header.payloadByteCount == UInt64(payload.byteCount))
        let status = try NBDBlockStatusHeader.decode(payload, isExtended: isExtended)
        return (0..<status.descriptorCount).map { index in
            let extent = NBDBlockStatusHeader.descriptor(payload, at: index, isExtended: isExtended)
            return [extent.byteCount, extent.status]
        }
    }

    static let chunked: [NBDReplyMode] = [.structured, .extended]

    @Test(arguments: chunked)
    func neighboursOfOneValue_areJoined(_ mode: NBDReplyMode) throws {
        let given: [(UInt64, UInt64)] = [(10, 3), (20, 3), (5, 0), (0, 7), (5, 0), (60, 3)]
        #expect(try status(given, byteCount: 100, mode: mode) == [[30, 3], [10, 0], [60, 3]])
    }

    @Test(arguments: chunked)
    func extents_endWithTheRequest(_ mode: NBDReplyMode) throws {
        let given: [(UInt64, UInt64)] = [(60, 1), (60, 0), (60, 1)]
        #expect(try status(given, byteCount: 100, mode: mode) == [[60, 1], [40, 0]])
        #expect(try status(given, byteCount: 60, mode: mode) == [[60, 1]])
        #expect(try status([(.max, 3)], byteCount: 1, mode: mode) == [[1, 3]])
    }

    @Test(arguments: chunked)
    func fewerExtentsThanAsked_areAPartialAnswer(_ mode: NBDReplyMode) throws {
        #expect(try status([(10, 3)], byteCount: 100, mode: mode) == [[10, 3]])
    }

    @Test(arguments: chunked)
    func oneExtent_isTheFirstJoined(_ mode: NBDReplyMode) throws {
        let given: [(UInt64, UInt64)] = [(10, 3), (20, 3), (5, 0)]
        let found = try status(given, byteCount: 100, flags: .oneExtent, mode: mode)
        #expect(found == [[30, 3]])
        let short = try status(given, byteCount: 7, flags: .oneExtent, mode: mode)
        #expect(short == [[7, 3]])
    }

    @Test(arguments: chunked)
    func fullMemory_cutsTheAnswer(_ mode: NBDReplyMode) throws {
        let given: [(UInt64, UInt64)] = [(10, 1), (10, 2), (10, 3), (10, 4)]
        for count in 1...4 {
            let room = NBDReply.blockStatusByteCount(descriptorCount: count, mode: mode)
            let found = try status(given, byteCount: 40, mode: mode, room: room)
            #expect(found.count == count)
            #expect(try status(given, byteCount: 40, mode: mode, room: room + 3) == found)
        }
    }

    @Test func structured_widths() throws {
        let most = UInt64(UInt32.max)
        #expect(try status([(.max, 3)], byteCount: most, mode: .structured) == [[most, 3]])
        #expect(try status([(5, .max)], byteCount: 9, mode: .structured) == [[5, most]])
    }

    @Test func extended_widths() throws {
        let found = try status([(1 << 50, 3)], byteCount: 1 << 50, mode: .extended)
        #expect(found == [[1 << 50, 3]])
    }
}

@Suite struct NBDReadReplyTests {
    private let arena = MemoryArena(byteCount: 4096)

    private func request(_ flags: NBDCommandFlags = []) -> NBDRequest {
        NBDRequest(.read, flags: flags, cookie: 1, offset: 1000, byteCount: 100)
    }

    @Test(arguments: [NBDReplyMode.structured, .extended])
    func parts_inAnyOrder_lastIsDone(_ mode: NBDReplyMode) throws {
        let isExtended = mode == .extended
        for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
            var reply = NBDReadReply(request(), mode: mode)
            for (index, part) in order.enumerated() {
                let offset = [1000, 1010, 1050][part] as UInt64
                let byteCount = [10, 40, 50][part] as UInt64
                #expect(!reply.isFinished)
                let used =
                    part == 1
                    ? reply.hole(offset: offset, byteCount: byteCount, into: arena.region)
                    : reply.data(offset: offset, byteCount: byteCount, into: arena.region)
                let header = try NBDChunkHeader.decode(arena.region, isExtended: isExtended)
                #expect(header.flags == (index == 2 ? .done : []))
                #expect(header.kind == (part == 1 ? .offsetHole : .offsetData))
                let headerByteCount = NBDChunkHeader.byteCount(isExtended: isExtended)
                #expect(used == headerByteCount + (part == 1 ? 12 : 8))
                if isExtended { #expect(header.requestOffset == 1000) }
            }
            #expect(reply.isFinished)
            #expect(reply.restByteCount == 0)
        }
    }

    @Test func mustBeWhole_forSimpleAndDF() {
        #expect(NBDReadReply(request(), mode: .simple).mustBeWhole)
        #expect(NBDReadReply(request(.doNotFragment), mode: .structured).mustBeWhole)
        #expect(!NBDReadReply(request(), mode: .structured).mustBeWhole)
    }

    @Test(arguments: [NBDReplyMode.structured, .extended])
    func failure_afterAPart_endsTheReply(_ mode: NBDReplyMode) throws {
        let isExtended = mode == .extended
        var reply = NBDReadReply(request(), mode: mode)
        _ = reply.data(offset: 1000, byteCount: 10, into: arena.region)
        let used = reply.failure(
            .inputOutput,
            text: "bad block",
            failedOffset: 1010,
            into: arena.region
        )
        #expect(reply.isFinished)
        let header = try NBDChunkHeader.decode(arena.region, isExtended: isExtended)
        #expect(header.flags == .done)
        #expect(header.kind == .errorOffset)
        let payload = arena.region.slice(0, used)
            .suffix(from: NBDChunkHeader.byteCount(isExtended: isExtended))
        let error = try NBDErrorPayload.decode(payload, hasOffset: true)
        #expect(error.errorCode == 5)
        #expect(error.offset == 1010)
        #expect(used <= NBDReply.failureByteCountMax + 9)
    }

    @Test func simple_failureIsJustTheHeader() throws {
        var reply = NBDReadReply(request(), mode: .simple)
        #expect(reply.failure(.inputOutput, text: "unsaid", into: arena.region) == 16)
        #expect(try NBDSimpleReplyHeader.decode(arena.region).errorCode == 5)
    }

    @Test func misuse_traps() async {
        await #expect(processExitsWith: .failure) {
            let arena = MemoryArena(byteCount: 4096)
            let request = NBDRequest(.read, cookie: 1, offset: 1000, byteCount: 100)
            var reply = NBDReadReply(request, mode: .structured)
            _ = reply.data(offset: 1090, byteCount: 20, into: arena.region)
        }
        await #expect(processExitsWith: .failure) {
            let arena = MemoryArena(byteCount: 4096)
            let request = NBDRequest(.read, cookie: 1, offset: 1000, byteCount: 100)
            var reply = NBDReadReply(request, mode: .simple)
            _ = reply.data(offset: 1000, byteCount: 50, into: arena.region)
        }
    }
}
