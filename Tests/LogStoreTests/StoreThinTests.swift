import BlockCore
import LogStore
import TestSupport
import Testing

/// Blocks so thinly scattered that most have a map page of their own, on devices of few and small
/// segments: where room for checkpoints runs out first.
@Suite(.background) struct StoreThinTests {
    /// A device and how blocks are scattered over a volume of it.
    struct Shape: Sendable, CustomTestStringConvertible {
        var deviceMiB: Int
        var segmentKiB: Int
        var mapKiB: Int
        /// Leaves that blocks go to, and how far apart: as a power of two of bytes.
        var leafCount: UInt64
        var leafShift: UInt64

        /// Where a block of the volume lies, in bytes.
        func offset(_ block: UInt64) -> UInt64 {
            (block % leafCount) << leafShift | (block / leafCount & 255) << 12
        }

        var testDescription: String {
            "\(deviceMiB) MiB, segments \(segmentKiB) KiB, map \(mapKiB) KiB, "
                + "\(leafCount) leaves, 2^\(leafShift) bytes apart"
        }

        static var all: [Shape] {
            var shapes: [Shape] = []
            for (deviceMiB, segmentKiB) in [(4, 64), (8, 64), (16, 64), (16, 128)] {
                for mapKiB in [512, 4096] {
                    for (leafCount, leafShift) in [(64, 20), (1000, 20), (64, 30), (1000, 29)] {
                        shapes.append(
                            Shape(
                                deviceMiB: deviceMiB,
                                segmentKiB: segmentKiB,
                                mapKiB: mapKiB,
                                leafCount: UInt64(leafCount),
                                leafShift: UInt64(leafShift)
                            )
                        )
                    }
                }
            }
            return shapes
        }
    }

    private func makeBench(_ shape: Shape) throws -> StoreBench {
        var configuration = StoreBench.smallConfiguration
        configuration.mapMemoryByteCount = shape.mapKiB << 10
        return try StoreBench(
            byteCount: shape.deviceMiB << 20,
            segmentByteCount: UInt32(shape.segmentKiB << 10),
            configuration: configuration
        )
    }

    @Test("Writes that find no room end in ENOSPC, however many, and leave the store what it was")
    func write_fullStore_refusedAndStoreGoesOn() throws {
        for shape in Shape.all {
            let bench = try makeBench(shape)
            let volume = try bench.volume(1, byteCount: 1 << 40, block: 4096)
            let block = StoreBench.pattern(5, 4096)
            let blockCount = UInt64(shape.deviceMiB) << 8
            var random = SplitMix(seed: 1)
            var refusedCount = 0
            while refusedCount < 1500 {
                let offset = shape.offset(random.next(below: blockCount))
                let status = try bench.write(volume, at: offset, block)
                if status == .noSpace { refusedCount += 1 }
                try #require(status == .ok || status == .noSpace, "\(shape.testDescription)")
            }
            bench.settle()
            try bench.crash()
            let again = try #require(bench.store.openVolume(VolumeID(1)))
            try #require(
                try bench.change(.trim, again, 0, 1 << 40) == .ok,
                "\(shape.testDescription): \(bench.store.progressDescription)"
            )
            bench.settle()
            #expect(try bench.write(again, at: 0, block) == .ok)
            #expect(bench.store.brokenInvariant() == nil)
        }
    }

    @Test("Snapshots that are deleted and merged in a full store leave checkpoints their room")
    func deleteSnapshots_fullStore_storeGoesOn() throws {
        for shape in Shape.all {
            let bench = try makeBench(shape)
            let volume = try bench.volume(1, byteCount: 1 << 40, block: 4096)
            let block = StoreBench.pattern(5, 4096)
            let blockCount = UInt64(shape.deviceMiB) << 8
            var random = SplitMix(seed: 2)
            var snapshots: [LayerID] = []
            for step in 0..<(3 * blockCount) {
                switch random.next(below: 500) {
                case 0:
                    let command = StoreCommand.createSnapshot(
                        volume: VolumeID(1),
                        name: "s\(step)"
                    )
                    if let made = try? bench.command(command) { snapshots.append(made.layer) }
                case 1:
                    guard !snapshots.isEmpty else { continue }
                    bench.store.submit(.deleteSnapshot(layer: snapshots.removeFirst()), token: 1)
                default:
                    let offset = shape.offset(random.next(below: blockCount))
                    let status = try bench.write(volume, at: offset, block)
                    try #require(status == .ok || status == .noSpace, "\(shape.testDescription)")
                }
            }
            bench.settle()
            #expect(bench.store.state == .ready)
            #expect(bench.store.brokenInvariant() == nil)
        }
    }

    @Test("A store filled with thin data, snapshots and trims can be emptied")
    func deleteEverything_overfullStore_givesAllBack() throws {
        let bench = try StoreBench(byteCount: 32 << 20)
        let empty = bench.store.space
        let volume = try bench.volume(1, byteCount: 4 << 40, block: 4096)
        let block = StoreBench.pattern(5, 4096)
        var random = SplitMix(seed: 3)
        var snapshots: [LayerID] = []
        for index in 0..<4 {
            var refusedCount = 0
            while refusedCount < 300 {
                let status = try bench.write(volume, at: random.next(below: 1 << 30) << 12, block)
                refusedCount = status == .ok ? 0 : refusedCount + 1
            }
            let command = StoreCommand.createSnapshot(volume: VolumeID(1), name: "s\(index)")
            if let made = try? bench.command(command) { snapshots.append(made.layer) }
        }
        for index in 0..<4096 as Range<UInt64> {
            _ = try bench.change(.trim, volume, index << 30, 1 << 30)
        }
        bench.settle()
        for snapshot in snapshots { _ = try bench.command(.deleteSnapshot(layer: snapshot)) }
        bench.settle(turnCount: 2000)
        // A host lets go of it: what is said of the volume changes, and only then it is deleted.
        var specification = VolumeSpecification(
            id: VolumeID(1),
            name: "volume1",
            byteCount: 4 << 40,
            logicalBlockByteCount: 4096
        )
        specification.descriptor = StoreBench.pattern(1, 100)
        _ = try bench.command(.updateVolume(specification))
        bench.store.closeVolume(volume)
        _ = try bench.command(.deleteVolume(VolumeID(1)))
        bench.settle(turnCount: 5000)
        #expect(bench.store.space.liveByteCount <= empty.liveByteCount + (64 << 10))
        #expect(bench.store.brokenInvariant() == nil)
    }
}

/// Numbers that look random, the same each time.
struct SplitMix {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next(below bound: UInt64) -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return (mixed ^ (mixed >> 31)) % bound
    }
}
