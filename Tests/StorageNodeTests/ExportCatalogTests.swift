import BlockCore
import LogStore
import NBDSession
import StorageNode
import Testing

@Suite("The catalogue of exports") struct ExportCatalogTests {
    private func entries(snapshotCount: Int) -> [ExportEntry] {
        ExportCatalog.entries(
            of: VolumeSpecification(
                id: VolumeID(1),
                name: "disk",
                byteCount: 1 << 30,
                logicalBlockByteCount: 512,
                access: .readWrite
            ),
            snapshots: (0..<snapshotCount).map { index in
                (LayerID(UInt64(index) + 2), "s\(index)", 1 << 30)
            },
            storeIndex: 0,
            naming: .plain
        )
    }

    @Test func snapshot_offersContextsOfOlderOnes() {
        let entries = entries(snapshotCount: 3)
        #expect(entries.map { $0.contexts.count } == [8, 2, 4, 6])
        #expect(entries[2].contexts.dropFirst(2).allSatisfy { $0.name.hasSuffix(":s0") })
        #expect(entries[2].contexts.dropFirst(2).allSatisfy { $0.snapshotHandle == 2 })
    }

    /// Contexts of its own for each would be quadratic: 1.2 GB for these.
    @Test func tenThousandSnapshots_shareOneArray() {
        let entries = entries(snapshotCount: 10_000)
        func start(_ entry: ExportEntry) -> UInt {
            // SAFETY: the address is only compared.
            unsafe entry.contexts.withUnsafeBufferPointer { UInt(bitPattern: $0.baseAddress) }
        }
        #expect(entries.count == 10_001)
        #expect(Set(entries.map(start)).count == 1)
    }
}
