// Which cluster a command talks to, and the files that say so.

import ArgumentParser
import ChildProcesses
import ControlAPI
import Foundation
import Glibc
import ProgramMain
import TestSupport
import Testing
import volctl

@Suite struct ContextTests {
    private func choose(
        endpoint: String? = nil,
        data: String? = nil,
        _ environment: [String: String] = [:]
    ) throws -> ClusterChoice {
        try ClusterChoice(endpoint: endpoint, data: data, environment: environment)
    }

    @Test("an option goes before a directory, that before the environment, that before the file")
    func choice_severalSources_takesNearest() throws {
        let home = try TestDirectory()
        let environment = ["HOME": home.path, "CAIRN_ENDPOINT": "http://127.0.0.1:3"]
        try DocumentFile.write(
            Context(endpoint: "http://127.0.0.1:4", data: "/srv/dev"),
            to: UserDirectories(environment: environment).contextFile
        )
        let cluster = "\(home.path)/cluster"
        try DocumentFile.write(
            ClusterFile(metaPort: 2, nodes: []),
            to: ClusterLayout(directory: cluster).clusterFile
        )
        #expect(
            try choose(endpoint: "http://127.0.0.1:1", data: cluster, environment).endpoint
                == "http://127.0.0.1:1"
        )
        #expect(try choose(data: cluster, environment).endpoint == "http://127.0.0.1:2")
        #expect(try choose(environment).endpoint == "http://127.0.0.1:3")
        let last = try choose(["HOME": home.path])
        #expect(last.endpoint == "http://127.0.0.1:4")
        #expect(last.data == "/srv/dev")
    }

    @Test("CAIRN_ENDPOINT that is no endpoint is wrong usage, unless something goes before it")
    func requireEndpoint_environment_isChecked() throws {
        let environment = ["CAIRN_ENDPOINT": "foo"]
        let error = #expect(throws: ValidationError.self) {
            try ClusterOptions.parse([]).requireEndpoint(environment: environment)
        }
        for word in ["'foo'", "CAIRN_ENDPOINT", "http://HOST:PORT", "unset"] {
            #expect(error?.message.contains(word) == true, "\(word)")
        }
        for arguments in [["--endpoint", "http://127.0.0.1:1"], ["--data", "/srv/dev"]] {
            try ClusterOptions.parse(arguments).requireEndpoint(environment: environment)
        }
        for endpoint in ["", "http://127.0.0.1:1", "unix:/run/x"] {
            try ClusterOptions.parse([]).requireEndpoint(
                environment: ["CAIRN_ENDPOINT": endpoint]
            )
        }
    }

    @Test("'dev up' starts the cluster started last, but not where that is no more")
    func directoryToStart_takesLast() throws {
        let home = try TestDirectory()
        let environment = ["HOME": home.path]
        let user = UserDirectories(environment: environment)
        let last = "\(home.path)/last"
        let options = try DevOptions.parse([])
        #expect(options.directoryToStart(environment: environment) == user.defaultCluster)
        try DocumentFile.write(
            Context(endpoint: "http://127.0.0.1:4", data: last),
            to: user.contextFile
        )
        #expect(options.directoryToStart(environment: environment) == user.defaultCluster)
        try DocumentFile.write(
            ClusterFile(metaPort: 4, nodes: []),
            to: ClusterLayout(directory: last).clusterFile
        )
        #expect(options.directoryToStart(environment: environment) == last)
        let other = try DevOptions.parse(["--data", "/other"])
        #expect(other.directoryToStart(environment: environment) == "/other")
    }

    @Test("an empty variable counts as none")
    func choice_emptyVariable_isIgnored() throws {
        let home = try TestDirectory()
        #expect {
            try choose(["HOME": home.path, "CAIRN_ENDPOINT": ""])
        } throws: { error in
            (error as? CommandFailure)?.code == "no_context"
        }
    }

    @Test(
        "a context file that was cut short is named, with the way out",
        arguments: ["", "{", "{\"endpoint\":\"http://127.0.0.1:1\"", "null", "[]", "{\"data\":1}"]
    )
    func choice_damagedContext_saysSo(text: String) throws {
        let home = try TestDirectory()
        let path = UserDirectories(environment: ["HOME": home.path]).contextFile
        try DocumentFile.makeDirectory((path as NSString).deletingLastPathComponent)
        try Data(text.utf8).write(to: URL(fileURLWithPath: path))
        let failure = #expect(throws: CommandFailure.self) { try choose(["HOME": home.path]) }
        #expect(failure?.code == "bad_context")
        #expect(failure?.problem.contains(path) == true)
        #expect(failure?.remedy?.contains("volctl dev up") == true)
    }

    @Test(
        "what cannot be an endpoint is refused before anything is sent",
        arguments: ["foo", "http://", "ftp://127.0.0.1:1", "http://h:99999", "unix:relative", " "]
    )
    func choice_badEndpoint_isRefused(text: String) {
        let failure = #expect(throws: CommandFailure.self) { try choose(endpoint: text) }
        #expect(failure?.code == "bad_endpoint")
    }

    @Test("directories follow the XDG variables, and ignore relative ones")
    func userDirectories_variables_areFollowed() {
        let user = UserDirectories(environment: [
            "HOME": "/home/u", "XDG_CONFIG_HOME": "/etc/u", "XDG_STATE_HOME": "relative",
        ])
        #expect(user.contextFile == "/etc/u/cairn/context.json")
        #expect(user.defaultCluster == "/home/u/.local/state/cairn/dev")
        #expect(user.cache == "/home/u/.cache/cairn")
    }
}

