// What a check of a store finds: problems, notes, and how much was looked at.

public import BlockCore

/// One thing wrong with a store.
public enum StoreProblem: Hashable, Sendable {
    /// No superblock can be used.
    case unusable(StoreError)
    /// The store cannot be opened; what follows is about its last checkpoint.
    case cannotOpen(StoreError)
    /// A copy of the superblock is damaged, and not by one write that was cut short.
    case superblockDamaged(offset: UInt64)
    /// The device could not be read.
    case unreadable(offset: UInt64, errno: Int32)
    /// The manifest does not verify.
    case manifestDamaged(offset: UInt64)
    /// A layer's parent, or a volume's top layer, does not exist.
    case danglingLayer(id: UInt64)
    /// A map page does not verify.
    case pageDamaged(layer: UInt64, level: UInt8, index: UInt64, offset: UInt64)
    /// A map names a place outside the segments.
    case badLocation(layer: UInt64, block: UInt64, location: UInt64)
    /// A block's bytes do not have their checksum.
    case blockDamaged(layer: UInt64, block: UInt64, offset: UInt64)
    /// Two maps, or a map and the manifest, name one place.
    case claimedTwice(layer: UInt64, block: UInt64, offset: UInt64)
    /// A segment's count of live blocks is wrong: too high is a leak, too low loses data.
    case usageWrong(segment: Int, recorded: UInt32, found: UInt32)
    /// A layer's count of its blocks is wrong.
    case layerCountWrong(layer: UInt64, recorded: UInt64, found: UInt64)
    /// There is no batch's header where one must be: live blocks lie behind it in its segment.
    case headerDamaged(offset: UInt64)
    /// The log does not say of a place that it holds this block with this checksum.
    case blockNotInLog(layer: UInt64, block: UInt64, offset: UInt64)
    /// The log does not say of a place that it holds this map page with this checksum.
    case pageNotInLog(layer: UInt64, level: UInt8, index: UInt64, offset: UInt64)
}

/// Something to know about a store that is not wrong.
public enum StoreNote: Hashable, Sendable {
    /// One of the copies of a superblock is missing, as after a write that power loss cut short:
    /// the next opening writes both copies of both generations anew.
    case superblockCopyMissing(offset: UInt64)
}

/// What a check found.
public struct StoreCheckReport: Sendable, Hashable {
    /// The store, when a superblock could be read.
    public var identity: StoreIdentity?
    /// What is wrong, at most ``problemCountMax``.
    public var problems: [StoreProblem] = []
    /// Problems found, those not listed included.
    public var problemCount = 0
    /// What is not wrong, but worth knowing.
    public var notes: [StoreNote] = []
    /// Volumes.
    public var volumeCount = 0
    /// Layers.
    public var layerCount = 0
    /// Whose each layer is, by its id, in words.
    public var layerOwners: [UInt64: String] = [:]
    /// Map pages verified.
    public var pageCount: UInt64 = 0
    /// Blocks verified.
    public var blockCount: UInt64 = 0
    /// Headers of batches verified.
    public var headerCount: UInt64 = 0

    /// Problems listed one by one.
    public static var problemCountMax: Int { 1000 }

    /// Creates an empty report.
    public init() {}

    mutating func note(_ problem: StoreProblem) {
        problemCount += 1
        if problems.count < StoreCheckReport.problemCountMax { problems.append(problem) }
    }
}

/// A part of a check that takes time.
public enum StoreCheckPhase: String, Sendable {
    /// The log behind the checkpoint is replayed in memory.
    case replay
    /// Every page and block that the maps name is read.
    case blocks
    /// The headers of the batches are read and held against the maps.
    case log
}
