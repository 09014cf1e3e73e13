// A node in the test's own process, over a unix socket and a file in a directory of its own.

import BlockCore
import Glibc
import LogStore
import Reactor
import StorageNode
import Synchronization
import TestSupport

/// A node with empty stores, and what is needed to talk to it.
final class TestNode: Sendable {
    let node: StorageNode
    let directory: TestDirectory
    let events: EventLog

    var socketPath: String { directory.path + "/nbd" }

    init(
        storeCount: Int = 1,
        storeByteCount: UInt64 = 256 << 20,
        directory: TestDirectory? = nil,
        isNew: Bool? = nil,
        configure: (inout NodeConfiguration) -> Void = { _ in }
    ) async throws {
        let isNew = isNew ?? (directory == nil)
        let directory = try directory ?? TestDirectory()
        self.directory = directory
        events = EventLog()
        var stores: [StoreConfiguration] = []
        for index in 0..<storeCount {
            let path = directory.path + "/store\(index)"
            if isNew {
                try Device.create(path: path, byteCount: storeByteCount)
                var options = DeviceOptions()
                options.allowsBuffered = true
                try StoreDevice.format(
                    Device.open(path: path, options: options),
                    identity: StoreIdentity(high: 1, low: UInt64(index))
                )
            }
            var store = StoreConfiguration(path: path)
            store.log.mapMemoryByteCount = 8 << 20
            store.log.cacheMemoryByteCount = 4 << 20
            store.device.allowsBuffered = true
            stores.append(store)
        }
        var configuration = NodeConfiguration(
            stores: stores,
            listeners: [.unix(path: directory.path + "/nbd")]
        )
        configuration.bufferMemoryByteCount = 32 << 20
        configuration.reactor.operationCountMax = 8192
        configuration.limits.slotCount = 1024
        configure(&configuration)
        let events = events
        node = try await StorageNode.start(configuration) { events.add($0) }
    }

    /// Makes a volume that clients may use.
    @discardableResult
    func makeVolume(
        _ name: String,
        id: UInt64,
        byteCount: UInt64 = 64 << 20,
        blockByteCount: UInt32 = 512,
        access: VolumeAccess = .readWrite,
        store: Int = 0
    ) async throws -> StoreCommandResult {
        try await node.perform(
            .createVolume(
                VolumeSpecification(
                    id: VolumeID(id),
                    name: name,
                    byteCount: byteCount,
                    logicalBlockByteCount: blockByteCount,
                    access: access
                )
            ),
            store: store
        )
    }

    func client(
        _ export: String,
        mode: TestClient.Mode = .simple,
        contexts: [String] = []
    ) throws -> TestClient {
        let client = try TestClient(path: socketPath)
        _ = try client.enter(export, mode: mode, contexts: contexts)
        return client
    }

    func stop() async { await node.stop() }
}

/// The events of a node.
final class EventLog: Sendable {
    private let events = Mutex<[NodeEvent]>([])

    func add(_ event: NodeEvent) { events.withLock { $0.append(event) } }

    var all: [NodeEvent] { events.withLock { $0 } }
}