@Suite struct ClusterFileTests {
    @Test("a cluster's file is read back as it was written")
    func read_written_isSame() throws {
        let directory = try TestDirectory()
        var file = ClusterFile(
            metaPort: 20_001,
            nodes: [.init(name: "node1", nbdPort: 20_002, adminPort: 20_003)]
        )
        let path = ClusterLayout(directory: directory.path).clusterFile
        try DocumentFile.write(file, to: path)
        #expect(try ClusterFile.read(directory.path) == file)
        file.nodes[0].storeIdentity = "0123456789abcdef0123456789abcdef"
        try DocumentFile.write(file, to: path)
        #expect(try ClusterFile.read(directory.path) == file)
        // What Docs/volctl.md tells people to remove.
        #expect(try String(contentsOfFile: path, encoding: .utf8).contains("\"store_identity\""))
        #expect(file.endpoint == "http://127.0.0.1:20001")
    }

    @Test("several nodes are n1, n2, …; one is node1, and others that join it are named as it is")
    func plan_nodes_areNamed() async throws {
        func names(_ directory: String, _ nodeCount: Int?) async throws -> [String] {
            let cluster = try await DevCluster(
                in: directory,
                nodeCount: nodeCount,
                secondsMax: 1,
                progress: .notes(isJSON: true)
            )
            defer { cluster.release() }
            let nodes = cluster.file.nodes
            var ports: Set<UInt16> = [cluster.file.metaPort]
            for node in nodes {
                ports.formUnion([node.nbdPort, node.adminPort, try #require(node.peerPort)])
            }
            #expect(ports.count == 3 * nodes.count + 1)
            return nodes.map(\.name)
        }
        let several = try TestDirectory()
        #expect(try await names(several.path, 3) == ["n1", "n2", "n3"])
        #expect(try await names(several.path, nil) == ["n1", "n2", "n3"])
        #expect(try await names(several.path, 4) == ["n1", "n2", "n3", "n4"])
        let one = try TestDirectory()
        #expect(try await names(one.path, nil) == ["node1"])
        #expect(try await names(one.path, 2) == ["node1", "node2"])
        // Of a program that knew of no replicas: the nodes get ports for them.
        let old = try TestDirectory()
        _ = try old.file("cluster.json", text: try fixture("cluster.json"))
        #expect(try await names(old.path, nil) == ["node1", "node2"])
    }

    @Test("several nodes take at most half of a small machine's memory")
    func memoryArguments_smallMachine_areGiven() {
        func arguments(_ nodeCount: Int, _ gibibytes: UInt64) -> [String] {
            DevCluster.memoryArguments(
                nodeCount: nodeCount,
                physicalByteCount: gibibytes << 30
            )
        }
        #expect(arguments(1, 1) == [])
        #expect(arguments(3, 16) == [])
        #expect(
            arguments(4, 2) == [
                "--map-memory", "128MiB", "--buffer-memory", "64MiB", "--cache-memory", "32MiB",
            ]
        )
        #expect(arguments(16, 1)[1] == "64MiB")
    }

    @Test("the keys in the file stay what they are")
    func read_fixture_isUnderstood() throws {
        let directory = try TestDirectory()
        _ = try directory.file("cluster.json", text: try fixture("cluster.json"))
        let file = try ClusterFile.read(directory.path)
        #expect(file?.metaPort == 20_001)
        #expect(file?.nodes.map(\.name) == ["node1", "node2"])
        #expect(file?.nodes.last?.adminPort == 20_005)
        // Of a program that knew of no identities.
        #expect(file?.nodes.first?.storeIdentity == nil)
    }

    @Test("a damaged file, and one of a newer program, are refused with the way out")
    func read_damaged_saysSo() throws {
        let directory = try TestDirectory()
        #expect(try ClusterFile.read(directory.path) == nil)
        for text in [
            "", "{\"version\":1", "{\"version\":99,\"endpoint\":\"\",\"meta_port\":1,\"nodes\":[]}",
        ] {
            _ = try directory.file("cluster.json", text: text)
            let failure = #expect(throws: CommandFailure.self) {
                try ClusterFile.read(directory.path)
            }
            #expect(failure?.code == "bad_cluster_file")
            #expect(failure?.remedy != nil)
        }
    }

