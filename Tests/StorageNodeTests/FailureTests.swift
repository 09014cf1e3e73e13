import BlockCore
import Glibc
import Reactor
import StorageIO
import StorageNode
import TestSupport
import Testing

@Suite("Failed requests", .serialized) struct FailureTests {
    @Test("Failures are told of at once, then with their number once a minute")
    func watch_failures_areGathered() {
        var watch = FailureWatch()
        func next(seconds: UInt64) -> UInt64? {
            watch.next(now: Instant(nanoseconds: seconds * 1_000_000_000))
        }
        #expect(next(seconds: 1) == nil)
        watch.onFailed(VolumeID(1))
        #expect(next(seconds: 2) == 1)
        for _ in 0..<500 { watch.onFailed(VolumeID(2)) }
        #expect(next(seconds: 61) == nil)
        #expect(watch.count == 500)
        #expect(next(seconds: 62) == 500)
        #expect(next(seconds: 1000) == nil)
        #expect(watch.totalCount == 501 && watch.volume == VolumeID(2))
    }

    @Test("A node tells of a block that cannot be read")
    func node_blockUnreadable_isTold() async throws {
        let plan = FaultPlan()
        let node = try await TestNode { $0.stores[0].device.faults = plan }
        try await node.makeVolume("disk", id: 1)
        let client = try node.client("disk")
        let data = pattern(byteCount: 4096, seed: 1)
        #expect(try client.call(1, 0, 4096, flags: 1, payload: data).error == 0)
        _ = await node.node.valueOnReactor(0) {
            plan.add(.fail(errno: EIO), to: .read, count: 100)
            return 0
        }
        #expect(try client.call(0, 0, 4096).error == 5)
        #expect(
            try await isEventually {
                node.events.all.contains { event in
                    guard case .requestsFailed(_, let volume, let count) = event else {
                        return false
                    }
                    return count > 0 && volume == "disk"
                }
            }
        )
        let report = await node.node.failures()
        #expect(report.requestCount > 0 && report.volume == "disk" && !report.isStopped)
        await node.stop()
    }
}
