// Three real etcd members on loopback, for as long as a suite runs.

import ChildProcesses
import Foundation
import Glibc
import Metadata
import Synchronization
import TestSupport
import Testing

/// A cluster that ends with its owner, and with this process however that ends.
final class EtcdCluster: Sendable {
    /// One member.
    struct Member: Sendable {
        let port: UInt16
        /// etcd itself.
        let pid: pid_t
        /// Kills etcd when its standard input ends, as it does with this process.
        let keeper: RunningProcess
        let leash: FileHandle
    }

    /// Where Debian's package puts it.
    static let program = "/usr/bin/etcd"
    static var isInstalled: Bool { FileManager.default.isExecutableFile(atPath: program) }
    /// Whether tests without etcd are to fail: where it is installed first, as by `make test`.
    static var isRequired: Bool {
        ProcessInfo.processInfo.environment["CAIRN_REQUIRE_ETCD"] != nil
    }

    private let directory: URL
    let members: [Member]

    /// Starts members and waits for their leader.
    init(memberCount: Int = 3) async throws {
        // Without a disk: what is tested here is not how fast it is.
        let memory = URL(filePath: "/dev/shm")
        let parent =
            FileManager.default.isWritableFile(atPath: memory.path)
            ? memory : FileManager.default.temporaryDirectory
        directory = parent.appending(path: "cairn-etcd-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        // All at once, so that they differ; free again when etcd asks for them.
        let sockets = try (0..<(2 * memberCount)).map { _ in try LoopbackSocket(backlog: 1) }
        for socket in sockets { close(socket.descriptor) }
        let ports = sockets.map(\.port)
        let peers = (0..<memberCount).map { "m\($0)=http://127.0.0.1:\(ports[memberCount + $0])" }
        var started: [Member] = []
        for index in 0..<memberCount {
            started.append(
                try Self.start(
                    "m\(index)",
                    port: ports[index],
                    peerPort: ports[memberCount + index],
                    peers: peers.joined(separator: ","),
                    in: directory
                )
            )
        }
        members = started
        let isUp = try await isEventually(within: .seconds(30)) {
            try await Task.sleep(for: .milliseconds(50))
            return await self.leader() != nil
        }
        try #require(isUp, "etcd did not start")
    }

    private static func start(
        _ name: String,
        port: UInt16,
        peerPort: UInt16,
        peers: String,
        in directory: URL
    ) throws -> Member {
        let (input, output) = (Pipe(), Pipe())
        let arguments = [
            "-c", #"log=$1; shift; "$@" >"$log" 2>&1 </dev/null & echo $!; cat; kill -9 $!"#,
            "etcd-keeper", directory.appending(path: name + ".log").path, program,
            "--name", name, "--data-dir", directory.appending(path: name).path,
            "--listen-client-urls", "http://127.0.0.1:\(port)",
            "--advertise-client-urls", "http://127.0.0.1:\(port)",
            "--listen-peer-urls", "http://127.0.0.1:\(peerPort)",
            "--initial-advertise-peer-urls", "http://127.0.0.1:\(peerPort)",
            "--initial-cluster", peers,
            "--initial-cluster-token", directory.lastPathComponent,
            "--experimental-watch-progress-notify-interval=1s",
        ]
        let keeper = try RunningProcess(
            ChildSpecification(
                "/bin/sh",
                arguments,
                input: input.fileHandleForReading.fileDescriptor,
                output: output.fileHandleForWriting.fileDescriptor
            )
        )
        try input.fileHandleForReading.close()
        try output.fileHandleForWriting.close()
        var line = Data()
        while let byte = try output.fileHandleForReading.read(upToCount: 1), byte != Data("\n".utf8)
        {
            line += byte
        }
        let pid = try #require(pid_t(String(decoding: line, as: UTF8.self)))
        return Member(
            port: port,
            pid: pid,
            keeper: keeper,
            leash: input.fileHandleForWriting
        )
    }

    /// Which member leads, by its own word.
    func leader() async -> Int? {
        struct Status: Decodable {
            struct Header: Decodable { var memberId: String? }
            var header: Header?
            var leader: String?
        }
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        for (index, member) in members.enumerated() {
            let answer = try? runProgram(
                "/usr/bin/curl",
                [
                    "-s", "-m", "1", "-d", "{}",
                    "http://127.0.0.1:\(member.port)/v3/maintenance/status",
                ]
            )
            guard let answer else { return nil }
            let data = Data(answer.output.utf8)
            guard let status = try? decoder.decode(Status.self, from: data),
                let leader = status.leader, leader == status.header?.memberId
            else { continue }
            return index
        }
        return nil
    }

    /// What a store needs to use it.
    func configuration(_ namespace: String = "") throws -> EtcdConfiguration {
        let hosts = members.map { "127.0.0.1:\($0.port)" }.joined(separator: ",")
        var configuration = try #require(EtcdConfiguration("etcd://\(hosts)\(namespace)"))
        configuration.tryMillisecondsMax = 1_000
        configuration.watchSilenceMillisecondsMax = 2_000
        return configuration
    }

    /// Sends a signal to a member.
    func signal(_ index: Int, _ signal: CInt) { kill(members[index].pid, signal) }

    /// Ends all members.
    func stop() {
        for member in members {
            kill(member.pid, SIGCONT)
            try? member.leash.close()
        }
        for member in members { _ = member.keeper.waitForExit(within: 30) }
        try? FileManager.default.removeItem(at: directory)
    }
}

/// Gives a suite a cluster of its own.
struct EtcdClusterTrait: SuiteTrait, TestScoping {
    /// That of the suite which runs; nil when etcd is not installed.
    @TaskLocal static var cluster: EtcdCluster?

    @concurrent func provideScope(
        for test: Test,
        testCase: Test.Case?,
        performing function: @concurrent @Sendable () async throws -> Void
    ) async throws {
        guard EtcdCluster.isInstalled || EtcdCluster.isRequired else {
            return try await function()
        }
        try #require(EtcdCluster.isInstalled, "etcd is not installed: .ci/setup does that")
        let cluster = try await EtcdCluster()
        defer { cluster.stop() }
        try await Self.$cluster.withValue(cluster) { try await function() }
    }
}

extension Trait where Self == EtcdClusterTrait {
    static var etcdCluster: Self { Self() }
}
