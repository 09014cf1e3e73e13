// A store over plain memory, driven step by step: the bench on which single behaviours are
// looked at. Faults belong to the simulation.

import BlockCore
import LogFormat
import LogStore
import StorageIO
import Testing

/// A device in memory that executes every request at once, and the store on it.
final class StoreBench {
    let arena: MemoryArena
    let buffers: MemoryArena
    let configuration: LogStoreConfiguration
    var store: LogStore
    var now = Instant(nanoseconds: 1_000_000)
    var nextToken: UInt64 = 1
    var ended: [UInt64: StoreCompletion] = [:]
    var endedCommands: [UInt64: Result<StoreCommandResult, StoreCommandError>] = [:]
    var deviceWriteByteCount = 0
    var deviceReadCount = 0
    /// Offsets at which reads fail.
    var unreadableOffsets: Set<UInt64> = []

    static var identity: StoreIdentity { StoreIdentity(high: 1, low: 2) }

    init(
        byteCount: Int = 64 << 20,
        segmentByteCount: UInt32? = nil,
        configuration: LogStoreConfiguration = StoreBench.smallConfiguration
    ) throws {
        arena = MemoryArena(byteCount: byteCount)
        buffers = MemoryArena(byteCount: 8 << 20)
        self.configuration = configuration
        let geometry = DeviceGeometry(byteCount: UInt64(byteCount))
        let plan = try StoreFormat.plan(
            identity: StoreBench.identity,
            geometry: geometry,
            segmentByteCount: segmentByteCount
        )
        for write in plan { arena.region.copy(from: write.bytes, at: Int(write.offset)) }
        store = LogStore(configuration: configuration, geometry: geometry)
        try open()
    }

    static var smallConfiguration: LogStoreConfiguration {
        var configuration = LogStoreConfiguration()
        configuration.mapMemoryByteCount = 4 << 20
        configuration.cacheMemoryByteCount = 1 << 20
        configuration.requestCountMax = 64
        configuration.checkpointByteCount = 8 << 20
        return configuration
    }

    /// Forgets the store as a crash would, and opens the device again.
    func crash() throws {
        reopen(configuration)
        try #require(store.state == .ready)
    }

    /// Forgets the store as a crash would, and opens the device under another configuration; the
    /// caller looks at what came of it.
    func reopen(
        _ configuration: LogStoreConfiguration,
        identity: StoreIdentity? = StoreBench.identity
    ) {
        store = LogStore(
            configuration: configuration,
            geometry: DeviceGeometry(byteCount: UInt64(arena.region.byteCount))
        )
        ended = [:]
        beginOpening(identity)
    }

    /// Where on the device a block of these bytes begins, or nil.
    func location(of bytes: [UInt8]) -> Int? {
        stride(from: 0, to: arena.region.byteCount, by: 4096).first {
            arena.region.slice($0, bytes.count).array() == bytes
        }
    }

    private func open() throws {
        beginOpening()
        try #require(store.state == .ready)
    }

    private func beginOpening(_ identity: StoreIdentity? = StoreBench.identity) {
        store.open(identity: identity, now: now)
        pump { self.store.state != .opening }
    }

    /// Turns the loop until `isDone`, executing device requests at once, or as many of them in a
    /// turn as a slow device would.
    func pump(requestsPerTurn: Int = .max, _ isDone: () -> Bool) {
        for _ in 0..<100_000 {
            var count = 0
            while count < requestsPerTurn, let request = store.deviceRequests.popFirst() {
                execute(request)
                count += 1
            }
            while let completion = store.completions.popFirst() {
                ended[completion.token] = completion
            }
            for completion in store.commandCompletions {
                endedCommands[completion.token] = completion.result
            }
            store.commandCompletions = []
            if isDone(), requestsPerTurn < .max || store.deviceRequests.isEmpty { return }
            now = now.advanced(byNanoseconds: 100_000)
            _ = store.onTurn(now: now)
        }
        Issue.record("the store does not come to an end: \(store.progressDescription)")
    }

    /// Executes the oldest device request, without a turn of the loop.
    func executeOne() {
        if let request = store.deviceRequests.popFirst() { execute(request) }
    }

    /// Lets background work run until nothing moves.
    func settle(turnCount: Int = 300) {
        var turns = 0
        pump {
            turns += 1
            return turns > turnCount
        }
    }

