import BlockCore
import LogStore
import StorageIO
import TestSupport
import Testing

/// Many snapshots and clones, judged by counts and never by time.
@Suite(.background) struct StoreLayerTests {
    static var largeMap: LogStoreConfiguration {
        var configuration = StoreBench.smallConfiguration
        configuration.mapMemoryByteCount = 32 << 20
        return configuration
    }

    @Test("What a command looks at does not grow with the layers of other volumes")
    func commands_manyOtherLayers_sameSteps() throws {
        let bench = try StoreBench(byteCount: 128 << 20, configuration: Self.largeMap)
        _ = try bench.volume(1, byteCount: 1 << 20, block: 4096)
        var id: UInt64 = 100
        func steps(_ body: () throws -> Void) throws -> UInt64 {
            let before = bench.store.layerStepCount
            try body()
            return bench.store.layerStepCount - before
        }
        /// Each command once, on a volume of its own; the steps of each.
        func measure() throws -> [UInt64] {
            id += 10
            let volume = VolumeID(id)
            let clone = VolumeSpecification(
                id: VolumeID(id + 1),
                name: "c\(id)",
                byteCount: 1 << 20
            )
            var made: [StoreCommandResult] = []
            return [
                try steps { bench.store.closeVolume(try bench.volume(id, byteCount: 1 << 20)) },
                try steps {
                    for name in ["a", "b", "c"] {
                        made.append(
                            try bench.command(.createSnapshot(volume: volume, name: name))
                        )
                    }
                },
                try steps {
                    _ = try bench.command(.cloneSnapshot(layer: made[0].layer, clone))
                },
                try steps {
                    _ = try bench.command(.resizeVolume(volume, byteCount: 2 << 20))
                },
                try steps {
                    _ = try bench.command(.rollback(volume: volume, layer: made[1].layer))
                    bench.settle()
                },
                try steps {
                    #expect(bench.store.volume(volume)?.snapshots.map(\.cloneCount) == [1, 0, 0])
                    #expect(bench.store.volume(ofSnapshot: made[2].layer) == volume)
                    #expect(bench.store.specification(of: volume)?.byteCount == 1 << 20)
                },
                try steps { bench.store.closeVolume(try #require(bench.store.openVolume(volume))) },
                try steps {
                    _ = try bench.command(.deleteVolume(VolumeID(id + 1)))
                    bench.settle()
                },
                try steps {
                    _ = try bench.command(.deleteSnapshot(layer: made[1].layer))
                    bench.settle()
                },
                try steps {
                    _ = try bench.command(.deleteVolume(volume))
                    bench.settle()
                },
            ]
        }
        let alone = try measure()
        let before = bench.store.layerStepCount
        var snapshots: [LayerID] = []
        for round in 0..<2000 {
            let made = try bench.command(
                .createSnapshot(volume: VolumeID(1), name: "s\(round)")
            )
            snapshots.append(made.layer)
        }
        for round in 0..<500 {
            let clone = VolumeSpecification(
                id: VolumeID(10_000 + UInt64(round)),
                name: "clone\(round)",
                byteCount: 1 << 20
            )
            _ = try bench.command(.cloneSnapshot(layer: snapshots[round % 2 * 1000], clone))
        }
        #expect(bench.store.layerStepCount - before == 0)
        #expect(try measure() == alone)
        let listing = bench.store.layerStepCount
        let summary = try #require(bench.store.volume(VolumeID(1)))
        #expect(summary.snapshots.count == 2000)
        #expect(summary.layerCount == 2001)
        #expect(summary.snapshots[0].cloneCount == 250)
        #expect(summary.snapshots[1000].cloneCount == 250)
        // The stack, the volume's layers, and the children of its snapshots.
        #expect(bench.store.layerStepCount - listing <= 3 * 2001 + 500)
        #expect(bench.store.brokenInvariant() == nil)
    }

    @Test("A thousand snapshots deleted at once go in steps proportional to their number")
    func deleteSnapshots_thousand_linearSteps() throws {
        let bench = try StoreBench(byteCount: 128 << 20, configuration: Self.largeMap)
        let volume = try bench.volume(1, byteCount: 1 << 20, block: 4096)
        var snapshots: [LayerID] = []
        for round in 0..<1000 {
            let bytes = StoreBench.pattern(round, 4096)
            try #require(
                try bench.write(volume, at: UInt64(round % 256) * 4096, bytes) == .ok
            )
            let made = try bench.command(
                .createSnapshot(volume: VolumeID(1), name: "s\(round)")
            )
            snapshots.append(made.layer)
        }
        let before = bench.store.layerStepCount
        for layer in snapshots { _ = try bench.command(.deleteSnapshot(layer: layer)) }
        bench.settle(turnCount: 3000)
        #expect(bench.store.layerStepCount - before <= 8 * 1000)
        // Nothing was being read, so no frame had to be looked up anew.
        #expect(bench.store.resolvingStepCount == 0)
        #expect(bench.store.volume(VolumeID(1))?.layerCount == 1)
        for block in 0..<256 {
            let last = (999 - block) / 256 * 256 + block
            #expect(
                try bench.read(volume, at: UInt64(block) * 4096, 4096)
                    == StoreBench.pattern(last, 4096)
            )
        }
        #expect(bench.store.brokenInvariant() == nil)
        try bench.crash()
        #expect(bench.store.volume(VolumeID(1))?.layerCount == 1)
        #expect(bench.store.brokenInvariant() == nil)
    }

