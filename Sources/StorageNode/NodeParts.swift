// Putting a node's parts together before its threads start.

internal import BlockCore
internal import LogStore
internal import Reactor
internal import StorageIO

/// Everything a node is made of, checked and opened, not running yet.
struct NodeParts {
    let shared: NodeShared
    let workers: [Worker]
    let storeWorkers: [Int]
    let listeners: [ListenAddress]
    let peerListener: ListenAddress?
    let iscsiListeners: [ListenAddress]

    init(_ configuration: NodeConfiguration, sink: @escaping NodeEventSink) throws(NodeError) {
        try Self.check(configuration)
        guard MemoryArena.canMap(byteCount: configuration.memoryByteCount) else {
            throw .memory(byteCount: configuration.memoryByteCount)
        }
        let tls = try Self.tlsContext(configuration, sink)
        let shared = NodeShared(
            configuration: configuration,
            tls: tls,
            peerCredentials: try Self.peerCredentials(configuration, sink),
            sink: sink
        )
        var workers: [Worker] = []
        for index in 0..<configuration.reactorCount {
            do throws(ReactorError) {
                workers.append(try Worker(index: Int32(index), shared: shared))
            } catch { throw .reactor(error) }
        }
        let storeWorkers = configuration.stores.indices.map { $0 % workers.count }
        for worker in workers {
            worker.peers = workers.map(\.mailbox)
            worker.peerWakers = workers.map(\.reactor.waker)
            worker.peerControls = workers.map(\.control)
            worker.needsWake = Array(repeating: false, count: workers.count)
            // What a reactor serves itself comes behind the stores.
            worker.storeWorkers = storeWorkers.map { Int32($0) } + workers.indices.map { Int32($0) }
            worker.hostsByStore = Array(
                repeating: nil,
                count: configuration.stores.count + workers.count
            )
        }
        for (index, store) in configuration.stores.enumerated() {
            try workers[storeWorkers[index]].addStore(Int32(index), store)
        }
        if configuration.stores.count > 1 { try Self.requireDistinct(workers.flatMap(\.hosts)) }
        // Before what takes time: a port that is taken is said at once.
        listeners = try Self.listen(configuration.listeners, workers[storeWorkers.first ?? 0])
        peerListener = try Self.listenForPeers(configuration, workers[storeWorkers.first ?? 0])
        iscsiListeners = try Self.listenForInitiators(
            configuration,
            workers[storeWorkers.first ?? 0]
        )
        let advertised =
            configuration.iscsiAdvertised.isEmpty
            ? iscsiListeners : configuration.iscsiAdvertised
        for worker in workers { worker.iscsi?.portals = advertised.compactMap(\.portal) }
        for worker in workers {
            worker.reactor.registerBuffers([worker.arena] + worker.hosts.map(\.store.deviceMemory))
        }
        self.shared = shared
        self.workers = workers
        self.storeWorkers = storeWorkers
    }

    private static func check(_ configuration: NodeConfiguration) throws(NodeError) {
        guard (1...NodeConfiguration.reactorCountMax).contains(configuration.reactorCount) else {
            throw .configuration("1 to \(NodeConfiguration.reactorCountMax) reactors")
        }
        guard !configuration.stores.isEmpty else { throw .configuration("at least one store") }
        guard configuration.tlsPolicy == .off || configuration.tls != nil else {
            throw .configuration("TLS needs certificates or pre-shared keys")
        }
        let leastByteCount = NodeConfiguration.bufferMemoryByteCountMin * configuration.reactorCount
        guard configuration.bufferMemoryByteCount >= leastByteCount else {
            throw .configuration("at least 4 MiB of buffer memory per reactor")
        }
        guard configuration.limits.slotCount >= 64, configuration.limits.slotCount <= 1 << 16,
            configuration.limits.connectionCountMax >= 1
        else { throw .configuration("64 to 65536 slots and at least one connection") }
        guard configuration.limits.storeRequestCountMax >= 1,
            configuration.limits.mailboxMessageCount >= 1
        else { throw .configuration("room for at least one request and one message") }
        guard configuration.limits.deviceOperationCount >= 1,
            configuration.operationCountMax <= ReactorOptions.operationCountLimit
        else {
            throw .configuration("more connections and device transfers than a reactor can have")
        }
    }

