// What a replica's store has room for, and what a write may take of it.

internal import BlockCore

/// What a replica's store still takes, beyond what the replica has said it has applied.
@frozen
public struct ReplicaRoom: Hashable, Sendable, BitwiseCopyable {
    /// Blocks, and map pages for them, that writes may take.
    public var writeBlockCount: UInt32
    /// Map pages that trims may take: they go deeper, because they make room in the end.
    public var trimBlockCount: UInt32
    /// Layers that snapshots may take.
    public var layerCount: UInt32

    /// Creates a statement.
    @inlinable
    public init(writeBlockCount: UInt32, trimBlockCount: UInt32, layerCount: UInt32) {
        self.writeBlockCount = writeBlockCount
        self.trimBlockCount = trimBlockCount
        self.layerCount = layerCount
    }

    /// Blocks beyond which room is not told apart: more than a window can take, map pages and all.
    public static var plentifulBlockCount: UInt32 { 65_536 }
    /// The same of layers: more than there may be snapshots.
    public static var plentifulLayerCount: UInt32 { 1024 }

    /// As much as is told.
    @inlinable
    public static var plentiful: ReplicaRoom {
        ReplicaRoom(
            writeBlockCount: plentifulBlockCount,
            trimBlockCount: plentifulBlockCount,
            layerCount: plentifulLayerCount
        )
    }

    /// Whether it is one that is told: nothing is above what is told apart.
    public var isTold: Bool {
        let most = ReplicaRoom.plentiful
        return writeBlockCount <= most.writeBlockCount && trimBlockCount <= most.trimBlockCount
            && layerCount <= most.layerCount
    }

    /// None at all.
    @inlinable
    public static var none: ReplicaRoom {
        ReplicaRoom(writeBlockCount: 0, trimBlockCount: 0, layerCount: 0)
    }

    /// What is told of counts of a store, for one of those who share it.
    ///
    /// - Parameters:
    ///   - writeBlockCount: Blocks left for writes in the whole store.
    ///   - trimBlockCount: Blocks left for trims.
    ///   - layerCount: Layers left.
    ///   - sharerCount: Replicas among whom that is shared out; at least 1.
    public init(
        writeBlockCount: UInt64,
        trimBlockCount: UInt64,
        layerCount: Int,
        sharerCount: Int
    ) {
        let plentiful = ReplicaRoom.plentiful
        let sharers = UInt64(sharerCount)
        self.init(
            writeBlockCount: UInt32(
                min(writeBlockCount / sharers, UInt64(plentiful.writeBlockCount))
            ),
            trimBlockCount: UInt32(min(trimBlockCount / sharers, UInt64(plentiful.trimBlockCount))),
            layerCount: UInt32(min(max(layerCount, 0), Int(plentiful.layerCount)))
        )
    }
}

/// What a write takes of a store at most.
enum RoomCharge {
    /// Map pages that a change within one leaf makes: the leaf and the path to the root, of which
    /// a map has five levels at most.
    static let pageCount: UInt64 = 5

    /// What a snapshot is to leave: one after which not a single request could be written would be of
    /// little use.
    static let snapshotBlockCount: UInt64 = 64 + pageCount

    /// Blocks and pages of a change.
    static func blockCount(_ range: BlockRange, _ payload: PayloadID) -> UInt64 {
        payload.hasBytes ? UInt64(range.count) + pageCount : pageCount
    }
}
