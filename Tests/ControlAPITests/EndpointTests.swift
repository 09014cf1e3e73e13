// Endpoints: how they are written, and whether they are free.

import ControlAPI
import ControlPlane
import Foundation
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

    /// Binds a socket and closes it without unlinking, as a killed process does.
    private func makeStaleSocket(_ path: String) throws {
        let process = Process()
        process.executableURL = URL(filePath: "/usr/bin/python3")
        process.arguments = [
            "-c", "import socket,sys; socket.socket(socket.AF_UNIX).bind(sys.argv[1])", path,
        ]
        try process.run()
        process.waitUntilExit()
        try #require(FileManager.default.fileExists(atPath: path))
    }
}
