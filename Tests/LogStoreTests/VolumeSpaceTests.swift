import BlockCore
import LogStore
import Testing

/// Whose bytes are whose, through snapshots, clones, rollbacks and deletions.
@Suite struct VolumeSpaceTests {
    private static var mebibyte: UInt64 { 1 << 20 }

    private func write(_ bench: StoreBench, _ id: UInt64, mebibytes: Range<UInt64>) throws {
        let volume = try #require(bench.store.openVolume(VolumeID(id)))
        for index in mebibytes {
            let bytes = StoreBench.pattern(Int(index), 1 << 20)
            try #require(try bench.write(volume, at: index << 20, bytes) == .ok)
        }
        bench.store.closeVolume(volume)
    }

    /// A volume's space in MiB: written, shared, exclusive, reclaimable.
    private func space(_ bench: StoreBench, _ id: UInt64) throws -> [UInt64] {
        let space = try #require(bench.store.volume(VolumeID(id))).space
        return [
            space.writtenByteCount, space.sharedByteCount, space.exclusiveByteCount,
            space.reclaimableByteCount,
        ].map { $0 / Self.mebibyte }
    }

    private func snapshot(_ bench: StoreBench, _ id: UInt64, _ name: String) throws -> LayerID {
        try bench.command(.createSnapshot(volume: VolumeID(id), name: name)).layer
    }

    @Test("Snapshots that a rollback left beside the stack are the volume's own")
    func rollback_snapshotsBeside_areExclusive() throws {
        let bench = try StoreBench(byteCount: 128 << 20)
        bench.store.closeVolume(try bench.volume(1, block: 4096))
        try write(bench, 1, mebibytes: 0..<8)
        let first = try snapshot(bench, 1, "a")
        try write(bench, 1, mebibytes: 0..<8)
        _ = try snapshot(bench, 1, "b")
        try write(bench, 1, mebibytes: 0..<4)
        _ = try bench.command(.rollback(volume: VolumeID(1), layer: first))
        bench.settle()
        #expect(try space(bench, 1) == [16, 0, 16, 0])
    }

    @Test("What a clone stands on is shared by both, what lies above belongs to one")
    func clone_base_isShared() throws {
        let bench = try StoreBench(byteCount: 128 << 20)
        bench.store.closeVolume(try bench.volume(1, block: 4096))
        try write(bench, 1, mebibytes: 0..<3)
        _ = try snapshot(bench, 1, "a")
        try write(bench, 1, mebibytes: 0..<2)
        let base = try snapshot(bench, 1, "b")
        try write(bench, 1, mebibytes: 4..<8)
        let clone = VolumeSpecification(
            id: VolumeID(2),
            name: "clone",
            byteCount: 16 << 20,
            logicalBlockByteCount: 4096
        )
        _ = try bench.command(.cloneSnapshot(layer: base, clone))
        try write(bench, 2, mebibytes: 0..<1)
        #expect(try space(bench, 1) == [9, 5, 4, 0])
        #expect(try space(bench, 2) == [6, 5, 1, 0])
        _ = try bench.command(.deleteVolume(VolumeID(2)))
        bench.settle()
        #expect(try space(bench, 1) == [9, 0, 9, 0])
    }

    @Test("A deleted snapshot that a clone stands on is still shared, and all below it")
    func deleteSnapshot_underClone_staysShared() throws {
        let bench = try StoreBench(byteCount: 128 << 20)
        bench.store.closeVolume(try bench.volume(1, block: 4096))
        try write(bench, 1, mebibytes: 0..<3)
        _ = try snapshot(bench, 1, "a")
        try write(bench, 1, mebibytes: 3..<5)
        let base = try snapshot(bench, 1, "b")
        try write(bench, 1, mebibytes: 0..<1)
        let clone = VolumeSpecification(
            id: VolumeID(2),
            name: "clone",
            byteCount: 16 << 20,
            logicalBlockByteCount: 4096
        )
        _ = try bench.command(.cloneSnapshot(layer: base, clone))
        try write(bench, 2, mebibytes: 6..<8)
        _ = try bench.command(.deleteSnapshot(layer: base))
        bench.settle()
        #expect(try space(bench, 1) == [6, 5, 1, 0])
        #expect(try space(bench, 2) == [7, 5, 2, 0])
        // Without the clone only the volume stands on it.
        _ = try bench.command(.deleteVolume(VolumeID(2)))
        bench.settle()
        #expect(try space(bench, 1) == [6, 0, 6, 0])
    }

    @Test("Of a deleted snapshot at most what lies over it comes back, and then it has")
    func deleteSnapshot_hidden_comesBack() throws {
        let bench = try StoreBench(byteCount: 128 << 20)
        bench.store.closeVolume(try bench.volume(1, block: 4096))
        try write(bench, 1, mebibytes: 0..<8)
        let layer = try snapshot(bench, 1, "a")
        try write(bench, 1, mebibytes: 0..<2)
        #expect(try space(bench, 1) == [10, 0, 10, 0])
        _ = try bench.command(.deleteSnapshot(layer: layer))
        #expect(try space(bench, 1)[3] <= 2)
        bench.settle()
        #expect(try space(bench, 1) == [8, 0, 8, 0])
    }

    @Test("What only the volume before a rollback stands on comes back whole")
    func rollback_deletedSnapshotBeside_comesBack() throws {
        let bench = try StoreBench(byteCount: 128 << 20)
        bench.store.closeVolume(try bench.volume(1, block: 4096))
        try write(bench, 1, mebibytes: 0..<4)
        let first = try snapshot(bench, 1, "a")
        try write(bench, 1, mebibytes: 0..<3)
        let second = try snapshot(bench, 1, "b")
        try write(bench, 1, mebibytes: 5..<7)
        _ = try bench.command(.rollback(volume: VolumeID(1), layer: first))
        _ = try bench.command(.deleteSnapshot(layer: second))
        let before = try space(bench, 1)
        bench.settle()
        #expect(try space(bench, 1) == [4, 0, 4, 0])
        // What is announced is what came back.
        #expect(before[3] == before[0] - 4 && before[3] >= 3, "\(before)")
    }
}
