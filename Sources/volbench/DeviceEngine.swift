package import BlockCore
internal import Reactor
internal import StorageIO

/// A file or block device driven directly with O_DIRECT: what the disk itself can do.
///
/// It goes through the product's reactor, so that a comparison with an NBD export shows the
/// price of the protocol, the log and the server, and not that of another I/O library.
package final class DeviceEngine: Engine {
    package let laneCount: Int
    package var streamCount: Int { 1 }
    package let targetByteCount: UInt64
    package let completions: FixedRing<EngineCompletion>

    private let reactor: Reactor
    private let device: Device
    private let handle: DeviceHandle
    private let arena: MemoryArena
    private let laneMemory: FixedArray<ByteRegion>

    /// Opens the file or device and registers the lanes' memory with the kernel.
    ///
    /// - Throws: ``BenchError`` when it cannot be opened or the block size does not suit it.
    package init(path: String, options: Options) throws(BenchError) {
        let byteCount = options.workload.blockByteCount
        guard byteCount % BlockGeometry.blockByteCount == 0,
            options.workload.spanOffset % UInt64(BlockGeometry.blockByteCount) == 0
        else { throw BenchError("--bs and --offset of a file are multiples of 4096") }
        guard options.connectionCount == 1 else {
            throw BenchError("--connections is for NBD targets; raise --iodepth")
        }
        laneCount = options.depth
        var deviceOptions = DeviceOptions()
        deviceOptions.isReadOnly = options.workload.readPercent == 100
        do throws(DeviceError) {
            device = try Device.open(path: path, options: deviceOptions)
        } catch {
            throw BenchError("\(path): \(error)")
        }
        do throws(ReactorError) {
            reactor = try Reactor(options: ReactorOptions())
        } catch {
            throw BenchError("\(error)")
        }
        targetByteCount = device.geometry.byteCount
        completions = FixedRing(capacityMin: laneCount)
        arena = MemoryArena(byteCount: laneCount * byteCount)
        laneMemory = FixedArray(repeating: .empty, count: laneCount)
        for lane in 0..<laneCount { laneMemory[lane] = arena.allocate(byteCount: byteCount) }
        Payload.fill(arena.region, seed: options.workload.seed)
        reactor.registerBuffers([arena])
        handle = reactor.attach(device)
    }

    package func submit(_ operation: Operation, lane: Int) {
        let token = UInt64(lane)
        switch operation.kind {
        case .flush: reactor.submit(.flush(token: token), to: handle, token: token)
        case .read: submitTransfer(.read, operation, token)
        case .write:
            Payload.stamp(laneMemory[lane], operation)
            submitTransfer(operation.forceUnitAccess ? .writeDurable : .write, operation, token)
        }
    }

    private func submitTransfer(
        _ kind: DeviceRequest.Kind,
        _ operation: Operation,
        _ token: UInt64
    ) {
        let region = laneMemory[Int(token)]
        let request = DeviceRequest(
            kind: kind,
            offset: operation.offset,
            region: region,
            token: token
        )
        reactor.submit(request, to: handle, token: token)
    }

    package func turn(deadline: Instant) throws(BenchError) {
        _ = reactor.turn(deadline: deadline)
        while let completion = reactor.nextCompletion() {
            completions.append(
                EngineCompletion(lane: Int32(completion.token), errno: completion.errno)
            )
        }
    }

    package func close() { reactor.detach(handle) }
}
