// Endpoints: how they are written, and whether they are free.

import ControlAPI
import ControlPlane
import Foundation
import Glibc
import Testing

@Suite("Endpoints", .timeLimit(.minutes(2)))
struct EndpointTests {
    @Test(
        "Endpoints are read in all their spellings",
        arguments: [
            ("http://127.0.0.1:7400", "http://127.0.0.1:7400"),
            ("localhost:80/", "http://localhost:80"),
            ("http://[::1]:7400", "http://[::1]:7400"),
            ("unix:/run/x.sock", "unix:/run/x.sock"),
            ("http+unix:///run/x.sock", "unix:/run/x.sock"),
        ]
    )
    func read_valid(text: String, expected: String) throws {
        let endpoint = try APIEndpoint(text)
        #expect(endpoint.description == expected)
        #expect(try APIEndpoint(endpoint.description) == endpoint)
    }

    @Test(
        "What is no endpoint is refused",
        arguments: [
            "", "127.0.0.1", "http://", "http://:80", "host:", "host:99999", "host:-1",
            "https://host:1", "unix:relative", "host name:80", "http://a/b:80",
            "unix:/" + String(repeating: "x", count: 107),
        ]
    )
    func read_invalid(text: String) {
        #expect(throws: ControlError.self) { try APIEndpoint(text) }
    }

    @Test("A taken port, a foreign file and a missing directory are told apart")
    func requireFree_tells() async throws {
        let (_, plane) = try await Cluster.serving()
        try await withServer(controlRouter(service: plane), unix: false) { endpoint in
            let taken = await controlError { () throws(ControlError) in
                try await requireFree(endpoint)
            }
            #expect(taken?.detail.contains("Another process listens") == true)
        }
        try await withServer(controlRouter(service: plane), unix: true) { endpoint in
            let taken = await controlError { () throws(ControlError) in
                try await requireFree(endpoint)
            }
            #expect(taken?.code == .unavailable)
        }
        let file = NSTemporaryDirectory() + "cairn-\(UUID().uuidString.prefix(8))"
        try Data("mine".utf8).write(to: URL(filePath: file))
        defer { try? FileManager.default.removeItem(atPath: file) }
        let foreign = await controlError { () throws(ControlError) in
            try await requireFree(.unix(path: file))
        }
        #expect(foreign?.detail.contains("is not a socket") == true)
        #expect(FileManager.default.fileExists(atPath: file))
        let missing = await controlError { () throws(ControlError) in
            try await requireFree(.unix(path: "/no-such-directory/x.sock"))
        }
        #expect(missing?.detail.contains("does not exist") == true)
        let foreignAddress = await controlError { () throws(ControlError) in
            try await requireFree(.tcp(host: "192.0.2.1", port: 7400))
        }
        #expect(foreignAddress?.detail.contains("not an address of this machine") == true)
    }

    @Test("A socket left behind by a process that died is replaced")
    func requireFree_staleSocket_isRemoved() async throws {
        let path = "/tmp/cairn-\(UUID().uuidString.prefix(8)).sock"
        try makeStaleSocket(path)
        try await requireFree(.unix(path: path))
        #expect(!FileManager.default.fileExists(atPath: path))
    }

    @Test("A socket that cannot be connected to for any other reason is its owner's")
    func requireFree_socketInUse_isKept() async throws {
        let path = "/tmp/cairn-\(UUID().uuidString.prefix(8)).sock"
        // One for datagrams: it refuses connections, and not because nobody is there.
        let holder = try bound(to: path, SOCK_DGRAM)
        defer {
            close(holder)
            try? FileManager.default.removeItem(atPath: path)
        }
        let error = await controlError { () throws(ControlError) in
            try await requireFree(.unix(path: path))
        }
        #expect(error?.detail.contains("Another process listens") == true)
        #expect(FileManager.default.fileExists(atPath: path))
    }

    @Test(
        "What a registration may say of endpoints is what the API's description says",
        arguments: [
            ("http://127.0.0.1:22647", true), ("http://node-1.example:7400/", true),
            ("node1:65535", true), ("http://[::1]:7400", true), ("unix:/run/cairn/api.sock", true),
            ("http+unix:///run/api.sock", true), ("unix:/run/a b", true),
            ("node1:65536", false), ("http://node1", false), ("unix:run/api.sock", false),
            ("unix://run/api.sock", false), ("http://no de:7400", false), ("", false),
        ]
    )
    func endpoint_isAsDescribed(text: String, isValid: Bool) throws {
        #expect(((try? APIEndpoint(text)) != nil) == isValid)
        let file = try OpenAPIFile()
        let admin = try Regex(#require(file.pattern(of: "admin_endpoint", in: "NodeRegistration")))
        #expect((text.wholeMatch(of: admin) != nil) == isValid)
        guard !text.contains("/") else { return }
        let nbd = try Regex(#require(file.pattern(of: "nbd_endpoint", in: "NodeRegistration")))
        #expect((text.wholeMatch(of: nbd) != nil) == isValid)
    }

    /// Binds a socket and closes it without unlinking, as a killed process does.
    private func makeStaleSocket(_ path: String) throws {
        close(try bound(to: path, SOCK_STREAM))
        try #require(FileManager.default.fileExists(atPath: path))
    }

    /// A socket that is bound to a path.
    private func bound(to path: String, _ type: __socket_type) throws -> CInt {
        let descriptor = socket(AF_UNIX, Int32(type.rawValue | SOCK_CLOEXEC.rawValue), 0)
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        // SAFETY: the path is shorter than the field that it is copied to.
        unsafe withUnsafeMutableBytes(of: &address.sun_path) { field in
            unsafe field.copyBytes(from: Array(path.utf8))
        }
        // SAFETY: the address outlives the call, whose length is that of its type.
        let result = unsafe withUnsafePointer(to: &address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { rebound in
                unsafe bind(descriptor, rebound, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        try #require(result == 0)
        return descriptor
    }
}
