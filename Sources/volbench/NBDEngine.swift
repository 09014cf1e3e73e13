package import BlockCore

/// The NBD client: several connections to one export, driven by one thread.
///
/// Plain non-blocking sockets and `poll`: with everything batched per turn this costs the client
/// less than the server, and a fault in the server's own reactor cannot hide in the instrument.
package final class NBDEngine: Engine {
    package let laneCount: Int
    package let streamCount: Int
    package let targetByteCount: UInt64
    package let completions: FixedRing<EngineCompletion>
    /// The transmission flags that the server offered.
    package let transmissionFlags: UInt16

    private let depth: Int
    private let connections: [NBDConnection]
    private let readiness: ReadinessSet
    private let arena: MemoryArena

    /// Connects and opens the export once per connection.
    ///
    /// - Throws: ``BenchError`` when the server cannot do what the workload asks for.
    package init(options: Options) throws(BenchError) {
        depth = options.depth
        streamCount = options.connectionCount
        laneCount = depth * streamCount
        completions = FixedRing(capacityMin: laneCount)
        let blockByteCount = options.workload.blockByteCount
        let laneByteCount = NBDConnection.payloadOffset + (blockByteCount + 4095) & ~4095
        let connectionByteCount = NBDConnection.memoryByteCount(
            depth: depth,
            blockByteCount: laneByteCount
        )
        arena = MemoryArena(
            byteCount: (64 << 10) + laneCount * laneByteCount + streamCount * connectionByteCount
        )
        let scratch = arena.allocate(byteCount: 32 << 10)
        var connections: [NBDConnection] = []
        for index in 0..<streamCount {
            let (socket, export) = try NBDEngine.open(options, scratch)
            var laneMemory: [ByteRegion] = []
            for _ in 0..<depth {
                let memory = arena.allocate(byteCount: laneByteCount)
                Payload.fill(memory, seed: options.workload.seed)
                laneMemory.append(memory)
            }
            connections.append(
                NBDConnection(
                    socket: socket,
                    export: export,
                    firstLane: index * depth,
                    laneMemory: laneMemory,
                    arena: arena
                )
            )
        }
        self.connections = connections
        readiness = ReadinessSet(connections.map(\.socket))
        targetByteCount = connections[0].export.byteCount
        transmissionFlags = connections[0].export.flags
        try NBDEngine.check(connections[0].export, against: options)
    }

    package func submit(_ operation: Operation, lane: Int) {
        connections[lane / depth].queue(operation, lane: lane)
    }

    package func turn(deadline: Instant) throws(BenchError) {
        for index in 0..<connections.count { try send(index) }
        while completions.isEmpty {
            let now = Clock.now()
            guard now < deadline else { return }
            readiness.wait(nanoseconds: deadline.nanoseconds - now.nanoseconds)
            for index in 0..<connections.count {
                if readiness.isReadable(index) {
                    try connections[index].receive(into: completions)
                }
                if readiness.hasRoom(index) { try send(index) }
            }
        }
    }

    package func close() {
        for connection in connections { connection.socket.close() }
    }

    private func send(_ index: Int) throws(BenchError) {
        readiness.wantsRoom(try connections[index].send(), at: index)
    }

    // MARK: - Opening

    private static func open(
        _ options: Options,
        _ scratch: ByteRegion
    ) throws(BenchError) -> (Socket, NBDExport) {
        let socket: Socket
        let name: String
        switch options.target {
        case .unix(let path, let export):
            socket = try Socket.connect(unixPath: path)
            name = export
        case .tcp(let host, let port, let export):
            socket = try Socket.connect(host: host, port: port)
            name = export
        case .file, .null: preconditionFailure("not an NBD target")
        }
        let handshake = NBDHandshake(socket: socket, scratch: scratch)
        return (socket, try handshake.open(name, structured: options.usesStructuredReplies))
    }

    private static func check(_ export: NBDExport, against options: Options) throws(BenchError) {
        let workload = options.workload
        if workload.readPercent < 100, export.isReadOnly {
            throw BenchError("the export is read-only")
        }
        if workload.forceUnitAccess, !export.canForceUnitAccess {
            throw BenchError("the server does not offer FUA; use --flush-every 1")
        }
        if workload.flushInterval > 0, !export.canFlush {
            throw BenchError("the server does not offer flushes")
        }
        if options.connectionCount > 1, workload.readPercent < 100, !export.canMultiConnect {
            throw BenchError("the server does not offer writing through several connections")
        }
    }
}
