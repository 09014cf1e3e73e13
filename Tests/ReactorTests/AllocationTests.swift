import BlockCore
import CAllocationCounter
import Reactor
import StorageIO
import Testing

@Suite(.enabled(if: allocation_counter_is_active(), "a sanitizer has its own allocator"))
struct AllocationTests {
    /// Heap allocations of this thread during `body`.
    private func count(_ body: () -> Void) -> UInt64 {
        let before = allocation_counter_thread_count()
        body()
        return allocation_counter_thread_count() - before
    }

    @Test("The counter sees an allocation put in on purpose")
    func counter_allocation_isSeen() {
        var kept: [[UInt8]] = []
        kept.reserveCapacity(4)
        #expect(count { kept.append([UInt8](repeating: 1, count: 100)) } >= 1)
        #expect(count { kept[0][5] = 2 } == 0)
    }

    @Test("Device transfers, flushes and discards allocate nothing", arguments: engines)
    func device_steadyState_allocatesNothing(_ engine: EngineChoice) throws {
        let harness = try Harness(engine)
        let device = try harness.device(byteCount: 4 << 20)
        let region = harness.region(byteCount: 1 << 20)
        let reactor = harness.reactor
        func round() {
            for index in 0..<64 {
                let kinds: [4 of DeviceRequest.Kind] = [.read, .write, .writeDurable, .read]
                reactor.submit(
                    DeviceRequest(
                        kind: kinds[index & 3],
                        offset: UInt64(index) * 4096,
                        region: region.slice(index * 4096, 4096),
                        token: UInt64(index)
                    ),
                    to: device,
                    token: UInt64(index)
                )
            }
            reactor.submit(.flush(token: 0), to: device, token: 64)
            reactor.submit(.discard(offset: 0, byteCount: 4096, token: 0), to: device, token: 65)
            var left = 66
            while left > 0 {
                _ = reactor.turn(deadline: nil)
                while reactor.nextCompletion() != nil { left -= 1 }
            }
        }
        round()
        #expect(count { for _ in 0..<100 { round() } } == 0)
    }

    @Test("Receives and sends allocate nothing, direct or queued", arguments: Medium.all)
    func socket_steadyState_allocatesNothing(_ medium: Medium) throws {
        let harness = try Harness(medium.engine)
        let (server, client) = try harness.connect(medium.transport)
        client.setBuffers(sendByteCount: 65_536, receiveByteCount: 65_536)
        let source = harness.region(byteCount: 1 << 20)
        let target = harness.region(byteCount: 1 << 20)
        let reactor = harness.reactor
        let mailbox = Mailbox<UInt64>(capacityMin: 8, waker: reactor.waker)
        let regions = [source.slice(0, 100), source.slice(4096, 300_000), source.slice(0, 7)]
        func round() {
            reactor.send(client, regions.span, token: 1)
            reactor.receive(server, into: target, token: 2)
            _ = mailbox.send(1)
            var received = 0
            var isSent = false
            while received < 300_107 || !isSent {
                _ = reactor.turn(deadline: nil)
                while mailbox.receive() != nil {}
                while let completion = reactor.nextCompletion() {
                    guard completion.result > 0 else { return }
                    if completion.token == 1 {
                        isSent = true
                    } else {
                        received += Int(completion.result)
                        if received < 300_107 {
                            reactor.receive(server, into: target, token: 2)
                        }
                    }
                }
            }
        }
        round()
        #expect(count { for _ in 0..<30 { round() } } == 0)
        #expect(reactor.counters.queuedSendCount > 0)
        reactor.close(server, token: 3)
        reactor.close(client, token: 4)
        _ = try harness.wait(2)
    }
}
