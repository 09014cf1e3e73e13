import BlockCore
import Glibc
import LogStore
import Reactor
import StorageIO
import StorageNode
import TestSupport
import Testing

@Suite("Hostile clients cost others nothing", .serialized) struct HostileTests {
    /// Writes and reads as a well-behaved client; throws when the node does not serve it in time.
    private func work(_ client: TestClient, rounds: Int = 20) throws {
        for round in 0..<rounds {
            let data = pattern(byteCount: 16_384, seed: UInt64(round))
            try client.write(UInt64(round) * 16_384, data)
            guard try client.read(UInt64(round) * 16_384, 16_384) == data else {
                throw ClientError("round \(round): other bytes")
            }
        }
    }

    /// Waits until the good client's connection is the only one, while it works.
    ///
    /// A client that has gone while it waited for memory is noticed when its turn has come.
    private func requireEnded(_ node: TestNode, _ good: TestClient) async throws {
        var connectionCount: UInt64 = 0
        let isAlone = try await isEventually {
            try work(good, rounds: 1)
            connectionCount = await node.node.counters().connectionCountNow
            return connectionCount == 1
        }
        try #require(isAlone, "\(connectionCount) connections")
    }

    @Test func neverReading_withLittleMemory() async throws {
        let node = try await TestNode { $0.bufferMemoryByteCount = 8 << 20 }
        try await node.makeVolume("disk", id: 1)
        let good = try node.client("disk")
        let filler = try node.client("disk")
        try filler.write(32 << 20, pattern(byteCount: 4 << 20, seed: 1))
        var hogs: [TestClient] = []
        for mode in NodeTests.modes + NodeTests.modes {
            let hog = try node.client("disk", mode: mode)
            var requests: [UInt8] = []
            for _ in 0..<256 { requests += hog.request(0, 32 << 20, 1 << 20).bytes }
            _ = hog.sendWithoutWaiting(requests)
            hogs.append(hog)
            try work(good)
        }
        // The good client's large requests find memory too, in smaller parts.
        let data = pattern(byteCount: 2 << 20, seed: 2)
        try good.write(8 << 20, data)
        #expect(try good.read(8 << 20, 2 << 20) == data)
        hogs.removeAll()
        try work(good)
        await node.stop()
    }

    /// Each handshake takes 64 KiB of the pool: these would take all of it.
    @Test func unfinishedTLSHandshakes_leaveTheOthersTheirMemory() async throws {
        let directory = try TestDirectory()
        let keys = directory.path + "/keys"
        try TestFiles.write("alice:00112233445566778899aabbccddeeff\n", to: keys)
        let node = try await TestNode { configuration in
            configuration.bufferMemoryByteCount = 4 << 20
            configuration.tlsPolicy = .allow
            configuration.tls = TLSConfiguration(presharedKeysPath: keys)
        }
        try await node.makeVolume("disk", id: 1)
        let good = try node.client("disk")
        var started: [TestClient] = []
        for _ in 0..<96 {
            let client = try TestClient(path: node.socketPath)
            try client.greet()
            #expect(try client.option(5).last?.type == 1)
            started.append(client)
        }
        try work(good)
        let data = pattern(byteCount: 2 << 20, seed: 2)
        try good.write(8 << 20, data)
        #expect(try good.read(8 << 20, 2 << 20) == data)
        #expect(await node.node.counters().refusedCount == 80)
        started.removeAll()
        try work(node.client("disk"))
        try await requireEnded(node, good)
        // What the first ones held is there for the next.
        let later = try TestClient(path: node.socketPath)
        try later.greet()
        _ = try later.option(5)
        try work(good)
        #expect(await node.node.counters().refusedCount == 80)
        await node.stop()
    }

