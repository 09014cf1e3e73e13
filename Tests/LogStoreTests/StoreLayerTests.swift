import BlockCore
import LogStore
import StorageIO
import Testing

/// Many snapshots and clones, judged by counts and never by time.
@Suite struct StoreLayerTests {
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
        // The stack, the volume's layers, and the children of each.
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
}
