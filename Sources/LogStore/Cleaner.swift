// The cleaner's state: which segment, how far, what is live in it.

internal import BlockCore
internal import LogFormat

/// A run of blocks that a record of the victim names.
struct CleanCandidate {
    var kind: RecordKind
    var level: UInt8
    var layer: LayerID
    var firstBlock: UInt64
    var blockCount: UInt32
    /// The first block's place.
    var location: UInt64
}

/// A live block on its way to another segment.
struct LiveBlock {
    var layer: LayerID
    var block: UInt64
    var entry: MapEntry
}

/// The cleaner machine's state; ``LogStore`` drives it.
struct Cleaner {
    enum Phase {
        case idle
        /// Walking the victim's batch headers; a read is in flight.
        case scanning
        /// Finding out what is live.
        case judging
        /// Reading live blocks.
        case reading
        /// Appending them.
        case moving
    }

    var phase = Phase.idle
    let buffer: ByteRegion
    var victim = -1
    /// Blocks from the victim's start where the next header is.
    var headerOffset = 0
    var candidates: [CleanCandidate] = []
    var candidateIndex = 0
    /// The next block of the candidate at hand.
    var blockIndex = 0
    var live: [LiveBlock] = []
    var liveIndex = 0
    var pendingReadCount = 0
    var hasFailed = false
    /// Whether what was judged last waits for room.
    var lacksRoom = false
    /// Blocks judged since the store was opened: a cleaner that gets on, however slowly.
    var judgedCount: UInt64 = 0
    /// Whether there was found to be room for all map pages that are live in it.
    var isWeighed = false
    /// The store's mark of change when cleaning gained nothing; nil while it goes on.
    var restingMark: UInt64?
    /// Whether somebody waited for room then.
    var restedUnderPressure = false
    /// The mark of change when a victim was last chosen.
    var progressMark = UInt64.max
    /// The most segments seen available since that mark.
    var availableBest = 0
    /// Victims cleaned since either last grew.
    var fruitlessCount = 0

    /// Victims deferred since the last gain.
    var deferredCount = 0

    init(buffer: ByteRegion) { self.buffer = buffer }

    /// Nothing is about to be moved any more.
    mutating func forgetLive() {
        live.removeAll(keepingCapacity: true)
        liveIndex = 0
    }

    var isIdle: Bool { if case .idle = phase { true } else { false } }

    /// Victims after which cleaning that gains nothing rests until something changes: half of all
    /// segments, on a large device fewer.
    static func fruitlessCountMax(segmentCount: Int) -> Int { min(64, segmentCount / 2) }
    /// Victims looked at in vain before the cleaner rests.
    static var deferredCountMax: Int { 64 }
    /// Blocks read at a time while walking headers (128 KiB).
    static var scanBlockCount: Int { 32 }
    /// Live blocks moved at a time (1 MiB).
    static var liveBlockCountMax: Int { 256 }
}
