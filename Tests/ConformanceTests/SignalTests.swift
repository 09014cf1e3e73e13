import Foundation
import TestSupport
import Testing

extension Conformance {
    /// What running programs do when they are asked to stop, and say of those that signals ended.
    @Suite("Signals")
    struct SignalTests {
        @Test("an import whose server fell silent ends at once when it is asked to")
        func import_serverIsSilent_isInterrupted() async throws {
            try await withCluster { cluster in
                let head = "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"
                for (start, number) in [(head, SIGINT), (head + "x", SIGTERM), ("", SIGHUP)] {
                    let server = try SilentServer(start: start)
                    let child = try ChildProcess(
                        TestEnvironment.program("volctl"),
                        [
                            "image", "import", "http://127.0.0.1:\(server.port)/disk.img", "v",
                        ],
                        environment: cluster.environment.filter { $0.key != "CAIRN_ENDPOINT" },
                        directory: cluster.scratch.path
                    )
                    #expect(try await isEventually { server.isAsked })
                    #expect(child.isRunning, "\(child.errorOutput)")
                    child.signal(number)
                    #expect(await child.exit(within: 10) == 130, "\(child.errorOutput)")
                    #expect(child.errorOutput == "volctl: Interrupted.\n")
                    withExtendedLifetime(server) {}
                }
            }
        }

        @Test("the end of a terminal stops a node in good order")
        func node_hangup_isCleanStop() async throws {
            let server = try await NodeServer.start()
            server.process.signal(SIGHUP)
            #expect(await server.process.exit(within: 30) == 0)
            #expect(server.process.errorOutput.contains("stopped"))
            #expect(!FileManager.default.fileExists(atPath: server.socketPath))
        }

        @Test(
            "the metadata service stops at it too, unless nohup started it",
            arguments: [true, false]
        )
        func meta_hangup(isIgnored: Bool) async throws {
            let scratch = try ScratchDirectory()
            let port = try FreePort.next()
            let trap = isIgnored ? "trap '' HUP; " : ""
            let program = TestEnvironment.program("volmeta")
            let socket = scratch.file("m.sock")
            let process = try ChildProcess(
                "/bin/sh",
                [
                    "-c", "\(trap)exec \"$0\" \"$@\"", program, "run", "--data",
                    scratch.file("m"), "--listen", "127.0.0.1:\(port)", "--unix", socket,
                ]
            )
            let isListening = {
                process.errorOutput.components(separatedBy: "listening").count > 2
            }
            for _ in 0..<300 where !isListening() {
                try await Task.sleep(for: .milliseconds(100))
            }
            try #require(isListening(), "\(process.errorOutput)")
            process.signal(SIGHUP)
            if isIgnored {
                #expect(await process.exit(within: 2) == nil)
                #expect(await process.stop() == 0)
            }
            #expect(await process.exit(within: 20) == 0)
            #expect(process.errorOutput.contains("stopped"))
            #expect(!FileManager.default.fileExists(atPath: socket))
        }

        @Test("a simulation that is killed takes its workers with it")
        func simulation_killed_takesWorkers() async throws {
            let fleet = try ChildProcess(
                TestEnvironment.program("devtool"),
                ["sim", "store", "--seeds", "2", "--ops", "10000000", "--jobs", "1"]
            )
            // Any of its threads may have started one.
            let threads = "/proc/\(fleet.pid)/task"
            let workers = {
                let all = (try? FileManager.default.contentsOfDirectory(atPath: threads)) ?? []
                return all.flatMap { thread in
                    let path = "\(threads)/\(thread)/children"
                    let text = FileManager.default.contents(atPath: path) ?? Data()
                    return String(decoding: text, as: UTF8.self).split(separator: " ")
                        .compactMap { Int32($0) }
                }
            }
            #expect(try await isEventually { !workers().isEmpty })
            let pids = workers()
            // Then they have asked to die with it, and are in a seed that says nothing for minutes.
            try await Task.sleep(for: .seconds(1))
            fleet.signal(SIGKILL)
            #expect(await fleet.exit(within: 10) == 128 + SIGKILL)
            #expect(
                try await isEventually(within: .seconds(10)) {
                    pids.allSatisfy { !ChildProcess.isAlive($0) }
                }
            )
        }

        /// Runs `dev up` in a shell with a limit, such as "-f 2000".
        private func devUp(underLimit limit: String) async throws -> CommandResult {
            let cluster = Cluster(scratch: try ScratchDirectory())
            return try await run(
                "/bin/sh",
                [
                    "-c", "ulimit \(limit); exec \"$0\" \"$@\"",
                    TestEnvironment.program("volctl"), "dev", "up", "--data", cluster.dataPath,
                ],
                environment: cluster.environment.filter { $0.key != "CAIRN_ENDPOINT" },
                directory: cluster.scratch.path
            )
        }

        @Test("a store that a limit of the shell forbids is refused with the limit")
        func devUp_fileSizeLimit_isNamed() async throws {
            let result = try await devUp(underLimit: "-f 2000")
            #expect(result.exitCode == 1)
            #expect(result.errorOutput.contains("SIGXFSZ"), "\(result.report)")
            #expect(result.errorOutput.contains("ulimit -f"), "\(result.report)")
        }

        @Test("too little address space is refused by whoever needs it, with the limit")
        func devUp_addressSpaceLimit_isNamed() async throws {
            let result = try await devUp(underLimit: "-v 500000")
            #expect(result.exitCode == 1)
            #expect(
                result.errorOutput.contains("of address space here, and needs"),
                "\(result.report)"
            )
            #expect(result.errorOutput.contains("ulimit -v"), "\(result.report)")
        }

        @Test("the size of a store that is there already is not changed, and dev up says so")
        func devUp_otherStoreSize_isSaid() async throws {
            let cluster = Cluster(scratch: try ScratchDirectory())
            func up(_ size: String) async throws -> String {
                let result = try await cluster.volctl(
                    ["dev", "up", "--data", cluster.dataPath, "--store-size", size],
                    within: 90
                )
                try #require(result.exitCode == 0, "\(result.report)")
                return result.errorOutput
            }
            #expect(try await up("1GiB") == "")
            #expect(try await up("1024MiB") == "")
            let warning = try await up("2GiB")
            #expect(
                warning == "volctl: warning: --store-size is for new stores; that of node1 stays "
                    + "as it is, 1GiB.\n"
            )
            try await cluster.stop()
        }
    }
}
