// A checkpoint under way: what it captured and how far it has come.

internal import BlockCore
internal import LogFormat

/// The checkpoint machine's state; ``LogStore`` drives it.
struct Checkpoint {
    enum Phase {
        case idle
        /// Writing the frozen pages, lowest level first.
        case pages
        /// Appending the manifest.
        case manifest
        /// Waiting until everything before the superblock is durable.
        case hardening
        /// Writing the superblock's two copies.
        case superblock
    }

    var phase = Phase.idle
    var isRequested = false
    /// Segments ran short; worth a checkpoint only when one would free or announce some.
    var isSpaceWanted = false
    /// The last batch that the checkpoint includes.
    var sequence: UInt64 = 0
    /// Pages written so far.
    ///
    /// Until the superblock names them they are not in force: opening a store that stops now
    /// writes them again.
    var writtenPageCount = 0
    var level: UInt8 = 0
    var frameCursor = 0
    /// The catalogue as it was; roots follow as they are written.
    var manifest = Manifest()
    /// Index in `manifest.layers` by slot.
    var layerIndex: [Int: Int] = [:]
    var bytes: [UInt8] = []
    var byteOffset = 0
    var extents: [BlockExtent] = []
    /// Segments announced by this checkpoint, given out once it is durable.
    var nextReserved: [UInt32] = []
    /// The batch that must be durable before the superblock.
    var waitSequence: UInt64?
    var pendingWriteCount = 0
    var next: Superblock?

    var isIdle: Bool { if case .idle = phase { true } else { false } }
}