    @Test("a socket path that the kernel would refuse is refused first")
    func checkSocketPaths_long_isRefused() throws {
        // "/nodes/node1/nbd.sock" has 21 bytes.
        let longest = ClusterLayout(directory: "/" + String(repeating: "d", count: 107 - 22))
        try longest.checkSocketPaths(nodes: ["node1"])
        let failure = #expect(throws: CommandFailure.self) {
            try longest.checkSocketPaths(nodes: ["node1", "node10"])
        }
        #expect(failure?.code == "path_too_long")
        #expect(failure?.problem.contains("108 bytes") == true)
    }

    @Test("a file is replaced whole, and leaves nothing behind")
    func write_twice_leavesOneFile() throws {
        let directory = try TestDirectory()
        for port in 1...3 as ClosedRange<UInt16> {
            try DocumentFile.write(
                ClusterFile(metaPort: port, nodes: []),
                to: "\(directory.path)/cluster.json"
            )
        }
        let names = try FileManager.default.contentsOfDirectory(atPath: directory.path)
        #expect(names == ["cluster.json"])
        #expect(try ClusterFile.read(directory.path)?.metaPort == 3)
    }

    @Test("a directory that cannot be made is named with the reason")
    func makeDirectory_underFile_saysWhy() throws {
        let directory = try TestDirectory()
        let file = try directory.file("file")
        let failure = #expect(throws: CommandFailure.self) {
            try DocumentFile.makeDirectory("\(file)/below")
        }
        #expect(failure?.code == "cannot_write")
        #expect(failure?.problem.contains("\(file)/below") == true)
    }
}

@Suite struct ProcessRecordTests {
    @Test("a program's name cannot confuse the reading of its state")
    func parse_oddNames_areRead() {
        let fields = (4...21).map(String.init).joined(separator: " ")
        for name in ["sleep", "a b", "a) R 1", "((()", ") ) )"] {
            let status = ProcessStatus(parsing: "42 (\(name)) S \(fields) 7777 23 24")
            #expect(status?.startTicks == 7777)
            #expect(status?.isZombie == false)
        }
        #expect(ProcessStatus(parsing: "42 (x) Z \(fields) 1 2")?.isZombie == true)
        #expect(ProcessStatus(parsing: "") == nil)
        #expect(ProcessStatus(parsing: "42 (x) S 1 2 3") == nil)
    }