    /// Refuses a store beside its copy: both have the same volumes, of which one would be served.
    private static func requireDistinct(_ hosts: [StoreHost]) throws(NodeError) {
        var paths: [StoreIdentity: String] = [:]
        for host in hosts.sorted(by: { $0.index < $1.index }) {
            // What is no store, or cannot be read, fails when it is opened, and says so.
            guard case .store(let identity)? = try? StoreDevice.content(of: host.device),
                let other = paths.updateValue(host.path, forKey: identity)
            else { continue }
            throw .sameStore(path: other, copyPath: host.path)
        }
    }

    private static func tlsContext(
        _ configuration: NodeConfiguration,
        _ sink: NodeEventSink
    ) throws(NodeError) -> TLSContext? {
        guard configuration.tlsPolicy != .off, let tls = configuration.tls else { return nil }
        do throws(TLSError) {
            let context = try TLSContext(role: .server, tls)
            for warning in context.warnings { sink(.tlsWarning(warning)) }
            return context
        } catch { throw .tls(error) }
    }

    private static func peerCredentials(
        _ configuration: NodeConfiguration,
        _ sink: NodeEventSink
    ) throws(NodeError) -> PeerCredentials? {
        guard let tls = configuration.peerTLS else { return nil }
        do throws(TLSError) {
            let credentials = try PeerCredentials(tls)
            for warning in credentials.warnings { sink(.tlsWarning(warning)) }
            return credentials
        } catch { throw .peerTLS(error) }
    }

    /// Listens for other nodes, on the same reactor.
    private static func listenForPeers(
        _ configuration: NodeConfiguration,
        _ worker: Worker
    ) throws(NodeError) -> ListenAddress? {
        guard let address = configuration.peerListener else { return nil }
        let bound = try listen([address], worker).first
        worker.listeners[worker.listeners.count - 1].isForPeers = true
        return bound
    }

    /// Listens for iSCSI initiators, on the same reactor.
    private static func listenForInitiators(
        _ configuration: NodeConfiguration,
        _ worker: Worker
    ) throws(NodeError) -> [ListenAddress] {
        let first = worker.listeners.count
        let bound = try listen(configuration.iscsiListeners, worker)
        for index in first..<worker.listeners.count {
            worker.listeners[index].isForInitiators = true
        }
        return bound
    }

    private static func listen(
        _ addresses: [ListenAddress],
        _ worker: Worker
    ) throws(NodeError) -> [ListenAddress] {
        var bound: [ListenAddress] = []
        for address in addresses {
            do throws(SocketError) {
                switch address {
                case .tcp(let host, let port):
                    let listener = try Listener.tcp(host: host, port: port)
                    worker.listeners.append(ListenerState(listener: listener))
                    bound.append(.tcp(host: host, port: listener.port))
                case .unix(let path):
                    worker.listeners.append(ListenerState(listener: try Listener.unix(path: path)))
                    bound.append(address)
                }
            } catch {
                for state in worker.listeners {
                    state.listener.removePath()
                    state.listener.socket.closeUnused()
                }
                throw .listener(address, error)
            }
        }
        return bound
    }
}

extension ListenAddress {
    /// The address as discovery tells it; nil for what is none for initiators: every address, or a
    /// path.
    fileprivate var portal: String? {
        guard case .tcp(let host, _) = self, !["", "0.0.0.0", "::"].contains(host) else {
            return nil
        }
        return "\(description),1"
    }
}

extension Worker {
    /// Opens a device and makes the store on it one of this worker's.
    func addStore(_ index: Int32, _ configuration: StoreConfiguration) throws(NodeError) {
        let device: Device
        do throws(DeviceError) {
            device = try Device.open(path: configuration.path, options: configuration.device)
        } catch { throw .device(path: configuration.path, error) }
        var log = configuration.log
        // What all reactors can send it, as far as it is let in, and the store's own trims.
        var comingCount = limits.requestCountMax(reactorCount: shared.configuration.reactorCount)
        if iscsi != nil { comingCount += limits.iscsiRequestCountMax }
        let admittedCount = min(comingCount, limits.storeRequestCountMax)
        log.requestCountMax = admittedCount + 64 + limits.replicaRequestCountMax
        let host = StoreHost(
            index: index,
            place: hosts.count,
            path: configuration.path,
            device: device,
            // Through the page cache an error may be of an earlier write, and is told only once.
            handle: reactor.attach(device, waitsForSpace: device.isDirect),
            store: LogStore(configuration: log, geometry: device.geometry),
            naming: shared.configuration.exportNaming,
            admittedCountMax: admittedCount,
            waitingCountMax: comingCount - admittedCount,
            replicaRequestCountMax: limits.replicaRequestCountMax,
            scarceRoomPercent: limits.scarceRoomPercent
        )
        hosts.append(host)
        hostsByStore[Int(index)] = host
    }
}
