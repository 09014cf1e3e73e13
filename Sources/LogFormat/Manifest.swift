// What a checkpoint says beyond its map pages: catalogue, segment usage, where to replay from.

public import BlockCore

/// What the blocks of a segment are: what moving a live one costs depends on it.
public enum SegmentContent: UInt8, Sendable, BitwiseCopyable {
    /// Nothing was written to it since it was given out, or it was before this was recorded.
    case unknown = 0
    /// Blocks of volumes: each that moves changes a map page.
    case data = 1
    /// Map pages.
    case map = 2
    /// Checkpoints' manifests, of which only the newest counts.
    case manifest = 3
}

/// What a checkpoint knows of one segment.
public struct SegmentUsage: Hashable, Sendable, BitwiseCopyable {
    /// Live blocks: data, map pages; the manifest's own are not counted.
    public var liveBlockCount: UInt32
    /// What it holds.
    public var content: SegmentContent
    /// The last batch written into it: its age.
    public var lastBatchSequence: UInt64

    /// Size in a manifest, in bytes.
    public static var byteCount: Int { 12 }
    /// The content's place in the word of the live blocks, of which a segment has 2^16 at most.
    private static var contentShift: UInt32 { 30 }

    /// Creates a usage.
    public init(
        liveBlockCount: UInt32,
        content: SegmentContent = .unknown,
        lastBatchSequence: UInt64
    ) {
        self.liveBlockCount = liveBlockCount
        self.content = content
        self.lastBatchSequence = lastBatchSequence
    }

    func encode(into writer: inout ByteWriter) {
        writer.write(UInt32(content.rawValue) << SegmentUsage.contentShift | liveBlockCount)
        writer.write(lastBatchSequence)
    }

    init(_ reader: inout ByteReader) throws(LogFormatError) {
        let word = try reader.read(UInt32.self)
        // Two bits, and a case for each of their values.
        content = SegmentContent(rawValue: UInt8(word >> SegmentUsage.contentShift)) ?? .unknown
        liveBlockCount = word & (1 << SegmentUsage.contentShift - 1)
        lastBatchSequence = try reader.read(UInt64.self)
    }
}

/// Where replay looks for batches.
public struct ReplayStart: Hashable, Sendable, BitwiseCopyable {
    /// The segment.
    public var segment: UInt32
    /// Blocks from the segment's start.
    public var blockOffset: UInt32

    /// Size in a manifest, in bytes.
    public static var byteCount: Int { 8 }

    /// Creates a start.
    public init(segment: UInt32, blockOffset: UInt32) {
        self.segment = segment
        self.blockOffset = blockOffset
    }
}

/// A checkpoint's manifest.
public struct Manifest: Hashable, Sendable {
    /// All volumes.
    public var volumes: [VolumeRecord] = []
    /// All layers.
    public var layers: [LayerRecord] = []
    /// Layers that were merged away: from, into, and the batch that finished it.
    public var forwards: [LayerForward] = []
    /// Per segment.
    public var usage: [SegmentUsage] = []
    /// Segments that may hold batches after this checkpoint.
    public var replayStarts: [ReplayStart] = []
    /// The next layer's id.
    public var nextLayerID: UInt64 = 1
    /// The last write's number.
    public var writeSequence: UInt64 = 0
    /// The most map pages that may be dirty between checkpoints.
    public var dirtyPageCountMax: UInt32 = 0

    /// Creates an empty manifest.
    public init() {}

    /// What a manifest takes beside its lists, in bytes.
    public static var fixedByteCount: Int { 40 }

    /// The most volumes or layers a store may have.
    public static var layerCountMax: Int { 1 << 20 }

    /// The manifest as bytes.
    public func encode() -> [UInt8] {
        var writer = ByteWriter()
        writer.write(nextLayerID)
        writer.write(writeSequence)
        writer.write(dirtyPageCountMax)
        writer.write(UInt32(volumes.count))
        for volume in volumes { volume.encode(into: &writer) }
        writer.write(UInt32(layers.count))
        for layer in layers { layer.encode(into: &writer) }
        writer.write(UInt32(forwards.count))
        for forward in forwards {
            writer.write(forward.from.rawValue)
            writer.write(forward.into.rawValue)
            writer.write(forward.batchSequence)
        }
        writer.write(UInt32(usage.count))
        for segment in usage { segment.encode(into: &writer) }
        writer.write(UInt32(replayStarts.count))
        for start in replayStarts {
            writer.write(start.segment)
            writer.write(start.blockOffset)
        }
        return writer.bytes
    }

    /// Decodes a manifest.
    ///
    /// - Parameters:
    ///   - bytes: The whole manifest.
    ///   - segmentCount: Segments of the store.
    /// - Returns: The manifest.
    /// - Throws: ``LogFormatError``.
    public static func decode(
        _ bytes: [UInt8],
        segmentCount: UInt32
    ) throws(LogFormatError) -> Manifest {
        var reader = ByteReader(bytes)
        var manifest = Manifest()
        manifest.nextLayerID = try reader.read(UInt64.self)
        manifest.writeSequence = try reader.read(UInt64.self)
        manifest.dirtyPageCountMax = try reader.read(UInt32.self)
        guard manifest.nextLayerID <= Superblock.counterMax,
            manifest.writeSequence <= RecordHeader.sequenceMax
        else { throw .malformed }
        for _ in 0..<(try count(&reader, max: layerCountMax)) {
            manifest.volumes.append(try VolumeRecord(&reader))
        }
        for _ in 0..<(try count(&reader, max: layerCountMax)) {
            manifest.layers.append(try LayerRecord(&reader))
        }
        for _ in 0..<(try count(&reader, max: layerCountMax)) {
            manifest.forwards.append(
                LayerForward(
                    from: LayerID(try reader.read(UInt64.self)),
                    into: LayerID(try reader.read(UInt64.self)),
                    batchSequence: try reader.read(UInt64.self)
                )
            )
        }
        guard try reader.read(UInt32.self) == segmentCount else { throw .malformed }
        manifest.usage.reserveCapacity(Int(segmentCount))
        for _ in 0..<segmentCount { manifest.usage.append(try SegmentUsage(&reader)) }
        for _ in 0..<(try count(&reader, max: Int(segmentCount))) {
            let start = ReplayStart(
                segment: try reader.read(UInt32.self),
                blockOffset: try reader.read(UInt32.self)
            )
            guard start.segment < segmentCount else { throw .malformed }
            manifest.replayStarts.append(start)
        }
        guard reader.remainingByteCount == 0 else { throw .malformed }
        return manifest
    }

    private static func count(
        _ reader: inout ByteReader,
        max: Int
    ) throws(LogFormatError) -> Int {
        let count = Int(try reader.read(UInt32.self))
        guard count <= max else { throw .malformed }
        return count
    }
}

/// A layer that was merged away, so that old records of it are still understood.
public struct LayerForward: Hashable, Sendable, BitwiseCopyable {
    /// The layer that is gone.
    public var from: LayerID
    /// The layer that has its blocks.
    public var into: LayerID
    /// The batch of the removal: no later batch names `from`.
    public var batchSequence: UInt64

    /// Size in a manifest, in bytes.
    public static var byteCount: Int { 24 }

    /// Creates a forward.
    public init(from: LayerID, into: LayerID, batchSequence: UInt64) {
        self.from = from
        self.into = into
        self.batchSequence = batchSequence
    }
}
