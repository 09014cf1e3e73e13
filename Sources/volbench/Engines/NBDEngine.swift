package import BlockCore

/// The NBD client: several connections to one export, driven by one thread.
///
/// Plain non-blocking sockets and `poll`: with everything batched per turn this costs the client
/// less than the server, and a fault in the server's own reactor cannot hide in the instrument.
package final class NBDEngine: Engine {
    package let laneCount: Int
    package let targetByteCount: UInt64
    package let completions: FixedRing<EngineCompletion>
    /// What the server offered.
    package let export: NBDExport

    private let connections: [NBDConnection]
    /// Lanes of each connection, the last one's may be fewer.
    private let depth: Int
    private let laneMemory: FixedArray<ByteRegion>
    private let readiness: ReadinessSet
    private let arena: MemoryArena

    /// Connects and opens the export once per connection.
    ///
    /// - Parameters:
    ///   - target: An NBD target.
    ///   - options: The job: depth, connections, sizes, what it needs of the server.
    /// - Throws: ``BenchError`` when the server cannot do what the job asks for.
    package init(target: Target, options: JobOptions) throws(BenchError) {
        laneCount = options.depth
        let count = options.connectionCount
        depth = (options.depth + count - 1) / count
        completions = FixedRing(capacityMin: laneCount)
        let laneByteCount = NBDConnection.payloadOffset + (options.blockByteCountMax + 4095) & ~4095
        let connectionByteCount = NBDConnection.memoryByteCount(
            depth: depth,
            blockByteCount: laneByteCount
        )
        arena = MemoryArena(
            byteCount: (64 << 10) + depth * count * laneByteCount + count * connectionByteCount
        )
        laneMemory = FixedArray(repeating: .empty, count: depth * count)
        for lane in 0..<depth * count {
            laneMemory[lane] = arena.allocate(byteCount: laneByteCount)
        }
        let scratch = arena.allocate(byteCount: 32 << 10)
        var connections: [NBDConnection] = []
        for index in 0..<count {
            let (socket, export) = try NBDEngine.open(target, options, scratch)
            let firstLane = index * depth
            var memory: [ByteRegion] = []
            for lane in 0..<depth { memory.append(laneMemory[firstLane + lane]) }
            connections.append(
                NBDConnection(
                    socket: socket,
                    export: export,
                    firstLane: firstLane,
                    laneMemory: memory,
                    keepsPayloads: options.verification != .none,
                    arena: arena
                )
            )
        }
        self.connections = connections
        readiness = ReadinessSet(connections.map(\.socket))
        export = connections[0].export
        targetByteCount = export.byteCount
        try NBDEngine.check(export, against: options)
    }

    package func payload(lane: Int) -> ByteRegion {
        laneMemory[lane].suffix(from: NBDConnection.payloadOffset)
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
        _ target: Target,
        _ options: JobOptions,
        _ scratch: ByteRegion
    ) throws(BenchError) -> (Socket, NBDExport) {
        let socket: Socket
        let name: String
        switch target {
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

    private static func check(
        _ export: NBDExport,
        against options: JobOptions
    ) throws(BenchError) {
        let changes = options.mode.writes || options.mode.trims
        if changes, export.isReadOnly {
            throw BenchError("the export is read-only: rw=read or randread")
        }
        if options.mode.trims, !export.canTrim {
            throw BenchError("the server does not offer trims")
        }
        if options.forceUnitAccess, !export.canForceUnitAccess {
            throw BenchError("the server does not offer FUA; use fsync=1 instead of sync")
        }
        if options.flushInterval > 0 || options.flushesAtEnd, !export.canFlush {
            throw BenchError("the server does not offer flushes; take out fsync")
        }
        if options.connectionCount > 1, changes, !export.canMultiConnect {
            throw BenchError(
                "the server does not offer writing through several connections; connections=1"
            )
        }
    }
}
