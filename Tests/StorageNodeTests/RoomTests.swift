import BlockCore
import Glibc
import LogStore
import Reactor
import StorageIO
import StorageNode
import TestSupport
import Testing

@Suite("Room in stores", .serialized) struct RoomTests {
    private func notices(
        _ watch: inout RoomWatch,
        used percent: UInt64,
        seconds: UInt64 = 0
    ) -> [RoomWatch.Notice] {
        var notices: [RoomWatch.Notice] = []
        while let notice = watch.next(
            liveByteCount: percent << 20,
            capacityByteCount: 100 << 20,
            now: Instant(nanoseconds: seconds * 1_000_000_000)
        ) {
            notices.append(notice)
        }
        return notices
    }

    @Test("Scarce room is told once, and again only after there was some")
    func watch_aroundTheLimit_tellsOnce() {
        var watch = RoomWatch(scarcePercent: 85)
        #expect(notices(&watch, used: 84) == [] && state(watch) == .ample)
        #expect(notices(&watch, used: 85) == [.scarce(usedPercent: 85)] && state(watch) == .scarce)
        for percent in [85, 84, 90, 81, 100, 84] as [UInt64] {
            #expect(notices(&watch, used: percent) == [] && state(watch) == .scarce)
        }
        #expect(notices(&watch, used: 80) == [.ample(usedPercent: 80)] && state(watch) == .ample)
        #expect(notices(&watch, used: 100) == [.scarce(usedPercent: 100)])
    }

    private func state(_ watch: RoomWatch, seconds: UInt64 = 0) -> RoomState {
        watch.state(now: Instant(nanoseconds: seconds * 1_000_000_000))
    }

    @Test("A store that refused is full for a minute, however little of it is used")
    func watch_refused_isFull() {
        var watch = RoomWatch(scarcePercent: 85)
        #expect(notices(&watch, used: 70) == [])
        watch.onRefused(now: Instant(nanoseconds: 5_000_000_000))
        #expect(state(watch, seconds: 64) == .refusing && state(watch, seconds: 65) == .ample)
        _ = notices(&watch, used: 90)
        #expect(state(watch, seconds: 64) == .refusing && state(watch, seconds: 65) == .scarce)
    }

    @Test("It is looked at once more when what it holds has changed since")
    func watch_changedSinceLook_needsLook() {
        var watch = RoomWatch(scarcePercent: 85)
        #expect(!watch.needsLook(liveByteCount: 0) && watch.needsLook(liveByteCount: 4096))
        _ = notices(&watch, used: 80)
        #expect(!watch.needsLook(liveByteCount: 80 << 20))
        #expect(watch.needsLook(liveByteCount: 90 << 20))
        #expect(watch.needsLook(liveByteCount: 79 << 20))
    }

    @Test("A store that fills in the last moment of its use is told of")
    func node_fillsAndIsLeft_isTold() async throws {
        let node = try await TestNode(storeByteCount: 64 << 20)
        try await node.makeVolume("disk", id: 1, byteCount: 128 << 20)
        let capacity = await node.node.space().capacityByteCount
        let data = pattern(byteCount: 1 << 20, seed: 1)
        do {
            let client = try node.client("disk")
            for offset in 0..<((capacity * 9 / 10) >> 20) {
                #expect(try client.call(1, offset << 20, 1 << 20, payload: data).error == 0)
            }
        }
        // Nothing else is asked of it, so that no turn begins for another reason.
        #expect(try await isEventually { told(node).scarce == 1 })
        #expect(told(node).refused == 0)
        let room = await node.node.room()
        #expect(room.state == .scarce && (85..<100).contains(room.usedPercent))
        await node.stop()
    }

    @Test("Refusals are told at once, then with their number once a minute")
    func watch_refusals_areGathered() {
        var watch = RoomWatch(scarcePercent: 85)
        watch.onRefused(now: Instant(nanoseconds: 0))
        #expect(notices(&watch, used: 0) == [.refused(count: 1)])
        for _ in 0..<1000 { watch.onRefused(now: Instant(nanoseconds: 0)) }
        #expect(notices(&watch, used: 0, seconds: 59) == [])
        #expect(watch.needsLook(liveByteCount: 0))
        #expect(notices(&watch, used: 0, seconds: 60) == [.refused(count: 1000)])
        #expect(notices(&watch, used: 0, seconds: 1000) == [])
        #expect(!watch.needsLook(liveByteCount: 0))
    }

    @Test("A node tells of a store that fills, refuses, and has room again", arguments: [1, 2])
    func node_storeFills_isTold(reactorCount: Int) async throws {
        let node = try await TestNode(storeByteCount: 64 << 20) {
            $0.reactorCount = reactorCount
            $0.spreadsConnections = reactorCount > 1
        }
        try await node.makeVolume("disk", id: 1, byteCount: 128 << 20)
        let client = try node.client("disk")
        let data = pattern(byteCount: 1 << 20, seed: 1)
        var refusedCount = 0
        for offset in 0..<128 as Range<UInt64> where refusedCount < 10 {
            let error = try client.call(1, offset << 20, 1 << 20, payload: data).error
            #expect(error == 0 || error == 28)
            if error == 28 { refusedCount += 1 }
        }
        #expect(refusedCount == 10)
        #expect(try await isEventually { told(node).refused > 0 && told(node).scarce == 1 })
        #expect(told(node).ample == 0)
        #expect(await node.node.room().state == .refusing)
        _ = try await node.node.perform(.deleteVolume(VolumeID(1)))
        #expect(client.isClosed())
        // Also when nobody is connected any more.
        #expect(try await isEventually { told(node).ample == 1 })
        #expect(told(node).scarce == 1)
        await node.stop()
    }

