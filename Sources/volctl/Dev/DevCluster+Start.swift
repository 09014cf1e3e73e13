// Starting the programs of a development cluster, and waiting until they serve.

import ChildProcesses
package import ControlAPI
import Foundation
import Glibc
import ProgramMain

extension DevCluster {
    /// Makes the stores that are missing, then starts what does not run.
    ///
    /// - Parameter store: How to make the stores.
    /// - Returns: The names of the programs started.
    /// - Throws: ``CommandFailure``; what this call started is stopped again.
    package mutating func startAll(store: StoreOptions) async throws -> [String] {
        // A store that cannot be made is found out before anything runs.
        for node in file.nodes {
            try DocumentFile.makeDirectory(layout.nodeDirectory(node.name))
            try formatStore(of: node, store)
        }
        try makeAuthority()
        var started: [String] = []
        do {
            if ProgramRecord(layout, ClusterLayout.metaName).state != .running {
                started.append(ClusterLayout.metaName)
            }
            _ = try await startMeta()
            for node in file.nodes {
                if ProgramRecord(layout, node.name).state != .running {
                    started.append(node.name)
                }
                _ = try await startNode(node, store: store)
            }
        } catch {
            // The failure is worth more than one of the tidying.
            _ = try? await Self.stop(
                started,
                of: layout,
                secondsMax: secondsMax,
                progress: progress
            )
            throw error
        }
        return started
    }

    /// Starts the metadata service unless it runs, and waits until it answers.
    ///
    /// - Returns: Whether it was started.
    /// - Throws: ``CommandFailure`` that names its log, or what helps with one that hangs.
    package func startMeta() async throws -> Bool {
        let name = ClusterLayout.metaName
        if let process = running(name) {
            try await wait(for: name, process, "answer", isOurs: false) {
                await cluster.isMetaServing()
            }
            return false
        }
        try await LoopbackPort.waitUntilFree(file.metaPort, of: name)
        progress.note("starting \(name) on \(file.endpoint)")
        let process = try launch(
            name,
            program: "volmeta",
            ["run", "--data", layout.metaDirectory, "--listen", "127.0.0.1:\(file.metaPort)"]
        )
        try await wait(for: name, process, "answer") { await cluster.isMetaServing() }
        return true
    }

    /// Formats the node's store when it has none, starts it unless it runs, and waits until it
    /// serves and the metadata service knows it.
    ///
    /// - Parameters:
    ///   - node: The node.
    ///   - store: How to make its store when it has none.
    /// - Returns: Whether it was started.
    /// - Throws: ``CommandFailure`` that names its log, or what helps with one that hangs.
    package mutating func startNode(
        _ node: ClusterFile.Node,
        store: StoreOptions
    ) async throws -> Bool {
        let probe = cluster
        if let process = running(node.name) {
            // Whether it is registered as well is not its fault alone.
            try await wait(for: node.name, process, "answer", isOurs: false) {
                await probe.isNodeAnswering(node)
            }
            return false
        }
        try DocumentFile.makeDirectory(layout.nodeDirectory(node.name))
        try await LoopbackPort.waitUntilFree(node.nbdPort, of: node.name)
        try await LoopbackPort.waitUntilFree(node.adminPort, of: node.name)
        if let port = node.peerPort {
            try await LoopbackPort.waitUntilFree(port, of: node.name)
        }
        try formatStore(of: node, store)
        progress.note("starting \(node.name) on nbd://127.0.0.1:\(node.nbdPort)")
        var arguments = [
            "run", "--name", node.name,
            "--store", layout.storeFile(node.name),
            "--listen-nbd", "127.0.0.1:\(node.nbdPort)",
            "--listen-nbd-unix", layout.socketFile(node.name),
            "--admin", "127.0.0.1:\(node.adminPort)",
            "--meta", file.endpoint,
        ]
        if let port = node.peerPort { arguments += ["--listen-peer", "127.0.0.1:\(port)"] }
        arguments += try certificateArguments(of: node)
        arguments += Self.memoryArguments(
            nodeCount: file.nodes.count,
            physicalByteCount: ProcessInfo.processInfo.physicalMemory
        )
        if let identity = try self.node(node.name).storeIdentity {
            arguments += ["--identity", identity]
        }
        let process = try launch(node.name, program: "volnode", arguments)
        try await wait(for: node.name, process, "register") {
            await probe.isNodeServing(node)
        }
        return true
    }