    @Test("this process is recognised, and no other that has its number")
    func isRunning_self_onlyWithStartTime() throws {
        let own = try #require(ProcessRecord(running: getpid()))
        #expect(own.isRunning)
        var other = own
        other.startTicks += 1
        #expect(!other.isRunning, "the number was given to another process")
        #expect(!other.send(0))
        other = own
        other.bootId = "another boot"
        #expect(!other.isRunning, "the machine was restarted since")
        #expect(!ProcessRecord(pid: 0, startTicks: 0, bootId: nil).isRunning)
        #expect(!ProcessRecord(pid: -1, startTicks: 0, bootId: nil).isRunning)
        #expect(!ProcessRecord(pid: 1, startTicks: 0, bootId: nil).send(0))
    }

    @Test("a child that ends is seen to end")
    func waitForEnd_child_isSeen() async throws {
        let null = try Descriptor.open("/dev/null", O_WRONLY)
        defer { null.close() }
        let pid = try ChildSpecification(
            "/bin/sh",
            ["-c", "exec sleep 600"],
            output: null.number,
            error: null.number
        ).start()
        let record = try #require(ProcessRecord(running: pid))
        #expect(record.isRunning)
        #expect(try await !record.waitForEnd(until: .now))
        #expect(record.send(SIGKILL))
        #expect(try await record.waitForEnd(until: .now + .seconds(10)))
        #expect(!record.isRunning)
        // An unreaped child would keep the runner's own wait for children busy.
        _ = ChildEnd.wait(for: pid)
    }

    @Test("a damaged process record counts as a program that does not run")
    func devStatus_damagedRecord_isCrashed() throws {
        let directory = try TestDirectory()
        let layout = ClusterLayout(directory: directory.path)
        try DocumentFile.makeDirectory(layout.runDirectory)
        _ = try directory.file("run/node1.json", text: "{\"pid\":")
        try DocumentFile.write(
            ProcessRecord(pid: 1 << 22, startTicks: 1, bootId: nil),
            to: layout.processFile("node2")
        )
        try DocumentFile.write(
            try #require(ProcessRecord(running: getpid())),
            to: layout.processFile("node3")
        )
        let nodes = (1...4).map {
            ClusterFile.Node(name: "node\($0)", nbdPort: 1, adminPort: 2)
        }
        let status = DevStatus(layout, ClusterFile(metaPort: 3, nodes: nodes))
        #expect(status.nodes.map(\.state) == [.crashed, .crashed, .running, .stopped])
        #expect(status.nodes.map(\.pid.value) == [nil, nil, getpid(), nil])
        #expect(status.meta.state == .stopped)
    }
}

@Suite struct FileLockTests {
    @Test("one program at a time has the lock, and a dead one has it no more")
    func init_held_waitsThenFails() async throws {
        let directory = try TestDirectory()
        let path = "\(directory.path)/cluster.lock"
        let first = try await FileLock(path: path, seconds: 0) {}
        var waits = 0
        await #expect(throws: CommandFailure.self) {
            _ = try await FileLock(path: path, seconds: 0) { waits += 1 }
        }
        first.release()
        let second = try await FileLock(path: path, seconds: 0) { waits += 1 }
        second.release()
        #expect(waits == 0, "with no time to wait nobody is told to")
    }
}

@Suite struct LoopbackPortTests {
    @Test("a port is free until somebody listens on it")
    func isFree_listening_isNot() async throws {
        let port = try LoopbackPort.pick(avoiding: [])
        #expect(LoopbackPort.isFree(port))
        #expect(port < 32_768, "below the ports that the kernel gives to outgoing connections")
        let server = try CannedServer(answer: "")
        #expect(!LoopbackPort.isFree(server.port))
        let failure = await #expect(throws: CommandFailure.self) {
            try await LoopbackPort.waitUntilFree(server.port, of: "node1", seconds: 0.1)
        }
        #expect(failure?.code == "port_taken")
        #expect(failure?.remedy?.contains("sport = :\(server.port)") == true)
    }

    @Test("a port that its program gives back late is waited for")
    func waitUntilFree_releasedLater_returns() async throws {
        var server: CannedServer? = try CannedServer(answer: "")
        let port = try #require(server?.port)
        async let wait: Void = LoopbackPort.waitUntilFree(port, of: "node1", seconds: 60)
        await Task.yield()
        server = nil
        try await wait
        #expect(LoopbackPort.isFree(port))
    }
}
