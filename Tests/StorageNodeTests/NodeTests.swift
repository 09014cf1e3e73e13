import BlockCore
import LogStore
import Reactor
import StorageIO
import StorageNode
import TestSupport
import Testing

@Suite("A node serves", .serialized) struct NodeTests {
    static let modes = [TestClient.Mode.simple, .structured, .extended]

    @Test(arguments: modes) func writeThenRead_sameBytes(mode: TestClient.Mode) async throws {
        let node = try await TestNode()
        try await node.makeVolume("disk", id: 1)
        let client = try node.client("disk", mode: mode)
        #expect(client.byteCount == 64 << 20)
        let data = pattern(byteCount: 12_288, seed: 7)
        try client.write(4096, data)
        #expect(try client.read(4096, 12_288) == data)
        #expect(try client.call(3, 0, 0).error == 0)
        try client.disconnect()
        #expect(client.isClosed())
        await node.stop()
    }

    /// Above 1 MiB a request is cut into parts; sizes around the cut and at the limit.
    @Test(arguments: modes) func largeRequests_sameBytes(mode: TestClient.Mode) async throws {
        let node = try await TestNode()
        try await node.makeVolume("disk", id: 1)
        let client = try node.client("disk", mode: mode)
        for (byteCount, offset) in [
            (1 << 20, 512), ((1 << 20) + 512, 0), (5 << 20, 3584), (32 << 20, 4096),
        ] {
            let data = pattern(byteCount: byteCount, seed: UInt64(byteCount))
            try client.write(UInt64(offset), data)
            #expect(try client.read(UInt64(offset), byteCount) == data, "\(byteCount)")
            let whole = try client.call(
                0,
                UInt64(offset),
                UInt64(byteCount),
                flags: mode == .simple ? 0 : TestClient.flagDontFragment
            )
            #expect(whole.data == data)
            if mode != .simple { #expect(whole.chunkCount == 1) }
        }
        let counters = await node.node.counters()
        #expect(counters.partCount > 32)
        await node.stop()
    }

    @Test func largeReadOfHoles_isZero_andHasNoDataInStructuredMode() async throws {
        let node = try await TestNode()
        try await node.makeVolume("disk", id: 1)
        let plain = try node.client("disk")
        #expect(try plain.read(0, 8 << 20).allSatisfy { $0 == 0 })
        let structured = try node.client("disk", mode: .structured)
        let reply = try structured.call(0, 0, 8 << 20)
        #expect(reply.holeByteCount == 8 << 20)
        await node.stop()
    }

    @Test func pipelinedRequests_areAllAnswered_smallOnesBehindALargeOne() async throws {
        let node = try await TestNode()
        try await node.makeVolume("disk", id: 1)
        let client = try node.client("disk")
        let data = pattern(byteCount: 8 << 20, seed: 3)
        try client.write(0, data)
        var bytes: [UInt8] = []
        var wanted: [UInt64: Range<Int>] = [:]
        for index in 0..<64 {
            let byteCount = index % 8 == 0 ? 3 << 20 : 4096
            let (cookie, request) = client.request(0, UInt64(index * 4096), UInt64(byteCount))
            wanted[cookie] = index * 4096..<index * 4096 + byteCount
            bytes += request
        }
        try client.send(bytes)
        for _ in 0..<64 {
            let reply = try client.reply()
            let found = wanted.removeValue(forKey: reply.cookie)
            let range = try #require(found)
            #expect(reply.error == 0)
            #expect(reply.data == Array(data[range]))
        }
        #expect(wanted.isEmpty)
        await node.stop()
    }

    @Test func blockStatus_everyContext_answersAll() async throws {
        let node = try await TestNode()
        try await node.makeVolume("disk", id: 1)
        _ = try await node.node.perform(.createSnapshot(volume: VolumeID(1), name: "base"))
        let client = try TestClient(path: node.socketPath)
        let contexts = try client.enter(
            "disk",
            mode: .structured,
            contexts: ["base:allocation", "qemu:allocation-depth", "cairn:changed-since:base"]
        )
        #expect(contexts.count == 3)
        try client.write(65_536, pattern(byteCount: 65_536, seed: 1))
        let reply = try client.call(7, 0, 1 << 20)
        #expect(reply.error == 0)
        #expect(reply.extents.count == 3)
        let changed = try #require(contexts.first { $0.value.hasPrefix("cairn:") }?.key)
        let extents = try #require(reply.extents[changed])
        #expect(extents.first?.0 == 65_536)
        #expect(extents.first?.1 == 0)
        #expect(extents.dropFirst().first?.1 == 1)
        await node.stop()
    }

    @Test func restart_afterStop_hasEverything() async throws {
        let node = try await TestNode()
        try await node.makeVolume("disk", id: 1)
        let data = pattern(byteCount: 1 << 20, seed: 5)
        let client = try node.client("disk")
        try client.write(0, data)
        await node.stop()
        #expect(client.isClosed())
        let again = try await TestNode(directory: node.directory)
        #expect(try again.client("disk").read(0, 1 << 20) == data)
        await again.stop()
    }

    @Test func aioEngine_servesToo() async throws {
        let node = try await TestNode { $0.reactor.engine = .aio }
        try await node.makeVolume("disk", id: 1)
        let client = try node.client("disk", mode: .structured)
        let data = pattern(byteCount: 3 << 20, seed: 9)
        try client.write(0, data)
        #expect(try client.read(0, 3 << 20) == data)
        await node.stop()
    }
}

@Suite("A node that cannot start", .serialized, .timeLimit(.minutes(3))) struct StartFailureTests {
    /// The second store becomes ready only after the first has failed and all are to close.
    @Test(arguments: [1, 2]) func oneStoreIsNone_otherStillOpens_throws(
        reactorCount: Int
    ) async throws {
        let directory = try TestDirectory()
        let plan = FaultPlan()
        plan.add(.delay(nanoseconds: 300_000_000), to: .read, count: 2)
        await #expect {
            _ = try await TestNode(storeCount: 2, directory: directory, isNew: true) {
                // Zeroes are no store.
                #expect(throws: Never.self) { try TestFiles.blank(directory.path + "/store0") }
                $0.reactorCount = reactorCount
                $0.stores[1].device.faults = plan
            }
        } throws: { error in
            guard case .store(_, .notAStore)? = error as? NodeError else { return false }
            return true
        }
        // Nothing stays open: what was sound can be served at once.
        let node = try await TestNode(directory: directory) {
            $0.stores[0].path = directory.path + "/store1"
        }
        try await node.makeVolume("disk", id: 1)
        _ = try node.client("disk").read(0, 4096)
        await node.stop()
    }
}

