// One transfer after the other, for tools that wait for each.

public import BlockCore
public import Reactor
internal import StorageIO

/// Reads and writes a device without a node; blocks.
final class DeviceTransfers {
    private static let memoryByteCount = 1 << 20

    private let reactor: Reactor
    private let handle: DeviceHandle
    private let arena = MemoryArena(byteCount: memoryByteCount)
    let geometry: DeviceGeometry

    init(_ device: Device) throws(DeviceFormatError) {
        var options = ReactorOptions()
        options.operationCountMax = 16
        options.descriptorCountMax = 64
        options.submissionCountMax = 8
        do throws(ReactorError) {
            reactor = try Reactor(options: options)
        } catch { throw .reactor(error) }
        handle = reactor.attach(device)
        geometry = device.geometry
    }

    deinit {
        reactor.detach(handle)
        reactor.shutDown()
    }

    /// Reads at most 1 MiB; the bytes are valid until the next call.
    func read(byteCount: Int, at offset: UInt64) throws(DeviceFormatError) -> ByteRegion {
        let region = arena.region.slice(0, byteCount)
        try execute(DeviceRequest(kind: .read, offset: offset, region: region, token: 0))
        return region
    }

    func write(_ bytes: [UInt8], at offset: UInt64) throws(DeviceFormatError) {
        var done = 0
        while done < bytes.count {
            let byteCount = min(bytes.count - done, Self.memoryByteCount)
            let region = arena.region.slice(0, byteCount)
            region.copy(from: Array(bytes[done..<done + byteCount]))
            try execute(
                DeviceRequest(
                    kind: .write,
                    offset: offset + UInt64(done),
                    region: region,
                    token: 0
                )
            )
            done += byteCount
        }
    }

    /// Reads into `region`, which is page-aligned memory of whole pages.
    func read(into region: ByteRegion, at offset: UInt64) throws(DeviceFormatError) {
        try execute(DeviceRequest(kind: .read, offset: offset, region: region, token: 0))
    }

    func flush() throws(DeviceFormatError) { try execute(.flush(token: 0)) }

    private func execute(_ request: DeviceRequest) throws(DeviceFormatError) {
        reactor.submit(request, to: handle, token: 1)
        while true {
            _ = reactor.turn(deadline: nil)
            guard let completion = reactor.nextCompletion() else { continue }
            guard completion.errno == 0 else { throw .transfer(errno: completion.errno) }
            return
        }
    }
}

/// Reads a device that no node serves, one transfer after the other.
public final class DeviceReader {
    private let transfers: DeviceTransfers

    /// Creates a reader of an open device.
    public init(_ device: Device) throws(DeviceFormatError) {
        transfers = try DeviceTransfers(device)
    }

    /// Fills a region from `offset`; blocks.
    ///
    /// - Parameters:
    ///   - offset: Bytes from the device's start, a multiple of 4096.
    ///   - region: Page-aligned memory of whole pages.
    /// - Returns: 0, or an errno.
    public func read(_ offset: UInt64, into region: ByteRegion) -> Int32 {
        do throws(DeviceFormatError) {
            try transfers.read(into: region, at: offset)
            return 0
        } catch {
            guard case .transfer(let errno) = error else { return 5 }
            return errno
        }
    }
}