    private var cluster: ClusterProbe { ClusterProbe(endpoint: file.endpoint) }

    /// The process of a program that runs already.
    private func running(_ name: String) -> ProcessRecord? {
        let record = ProgramRecord(layout, name)
        return record.state == .running ? record.process : nil
    }

    /// What several nodes on a small machine are given to live with: half of its memory together.
    ///
    /// - Parameters:
    ///   - nodeCount: The number of nodes.
    ///   - physicalByteCount: The machine's memory.
    /// - Returns: Options of `volnode run`; none where its defaults fit.
    package static func memoryArguments(
        nodeCount: Int,
        physicalByteCount: UInt64
    ) -> [String] {
        let share = physicalByteCount / 2 / UInt64(max(1, nodeCount))
        // What one takes by default, 448 MiB, and as much again as its threads and tables may.
        guard nodeCount > 1, share < 512 << 20 else { return [] }
        func part(_ divisor: UInt64, _ mebibytesMin: UInt64) -> String {
            "\(max(mebibytesMin, (share / divisor) >> 20))MiB"
        }
        return [
            "--map-memory", part(2, 64), "--buffer-memory", part(4, 32),
            "--cache-memory", part(8, 16),
        ]
    }

    // MARK: - Store

    /// How the store of a new node is made.
    package struct StoreOptions: Sendable {
        /// Its size; nil takes a share of the free space.
        package var size: ByteSize?
        /// What `volnode format --preallocate` gets.
        package var preallocation: String

        /// Creates options.
        package init(size: ByteSize? = nil, preallocation: String = "none") {
            self.size = size
            self.preallocation = preallocation
        }
    }

    /// Makes the node's store under another name and then gives it its own: a half-made store is
    /// never mistaken for one.
    ///
    /// Which store it is is remembered before that, so that the node is started on no other.
    private mutating func formatStore(
        of node: ClusterFile.Node,
        _ options: StoreOptions
    ) throws {
        let path = layout.storeFile(node.name)
        guard !Path.exists(path) else { return }
        let unfinished = "\(path).unfinished"
        if let identity = try self.node(node.name).storeIdentity {
            // It was made, remembered, and then we were stopped.
            if Path.rename(unfinished, to: path) { return }
            throw CommandFailure(
                "store_missing",
                "\(path) is not there: the store \(identity) of \(node.name).",
                remedy: "Put it back, or mount the file system that it is on. If it is lost for "
                    + "good, remove store_identity of \(node.name) from \(layout.clusterFile), and "
                    + "the next start makes another."
            )
        }
        let size = try options.size ?? defaultStoreSize()
        progress.note("formatting a store of \(size) for \(node.name)")
        Path.remove(unfinished)
        let (end, identity) = try format(unfinished, of: node, size, options)
        guard end == .exited(0), let identity else {
            Path.remove(unfinished)
            if case .signalled(let number) = end {
                throw formattingEnded(by: number, of: node, size)
            }
            var reason = lastLogLine(node.name)
            if reason.hasPrefix("volnode: ") { reason.removeFirst("volnode: ".count) }
            reason = reason.replacingOccurrences(of: unfinished, with: "\(size.exactText)")
            throw CommandFailure(
                "format_failed",
                "The store of \(node.name) could not be made: \(reason)"
                    + (reason.hasSuffix(".") ? "" : "."),
                remedy: "Choose another --store-size, or see \(layout.logFile(node.name))."
            )
        }
        try remember(store: identity, of: node.name)
        guard Path.rename(unfinished, to: path) else {
            throw CommandFailure("io_error", "Cannot rename \(unfinished): \(systemErrorText()).")
        }
    }

    /// What is read of the document that `volnode format` prints.
    private struct FormatDocument: Decodable {
        var identity: String
    }

