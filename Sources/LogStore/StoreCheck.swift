// Offline verification of a store: can it be opened, every checksum, map against log, leaks.
//
//   1. Superblocks and manifest, as they lie on the device.
//   2. The store is opened in memory (`StoreOverlay`), which replays the log behind the checkpoint;
//      what follows looks at the result, or at the last checkpoint when opening fails.
//   3. Maps: every page and block that a map names is read, verified and claimed.
//   4. Log: the headers of the batches of every segment, held against the claims.
//
// Memory: what an opened store takes, what opening writes (it stays in memory), a bit for each
// block of the device (32 MiB for 1 TiB), 30 bytes for each segment, and 16 MiB; where map and
// log differ, as many bits again.
//
// Not verified: that contents are what a client wrote (only the client knows); blocks that nothing
// names; and that the log behind the checkpoint ends where it ended: its last batches look like
// ones that a crash cut short when they rotted. Docs/log-store.md, "Checking a store".

public import BlockCore
internal import LogFormat
public import StorageIO

/// Verifies a store, reading through a closure.
public struct StoreCheck {
    /// Reads the region's length of bytes at an offset; 0, or an errno.
    public typealias Reader = (_ offset: UInt64, _ region: ByteRegion) -> Int32
    /// Takes how many bytes of a phase are done, of how many.
    public typealias Progress = (_ phase: StoreCheckPhase, _ done: UInt64, _ total: UInt64) -> Void

    let geometry: DeviceGeometry
    let configuration: LogStoreConfiguration
    /// How the store is read: the device, or what opening made of it.
    var read: Reader
    let progress: Progress
    var report = StoreCheckReport()
    var superblock: Superblock?
    var manifest = Manifest()
    var claims = BlockClaims()
    /// What the maps name, summed up for each segment (``MapPrint``).
    var mapPrints: [UInt64] = []
    /// Whether pages could not be looked into, so that what they name is missing from the claims.
    var isIncomplete = false
    var owners = LayerOwners()
    /// Blocks that the maps are said to name.
    private(set) var expectedBlockCount: UInt64 = 0
    var unreadableOffsets: Set<UInt64> = []
    let arena = MemoryArena(byteCount: 2 << 20)

    /// Creates a check.
    ///
    /// - Parameters:
    ///   - geometry: The device.
    ///   - configuration: The memory that the store may use when it is opened.
    ///   - read: How bytes are read.
    ///   - progress: Called now and then.
    public init(
        geometry: DeviceGeometry,
        configuration: LogStoreConfiguration = LogStoreConfiguration(),
        read: @escaping Reader,
        progress: @escaping Progress = { _, _, _ in }
    ) {
        self.geometry = geometry
        self.configuration = configuration
        // What lies beyond a device that was cut off cannot be read, whoever answers.
        self.read = { offset, region in
            let end = offset + UInt64(region.byteCount)
            return end <= geometry.byteCount ? read(offset, region) : StoreCheck.beyondEnd
        }
        self.progress = progress
    }

    /// `ENXIO`: what reading beyond the end of a device gives.
    private static var beyondEnd: Int32 { 6 }

    /// Runs the whole check.
    public mutating func run() -> StoreCheckReport {
        defer { withExtendedLifetime(arena) {} }
        guard readSuperblocks() else { return report }
        let isManifestWhole = readManifest()
        if openInMemory() {
            // A manifest of its own making; the superblock was looked at already.
            guard findSuperblock(), readManifest() else { return report }
        } else if !isManifestWhole {
            return report
        }
        guard let superblock else { return report }
        report.volumeCount = manifest.volumes.count
        report.layerCount = manifest.layers.count
        report.layerOwners = layerOwners()
        claims = BlockClaims(superblock)
        mapPrints = [UInt64](repeating: 0, count: Int(superblock.segmentCount))
        owners = LayerOwners(manifest)
        expectedBlockCount = manifest.usage.reduce(0) { $0 + UInt64($1.liveBlockCount) }
        checkCatalogue()
        checkMaps()
        checkUsage()
        checkLog()
        return report
    }

    /// Whether what lies at an offset, in bytes, is live: a map named it when the check ran.
    public func holdsLive(_ offset: UInt64) -> Bool { claims.contains(offset / 4096) }

    /// Whose each layer is: what people call what is damaged.
    private func layerOwners() -> [UInt64: String] {
        let names = Dictionary(manifest.volumes.map { ($0.id, $0.name) }) { first, _ in first }
        var owners: [UInt64: String] = [:]
        for layer in manifest.layers {
            // Escaped: the device may hold anything.
            let volume = String(decoding: names[layer.volume] ?? [], as: UTF8.self)
            let snapshot = String(decoding: layer.name, as: UTF8.self)
            owners[layer.id.rawValue] =
                switch layer.role {
                case .top: "volume \(volume.debugDescription)"
                case .snapshot: "snapshot \((volume + "@" + snapshot).debugDescription)"
                case .unnamed: "a deleted snapshot of \(volume.debugDescription)"
                case .dropped: "what is being given back"
                }
        }
        return owners
    }

    mutating func note(_ problem: StoreProblem) { report.note(problem) }

    /// Notes a failed read, once for each place.
    mutating func noteUnreadable(_ offset: UInt64, _ errno: Int32) {
        guard unreadableOffsets.insert(offset).inserted else { return }
        note(.unreadable(offset: offset, errno: errno))
    }

    // MARK: - Opening

    /// Opens the store in memory, and from then on reads what that makes.
    private mutating func openInMemory() -> Bool {
        progress(.replay, 0, 0)
        let device = read
        var failures: [(offset: UInt64, errno: Int32)] = []
        let overlay = StoreOverlay(geometry: geometry, configuration: configuration) {
            let errno = device($0, $1)
            if errno != 0 { failures += StoreCheck.failedBlocks($0, $1, device) }
            return errno
        }
        do throws(StoreError) {
            try overlay.settle()
        } catch {
            for failure in failures { noteUnreadable(failure.offset, failure.errno) }
            note(.cannotOpen(error))
            return false
        }
        read = overlay.readThrough
        return true
    }

    /// The blocks of a region that cannot be read, each on its own.
    private static func failedBlocks(
        _ offset: UInt64,
        _ region: ByteRegion,
        _ read: Reader
    ) -> [(offset: UInt64, errno: Int32)] {
        stride(from: 0, to: region.byteCount, by: 4096).compactMap { position in
            let errno = read(offset + UInt64(position), region.slice(position, 4096))
            return errno == 0 ? nil : (offset + UInt64(position), errno)
        }
    }

    // MARK: - Counts

    private mutating func checkCatalogue() {
        let ids = Set(manifest.layers.map(\.id))
        for layer in manifest.layers where layer.parent != .none && !ids.contains(layer.parent) {
            note(.danglingLayer(id: layer.parent.rawValue))
        }
        for volume in manifest.volumes where !ids.contains(volume.topLayer) {
            note(.danglingLayer(id: volume.topLayer.rawValue))
        }
    }

    private mutating func checkUsage() {
        for segment in 0..<claims.liveCounts.count {
            let recorded = manifest.usage[segment].liveBlockCount
            let found = claims.liveCounts[segment]
            // Behind a page that cannot be looked into there may be more.
            guard isIncomplete ? found > recorded : found != recorded else { continue }
            note(.usageWrong(segment: segment, recorded: recorded, found: found))
        }
    }
}