    @Test func moreRequestsThanSlots_areAllAnswered() async throws {
        let node = try await TestNode { $0.limits.slotCount = 64 }
        try await node.makeVolume("disk", id: 1)
        let clients = try (0..<24).map { _ in try node.client("disk", mode: .structured) }
        for client in clients {
            var requests: [UInt8] = []
            for index in 0..<64 { requests += client.request(0, UInt64(index) * 4096, 4096).bytes }
            try client.send(requests)
        }
        for client in clients {
            for _ in 0..<64 { #expect(try client.reply().error == 0) }
        }
        await node.stop()
    }

    /// Own slots that are taken are not taken from what is shared: here 120 of 128 are.
    @Test func ownSlotsTaken_othersStillGetDeep() async throws {
        let plan = FaultPlan()
        let node = try await TestNode { configuration in
            configuration.limits.slotCount = 64
            configuration.limits.connectionCountMax = 64
            configuration.bufferMemoryByteCount = 128 << 20
            configuration.stores[0].device.faults = plan
        }
        try await node.makeVolume("disk", id: 1)
        let deep = try node.client("disk")
        var stuck: [TestClient] = []
        for _ in 0..<60 {
            let client = try node.client("disk")
            let byteCount = 3 << 20
            let payload = [UInt8](repeating: 1, count: byteCount)
            let write = client.request(1, 32 << 20, UInt64(byteCount), payload: payload).bytes
            try client.send(Array(write.prefix(100)))
            stuck.append(client)
        }
        #expect(try await isEventually { await node.node.counters().requestCountNow == 120 })
        // Durable writes that end when they are told to.
        _ = await node.node.valueOnReactor(0) {
            for kind in [DeviceRequest.Kind.write, .writeDurable, .flush] {
                plan.add(.delay(nanoseconds: 3_600_000_000_000), to: kind, count: 1000)
            }
            return 0
        }
        var writes: [UInt8] = []
        let block = [UInt8](repeating: 2, count: 512)
        for index in 0..<32 as Range<UInt64> {
            writes += deep.request(1, index * 4096, 512, flags: 1, payload: block).bytes
        }
        try deep.send(writes)
        #expect(try await isEventually { await node.node.counters().requestCountNow >= 120 + 10 })
        _ = await node.node.valueOnReactor(0) {
            plan.removeAll()
            return 0
        }
        for _ in 0..<32 { #expect(try deep.reply().error == 0) }
        stuck.removeAll()
        await node.stop()
    }

    @Test func fullTable_theOldestHandshakeMakesRoom() async throws {
        let node = try await TestNode { $0.limits.connectionCountMax = 8 }
        try await node.makeVolume("disk", id: 1)
        var idle: [TestClient] = []
        for _ in 0..<8 {
            let client = try TestClient(path: node.socketPath)
            _ = try client.receive(18)
            idle.append(client)
        }
        let good = try node.client("disk")
        try work(good)
        #expect(idle[0].isClosed())
        #expect(await node.node.counters().refusedCount >= 1)
        await node.stop()
    }

    @Test func stalledHandshakeAndPayload_areDropped() async throws {
        let node = try await TestNode { configuration in
            configuration.limits.handshakeSeconds = 3
            configuration.limits.payloadSeconds = 3
        }
        try await node.makeVolume("disk", id: 1)
        let good = try node.client("disk")
        let idle = try TestClient(path: node.socketPath)
        let half = try node.client("disk")
        let whole = half.request(1, 0, 65_536, payload: [UInt8](repeating: 7, count: 65_536)).bytes
        try half.send(Array(whole.prefix(30_000)))
        #expect(idle.isClosed())
        #expect(half.isClosed())
        try work(good)
        #expect(await node.node.counters().timedOutCount == 2)
        await node.stop()
    }

    @Test func vanishing_atEveryPoint_leaksNothing() async throws {
        let node = try await TestNode { $0.bufferMemoryByteCount = 8 << 20 }
        try await node.makeVolume("disk", id: 1)
        let good = try node.client("disk")
        var random = SplitMix(state: 11)
        for round in 0..<120 {
            let client = try node.client("disk", mode: NodeTests.modes[round % 3])
            var bytes: [UInt8] = []
            for _ in 0..<8 {
                let isWrite = random.next() % 2 == 0
                let byteCount = random.next() % 4 == 0 ? 3 << 20 : 65_536
                let payload = isWrite ? [UInt8](repeating: 0xA5, count: byteCount) : []
                let offset = (16 << 20) + random.next() % 64 * 65_536
                bytes +=
                    client.request(
                        isWrite ? 1 : 0,
                        offset,
                        UInt64(byteCount),
                        payload: payload
                    ).bytes
            }
            _ = client.sendWithoutWaiting(
                Array(bytes.prefix(Int(random.next() % UInt64(bytes.count))))
            )
        }
        try work(good)
        // Everything given back: the counters of what is in work say so once all have ended.
        try await requireEnded(node, good)
        #expect(await node.node.counters().requestCountNow == 0)
        #expect(await node.node.isPoolWhole(connectionCount: 1))
        await node.stop()
    }

    @Test func garbage_isDropped() async throws {
        let node = try await TestNode()
        try await node.makeVolume("disk", id: 1)
        let good = try node.client("disk")
        for seed in 0..<60 as Range<UInt64> {
            let garbage = pattern(byteCount: 2000, seed: seed)
            let client = try TestClient(path: node.socketPath)
            _ = client.sendWithoutWaiting(garbage)
            #expect(client.isClosed(), "seed \(seed), in the handshake")
            #expect(await node.node.counters().violationCount == 2 * seed + 1)
            let later = try node.client("disk", mode: NodeTests.modes[Int(seed) % 3])
            _ = later.sendWithoutWaiting(garbage)
            #expect(later.isClosed(), "seed \(seed), after it")
            #expect(await node.node.counters().violationCount == 2 * seed + 2)
        }
        try work(good)
        await node.stop()
    }

    /// One of the ways in which a client can be a nuisance, left as it is.
    private func misbehave(_ node: TestNode, _ index: Int) throws -> TestClient {
        switch index % 5 {
        case 0: return try TestClient(path: node.socketPath)
        case 1:
            let client = try TestClient(path: node.socketPath)
            _ = client.sendWithoutWaiting(pattern(byteCount: 500, seed: UInt64(index)))
            return client
        default: break
        }
        let client = try node.client("disk", mode: NodeTests.modes[index % 3])
        let offset: UInt64 = 32 << 20
        switch index % 5 {
        case 2:
            let payload = [UInt8](repeating: 0x5A, count: 1 << 20)
            let write = client.request(1, offset, 1 << 20, payload: payload).bytes
            _ = client.sendWithoutWaiting(Array(write.prefix(200 + index)))
        case 3:
            var reads: [UInt8] = []
            for _ in 0..<16 { reads += client.request(0, offset, 1 << 20).bytes }
            _ = client.sendWithoutWaiting(reads)
        default:
            _ = client.sendWithoutWaiting(client.request(0, offset, 0xFFFF_F000).bytes)
        }
        return client
    }

    @Test func aThousandAtOnce_costOthersNothing() async throws {
        try raiseDescriptorLimit(to: 4096)
        let node = try await TestNode { $0.bufferMemoryByteCount = 16 << 20 }
        try await node.makeVolume("disk", id: 1)
        let good = try node.client("disk")
        try good.write(32 << 20, pattern(byteCount: 4 << 20, seed: 1))
        var hostile: [TestClient] = []
        for index in 0..<1000 {
            hostile.append(try misbehave(node, index))
            if index % 50 == 0 { try work(good, rounds: 2) }
        }
        try work(good)
        let data = pattern(byteCount: 2 << 20, seed: 2)
        try good.write(8 << 20, data)
        #expect(try good.read(8 << 20, 2 << 20) == data)
        hostile.removeAll()
        try await requireEnded(node, good)
        #expect(await node.node.isPoolWhole(connectionCount: 1))
        await node.stop()
    }

    /// Client and server live in this process: each connection takes two descriptors.
    private func raiseDescriptorLimit(to count: rlim_t) throws {
        var limit = rlimit()
        // SAFETY: the kernel reads and writes the value during the calls.
        guard unsafe getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else {
            throw ClientError("getrlimit: errno \(errno)")
        }
        guard limit.rlim_cur < count else { return }
        limit.rlim_cur = min(count, limit.rlim_max)
        guard unsafe setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else {
            throw ClientError("setrlimit: errno \(errno)")
        }
    }
}