    private func execute(_ request: DeviceRequest) {
        let offset = Int(request.offset)
        switch request.kind {
        case .read:
            deviceReadCount += 1
            if unreadableOffsets.contains(request.offset) {
                let failed = DeviceCompletion(token: request.token, errno: 5)
                return store.onDeviceCompletion(failed, now: now)
            }
            request.region.copy(from: arena.region.slice(offset, request.region.byteCount))
        case .write, .writeDurable:
            deviceWriteByteCount += request.region.byteCount
            arena.region.slice(offset, request.region.byteCount).copy(from: request.region)
        case .flush, .discard: break
        }
        store.onDeviceCompletion(DeviceCompletion(token: request.token, errno: 0), now: now)
    }

    // MARK: - Requests

    func command(_ command: StoreCommand) throws -> StoreCommandResult {
        nextToken += 1
        let token = nextToken
        store.submit(command, token: token)
        pump { self.endedCommands[token] != nil }
        return try #require(endedCommands[token]).get()
    }

    func volume(
        _ id: UInt64,
        byteCount: UInt64 = 16 << 20,
        block: UInt32 = 512
    ) throws
        -> VolumeHandle
    {
        _ = try command(
            .createVolume(
                VolumeSpecification(
                    id: VolumeID(id),
                    name: "volume\(id)",
                    byteCount: byteCount,
                    logicalBlockByteCount: block
                )
            )
        )
        return try #require(store.openVolume(VolumeID(id)))
    }

    @discardableResult
    func run(_ request: StoreRequest) throws -> StoreCompletion {
        var request = request
        nextToken += 1
        request.token = nextToken
        store.submit(request)
        pump { self.ended[request.token] != nil }
        return try #require(ended[request.token])
    }

    func write(
        _ volume: VolumeHandle,
        at offset: UInt64,
        _ bytes: [UInt8],
        flags: StoreRequestFlags = []
    ) throws -> StoreStatus {
        let region = buffers.region.slice(0, bytes.count)
        region.copy(from: bytes)
        return try run(
            StoreRequest(
                kind: .write,
                volume: volume,
                offset: offset,
                byteCount: UInt64(bytes.count),
                region: region,
                flags: flags,
                token: 0
            )
        ).status
    }

    /// Makes a volume of so many percent of the store's capacity, in whole MiB, and writes all of it.
    func filledVolume(_ id: UInt64, percent: Int) throws -> (volume: VolumeHandle, blockCount: Int)
    {
        let blockCount = Int(store.space.capacityByteCount) / 4096 * percent / 100 & ~255
        let volume = try volume(id, byteCount: UInt64(blockCount) * 4096)
        let fill = StoreBench.pattern(1, 1 << 20)
        for index in 0..<(blockCount / 256) {
            try #require(try write(volume, at: UInt64(index) << 20, fill) == .ok)
        }
        return (volume, blockCount)
    }

    func read(_ volume: VolumeHandle, at offset: UInt64, _ count: Int) throws -> [UInt8] {
        let region = buffers.region.slice(4 << 20, (count + 8191) / 4096 * 4096)
        let completion = try run(
            StoreRequest(
                kind: .read,
                volume: volume,
                offset: offset,
                byteCount: UInt64(count),
                region: region,
                token: 0
            )
        )
        try #require(completion.status == .ok)
        return completion.region.isEmpty
            ? [UInt8](repeating: 0, count: count) : completion.region.array()
    }

    func change(
        _ kind: StoreRequest.Kind,
        _ volume: VolumeHandle,
        _ offset: UInt64,
        _ count: UInt64
    )
        throws -> StoreStatus
    {
        try run(
            StoreRequest(kind: kind, volume: volume, offset: offset, byteCount: count, token: 0)
        ).status
    }

    func flush(_ volume: VolumeHandle) throws {
        let status = try change(.flush, volume, 0, 0)
        try #require(status == .ok)
    }

    /// Bytes that name their seed, so that every mix-up shows.
    static func pattern(_ seed: Int, _ count: Int) -> [UInt8] {
        (0..<count).map { UInt8(truncatingIfNeeded: seed &* 31 &+ $0 &* 7 &+ ($0 >> 8) &* 13) }
    }
}
