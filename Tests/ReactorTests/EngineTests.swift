import BlockCore
import CLinux
import Reactor
import StorageIO
import Testing

@Suite struct EngineTests {
    @Test("At least one engine works here, and libaio always does")
    func engines_here_includeAio() {
        #expect(engines.contains(.aio))
        if !engines.contains(.uring) { print("io_uring is not usable here: its tests are skipped") }
    }

    @Test("Without io_uring, auto takes libaio and says why")
    func auto_uringAbsent_fallsBackWithReason() throws {
        var options = ReactorOptions()
        options.uringRefusalErrno = EPERM
        let reactor = try Reactor(options: options)
        #expect(reactor.report.engine == .aio)
        #expect(reactor.report.reason.contains("Operation not permitted"))
        #expect(reactor.report.description.hasPrefix("engine aio: io_uring is not usable here"))
        #expect(reactor.report.features.contains { $0.contains("libaio") })
    }

    @Test("Without io_uring, asking for it fails with the errno")
    func uring_absent_throws() {
        var options = ReactorOptions()
        options.engine = .uring
        options.uringRefusalErrno = ENOSYS
        #expect(throws: ReactorError.uringUnavailable(errno: ENOSYS)) {
            _ = try Reactor(options: options)
        }
    }

    @Test("A forced engine is the engine", arguments: engines)
    func forced_engine_isReported(_ engine: EngineChoice) throws {
        let harness = try Harness(engine)
        #expect(harness.reactor.report.engine.rawValue == engine.rawValue)
        #expect(harness.reactor.report.reason == "asked for")
    }

    @Test(
        "Registering buffers ends in a feature or in a limitation, never in silence",
        arguments: engines
    )
    func registerBuffers_any_isReported(_ engine: EngineChoice) throws {
        let harness = try Harness(engine)
        harness.reactor.registerBuffers([MemoryArena(byteCount: 1 << 20)])
        let report = harness.reactor.report
        let said = report.features + report.limitations
        #expect(said.filter { $0.contains("registered buffers") }.count == 1)
    }

    @Test("A deadline in the past does not wait, one in the future is kept", arguments: engines)
    func turn_deadline_isKept(_ engine: EngineChoice) throws {
        let harness = try Harness(engine)
        harness.turn(Instant(nanoseconds: 0))
        let due = MonotonicClock.now().advanced(byNanoseconds: 2_000_000)
        var turnCount = 0
        while harness.reactor.now < due {
            harness.turn(due)
            turnCount += 1
        }
        // It slept rather than spun: a spinning loop makes thousands of turns in 2 ms.
        #expect(turnCount < 20)
    }

    @Test("A completion that names nobody is counted and dropped", arguments: engines)
    func deliver_staleGeneration_isDropped(_ engine: EngineChoice) throws {
        let harness = try Harness(engine)
        let device = try harness.device(byteCount: 1 << 20)
        let region = harness.region(byteCount: 4096)
        let read = DeviceRequest(kind: .read, offset: 0, region: region, token: 1)
        harness.reactor.submit(read, to: device, token: 1)
        _ = try harness.wait()
        // The same slot in its second life; what comes for the first must not end it.
        harness.reactor.submit(read, to: device, token: 2)
        let first: UInt64 = 1 << 56 | 0 << 24 | 0
        let second: UInt64 = 1 << 56 | 1 << 24 | 0
        harness.reactor.deliver(userData: first, result: -EIO)
        harness.reactor.deliver(userData: first | 0xff_ffff, result: 0)
        harness.reactor.deliver(userData: 0, result: 0)
        #expect(harness.reactor.counters.staleCompletionCount == 3)
        let completion = try #require(try harness.wait().first)
        #expect(completion.token == 2 && completion.result == 4096)
        harness.reactor.deliver(userData: second, result: 0)
        #expect(harness.reactor.counters.staleCompletionCount == 4)
    }

    @Test("A reactor that goes with operations in flight waits for them", arguments: engines)
    func deinit_inFlight_drains(_ engine: EngineChoice) throws {
        let arena = MemoryArena(byteCount: 1 << 20)
        let region = arena.region
        let (left, right) = try Socket.pair()
        do {
            let harness = try Harness(engine)
            let device = try harness.device(byteCount: 1 << 20)
            harness.reactor.receive(left, into: region.slice(0, 4096), token: 1)
            for index in 1..<64 {
                let piece = region.slice(index * 4096, 4096)
                harness.reactor.submit(
                    DeviceRequest(kind: .read, offset: 0, region: piece, token: 0),
                    to: device,
                    token: 2
                )
            }
            harness.turn(Instant(nanoseconds: 0))
            #expect(harness.reactor.freeOperationCount < 1024)
        }
        // Nobody receives any more: what arrives now stays in the socket.
        region.zero()
        let message: [UInt8] = [1, 2, 3]
        let other = try Harness(engine)
        let source = other.region(byteCount: 4096)
        source.copy(from: message)
        other.reactor.send(right, source.slice(0, 3), token: 3)
        #expect(try other.wait(token: 3).result == 3)
        withExtendedLifetime(arena) { #expect(region.isZero) }
        left.closeUnused()
        other.reactor.close(right, token: 4)
        _ = try other.wait(token: 4)
    }

    @Test("A token comes apart as it was put together")
    func token_parts_roundTrip() {
        let token = Token(kind: 200, index: .max, generation: 0x12_3456)
        #expect(token.kind == 200 && token.index == .max && token.generation == 0x12_3456)
        #expect(Token(rawValue: token.rawValue) == token)
        #expect(Token(kind: 1, index: 2, generation: .max).generation == Token.generationMask)
    }
}
