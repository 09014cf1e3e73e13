import Foundation
import Testing

/// A `volnode` on a store of its own, without a control plane.
final class NodeServer: Sendable {
    /// How a node is started.
    struct Options: Sendable {
        /// The I/O engine: `auto`, `uring` or `aio`.
        var engine = "auto"
        /// The store's file or device; nil for a file in the test's directory.
        var storePath: String?
        /// Bytes of the store's file.
        var storeByteCount: UInt64 = 1 << 30
        /// Volumes created and exported at start: name and size as on the command line.
        var volumes = ["vol=256MiB"]
        /// More arguments of `volnode run`.
        var arguments: [String] = []
    }

    let scratch: ScratchDirectory
    let process: ChildProcess
    let options: Options
    let tcpPort: UInt16
    let adminPort: UInt16

    /// The path of the store's file.
    var storePath: String { options.storePath ?? scratch.file("store.img") }
    /// The path of the unix socket.
    var socketPath: String { scratch.file("nbd.sock") }

    /// How long a node may take to serve, in seconds; recovery of a small store is milliseconds,
    /// the rest is for machines that do other things too.
    static let startSecondsMax = 30.0

    /// Formats a store and starts a node on it.
    static func start(
        _ options: Options = Options(),
        scratch: ScratchDirectory? = nil
    ) async throws -> NodeServer {
        let scratch = try scratch ?? ScratchDirectory()
        let size = "\(options.storeByteCount >> 20)MiB"
        try await succeed(
            TestEnvironment.program("volnode"),
            ["format", scratch.file("store.img"), "--size", size]
        )
        return try await reopen(options, scratch: scratch)
    }

    /// Starts a node on the store that is in `scratch` already.
    static func reopen(
        _ options: Options = Options(),
        scratch: ScratchDirectory
    ) async throws -> NodeServer {
        let server = try NodeServer(options, scratch: scratch)
        try await server.waitUntilServing()
        return server
    }

    private init(_ options: Options, scratch: ScratchDirectory) throws {
        self.options = options
        self.scratch = scratch
        tcpPort = try FreePort.next()
        adminPort = try FreePort.next()
        process = try ChildProcess(
            TestEnvironment.program("volnode"),
            NodeServer.arguments(options, scratch, tcpPort: tcpPort, adminPort: adminPort)
        )
    }

    /// The command line of a node.
    static func arguments(
        _ options: Options,
        _ scratch: ScratchDirectory,
        tcpPort: UInt16,
        adminPort: UInt16
    ) -> [String] {
        var arguments = [
            "run", "--name", "n1", "--store", options.storePath ?? scratch.file("store.img"),
            "--listen-nbd", "127.0.0.1:\(tcpPort)", "--listen-nbd-unix", scratch.file("nbd.sock"),
            "--admin", "127.0.0.1:\(adminPort)", "--engine", options.engine,
        ]
        for volume in options.volumes { arguments += ["--volume", volume] }
        return arguments + options.arguments
    }

    /// Which store is in a file or on a device that no node serves.
    static func identity(ofStore path: String) async throws -> String {
        let result = try await succeed(
            TestEnvironment.program("volnode"),
            ["check", "--json", path]
        )
        return try #require(result.json?["identity"] as? String, "\(result.report)")
    }

    /// Waits until exports and the node's API are there.
    func waitUntilServing() async throws {
        let limit = Date().addingTimeInterval(NodeServer.startSecondsMax)
        while Date() < limit {
            try #require(process.isRunning, "volnode ended at once:\n\(process.errorOutput)")
            if ServerProbe.accepts(socketPath), ServerProbe.accepts(port: adminPort) { return }
            try await Task.sleep(for: .milliseconds(20))
        }
        Issue.record("volnode does not serve after 30 s:\n\(process.errorOutput)")
    }

    /// The unix-socket URI of an export.
    func unixURI(_ export: String = "vol") -> String {
        "nbd+unix:///\(export)?socket=\(socketPath)"
    }

    /// The TCP URI of an export.
    func tcpURI(_ export: String = "vol") -> String { "nbd://127.0.0.1:\(tcpPort)/\(export)" }