    @Test("A volume deleted while a layer is merged is given back first, and then that goes on")
    func deleteVolume_mergeUnderWay_comesFirst() throws {
        let bench = try StoreBench(byteCount: 128 << 20, configuration: Self.largeMap)
        let volume = try bench.volume(1, byteCount: 1 << 40, block: 4096)
        let block = StoreBench.pattern(1, 4096)
        var snapshots: [LayerID] = []
        // A leaf for each block, so that merging takes many turns.
        for round in 0..<2 as Range<UInt64> {
            for index in 0..<2000 as Range<UInt64> {
                try #require(try bench.write(volume, at: index << 20, block) == .ok)
            }
            let made = try bench.command(.createSnapshot(volume: VolumeID(1), name: "s\(round)"))
            snapshots.append(made.layer)
        }
        let other = try bench.volume(2, byteCount: 8 << 20, block: 4096)
        for index in 0..<8 as Range<UInt64> {
            let bytes = StoreBench.pattern(2, 1 << 20)
            try #require(try bench.write(other, at: index << 20, bytes) == .ok)
        }
        bench.store.closeVolume(other)
        bench.settle()
        for layer in snapshots { _ = try bench.command(.deleteSnapshot(layer: layer)) }
        bench.settle(turnCount: 4)
        try #require(bench.store.volume(VolumeID(1))?.layerCount == 3)
        let before = bench.store.space.liveByteCount
        _ = try bench.command(.deleteVolume(VolumeID(2)))
        bench.settle(turnCount: 4)
        #expect(bench.store.volume(VolumeID(1))?.layerCount == 3)
        #expect(bench.store.space.liveByteCount + (8 << 20) <= before)
        bench.settle(turnCount: 2000)
        #expect(bench.store.volume(VolumeID(1))?.layerCount == 1)
        #expect(bench.store.brokenInvariant() == nil)
    }

    @Test("At the limit of layers every command that adds one is refused, rollbacks too")
    func rollback_layerLimit_refused() throws {
        var configuration = StoreBench.smallConfiguration
        configuration.layerCountMax = 32
        let bench = try StoreBench(configuration: configuration)
        bench.store.closeVolume(try bench.volume(1, byteCount: 1 << 20))
        let made = try bench.command(.createSnapshot(volume: VolumeID(1), name: "s"))
        // All at once: background work gets no turn to give the old tops back.
        for token in 0..<100 {
            bench.store.submit(
                .rollback(volume: VolumeID(1), layer: made.layer),
                token: UInt64(1_000_000 + token)
            )
        }
        bench.pump { bench.endedCommands.keys.filter { $0 >= 1_000_000 }.count == 100 }
        let refused = bench.endedCommands.values.filter {
            $0 == .failure(StoreCommandError.tooMany)
        }
        #expect(refused.count == 100 - (32 - 8 - 2))
        bench.settle()
        _ = try bench.command(.rollback(volume: VolumeID(1), layer: made.layer))
        try bench.crash()
        #expect(bench.store.volume(VolumeID(1))?.layerCount == 2)
    }

    @Test("A volume that grows while every frame is being read into waits, and grows")
    func resize_framesLoading_waits() throws {
        var configuration = StoreBench.smallConfiguration
        configuration.mapMemoryByteCount = LogStoreConfiguration.mapMemoryByteCountMin
        configuration.cacheMemoryByteCount = 0
        configuration.requestCountMax = 256
        let bench = try StoreBench(configuration: configuration)
        let volume = try bench.volume(1, byteCount: 200 << 20, block: 4096)
        for leaf in 0..<200 {
            let bytes = StoreBench.pattern(leaf, 4096)
            try #require(try bench.write(volume, at: UInt64(leaf) << 20, bytes) == .ok)
        }
        try bench.flush(volume)
        try bench.crash()
        let again = try #require(bench.store.openVolume(VolumeID(1)))
        for leaf in 0..<200 {
            bench.store.submit(
                StoreRequest(
                    kind: .read,
                    volume: again,
                    offset: UInt64(leaf) << 20,
                    byteCount: 4096,
                    region: bench.buffers.region.slice(leaf * 4096, 4096),
                    token: UInt64(1_000_000 + leaf)
                )
            )
        }
        // The root arrives; then every other frame is being read into.
        while bench.store.deviceRequests.count < 100 { bench.executeOne() }
        bench.store.submit(.resizeVolume(VolumeID(1), byteCount: 100 << 30), token: 7)
        for _ in 0..<10 {
            bench.now = bench.now.advanced(byNanoseconds: 100_000)
            _ = bench.store.onTurn(now: bench.now)
        }
        #expect(bench.endedCommands[7] == nil)
        #expect(bench.store.commandCompletions.isEmpty)
        bench.pump {
            bench.endedCommands[7] != nil
                && bench.ended.keys.filter { $0 >= 1_000_000 }.count == 200
        }
        _ = try #require(bench.endedCommands[7]).get()
        for leaf in 0..<200 {
            let found = bench.buffers.region.slice(leaf * 4096, 4096).array()
            try #require(found == StoreBench.pattern(leaf, 4096))
        }
        #expect(bench.store.brokenInvariant() == nil)
        #expect(try bench.write(again, at: 99 << 30, StoreBench.pattern(5, 4096)) == .ok)
        try bench.flush(again)
        try bench.crash()
        let last = try #require(bench.store.openVolume(VolumeID(1)))
        #expect(try bench.read(last, at: 99 << 30, 4096) == StoreBench.pattern(5, 4096))
        #expect(try bench.read(last, at: 77 << 20, 4096) == StoreBench.pattern(77, 4096))
    }

