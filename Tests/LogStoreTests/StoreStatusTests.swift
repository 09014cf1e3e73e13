import BlockCore
import LogStore
import StorageIO
import TestSupport
import Testing

/// Block status below many snapshots, with less map memory than the stack has pages.
@Suite(.background) struct StoreStatusTests {
    static let snapshotCount = 200

    /// A volume of four leaves with a snapshot after each of many rounds of scattered writes, and
    /// the round that wrote each block last.
    static func make() throws -> (StoreBench, VolumeHandle, [Int?], [LayerID]) {
        var configuration = StoreBench.smallConfiguration
        configuration.mapMemoryByteCount = LogStoreConfiguration.mapMemoryByteCountMin
        let bench = try StoreBench(byteCount: 128 << 20, configuration: configuration)
        let volume = try bench.volume(1, byteCount: 4 << 20, block: 4096)
        var rounds = [Int?](repeating: nil, count: 1024)
        var snapshots: [LayerID] = []
        for round in 0..<snapshotCount {
            for step in 0..<3 {
                let block = (round * 37 + step * 301) % 1000
                let bytes = StoreBench.pattern(round, 4096)
                try #require(try bench.write(volume, at: UInt64(block) * 4096, bytes) == .ok)
                rounds[block] = round
            }
            let made = try bench.command(
                .createSnapshot(volume: VolumeID(1), name: "s\(round)")
            )
            snapshots.append(made.layer)
        }
        try bench.flush(volume)
        try bench.crash()
        let again = try #require(bench.store.openVolume(VolumeID(1)))
        return (bench, again, rounds, snapshots)
    }

    static func request(
        _ bench: StoreBench,
        _ volume: VolumeHandle,
        _ kind: BlockStatusKind,
        from block: Int = 0,
        since: LayerID = .none,
        region: Int = 0
    ) -> StoreRequest {
        StoreRequest(
            kind: .blockStatus,
            volume: volume,
            offset: UInt64(block) * 4096,
            byteCount: UInt64(1024 - block) * 4096,
            region: bench.buffers.region.slice(region * 20_480, 20_480),
            statusKind: kind,
            sinceLayer: since,
            token: 0
        )
    }

    /// The values that a report gives to the blocks it covers.
    static func values(_ completion: StoreCompletion, _ region: ByteRegion) -> [UInt64] {
        var values: [UInt64] = []
        for extent in 0..<Int(completion.extentCount) {
            let count = region.load(extent * 16, as: UInt64.self) / 4096
            let value = region.load(extent * 16 + 8, as: UInt64.self)
            values += [UInt64](repeating: value, count: Int(count))
        }
        return values
    }

    static func values(
        _ bench: StoreBench,
        _ volume: VolumeHandle,
        _ kind: BlockStatusKind,
        since: LayerID = .none
    ) throws -> [UInt64] {
        var all: [UInt64] = []
        while all.count < 1024 {
            let request = request(bench, volume, kind, from: all.count, since: since)
            let completion = try bench.run(request)
            try #require(completion.status == .ok)
            let part = values(completion, request.region)
            try #require(!part.isEmpty)
            #expect(completion.byteCount == UInt64(part.count) * 4096)
            all += part
        }
        return all
    }

    @Test("A status below more pages than there are frames ends, reads each page once, is right")
    func status_deepStack_endsAndIsRight() throws {
        let (bench, volume, rounds, snapshots) = try Self.make()
        let before = bench.store.counters.mapPageReadCount
        let depths = try Self.values(bench, volume, .allocationDepth)
        let reads = bench.store.counters.mapPageReadCount - before
        // A leaf's turn reads the leaf and the root of each layer at most.
        #expect(reads > 128)
        #expect(reads <= UInt64(4 * 2 * (Self.snapshotCount + 1)))
        let expected = rounds.map { round in
            round.map { UInt64(Self.snapshotCount + 1 - $0) } ?? 0
        }
        #expect(depths == expected)
        let allocation = try Self.values(bench, volume, .allocation)
        #expect(allocation == rounds.map { $0 == nil ? 3 : 0 })
        let since = try Self.values(bench, volume, .changedSince, since: snapshots[50])
        #expect(since == rounds.map { ($0 ?? 0) > 50 ? 1 : 0 })
    }

    @Test("More statuses at once than can be worked out at once all end, and are right")
    func status_manyAtOnce_allEnd() throws {
        let (bench, volume, rounds, _) = try Self.make()
        for index in 0..<60 {
            var request = Self.request(bench, volume, .allocation, region: index)
            request.token = UInt64(1_000_000 + index)
            bench.store.submit(request)
        }
        bench.pump { bench.ended.keys.filter { $0 >= 1_000_000 }.count == 60 }
        for index in 0..<60 {
            let completion = try #require(bench.ended[UInt64(1_000_000 + index)])
            try #require(completion.status == .ok)
            let region = bench.buffers.region.slice(index * 20_480, 20_480)
            let found = Self.values(completion, region)
            #expect(found == rounds.map { $0 == nil ? 3 : 0 })
        }
    }

    @Test("A status that waits for pages while layers below are merged misses nothing")
    func status_layersMergedMeanwhile_isRight() throws {
        let (bench, volume, rounds, snapshots) = try Self.make()
        for round in 0..<20 {
            var request = Self.request(bench, volume, .allocation)
            request.token = UInt64(1_000_000 + round)
            bench.store.submit(request)
            for snapshot in snapshots[(round * 10)..<(round * 10 + 10)] {
                bench.store.submit(.deleteSnapshot(layer: snapshot), token: snapshot.rawValue)
            }
            bench.pump(requestsPerTurn: 2) { bench.ended[request.token] != nil }
            let completion = try #require(bench.ended[request.token])
            try #require(completion.status == .ok)
            #expect(
                Self.values(completion, request.region) == rounds.map { $0 == nil ? 3 : 0 }
            )
        }
        bench.settle(turnCount: 3000)
        #expect(bench.store.volume(VolumeID(1))?.layerCount == 1)
        #expect(bench.store.brokenInvariant() == nil)
    }

    @Test("Reads that wait for pages while layers below are merged miss nothing")
    func read_layersMergedMeanwhile_isRight() throws {
        let (bench, volume, rounds, snapshots) = try Self.make()
        for round in 0..<20 {
            for snapshot in snapshots[(round * 10)..<(round * 10 + 10)] {
                bench.store.submit(.deleteSnapshot(layer: snapshot), token: snapshot.rawValue)
            }
            let blocks = (0..<4).map { $0 * 256 + round * 11 }
            for (index, block) in blocks.enumerated() {
                bench.store.submit(
                    StoreRequest(
                        kind: .read,
                        volume: volume,
                        offset: UInt64(block) * 4096,
                        byteCount: 4096,
                        region: bench.buffers.region.slice(index * 8192, 8192),
                        token: UInt64(1_000_000 + block)
                    )
                )
            }
            bench.pump(requestsPerTurn: 2) {
                blocks.allSatisfy { bench.ended[UInt64(1_000_000 + $0)] != nil }
            }
            for block in blocks {
                let completion = try #require(bench.ended[UInt64(1_000_000 + block)])
                try #require(completion.status == .ok)
                let found = completion.region.isEmpty ? nil : completion.region.array()
                try #require(found == rounds[block].map { StoreBench.pattern($0, 4096) })
            }
            #expect(bench.store.brokenInvariant() == nil)
        }
        #expect(bench.store.resolvingStepCount > 0)
    }
}