    @Test("Writes that the file system has no space for wait, are told of, and go on")
    func node_fileSystemFull_waits() async throws {
        let plan = FaultPlan()
        let directory = try TestDirectory()
        // Only where no page cache lies between, which tells of an error too late.
        guard try isDirect(in: directory) else { return }
        let node = try await TestNode(directory: directory, isNew: true) {
            $0.stores[0].device.faults = plan
        }
        try await node.makeVolume("disk", id: 1)
        await fillFileSystem(node, plan)
        let data = pattern(byteCount: 4096, seed: 1)
        let client = try node.client("disk")
        try client.send(client.request(1, 0, 4096, flags: 1, payload: data).bytes)
        #expect(try await isEventually { waits(node) == [true] })
        #expect(await node.node.room().state == .waiting)
        _ = await node.node.valueOnReactor(0) {
            plan.removeAll()
            return 0
        }
        #expect(try client.reply().error == 0)
        #expect(try await isEventually { waits(node) == [true, false] })
        #expect(await node.node.room().state == .ample)
        await node.stop()
    }

    @Test("That writes wait is told at once, once a minute, and when it is over")
    func watch_writesWait_isRepeated() {
        var watch = RoomWatch(scarcePercent: 85)
        func look(_ count: UInt64, seconds: UInt64) -> RoomWatch.SpaceWait? {
            watch.onLook(
                spaceWaitCount: count,
                now: Instant(nanoseconds: seconds * 1_000_000_000)
            )
        }
        #expect(look(0, seconds: 1) == nil)
        #expect(look(4, seconds: 2) == .lasts(seconds: 0) && watch.isWaiting)
        // Looked at again at once, between two tries.
        #expect(look(4, seconds: 2) == nil && watch.isWaiting)
        #expect(look(8, seconds: 61) == nil)
        #expect(look(12, seconds: 62) == .lasts(seconds: 60))
        #expect(look(12, seconds: 70) == .isOver(seconds: 68) && !watch.isWaiting)
        #expect(look(12, seconds: 71) == nil)
        #expect(look(13, seconds: 72) == .lasts(seconds: 0))
    }

    @Test("A node that is stopped while writes wait gives them up", .timeLimit(.minutes(1)))
    func stop_writesWait_ends() async throws {
        let plan = FaultPlan()
        let directory = try TestDirectory()
        guard try isDirect(in: directory) else { return }
        let data = pattern(byteCount: 4096, seed: 1)
        do {
            let node = try await TestNode(directory: directory, isNew: true) {
                $0.stores[0].device.faults = plan
                $0.limits.shutdownSeconds = 1
            }
            try await node.makeVolume("disk", id: 1)
            let client = try node.client("disk")
            #expect(try client.call(1, 0, 4096, flags: 1, payload: data).error == 0)
            await fillFileSystem(node, plan)
            try client.send(client.request(1, 4096, 4096, flags: 1, payload: data).bytes)
            #expect(try await isEventually { waits(node) == [true] })
            await node.stop()
        }
        let node = try await TestNode(directory: directory)
        let client = try node.client("disk")
        #expect(try client.call(0, 0, 4096).data == data)
        await node.stop()
    }

    private func fillFileSystem(_ node: TestNode, _ plan: FaultPlan) async {
        _ = await node.node.valueOnReactor(0) {
            for kind in [DeviceRequest.Kind.write, .writeDurable] {
                plan.add(.fail(errno: ENOSPC), to: kind, count: .max)
            }
            return 0
        }
    }

    @Test(
        "A store that waits for space as it opens does not keep a node from ending",
        .timeLimit(.minutes(1))
    )
    func start_otherStoreDamaged_ends() async throws {
        let directory = try TestDirectory()
        guard try isDirect(in: directory) else { return }
        await (try TestNode(storeCount: 2, directory: directory, isNew: true)).stop()
        try TestFiles.blank(directory.path + "/store0")
        let plan = FaultPlan()
        for kind in [DeviceRequest.Kind.write, .writeDurable] {
            plan.add(.fail(errno: ENOSPC), to: kind, count: .max)
        }
        await #expect(throws: NodeError.self) {
            _ = try await TestNode(storeCount: 2, directory: directory) {
                $0.stores[1].device.faults = plan
            }
        }
    }

    private func isDirect(in directory: TestDirectory) throws -> Bool {
        let path = directory.path + "/probe"
        try Device.create(path: path, byteCount: 1 << 20)
        var options = DeviceOptions()
        options.allowsBuffered = true
        return try Device.open(path: path, options: options).isDirect
    }

    private func waits(_ node: TestNode) -> [Bool] {
        node.events.all.compactMap { event in
            switch event {
            case .writesWait: true
            case .writesGoOn: false
            default: nil
            }
        }
    }

    private func told(_ node: TestNode) -> (scarce: Int, ample: Int, refused: Int) {
        var counts = (scarce: 0, ample: 0, refused: 0)
        for event in node.events.all {
            switch event {
            case .roomScarce(_, let percent) where percent >= 85: counts.scarce += 1
            case .roomAmple(_, let percent) where percent <= 80: counts.ample += 1
            case .writesRefused(_, let count) where count > 0: counts.refused += 1
            default: break
            }
        }
        return counts
    }
}