@Suite("Operations of a reactor", .serialized) struct OperationCountTests {
    /// One transfer at a time for each of two stores: slow, but nothing stands still.
    @Test func snapshotsOfOneNumber_inTwoStores_areNotMixedUp() async throws {
        let node = try await TestNode(storeCount: 2)
        try await node.makeVolume("a", id: 1, store: 0)
        try await node.makeVolume("b", id: 2, store: 1)
        let first = try await node.node.perform(.createSnapshot(volume: VolumeID(1), name: "s"))
        let second = try await node.node.perform(.createSnapshot(volume: VolumeID(2), name: "s"))
        try #require(first.layer == second.layer)
        let deletion = StoreCommand.deleteSnapshot(layer: second.layer)
        await #expect(throws: StoreCommandError.snapshotNotFound) {
            try await node.node.perform(deletion)
        }
        let store = try #require(node.node.store(of: VolumeID(2)))
        #expect(store == 1)
        _ = try await node.node.perform(deletion, store: store)
        #expect(await node.node.volume(VolumeID(1))?.snapshots.count == 1)
        #expect(await node.node.volume(VolumeID(2))?.snapshots.isEmpty == true)
        // Now only the other store has a layer of that number, and it is not meant.
        await #expect(throws: StoreCommandError.snapshotNotFound) {
            try await node.node.perform(deletion)
        }
        #expect(await node.node.volume(VolumeID(1))?.snapshots.count == 1)
        #expect(await node.node.areStoresReady())
        await node.stop()
    }

    @Test func fewDeviceTransfers_everyStoreIsServed() async throws {
        let node = try await TestNode(storeCount: 2) { $0.limits.deviceOperationCount = 2 }
        try await node.makeVolume("a", id: 1, store: 0)
        try await node.makeVolume("b", id: 2, store: 1)
        let clients = [try node.client("a"), try node.client("b")]
        let block = pattern(byteCount: 65_536, seed: 4)
        for client in clients {
            var bytes: [UInt8] = []
            for index in 0..<64 as Range<UInt64> {
                bytes += client.request(1, index * 65_536, 65_536, flags: 1, payload: block).bytes
            }
            try client.send(bytes)
        }
        for client in clients {
            for _ in 0..<64 { #expect(try client.reply().error == 0) }
            #expect(try client.read(0, 4 << 20) == (0..<64).flatMap { _ in block })
        }
        await node.stop()
    }

    @Test func moreMemoryThanTheSystemGrants_isRefusedAtStart() async throws {
        for byteCount in [1 << 50, Int.max] {
            await #expect {
                _ = try await TestNode { $0.stores[0].log.cacheMemoryByteCount = byteCount }
            } throws: { error in
                guard case .memory(let needed)? = error as? NodeError else { return false }
                return needed >= min(byteCount, 1 << 62)
            }
        }
    }

    @Test func moreConnectionsThanAReactorCanHave_isRefusedAtStart() async throws {
        await #expect {
            _ = try await TestNode { $0.limits.connectionCountMax = 20_000 }
        } throws: { error in
            guard case .configuration? = error as? NodeError else { return false }
            return true
        }
        // More than the reactor's table was asked to hold: it is made larger.
        let node = try await TestNode { $0.limits.connectionCountMax = 6000 }
        await node.stop()
    }
}