    /// Ends it in order; fails the test when it does not end by itself, with exit code 0.
    func stop(sourceLocation: SourceLocation = #_sourceLocation) async {
        let code = await process.stop()
        #expect(
            code == 0,
            "volnode: \(process.errorOutput.suffix(4000))",
            sourceLocation: sourceLocation
        )
    }

    /// Makes and exports a volume through the node's own API.
    func createVolume(
        _ name: String,
        byteCount: Int,
        logicalBlockByteCount: Int = 512,
        durability: String = "writeback"
    ) async throws {
        let id = Int.random(in: 1_000_000..<(1 << 50))
        _ = try await api(
            "POST",
            "/v1/volumes",
            body: [
                "id": id, "name": name, "byte_count": byteCount,
                "logical_block_byte_count": logicalBlockByteCount, "durability": durability,
                "descriptor": "",
            ]
        )
        _ = try await api("PATCH", "/v1/volumes/\(id)", body: ["access": "read_write"])
    }

    /// Takes a snapshot through the node's own API.
    func snapshot(_ volume: String, _ name: String) async throws -> [String: Any] {
        let id = try await volumeID(volume)
        return try await api("POST", "/v1/volumes/\(id)/snapshots", body: ["name": name])
    }

    /// The id of a volume.
    func volumeID(_ name: String) async throws -> UInt64 {
        let list = try await api("GET", "/v1/volumes")
        let volumes = try #require(list["volumes"] as? [[String: Any]])
        let volume = try #require(volumes.first { $0["name"] as? String == name })
        return try #require((volume["id"] as? NSNumber)?.uint64Value)
    }

    /// Sends a request to the node's own API.
    func api(
        _ method: String,
        _ path: String,
        body: [String: Any]? = nil,
        sourceLocation: SourceLocation = #_sourceLocation
    ) async throws -> [String: Any] {
        let url = try #require(URL(string: "http://127.0.0.1:\(adminPort)\(path)"))
        return try await HTTP.json(method, url, body: body, sourceLocation: sourceLocation)
    }
}

/// Ports that nobody listens on now.
enum FreePort {
    /// Below what the kernel gives to outgoing connections: a server that is killed and started
    /// again must find its port as it left it.
    private static let range: Range<UInt16> = 20_000..<32_000

    /// A port of the loopback interface.
    static func next() throws -> UInt16 {
        for _ in 0..<100 {
            let port = UInt16.random(in: range)
            if isFree(port) { return port }
        }
        throw PortError.noneFree
    }

    private enum PortError: Error { case noneFree }

    private static func isFree(_ port: UInt16) -> Bool {
        // Not for programs that another test starts: they would keep it open.
        let kind = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue)
        let descriptor = socket(AF_INET, kind, 0)
        guard descriptor >= 0 else { return false }
        defer { close(descriptor) }
        // SAFETY: the address is valid for the call, and of the size given.
        return unsafe withLoopbackAddress(port: port) { unsafe bind(descriptor, $0, $1) == 0 }
    }
}

/// Calls `body` with the address of a port of the loopback interface and its size.
func withLoopbackAddress(
    port: UInt16,
    _ body: (UnsafePointer<sockaddr>, socklen_t) -> Bool
) -> Bool {
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
    address.sin_port = port.bigEndian
    // SAFETY: `address` outlives the call and is passed with its own size.
    return unsafe withUnsafePointer(to: &address) { pointer in
        unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
            unsafe body($0, socklen_t(MemoryLayout<sockaddr_in>.size))
        }
    }
}

/// Whether something accepts connections.
enum ServerProbe {
    /// Connects to a unix socket and closes.
    static func accepts(_ path: String) -> Bool {
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let bytes = Array(path.utf8)
        guard bytes.count < MemoryLayout.size(ofValue: address.sun_path) else { return false }
        // SAFETY: the count was checked against the field; `address` outlives the call.
        unsafe withUnsafeMutableBytes(of: &address.sun_path) { unsafe $0.copyBytes(from: bytes) }
        return unsafe withUnsafePointer(to: &address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                unsafe connects(AF_UNIX, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
    }

    /// Connects to a port of the loopback interface and closes.
    static func accepts(port: UInt16) -> Bool {
        // SAFETY: the address is valid for the call, and of the size given.
        unsafe withLoopbackAddress(port: port) { unsafe connects(AF_INET, $0, $1) }
    }

    private static func connects(
        _ family: Int32,
        _ address: UnsafePointer<sockaddr>,
        _ byteCount: socklen_t
    ) -> Bool {
        let descriptor = socket(family, Int32(SOCK_STREAM.rawValue), 0)
        guard descriptor >= 0 else { return false }
        defer { close(descriptor) }
        // SAFETY: the caller vouches for the address and its size.
        return unsafe connect(descriptor, address, byteCount) == 0
    }
}
