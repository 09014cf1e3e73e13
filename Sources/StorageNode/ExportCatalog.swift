// What a node exports: the volumes of its stores and their snapshots, by name.

package import BlockCore
package import LogStore
package import NBDSession
internal import NBDWire

/// How volumes are named for clients.
public enum ExportNaming: Sendable, Hashable {
    /// `VOLUME`, and the empty name for the only one. For a node by itself.
    case plain
    /// `VOLUME:EPOCH`: whoever comes back with the name it was once given, after the volume has
    /// been given to somebody else, finds nothing. For a node of a cluster.
    case fenced
}

/// One name that clients can open.
package struct ExportEntry: Sendable {
    var key: ExportKey
    var name: String
    var description: String
    var byteCount: UInt64
    var logicalBlockByteCount: UInt32
    var isReadOnly: Bool
    /// What can be asked about its blocks; with one context for each snapshot older than what is
    /// exported.
    ///
    /// The exports of a volume share one array, of which each takes the beginning: a thousand
    /// snapshots with a thousand contexts of their own each would take a million.
    package var contexts: ArraySlice<NBDMetaContext>

    /// The export as the handshake shows it.
    var nbdExport: NBDExport {
        var export = NBDExport(
            handle: 0,
            name: name,
            description: description,
            byteCount: byteCount,
            isReadOnly: isReadOnly,
            sizes: NBDBlockSizes(
                blockByteCountMin: logicalBlockByteCount,
                blockByteCountPreferred: UInt32(BlockGeometry.blockByteCount),
                payloadByteCountMax: NBDLimits.payloadByteCountDefault
            ),
            contexts: []
        )
        export.contexts = contexts
        return export
    }
}

/// All exports of a node at one moment; each change makes a new catalogue.
package final class ExportCatalog: Sendable {
    let entries: [ExportEntry]
    // By bytes: names that Swift compares as equal are different names on the wire.
    private let indexByName: [[UInt8]: Int]
    private let indexByKey: [ExportKey: Int]
    private let defaultIndex: Int?
    let naming: ExportNaming

    /// Lists the exports of each store in turn; a name that two stores have opens the first.
    init(_ stores: [[ExportEntry]], naming: ExportNaming) {
        self.naming = naming
        let all = stores.flatMap { $0 }
        var byName: [[UInt8]: Int] = [:]
        var byKey: [ExportKey: Int] = [:]
        var kept: [ExportEntry] = []
        for entry in all {
            let name = Array(entry.name.utf8)
            guard byName[name] == nil else { continue }
            byName[name] = kept.count
            byKey[entry.key] = kept.count
            kept.append(entry)
        }
        entries = kept
        indexByName = byName
        indexByKey = byKey
        let volumes = kept.indices.filter { kept[$0].key.layer == .none }
        // The empty name would go round the fence.
        defaultIndex = volumes.count == 1 && naming == .plain ? volumes.first : nil
    }

    /// The export that `name` opens; the empty name opens the only volume, when there is one.
    func entry(named name: String) -> ExportEntry? {
        guard !name.isEmpty else { return defaultIndex.map { entries[$0] } }
        return indexByName[Array(name.utf8)].map { entries[$0] }
    }

    /// The export of `key` now.
    func entry(_ key: ExportKey) -> ExportEntry? { indexByKey[key].map { entries[$0] } }

    /// The exports that a volume makes.
    static func entries(
        of volume: VolumeSummary,
        storeIndex: Int32,
        naming: ExportNaming
    ) -> [ExportEntry] {
        // A replica's snapshots are for its primary: alone it may lack parts of them.
        guard volume.specification.replica.isEmpty else { return [] }
        return entries(
            of: volume.specification,
            snapshots: volume.snapshots.map { ($0.layer, $0.name, $0.byteCount) },
            storeIndex: storeIndex,
            naming: naming
        )
    }

    /// The exports of one volume, if somebody may use it, and of its snapshots, oldest first.
    package static func entries(
        of specification: VolumeSpecification,
        snapshots: [(layer: LayerID, name: String, byteCount: UInt64)],
        storeIndex: Int32,
        naming: ExportNaming
    ) -> [ExportEntry] {
        var contexts: [NBDMetaContext] = [.allocation, .allocationDepth]
        // Where the contexts of what is older than each snapshot end.
        var ends: [Int] = []
        for snapshot in snapshots {
            ends.append(contexts.count)
            contexts += NBDMetaContext.changedSince(
                snapshot: snapshot.name,
                handle: snapshot.layer.rawValue
            )
        }
        var entries: [ExportEntry] = []
        if specification.access != .none {
            entries.append(
                ExportEntry(
                    key: ExportKey(
                        storeIndex: storeIndex,
                        volume: specification.id,
                        epoch: specification.epoch
                    ),
                    name: naming == .plain
                        ? specification.name : "\(specification.name):\(specification.epoch)",
                    description: specification.access == .readWrite
                        ? "volume" : "volume, read-only",
                    byteCount: specification.byteCount,
                    logicalBlockByteCount: specification.logicalBlockByteCount,
                    isReadOnly: specification.access != .readWrite,
                    contexts: contexts[...]
                )
            )
        }
        for (snapshot, end) in zip(snapshots, ends) {
            entries.append(
                ExportEntry(
                    key: ExportKey(
                        storeIndex: storeIndex,
                        volume: specification.id,
                        layer: snapshot.layer
                    ),
                    name: specification.name + "@" + snapshot.name,
                    description: "snapshot of \(specification.name)",
                    byteCount: snapshot.byteCount,
                    logicalBlockByteCount: specification.logicalBlockByteCount,
                    isReadOnly: true,
                    contexts: contexts[..<end]
                )
            )
        }
        return entries
    }
}

/// Where the sessions of one reactor look exports up.
final class ExportDirectory: NBDExportSource {
    var catalog = ExportCatalog([], naming: .plain)

    func export(named name: String) -> NBDExport? {
        catalog.entry(named: name)?.nbdExport
    }

    func exports() -> LazyMapSequence<[ExportEntry], NBDExport> {
        catalog.entries.lazy.map(\.nbdExport)
    }

    var unknownNameText: String {
        switch catalog.naming {
        case .plain: "no export has this name"
        case .fenced:
            "no export has this name, or it has been given to another host since; "
                + "'volctl volume show VOLUME' has the URI of each attachment"
        }
    }
}
