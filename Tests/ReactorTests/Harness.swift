import BlockCore
import CLinux
import Foundation
import Reactor
import StorageIO
import TestSupport
import Testing

/// The engines that this machine has; every suite runs on each.
///
/// io_uring may be disabled here (containers); `EngineTests` says so in its output.
let engines: [EngineChoice] = [EngineChoice.uring, .aio].filter { choice in
    var options = ReactorOptions()
    options.engine = choice
    options.operationCountMax = 16
    return (try? Reactor(options: options)) != nil
}

/// A reactor, and what it has completed so far by token.
final class Harness {
    /// Nothing here takes longer; what does has hung.
    static let limitNanoseconds: UInt64 = 30_000_000_000

    let reactor: Reactor
    private(set) var completions: [Completion] = []
    private var arenas: [MemoryArena] = []
    private let directory: TestDirectory
    private var fileCount = 0

    init(_ engine: EngineChoice, operationCountMax: Int = 1024) throws {
        var options = ReactorOptions()
        options.engine = engine
        options.operationCountMax = operationCountMax
        options.descriptorCountMax = 4096
        reactor = try Reactor(options: options)
        directory = try TestDirectory()
    }

    /// A path that nothing has yet.
    func path(_ name: String = "file") -> String {
        fileCount += 1
        return "\(directory.path)/\(name)\(fileCount)"
    }

    /// Memory that lives as long as the harness.
    func region(byteCount: Int) -> ByteRegion {
        arenas.append(MemoryArena(byteCount: byteCount))
        return arenas[arenas.count - 1].allocate(byteCount: byteCount)
    }

    /// A new file of `byteCount` bytes, open and attached.
    func device(
        byteCount: UInt64,
        faults: FaultPlan? = nil,
        waitsForSpace: Bool = false
    ) throws -> DeviceHandle {
        let path = path()
        try Device.create(path: path, byteCount: byteCount)
        var options = DeviceOptions()
        options.allowsBuffered = true
        options.faults = faults
        let device = try Device.open(path: path, options: options)
        return reactor.attach(device, waitsForSpace: waitsForSpace)
    }

    /// Turns once and keeps what completed.
    func turn(_ deadline: Instant? = nil) {
        let count = reactor.turn(deadline: deadline)
        var taken = 0
        while let completion = reactor.nextCompletion() {
            completions.append(completion)
            taken += 1
        }
        #expect(taken == count)
    }

    /// Turns until `count` completions have come, and takes them.
    func wait(_ count: Int = 1) throws -> [Completion] {
        let end = MonotonicClock.now().advanced(byNanoseconds: Self.limitNanoseconds)
        while completions.count < count {
            try #require(MonotonicClock.now() < end, "timed out: \(completions.count) of \(count)")
            turn(end)
        }
        defer { completions.removeAll() }
        return completions
    }

    /// Turns until a completion with `token` has come, and takes it; others are kept.
    func wait(token: UInt64) throws -> Completion {
        let end = MonotonicClock.now().advanced(byNanoseconds: Self.limitNanoseconds)
        while true {
            if let index = completions.firstIndex(where: { $0.token == token }) {
                return completions.remove(at: index)
            }
            try #require(MonotonicClock.now() < end, "timed out waiting for token \(token)")
            turn(end)
        }
    }

    /// Two connected sockets, the accepted one first.
    func connect(_ transport: Transport) throws -> (Socket, Socket) {
        let listener: Listener
        let client: Socket
        switch transport {
        case .tcp:
            listener = try Listener.tcp(host: "127.0.0.1", port: 0)
            client = try Socket.connectTCP(host: "127.0.0.1", port: listener.port)
        case .unix:
            listener = try Listener.unix(path: path("socket"))
            client = try Socket.connectUnix(path: try #require(listener.path))
        }
        reactor.accept(listener.socket, token: 1 << 60)
        let accepted = try wait(token: 1 << 60)
        #expect(!accepted.isFinal)
        reactor.close(listener.socket, token: 1 << 61)
        #expect(try wait(token: 1 << 61).result == 0)
        _ = try wait(token: 1 << 60)
        return (
            Socket(descriptor: try #require(accepted.result >= 0 ? accepted.result : nil)), client
        )
    }
}

enum Transport: String, CaseIterable {
    case tcp
    case unix
}

/// Fills with numbers that follow from `seed` and the position.
func fill(_ region: ByteRegion, seed: UInt64) {
    var state = seed &* 0x9e37_79b9_7f4a_7c15 | 1
    var offset = 0
    while offset + 8 <= region.byteCount {
        state ^= state << 13
        state ^= state >> 7
        state ^= state << 17
        region.store(state, at: offset)
        offset += 8
    }
    while offset < region.byteCount {
        region.store(UInt8(truncatingIfNeeded: offset), at: offset)
        offset += 1
    }
}

/// A thread that a test keeps in an array.
final class JoinOnce {
    private var thread: ReactorThread?

    init(_ thread: consuming ReactorThread) { self.thread = consume thread }

    func join() {
        guard let thread = thread.take() else { return }
        thread.join()
    }
}

/// Lets another thread run.
func yieldThread() { sched_yield() }
