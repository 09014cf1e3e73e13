import Foundation
import Testing

/// What all wrong uses share: a cluster, a node and a store, each with a volume that must come
/// through all of them unharmed.
final class BadInputFixture: Sendable {
    /// A cluster with the volume `precious`, attached to host `h1`, its snapshot `precious@s1` and
    /// the clone `child`.
    let cluster: Cluster
    /// A node without a control plane: volume `vol`, its snapshot `before`, and `blocky` with
    /// 4096-byte blocks.
    let server: NodeServer
    /// A store that no node has open, with a volume in it; cases work on copies.
    let storePath: String
    /// An empty store that no node has open.
    let otherPath: String
    /// Which stores the two are.
    let storeIdentity: String
    let otherIdentity: String
    private let preciousURI: String
    private let contentPath: String

    /// The fixture of the tests that run now.
    @TaskLocal static var current: BadInputFixture?

    private init(
        cluster: Cluster,
        server: NodeServer,
        storePath: String,
        otherPath: String,
        preciousURI: String,
        contentPath: String
    ) async throws {
        self.cluster = cluster
        self.server = server
        self.storePath = storePath
        self.otherPath = otherPath
        storeIdentity = try await NodeServer.identity(ofStore: storePath)
        otherIdentity = try await NodeServer.identity(ofStore: otherPath)
        self.preciousURI = preciousURI
        self.contentPath = contentPath
    }

    /// Makes everything.
    static func make() async throws -> BadInputFixture {
        let scratch = try ScratchDirectory()
        let content = try scratch.patternFile("content.img", byteCount: 16 << 20)
        // The closed store.
        var options = NodeServer.Options()
        options.storeByteCount = 256 << 20
        options.volumes = ["vol=16MiB"]
        let closed = try await NodeServer.start(options)
        try await succeed("/usr/bin/nbdcopy", [content, closed.unixURI()])
        await closed.stop()
        let storePath = closed.storePath
        // The running node; its store keeps the closed one's directory alive through `retained`.
        let server = try await NodeServer.start(options)
        try await server.createVolume("blocky", byteCount: 16 << 20, logicalBlockByteCount: 4096)
        try await succeed("/usr/bin/nbdcopy", [content, server.unixURI()])
        _ = try await server.snapshot("vol", "before")
        // The cluster.
        let cluster = try await Cluster.start()
        try await cluster.json("volume", "create", "precious", "--size", "16MiB")
        let uri = try await cluster.attach("precious", host: "h1")
        try await succeed("/usr/bin/nbdcopy", [content, uri])
        try await cluster.json("snapshot", "create", "precious@s1")
        try await cluster.json("clone", "precious@s1", "child")
        let kept = server.scratch.file("closed.img")
        try await succeed("/usr/bin/cp", ["--sparse=always", storePath, kept])
        let keptContent = server.scratch.file("content.img")
        try await succeed("/usr/bin/cp", ["--sparse=always", content, keptContent])
        let other = server.scratch.file("other.img")
        try await succeed(
            TestEnvironment.program("volnode"),
            ["format", other, "--size", "64MiB", "--preallocate", "none"]
        )
        return try await BadInputFixture(
            cluster: cluster,
            server: server,
            storePath: kept,
            otherPath: other,
            preciousURI: uri,
            contentPath: keptContent
        )
    }

    /// Ends everything.
    func stop() async throws {
        // Hundreds of processes later the tests must not have kept what they opened for them.
        let descriptors = "/proc/self/fd"
        let pipes = try FileManager.default.contentsOfDirectory(atPath: descriptors).filter {
            let path = "\(descriptors)/\($0)"
            let end = try? FileManager.default.destinationOfSymbolicLink(atPath: path)
            return end?.hasPrefix("pipe:") == true
        }
        #expect(pipes.count < 100, "descriptors are left open")
        await server.stop()
        try await cluster.stop()
    }

    /// The environment of a case's commands.
    func environment(endpoint: Bool) -> [String: String] { cluster.environment }

    /// Reads every volume back and compares: nothing may be lost to a wrong use.
    func checkNothingLost(after name: String) async throws {
        try #require(
            server.process.isRunning,
            "the node ended after: \(name)\n\(server.process.errorOutput.suffix(4000))"
        )
        for uri in [preciousURI, server.unixURI()] {
            let copy = server.scratch.file("read-back.img")
            try await succeed("/usr/bin/nbdcopy", [uri, copy])
            let same = try await run("/usr/bin/cmp", [contentPath, copy])
            #expect(same.exitCode == 0, "data lost after: \(name)")
        }
    }
}

/// Makes the fixture once for a suite and ends it afterwards.
struct BadInputFixtureTrait: SuiteTrait, TestScoping {
    func provideScope(
        for test: Test,
        testCase: Test.Case?,
        performing function: @concurrent @Sendable () async throws -> Void
    ) async throws {
        let fixture = try await BadInputFixture.make()
        do {
            try await BadInputFixture.$current.withValue(fixture) { try await function() }
        } catch {
            try? await fixture.stop()
            throw error
        }
        try await fixture.stop()
    }
}
