import BlockCore
import CAllocationCounter
import NBDSession
import NBDWire
import Testing

/// Transmission allocates nothing: neither what is accepted nor what is refused.
@Suite(.enabled(if: allocation_counter_is_active(), "a sanitizer has its own allocator"))
struct NBDAllocationTests {
    @Test(arguments: NBDReplyMode.allCases)
    func requests_allocateNothing(_ mode: NBDReplyMode) {
        let contexts = mode == .simple ? [] : ["base:allocation"]
        let connection = ModelConnection.transmitting(mode, contexts: contexts)
        let session = connection.session
        let arena = MemoryArena(byteCount: 1 << 20)
        let input = arena.allocate(byteCount: 64 << 10)
        let reply = arena.allocate(byteCount: 64 << 10)
        let extents = arena.allocate(byteCount: 4096)
        extents.store(UInt64(1 << 40), at: 0)
        extents.store(UInt64(3), at: 8)
        let inputByteCount = encodeRequests(into: input, mode: mode)

        let before = allocation_counter_thread_count()
        var requestCount = 0
        for _ in 0..<100 {
            var rest = input.slice(0, inputByteCount)
            var isDone = false
            while !isDone {
                let (consumed, event) = session.next(input: rest)
                rest = rest.suffix(from: consumed)
                switch event {
                case .request(let request):
                    requestCount += 1
                    answer(request, mode, reply, extents)
                    if request.hasPayload { rest = rest.suffix(from: Int(request.byteCount)) }
                case .output: break
                default: isDone = true
                }
            }
        }
        let count = allocation_counter_thread_count() - before
        #expect(count == 0)
        #expect(requestCount == (mode == .simple ? 400 : 500))
        withExtendedLifetime((connection, arena)) {}
    }

    /// One of each kind, and three that are refused, one of them with a payload to skip.
    private func encodeRequests(into input: ByteRegion, mode: NBDReplyMode) -> Int {
        let payload: NBDCommandFlags = mode == .extended ? .payloadLength : []
        let headers = [
            NBDRequestHeader(.read, cookie: 1, byteCount: 4096),
            NBDRequestHeader(.write, flags: payload, cookie: 2, byteCount: 4096),
            NBDRequestHeader(.flush, cookie: 3),
            NBDRequestHeader(.trim, cookie: 4, byteCount: 4096),
            NBDRequestHeader(.blockStatus, cookie: 5, byteCount: 4096),
            NBDRequestHeader(.read, cookie: 6, offset: 1 << 40, byteCount: 4096),
            NBDRequestHeader(.write, flags: payload, cookie: 7, offset: 1 << 40, byteCount: 4096),
            NBDRequestHeader(.read, flags: .noHole, cookie: 8, byteCount: 4096),
        ]
        var end = 0
        for header in headers {
            end += header.encode(into: input, at: end, mode: mode)
            if header.command == .write { end += 4096 }
        }
        return end
    }

    private func answer(
        _ request: NBDRequest,
        _ mode: NBDReplyMode,
        _ reply: ByteRegion,
        _ extents: ByteRegion
    ) {
        switch request.command {
        case .read:
            var read = NBDReadReply(request, mode: mode)
            _ = read.data(offset: request.offset, byteCount: request.byteCount, into: reply)
        case .blockStatus:
            _ = NBDReply.blockStatus(
                request,
                contextID: 1,
                extents: extents,
                extentCount: 1,
                isLast: true,
                mode: mode,
                into: reply
            )
        case .trim:
            _ = NBDReply.failure(
                request,
                .inputOutput,
                text: "the device reported an error",
                mode: mode,
                into: reply
            )
        default:
            _ = NBDReply.success(request, mode: mode, into: reply)
        }
    }
}
