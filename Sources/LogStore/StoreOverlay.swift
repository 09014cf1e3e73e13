// A store opened over a device that is only read: what it writes stays in memory.

public import BlockCore
public import StorageIO

/// Replays and closes a store in memory, so that a check sees what opening it would make.
public final class StoreOverlay {
    private let read: StoreCheck.Reader
    private var written: [UInt64: [UInt8]] = [:]
    private let store: LogStore
    private var now = Instant(nanoseconds: 1)

    /// Turns of the loop after which a store that does not come to an end is given up.
    private static var turnCountMax: Int { 10_000_000 }

    /// Creates an overlay.
    ///
    /// - Parameters:
    ///   - geometry: The device.
    ///   - configuration: How much memory the store may use.
    ///   - read: How the device is read.
    public init(
        geometry: DeviceGeometry,
        configuration: LogStoreConfiguration = LogStoreConfiguration(),
        read: @escaping StoreCheck.Reader
    ) {
        self.read = read
        store = LogStore(configuration: configuration, geometry: geometry)
    }

    /// Batches that were replayed.
    public var replayedBatchCount: UInt64 { store.counters.replayedBatchCount }

    /// Opens and closes the store.
    ///
    /// - Throws: Why it cannot be opened.
    public func settle() throws(StoreError) {
        store.open(identity: nil, now: now)
        try run { if case .opening = $0 { false } else { true } }
        store.close()
        try run { $0 == .closed }
    }

    private func run(until isDone: (LogStore.State) -> Bool) throws(StoreError) {
        for _ in 0..<StoreOverlay.turnCountMax {
            while let request = store.deviceRequests.popFirst() {
                let errno = execute(request)
                let completion = DeviceCompletion(token: request.token, errno: errno)
                store.onDeviceCompletion(completion, now: now)
            }
            if case .failed(let error) = store.state { throw error }
            if isDone(store.state) { return }
            now = now.advanced(byNanoseconds: 1_000_000)
            _ = store.onTurn(now: now)
        }
        throw .deviceError(errno: 5)
    }

    private func execute(_ request: DeviceRequest) -> Int32 {
        switch request.kind {
        case .read: return readThrough(request.offset, request.region)
        case .write, .writeDurable:
            for offset in stride(from: 0, to: request.region.byteCount, by: 4096) {
                written[request.offset + UInt64(offset)] =
                    request.region.slice(offset, 4096).array()
            }
            return 0
        case .flush, .discard: return 0
        }
    }

    /// Reads the device with what was written over it; what was written needs no device.
    public func readThrough(_ offset: UInt64, _ region: ByteRegion) -> Int32 {
        guard !written.isEmpty else { return read(offset, region) }
        let positions = stride(from: 0, to: region.byteCount, by: 4096)
        if positions.contains(where: { written[offset + UInt64($0)] == nil }) {
            let errno = read(offset, region)
            guard errno == 0 else { return errno }
        }
        for position in positions {
            guard let bytes = written[offset + UInt64(position)] else { continue }
            region.slice(position, 4096).copy(from: bytes)
        }
        return 0
    }
}