    /// Runs `volnode format`.
    ///
    /// - Returns: How it ended, and the identity of the store it made.
    private func format(
        _ path: String,
        of node: ClusterFile.Node,
        _ size: ByteSize,
        _ options: StoreOptions
    ) throws -> (ChildEnd, identity: String?) {
        let log = try Descriptor.open(layout.logFile(node.name), O_WRONLY | O_CREAT | O_APPEND)
        defer { log.close() }
        let output = try Descriptor.pipe()
        let tool = ChildSpecification(
            try program("volnode"),
            [
                "format", path, "--size", "\(size.byteCount)",
                "--preallocate", options.preallocation, "--json",
            ],
            output: output.write.number,
            error: log.number
        )
        let pid = try tool.launch()
        // Ours would keep the end of what it writes from being seen.
        output.write.close()
        var text: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 4096)
        while true {
            guard let count = try output.read.read(into: &buffer) else { continue }
            guard count > 0 else { break }
            text += buffer[..<count]
        }
        let end = ChildEnd.wait(for: pid)
        let document = try? ControlJSON.decoder().decode(FormatDocument.self, from: Data(text))
        return (end, document?.identity)
    }

    /// A program that a signal ended said nothing; what stands last in its log is of earlier.
    private func formattingEnded(
        by signal: Int32,
        of node: ClusterFile.Node,
        _ size: ByteSize
    ) -> CommandFailure {
        guard signal == SIGXFSZ else {
            return CommandFailure(
                "format_failed",
                "The store of \(node.name) could not be made: signal \(signal) ended "
                    + "'volnode format'.",
                remedy: "Try again, or see \(layout.logFile(node.name))."
            )
        }
        return CommandFailure(
            "format_failed",
            "The store of \(node.name) could not be made: \(size.exactText) is more than a file "
                + "may have here (signal \(signal), SIGXFSZ).",
            remedy: "Raise the limit with 'ulimit -f unlimited', or choose another --store-size."
        )
    }

    /// The nodes whose stores are there already and have another size than `size`, with theirs.
    package func stores(otherThan size: ByteSize) -> [(node: String, size: ByteSize)] {
        file.nodes.compactMap { node in
            let attributes = try? FileManager.default.attributesOfItem(
                atPath: layout.storeFile(node.name)
            )
            guard let present = (attributes?[.size] as? NSNumber)?.uint64Value,
                present != size.byteCount
            else { return nil }
            return (node.name, ByteSize(byteCount: present))
        }
    }

    /// A share of four fifths of the free space, at most 64 GiB, and 16 GiB where there are several
    /// nodes, in whole GiB: a store that grows must not fill the file system that it lies on.
    private func defaultStoreSize() throws(CommandFailure) -> ByteSize {
        var space = statvfs()
        // SAFETY: writes one `statvfs` that outlives the call.
        guard unsafe statvfs(layout.directory, &space) == 0 else {
            throw CommandFailure(
                "io_error",
                "Cannot find out the free space of \(layout.directory): \(systemErrorText())."
            )
        }
        let free = UInt64(space.f_bavail) * UInt64(space.f_frsize)
        let storeless = file.nodes.filter { !Path.exists(layout.storeFile($0.name)) }.count
        let share = free / 5 * 4 / UInt64(max(1, storeless))
        let gibibytes = min(share >> 30, file.nodes.count > 1 ? 16 : 64)
        guard gibibytes >= 1 else {
            throw CommandFailure(
                "no_space",
                "The file system of \(layout.directory) has \(ByteSize(byteCount: free)) free; "
                    + "each node's store takes at least 1GiB.",
                remedy: "Choose another directory with --data DIR, or a size with --store-size."
            )
        }
        return ByteSize(byteCount: gibibytes << 30)
    }

    // MARK: - Processes

    /// The file of one of our programs: it lies beside this one.
    private func program(_ name: String) throws(CommandFailure) -> String {
        let own = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath()
        let path = own.deletingLastPathComponent().appendingPathComponent(name).path
        guard Path.isAccessible(path, X_OK) else {
            throw CommandFailure(
                "program_missing",
                "There is no \(name) beside \(own.path).",
                remedy: "Build it: swift build --product \(name)"
            )
        }
        return path
    }

    /// Starts a program that outlives this one, and remembers it.
    private func launch(
        _ name: String,
        program executable: String,
        _ arguments: [String]
    ) throws -> ProcessRecord {
        let log = try Descriptor.open(layout.logFile(name), O_WRONLY | O_CREAT | O_APPEND)
        defer { log.close() }
        var specification = ChildSpecification(
            try program(executable),
            arguments,
            output: log.number,
            error: log.number
        )
        specification.isDetached = true
        let pid = try specification.launch()
        guard let record = ProcessRecord(running: pid) else {
            _ = ChildEnd.wait(for: pid)
            throw failureToStart(name, "it ended at once")
        }
        do {
            try DocumentFile.write(record, to: layout.processFile(name))
        } catch {
            record.send(SIGKILL)
            _ = ChildEnd.wait(for: pid)
            throw error
        }
        return record
    }

    /// Waits until `isServing`, the program ends, or time is up; `isOurs` says whether this call
    /// started it.
    private func wait(
        for name: String,
        _ process: ProcessRecord,
        _ verb: String,
        isOurs: Bool = true,
        isServing: () async -> Bool
    ) async throws {
        let deadline = ContinuousClock.now + .seconds(secondsMax)
        var pause = Duration.milliseconds(20)
        while true {
            if let end = ChildEnd.poll(process.pid) {
                Path.remove(layout.processFile(name))
                switch end {
                case .exited(let code): throw failureToStart(name, "it ended with code \(code)")
                case .signalled(let number): throw failureToStart(name, "signal \(number) ended it")
                }
            }
            if await isServing() { return }
            if !isOurs, !process.isRunning { throw failureToStart(name, "it ended just now") }
            if process.isSuspended { throw hung(name, process, "a signal has stopped it") }
            guard ContinuousClock.now < deadline else {
                if !isOurs {
                    throw hung(name, process, "no answer within \(secondsMax) seconds")
                }
                throw CommandFailure(
                    "start_timeout",
                    "\(name) did not \(verb) within \(secondsMax) seconds.",
                    remedy: "See \(layout.logFile(name)); wait longer with --timeout SECONDS."
                )
            }
            try await Task.sleep(for: pause)
            pause = min(pause * 2, .milliseconds(250))
        }
    }

    /// A program that is there and does not serve; to start it does not help.
    private func hung(_ name: String, _ process: ProcessRecord, _ how: String) -> CommandFailure {
        let data = "--data \(layout.directory.shellQuoted)"
        let anew = "volctl dev kill \(name) \(data) && volctl dev start \(name) \(data)"
        let remedy =
            process.isSuspended
            ? "Continue it: kill -CONT \(process.pid); or start it anew: \(anew)"
            : "See \(layout.logFile(name)), or start it anew: \(anew)"
        return CommandFailure(
            "not_answering",
            "\(name) runs, as process \(process.pid), but does not answer: \(how).",
            remedy: remedy
        )
    }

    private func failureToStart(_ name: String, _ how: String) -> CommandFailure {
        CommandFailure(
            "start_failed",
            "\(name) did not start (\(how)): \(lastLogLine(name))",
            remedy: "See \(layout.logFile(name))."
        )
    }

    /// The last line of the program's log, which usually says why it ended.
    private func lastLogLine(_ name: String) -> String {
        guard let data = FileManager.default.contents(atPath: layout.logFile(name)) else {
            return "it left no log"
        }
        let text = String(decoding: data.suffix(4096), as: UTF8.self)
        let lines = text.split(whereSeparator: \.isNewline).map(String.init)
        // Wrong usage ends in advice about --help; what is wrong stands before that.
        if lines.last?.hasPrefix(" ") == true,
            let error = lines.last(where: { $0.hasPrefix("Error: ") })
        {
            return String(error.dropFirst("Error: ".count))
        }
        return lines.last ?? "it left no word"
    }
}
