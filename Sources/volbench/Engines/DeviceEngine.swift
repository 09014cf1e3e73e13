package import BlockCore
package import Reactor
internal import StorageIO

/// A file or block device driven directly with O_DIRECT: what the disk itself can do.
///
/// It goes through the product's reactor, so that a comparison with an NBD export shows the
/// price of the protocol, the log and the server, and not that of another I/O library.
package final class DeviceEngine: Engine {
    package let laneCount: Int
    package let targetByteCount: UInt64
    package let completions: FixedRing<EngineCompletion>

    private let reactor: Reactor
    private let handle: DeviceHandle
    private let arena: MemoryArena
    private let laneMemory: FixedArray<ByteRegion>

    /// Registers the lanes' memory with the kernel.
    ///
    /// - Parameters:
    ///   - device: Open; jobs of one run share it, because opening locks it.
    ///   - engine: ``EngineKind/uring`` or ``EngineKind/aio``.
    ///   - depth: Operations in flight.
    ///   - blockByteCount: Bytes of the largest operation.
    /// - Throws: ``BenchError`` when the kernel refuses.
    package init(
        device: Device,
        engine: EngineKind,
        depth: Int,
        blockByteCount: Int
    ) throws(BenchError) {
        laneCount = depth
        var reactorOptions = ReactorOptions()
        reactorOptions.engine = engine == .aio ? .aio : .uring
        reactorOptions.operationCountMax = max(64, depth * 2)
        do throws(ReactorError) {
            reactor = try Reactor(options: reactorOptions)
        } catch {
            throw BenchError("\(error)")
        }
        targetByteCount = device.geometry.byteCount
        completions = FixedRing(capacityMin: depth)
        arena = MemoryArena(byteCount: depth * blockByteCount)
        laneMemory = FixedArray(repeating: .empty, count: depth)
        for lane in 0..<depth { laneMemory[lane] = arena.allocate(byteCount: blockByteCount) }
        reactor.registerBuffers([arena])
        handle = reactor.attach(device)
    }

    /// Refuses a job whose blocks do not suit direct I/O.
    ///
    /// - Throws: ``BenchError`` that names the option.
    package static func check(_ options: JobOptions) throws(BenchError) {
        let block = BlockGeometry.blockByteCount
        let sizes = options.blockSizes
        for sizes in [sizes.read, sizes.write, sizes.trim] {
            guard sizes.entries.allSatisfy({ $0.byteCount % block == 0 }) else {
                throw BenchError("\(options.name): bs of a file is a multiple of \(block)")
            }
        }
        guard options.offset.byteCount(of: 0) % UInt64(block) == 0,
            options.mode.gapByteCount % UInt64(block) == 0
        else { throw BenchError("\(options.name): offset of a file is a multiple of \(block)") }
    }

    /// Opens a file or device for any number of jobs.
    ///
    /// - Throws: ``BenchError`` when it cannot be opened.
    package static func open(path: String, isReadOnly: Bool) throws(BenchError) -> Device {
        var options = DeviceOptions()
        options.isReadOnly = isReadOnly
        do throws(DeviceError) {
            return try Device.open(path: path, options: options)
        } catch {
            throw BenchError("\(path): \(error)")
        }
    }

    package func payload(lane: Int) -> ByteRegion { laneMemory[lane] }

    package func submit(_ operation: Operation, lane: Int) {
        let token = UInt64(lane)
        switch operation.kind {
        case .flush: reactor.submit(.flush(token: token), to: handle, token: token)
        case .read: submitTransfer(.read, operation, token)
        case .write:
            submitTransfer(operation.forceUnitAccess ? .writeDurable : .write, operation, token)
        case .trim:
            let byteCount = UInt64(operation.byteCount)
            let request = DeviceRequest.discard(
                offset: operation.offset,
                byteCount: byteCount,
                token: token
            )
            reactor.submit(request, to: handle, token: token)
        }
    }

    private func submitTransfer(
        _ kind: DeviceRequest.Kind,
        _ operation: Operation,
        _ token: UInt64
    ) {
        let region = laneMemory[Int(token)].slice(0, operation.byteCount)
        let request = DeviceRequest(
            kind: kind,
            offset: operation.offset,
            region: region,
            token: token
        )
        reactor.submit(request, to: handle, token: token)
    }

    package func turn(deadline: Instant) throws(BenchError) {
        guard reactor.turn(deadline: deadline) > 0 else { return }
        while let completion = reactor.nextCompletion() {
            completions.append(
                EngineCompletion(lane: Int32(completion.token), errno: completion.errno)
            )
        }
    }

    package func close() {
        reactor.shutDown()
        reactor.detach(handle)
    }
}
