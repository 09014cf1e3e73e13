// Nothing is allocated per operation: neither by the loop nor by the engines.

import BlockCore
import CAllocationCounter
import Foundation
import TestSupport
import Testing
import volbench

@Suite("Allocations", .serialized, .background)
struct AllocationTests {
    private static let operationCount = 20_000
    /// What happens now and then (an interval ends, a curve grows) may allocate, operations not.
    private static let allocationCountMax: UInt64 = 64

    private func check<Driven: Engine>(_ engine: Driven, _ options: [String: String]) throws {
        var options = options
        options["number_ios"] = "\(Self.operationCount)"
        let plan = try Runs.plan(options, targetByteCount: engine.targetByteCount)
        let counting = CountingEngine(engine, from: 2000, to: Self.operationCount - 2000)
        let result = JobRunner(engine: counting, plan: plan).run()
        engine.close()
        #expect(result.failure == nil, "\(result.failure ?? "")")
        #expect(result.transferCount == UInt64(Self.operationCount))
        #expect(counting.allocationCount <= Self.allocationCountMax)
    }

    private static var canCount: Bool { allocation_counter_is_active() }
    private static let reason: Comment = "a sanitizer brings its own allocator"

    @Test(
        "the loop, drawing all it can draw",
        .enabled(if: canCount, reason),
        arguments: [
            ["rw": "randrw", "fsync": "7"], ["rw": "randread", "bssplit": "4k/50:64k/50"],
            ["rw": "randwrite", "random_distribution": "zipf:1.1"],
            ["rw": "randtrimwrite"], ["rw": "randread", "rate_iops": "10000000"],
        ] as [[String: String]]
    )
    func loop_doesNotAllocate(_ options: [String: String]) throws {
        try check(NullEngine(laneCount: 16, targetByteCount: 1 << 30), options)
    }

    @Test(
        "the NBD client",
        .enabled(if: canCount && NBDKit.isInstalled, "nbdkit is not installed, or \(reason)"),
        arguments: [["rw": "randread"], ["rw": "randwrite", "fsync": "7"]] as [[String: String]]
    )
    func nbd_doesNotAllocate(_ options: [String: String]) throws {
        let server = try NBDKit("null", "256M")
        var job = JobOptions()
        job.depth = 16
        job.connectionCount = 2
        try OptionTable.apply("rw", options["rw"] ?? "", to: &job, isOwn: true)
        try check(NBDEngine(target: try Target(parsing: server.uri), options: job), options)
    }

    @Test(
        "files",
        .enabled(if: canCount, reason),
        arguments: [EngineKind.uring, .aio]
    )
    func device_doesNotAllocate(_ kind: EngineKind) throws {
        let folder = try TestDirectory()
        let path = "\(folder.path)/disk"
        try Data(count: 128 << 20).write(to: URL(fileURLWithPath: path))
        let engine = try DeviceEngine(
            device: try DeviceEngine.open(path: path, isReadOnly: true),
            engine: kind,
            depth: 16,
            blockByteCount: 4096
        )
        try check(engine, ["rw": "randread"])
    }
}

/// Another engine, and the allocations of its thread between two of its operations.
private final class CountingEngine<Counted: Engine>: Engine {
    private let engine: Counted
    private let range: (from: Int, to: Int)
    private var operationCount = 0
    private var first: UInt64 = 0
    private var last: UInt64 = 0

    var laneCount: Int { engine.laneCount }
    var targetByteCount: UInt64 { engine.targetByteCount }
    var completions: FixedRing<EngineCompletion> { engine.completions }
    var allocationCount: UInt64 { last - first }

    init(_ engine: Counted, from: Int, to: Int) {
        self.engine = engine
        range = (from, to)
    }

    func payload(lane: Int) -> ByteRegion { engine.payload(lane: lane) }

    func submit(_ operation: volbench.Operation, lane: Int) {
        operationCount += 1
        if operationCount == range.from { first = allocation_counter_thread_count() }
        if operationCount == range.to { last = allocation_counter_thread_count() }
        engine.submit(operation, lane: lane)
    }

    func turn(deadline: Instant) throws(BenchError) { try engine.turn(deadline: deadline) }

    func close() { engine.close() }
}