    @Test("Growth that finds no frame in replay is refused by name, and opens with more memory")
    func replay_growthWithoutFrames_mapMemoryTooSmall() throws {
        var configuration = StoreBench.smallConfiguration
        configuration.checkpointByteCount = 1 << 30
        var tight = configuration
        tight.mapMemoryByteCount = LogStoreConfiguration.mapMemoryByteCountMin
        var refusedCount = 0
        var openedCount = 0
        // The leaves, the root and two pages above it in 128 frames.
        for leafCount in 122..<130 {
            let bench = try StoreBench(configuration: configuration)
            let volume = try bench.volume(1, byteCount: 200 << 20, block: 4096)
            for leaf in 0..<leafCount {
                let bytes = StoreBench.pattern(leaf, 4096)
                try #require(try bench.write(volume, at: UInt64(leaf) << 20, bytes) == .ok)
            }
            _ = try bench.command(.resizeVolume(VolumeID(1), byteCount: 100 << 30))
            bench.reopen(tight)
            switch bench.store.state {
            case .ready: openedCount += 1
            case .failed(.mapMemoryTooSmall): refusedCount += 1
            case let other: Issue.record("\(other)")
            }
            bench.reopen(configuration)
            let again = try #require(bench.store.openVolume(VolumeID(1)))
            for leaf in 0..<leafCount {
                let bytes = try bench.read(again, at: UInt64(leaf) << 20, 4096)
                #expect(bytes == StoreBench.pattern(leaf, 4096))
            }
            #expect(bench.store.volume(VolumeID(1))?.specification.byteCount == 100 << 30)
        }
        #expect(refusedCount > 0)
        #expect(openedCount > 0)
    }

    @Test("A leaf that is changed keeps its frame while frames are found for the pages above it")
    func write_leafNextToBeDriven_staysInMemory() throws {
        var configuration = StoreBench.smallConfiguration
        configuration.mapMemoryByteCount = LogStoreConfiguration.mapMemoryByteCountMin
        configuration.cacheMemoryByteCount = 0
        let bench = try StoreBench(configuration: configuration)
        // Each leaf has a page above it of its own, and a snapshot has the blocks: the volume's
        // leaves are made of what they inherit, and the pages above them when they are written.
        let leafCount = 80
        let offset = { (leaf: Int) in UInt64(leaf) << 28 }
        let volume = try bench.volume(1, byteCount: offset(leafCount), block: 4096)
        for leaf in 0..<leafCount {
            let bytes = StoreBench.pattern(leaf, 4096)
            try #require(try bench.write(volume, at: offset(leaf), bytes) == .ok)
        }
        let made = try bench.command(.createSnapshot(volume: VolumeID(1), name: "s"))
        let written = StoreBench.pattern(1000, 4096)
        for round in 0..<320 {
            let id = VolumeID(UInt64(round) + 2)
            let clone = VolumeSpecification(
                id: id,
                name: "c\(round)",
                byteCount: offset(leafCount)
            )
            _ = try bench.command(.cloneSnapshot(layer: made.layer, clone))
            let handle = try #require(bench.store.openVolume(id))
            // More than fit into memory: some leaf is the next to be driven out.
            for leaf in 0..<leafCount {
                let bytes = try bench.read(handle, at: offset(leaf), 4096)
                try #require(bytes == StoreBench.pattern(leaf, 4096))
            }
            let leaf = round * 7 % leafCount
            try #require(try bench.write(handle, at: offset(leaf) + 4096, written) == .ok)
            try #require(bench.store.brokenInvariant() == nil)
            let bytes = try bench.read(handle, at: offset(leaf), 8192)
            try #require(bytes == StoreBench.pattern(leaf, 4096) + written)
            // So that another page is the next to go each time.
            for neighbour in 0..<UInt64(round % 3) {
                let beside = offset(leaf) + (neighbour + 1) << 20
                try #require(try bench.write(handle, at: beside, written) == .ok)
            }
        }
    }
}