@Suite("Stores on other reactors", .serialized) struct HopTests {
    @Test func spreadConnections_reachTheirStore() async throws {
        let node = try await TestNode(storeCount: 2) { configuration in
            configuration.reactorCount = 3
            configuration.spreadsConnections = true
        }
        try await node.makeVolume("a", id: 1, store: 0)
        try await node.makeVolume("b", id: 2, store: 1)
        var clients: [TestClient] = []
        for index in 0..<6 {
            clients.append(try node.client(index % 2 == 0 ? "a" : "b", mode: .structured))
        }
        for (index, client) in clients.enumerated() {
            let data = pattern(byteCount: 2 << 20, seed: UInt64(index))
            try client.write(UInt64(index) * (4 << 20), data)
            #expect(try client.read(UInt64(index) * (4 << 20), 2 << 20) == data)
            #expect(try client.read(UInt64(index) * (4 << 20), 4096) == Array(data[..<4096]))
        }
        #expect(await node.node.counters().hopCount > 12)
        for client in clients { try client.disconnect() }
        for client in clients { #expect(client.isClosed()) }
        await node.stop()
    }

    /// Nothing is lost, and nothing stands still, where everything has to wait in line.
    @Test func smallMailboxesAndStores_everythingIsAnswered() async throws {
        let node = try await TestNode(storeCount: 2) { configuration in
            configuration.reactorCount = 3
            configuration.spreadsConnections = true
            configuration.limits.mailboxMessageCount = 2
            configuration.limits.storeRequestCountMax = 3
        }
        try await node.makeVolume("a", id: 1, store: 0)
        try await node.makeVolume("b", id: 2, store: 1)
        let clients = try (0..<6).map { try node.client($0 % 2 == 0 ? "a" : "b") }
        for round in 0..<8 as Range<UInt64> {
            for (index, client) in clients.enumerated() {
                var bytes: [UInt8] = []
                for request in 0..<64 as Range<UInt64> {
                    let offset = (UInt64(index) * 64 + request) * 4096
                    let payload = [UInt8](repeating: UInt8(truncatingIfNeeded: round), count: 4096)
                    bytes += client.request(1, offset, 4096, payload: payload).bytes
                }
                try client.send(bytes)
            }
            for client in clients {
                for _ in 0..<64 { #expect(try client.reply().error == 0) }
            }
        }
        for (index, client) in clients.enumerated() {
            let data = try client.read(UInt64(index) * 64 * 4096, 64 * 4096)
            #expect(data.allSatisfy { $0 == 7 })
        }
        // Connections that go while their export is being opened elsewhere.
        for index in 0..<32 {
            let client = try TestClient(path: node.socketPath)
            try client.greet()
            let name = Array((index % 2 == 0 ? "a" : "b").utf8)
            let data = big(UInt32(1)) + name + [0, 0]
            try client.send(Array("IHAVEOPT".utf8) + big(UInt32(7)) + big(UInt32(7)) + data)
        }
        #expect(try await isEventually { await node.node.counters().connectionCountNow == 6 })
        for volume in [VolumeID(1), VolumeID(2)] {
            #expect(try await isEventually { await node.node.connectionCount(of: volume) == 3 })
        }
        withExtendedLifetime(clients) {}
        await node.stop()
    }

    @Test func lostAccess_closesConnectionsOnEveryReactor() async throws {
        let node = try await TestNode { configuration in
            configuration.reactorCount = 2
            configuration.spreadsConnections = true
        }
        try await node.makeVolume("a", id: 1)
        let clients = try (0..<4).map { _ in try node.client("a") }
        for client in clients { _ = try client.read(0, 4096) }
        #expect(await node.node.connectionCount(of: VolumeID(1)) == 4)
        _ = try await node.node.perform(.deleteVolume(VolumeID(1)))
        for client in clients { #expect(client.isClosed()) }
        #expect(await node.node.volumes().isEmpty)
        await node.stop()
    }
}

@Suite("What a node takes at start", .serialized) struct StartMemoryTests {
    /// In huge pages it would be all of a GiB.
    @Test func sparseArena_onePageTouched_takesOnePage() throws {
        let before = try TestFiles.residentByteCount()
        let arenas = (0..<16).map { _ in MemoryArena(byteCount: 64 << 20, usesHugePages: false) }
        for arena in arenas {
            for offset in stride(from: 0, to: 64 << 20, by: 2 << 20) {
                arena.region.store(1 as UInt8, at: offset)
            }
        }
        #expect(try TestFiles.residentByteCount() - before < 600 << 20)
        withExtendedLifetime(arenas) {}
    }

    /// Tables for what can be in work, touched as they are used.
    ///
    /// 64 MiB of buffers, 13 of the store, about 6 for each reactor's tables, and what the tests
    /// that run beside this one take. Tables for all connections on each of them were 1.6 GB.
    @Test func sixteenReactors_defaultLimits_takeLittle() async throws {
        let before = try TestFiles.residentByteCount()
        let node = try await TestNode { configuration in
            configuration.reactorCount = 16
            configuration.bufferMemoryByteCount = 64 << 20
            configuration.limits = NodeLimits()
            configuration.reactor = ReactorOptions()
        }
        let taken = try TestFiles.residentByteCount() - before
        #expect(taken < 1000 << 20, "\(taken >> 20) MiB")
        try await node.makeVolume("disk", id: 1)
        _ = try node.client("disk").read(0, 4096)
        await node.stop()
    }
}

/// Bytes that tell where they belong.
func pattern(byteCount: Int, seed: UInt64) -> [UInt8] {
    var random = SplitMix(state: seed)
    var bytes: [UInt8] = []
    bytes.reserveCapacity(byteCount + 8)
    while bytes.count < byteCount {
        let value = random.next()
        for shift in 0..<8 { bytes.append(UInt8(truncatingIfNeeded: value >> (8 * UInt64(shift)))) }
    }
    return Array(bytes.prefix(byteCount))
}
