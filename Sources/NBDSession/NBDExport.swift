// What a front exports, as the handshake sees it. Used before the transmission phase only, so it
// may allocate.

public import NBDWire

/// A property of blocks that BLOCK_STATUS can report.
@frozen
public enum NBDContextKind: UInt8, Sendable, Hashable, BitwiseCopyable, CaseIterable {
    /// Holes and zeroes. Spec: `base:allocation`.
    case allocation
    /// The number of the layer that holds a range. Source: QEMU, `qemu:allocation-depth`.
    case allocationDepth
    /// Written since a snapshot. Source: QEMU, `qemu:dirty-bitmap:`; ours, `cairn:changed-since:`.
    case changedSince
}

/// A metadata context that an export offers.
public struct NBDMetaContext: Sendable, Hashable {
    /// The whole name, namespace and leaf.
    public var name: String
    /// The namespace part that stands for a whole family in a listing; nil for a single context.
    public var family: String?
    /// What it reports.
    public var kind: NBDContextKind
    /// The snapshot it compares with, in the exporter's own numbering; 0 when it needs none.
    public var snapshotHandle: UInt64

    /// Holes and zeroes.
    public static var allocation: Self {
        Self(name: "base:allocation", family: nil, kind: .allocation, snapshotHandle: 0)
    }

    /// The depth of the layer that holds a range.
    public static var allocationDepth: Self {
        Self(name: "qemu:allocation-depth", family: nil, kind: .allocationDepth, snapshotHandle: 0)
    }

    /// Changes since the snapshot `name`, under our own spelling and under QEMU's.
    ///
    /// The two are contexts of their own: a client that knows either can back up an increment.
    public static func changedSince(snapshot name: String, handle: UInt64) -> [Self] {
        ["cairn:changed-since:", "qemu:dirty-bitmap:"].map { family in
            Self(name: family + name, family: family, kind: .changedSince, snapshotHandle: handle)
        }
    }
}

/// Something a client can open by name.
public struct NBDExport: Sendable, Hashable {
    /// The exporter's own number for it; the session never looks at it.
    public var handle: UInt64
    /// Its canonical name: UTF-8 without NUL, at most ``NBDLimits/stringByteCountMax`` bytes.
    public var name: String
    /// A description for people, same rules; empty for none.
    public var description: String
    /// Its size, a multiple of the minimum block.
    public var byteCount: UInt64
    /// Whether changes are refused (a snapshot, or a volume attached read-only).
    public var isReadOnly: Bool
    /// Block and payload sizes, advertised and enforced.
    public var sizes: NBDBlockSizes
    /// Commands and flags it supports, of ``capabilitiesAll``.
    public var capabilities: NBDTransmissionFlags
    /// Metadata contexts it offers; a slice, so that the exports of many snapshots can share one
    /// array, of which each offers the beginning.
    public var contexts: ArraySlice<NBDMetaContext>

    /// Everything an export can be capable of; the other transmission flags follow from the
    /// connection or from ``isReadOnly``.
    public static var capabilitiesAll: NBDTransmissionFlags {
        [.flush, .forceUnitAccess, .trim, .writeZeroes, .fastZero, .multipleConnections, .cache]
    }

    /// Creates an export.
    public init(
        handle: UInt64,
        name: String,
        description: String = "",
        byteCount: UInt64,
        isReadOnly: Bool = false,
        sizes: NBDBlockSizes,
        capabilities: NBDTransmissionFlags = Self.capabilitiesAll,
        contexts: [NBDMetaContext] = [.allocation, .allocationDepth]
    ) {
        self.handle = handle
        self.name = name
        self.description = description
        self.byteCount = byteCount
        self.isReadOnly = isReadOnly
        self.sizes = sizes
        self.capabilities = capabilities
        self.contexts = contexts[...]
    }
}

/// Where a session finds exports; asked during the handshake only.
public protocol NBDExportSource: AnyObject {
    /// What LIST walks through.
    associatedtype Listing: Sequence<NBDExport>

    /// The export that `name` opens, or nil.
    ///
    /// The empty name asks for the default export. Names that differ in bytes are different
    /// names, also where Swift compares the strings as equal.
    func export(named name: String) -> NBDExport?

    /// What LIST shows: the exports of this moment.
    ///
    /// A client that does not read has the session hold the sequence's iterator for as long as a
    /// handshake may last; so it is to make each export when it is asked for it.
    func exports() -> Listing

    /// What a client is told whose name opens nothing.
    var unknownNameText: String { get }
}

extension NBDExportSource {
    /// What a client is told whose name opens nothing.
    public var unknownNameText: String { "no export has this name" }

    /// A walk through the exports, whose type does not show.
    var iterator: AnyIterator<NBDExport> { AnyIterator(exports().makeIterator()) }
}

/// A metadata context that a client selected for its connection.
@frozen
public struct NBDSelectedContext: Sendable, Hashable, BitwiseCopyable {
    /// The id on the wire; unique in the connection.
    public var id: UInt32
    /// What it reports.
    public var kind: NBDContextKind
    /// The snapshot it compares with; 0 when it needs none.
    public var snapshotHandle: UInt64
}
