// The command line itself: what parses, what does not, and the documents that scripts read.

import ArgumentParser
import ControlAPI
import Foundation
import Glibc
import ProgramMain
import Testing
import volctl

/// A program that goes wrong in the way its argument says.
private struct FaultyProgram: ServerProgram {
    static let configuration = CommandConfiguration(commandName: "faulty")

    @Argument var way: Way

    enum Way: String, ExpressibleByArgument {
        case refusal
        case surprise
        case late
    }

    static func failure(_ error: any Error) -> Failure? { nil }

    func run() async throws {
        switch way {
        case .refusal: throw Failure("No.", help: "Ask again.")
        case .surprise: throw Surprise()
        case .late: throw ValidationError("That does not go with this.")
        }
    }

    private struct Surprise: Error, CustomStringConvertible {
        var description: String { "a surprise\non two lines" }
    }
}

@Suite struct ProgramEndTests {
    /// What a program that ended wrote to standard error.
    private func text(_ result: ExitTest.Result?) throws -> String {
        String(decoding: try #require(result).standardErrorContent, as: UTF8.self)
    }

    @Test("a refusal is one line and exit code 1")
    func runProgram_failure_isTold() async throws {
        let result = await #expect(
            processExitsWith: .exitCode(1),
            observing: [\.standardErrorContent]
        ) { await FaultyProgram.runProgram(arguments: ["refusal"]) }
        #expect(try text(result) == "faulty: No. Ask again.\n")
    }

    @Test("an error that nobody expected is no wrong usage: one line, exit code 1")
    func runProgram_unknownError_isNoUsage() async throws {
        let result = await #expect(
            processExitsWith: .exitCode(1),
            observing: [\.standardErrorContent]
        ) { await FaultyProgram.runProgram(arguments: ["surprise"]) }
        let text = try text(result)
        #expect(text.hasPrefix("faulty: It ended with an error that it does not know: a surprise"))
        #expect(text.filter(\.isNewline).count == 1, "\(text)")
        #expect(!text.contains("Usage"))
    }

    @Test("wrong usage shows the usage and is exit code 2, found at once or as it runs")
    func runProgram_usage_showsIt() async throws {
        let early = await #expect(
            processExitsWith: .exitCode(2),
            observing: [\.standardErrorContent]
        ) { await FaultyProgram.runProgram(arguments: ["nonsense"]) }
        #expect(try text(early).contains("Usage: faulty"))
        let late = await #expect(
            processExitsWith: .exitCode(2),
            observing: [\.standardErrorContent]
        ) { await FaultyProgram.runProgram(arguments: ["late"]) }
        #expect(try text(late).contains("That does not go with this."))
    }

    @Test("too few open files are refused before anything needs them")
    func runProgram_fewOpenFiles_isTold() async throws {
        let result = await #expect(
            processExitsWith: .exitCode(1),
            observing: [\.standardErrorContent]
        ) {
            var limit = rlimit(rlim_cur: 12, rlim_max: 12)
            // SAFETY: the kernel reads the value during the call.
            unsafe setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
            await FaultyProgram.runProgram(arguments: ["refusal"])
        }
        let text = try text(result)
        #expect(text.hasPrefix("faulty: Only 12 files may be open here, and "))
        #expect(text.contains("ulimit -n 1024"))
    }

    @Test("too little address space is refused before anything traps for want of it")
    func runProgram_littleAddressSpace_isTold() async throws {
        let result = await #expect(
            processExitsWith: .exitCode(1),
            observing: [\.standardErrorContent]
        ) {
            let mapped = try String(contentsOfFile: "/proc/self/statm", encoding: .utf8)
            let pageCount = try #require(mapped.split(separator: " ").first.flatMap { UInt($0) })
            // What it has, and 32 MiB.
            let byteCount = pageCount * UInt(sysconf(Int32(_SC_PAGESIZE))) + (32 << 20)
            var limit = rlimit(rlim_cur: byteCount, rlim_max: byteCount)
            // SAFETY: the kernel reads the value during the call.
            unsafe setrlimit(__rlimit_resource_t(RLIMIT_AS.rawValue), &limit)
            await FaultyProgram.runProgram(arguments: ["refusal"])
        }
        let text = try text(result)
        #expect(text.hasPrefix("faulty: It may take only "), "\(text)")
        #expect(text.contains("MiB of address space here, and needs "), "\(text)")
        #expect(text.contains("'ulimit -v unlimited'"), "\(text)")
    }

    @Test("a soft limit of open files is raised")
    func runProgram_softLimit_isRaised() async throws {
        let result = await #expect(
            processExitsWith: .exitCode(1),
            observing: [\.standardErrorContent]
        ) {
            var limit = rlimit()
            let resource = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
            // SAFETY: the kernel writes and reads the value during the calls.
            unsafe getrlimit(resource, &limit)
            limit.rlim_cur = 12
            unsafe setrlimit(resource, &limit)
            await FaultyProgram.runProgram(arguments: ["refusal"])
        }
        #expect(try text(result) == "faulty: No. Ask again.\n")
    }
}

@Suite struct CommandLineTests {
    /// Every command of the contract, spelled as scripts do.
    static let contract = [
        "dev up", "dev up --nodes 3 --data /d --json", "dev down", "dev down --data /d",
        "dev status --data /d", "dev kill node1 --data /d", "dev start node1 --data /d",
        "volume create v --size 10GiB",
        "volume create v --size 10GiB --replicas 3 --block-size 4096 --durability writethrough",
        "volume create v --size 10GiB --block-size 512 --durability writeback",
        "volume list", "volume show v", "volume resize v 20GiB", "volume delete v",
        "snapshot create v@s", "snapshot list v", "snapshot delete v@s", "snapshot rollback v@s",
        "clone v@s w", "attach v --host h",
        "attach v --host h --via n --read-only --force --protocol nbd",
        "attach v --host h --protocol iscsi", "detach v --host h", "node list", "node show n",
        "node drain n", "node delete n", "events", "events --follow", "image import f v",
        "image import http://h/f v", "image list", "image delete i:1", "volume export v f",
        "volume export v@s f --format raw", "volume export v f --format qcow2",
    ]

    @Test("every command of the contract parses, with --json too", arguments: contract)
    func parse_contract_isAccepted(line: String) throws {
        let words = line.split(separator: " ").map(String.init)
        _ = try Volctl.parseAsRoot(words)
        _ = try Volctl.parseAsRoot(words.filter { $0 != "--json" } + ["--json"])
    }

    @Test(
        "a misspelt command is answered with the ones that it may have been meant as",
        arguments: [
            ("volme list", "'volctl' has no subcommand 'volme'; did you mean 'volume'?"),
            ("volume lsit", "'volctl volume' has no subcommand 'lsit'; did you mean 'list'?"),
            (
                "volume craete v --size 1",
                "'volctl volume' has no subcommand 'craete'; did you mean"
            ),
            ("--data /d volume list", "'--data' stands before a subcommand of 'volctl'"),
            ("node explode", "'volctl node' has no subcommand 'explode'; it has list, show"),
        ]
    )
    func usageText_misspeltCommand_suggests(line: String, text: String) throws {
        let words = line.split(separator: " ").map(String.init)
        let error = #expect(throws: (any Error).self) { try Volctl.parseAsRoot(words) }
        let message = Volctl.usageText(of: try #require(error), arguments: words)
        #expect(message.hasPrefix("Error: \(text)"), "\(message)")
        #expect(message.contains("Usage: volctl"), "\(message)")
    }

    @Test(
        "help of a command that does not exist is wrong usage, and names those that do",
        arguments: [
            ("help volme", "'volctl' has no subcommand 'volme'; did you mean 'volume'?"),
            ("help nope", "'volctl' has no subcommand 'nope'; did you mean 'node'?"),
            ("help volume lsit", "'volctl volume' has no subcommand 'lsit'; did you mean 'list'?"),
            ("help volume help", "'volctl volume' has no subcommand 'help'; it has create"),
            ("help clone x", "'volctl clone' has no subcommands, so no 'x'."),
            ("volme --help", "'volctl' has no subcommand 'volme'; did you mean 'volume'?"),
            ("volume lsit -h", "'volctl volume' has no subcommand 'lsit'; did you mean 'list'?"),
        ]
    )
    func usageText_helpForNothing_suggests(line: String, text: String) throws {
        let words = line.split(separator: " ").map(String.init)
        let message = try #require(Volctl.usageText(ofHelpFor: words))
        #expect(message.hasPrefix("Error: \(text)"), "\(message)")
        #expect(message.contains("Usage: volctl"), "\(message)")
    }

    @Test(
        "help of what exists is help",
        arguments: [
            "help", "help help", "help volume", "help volume ls", "help volume create -h",
            "--help", "volume --help", "volume create v --help", "--version",
            "--generate-completion-script bash",
        ]
    )
    func usageText_helpForCommand_isNone(line: String) {
        let words = line.split(separator: " ").map(String.init)
        #expect(Volctl.usageText(ofHelpFor: words) == nil)
    }

    @Test("help of a command that does not exist ends as wrong usage does")
    func endAfterParsing_helpForNothing_isUsage() async throws {
        let result = await #expect(
            processExitsWith: .exitCode(2),
            observing: [\.standardErrorContent]
        ) {
            do {
                var command = try Volctl.parseAsRoot(["help", "nope"])
                try command.run()
            } catch {
                Volctl.endIfUsage(error, arguments: ["help", "nope"])
            }
        }
        let text = String(decoding: try #require(result).standardErrorContent, as: UTF8.self)
        #expect(text.contains("did you mean 'node'?"), "\(text)")
    }

    @Test(
        "a value that begins with a dash is not called missing",
        arguments: [
            ("volume create v --size -5", "'-5' is negative; --size takes no negative number."),
            ("volume create v --size -5GiB", "'-5GiB' is negative; --size takes no negative"),
            ("volume create v --size=-5", "The value '-5' is invalid for '--size <size>': '-5' is"),
            ("dev up --nodes -1", "'-1' is negative; --nodes takes no negative number."),
            ("dev up --timeout -.5", "'-.5' is negative; --timeout takes no negative number."),
            ("volume resize v -5", "'-5' is negative; no argument takes a negative number."),
            ("dev down --data -d", "The value of --data is missing; one that begins with '-' is"),
            ("volume create v --size --json", "Missing value for '--size <size>'"),
            ("volume create v --size", "Missing value for '--size <size>'"),
            ("volume resize v", "Missing expected argument '<size>'"),
            ("clone -x", "There is no option '-x' here."),
            ("volume create -s 1GiB v", "There is no option '-s' here."),
            ("volume create v --json", "Missing expected argument '--size <size>'"),
            ("clone v@s c -x", "Unknown option '-x'"),
        ]
    )
    func usageText_dashedValue_isExplained(line: String, text: String) throws {
        let words = line.split(separator: " ").map(String.init)
        let error = #expect(throws: (any Error).self) { try Volctl.parseAsRoot(words) }
        let message = Volctl.usageText(of: try #require(error), arguments: words)
        #expect(message.hasPrefix("Error: \(text)"), "\(message)")
        #expect(message.contains("Usage: volctl"), "\(message)")
    }

    @Test(
        "what is no number, or far too large a one, is told what is taken",
        arguments: [
            ("dev up --nodes 99999999999999999999", "it takes 1 to 64, and that is far more"),
            ("dev up --nodes x", "it takes 1 to 64, and that is no whole number"),
            ("dev up --nodes 65", "--nodes takes 1 to 64."),
            ("dev up --timeout 1.5", "it takes 1 to 3600, and that is no whole number"),
            ("volume create v --size 1GiB --replicas x", "it takes 1 to 5, and that is no"),
            ("node purge n1 v1", "it takes 1 to 9007199254740991, and that is no whole number"),
            ("events --after x", "it takes 0 or more, and that is no whole number"),
            (
                "events --after 99999999999999999999",
                "it takes 0 to \(UInt64.max), and that is far more"
            ),
        ]
    )
    func usageText_noNumber_namesRange(line: String, text: String) throws {
        let words = line.split(separator: " ").map(String.init)
        let error = #expect(throws: (any Error).self) { try Volctl.parseAsRoot(words) }
        let message = Volctl.usageText(of: try #require(error), arguments: words)
        #expect(message.prefix { !$0.isNewline }.contains(text), "\(message)")
    }

    @Test("a size that no number holds is told the limit of a volume")
    func usageText_hugeSize_namesLimit() throws {
        let words = ["volume", "create", "v", "--size", "99999999999999999999"]
        let error = #expect(throws: (any Error).self) { try Volctl.parseAsRoot(words) }
        let message = Volctl.usageText(of: try #require(error), arguments: words)
        #expect(message.contains("is too large; a volume has at most 64TiB"), "\(message)")
    }

    @Test("other wrong usage keeps the parser's words")
    func usageText_wrongOption_isUnchanged() throws {
        let words = ["volume", "list", "--frobnicate"]
        let error = #expect(throws: (any Error).self) { try Volctl.parseAsRoot(words) }
        let message = Volctl.usageText(of: try #require(error), arguments: words)
        #expect(message == Volctl.fullMessage(for: try #require(error)))
    }

    @Test(
        "wrong usage is refused before anything is done",
        arguments: [
            "nonsense", "volume", "volume create", "volume create v", "volume create v --size",
            "volume create v --size 10GB", "volume create v --size -1", "volume create v --size x",
            "volume create v --size 1GiB --block-size 1024",
            "volume create v --size 1GiB --durability fast",
            "volume create v --size 1GiB --replicas many", "volume create v w --size 1GiB",
            "volume resize v", "volume resize v big", "volume show", "snapshot create v",
            "snapshot create @s", "snapshot create v@", "snapshot create v@s@t", "clone v w",
            "clone v@s", "clone i: w", "attach v", "attach v --host", "detach v",
            "attach v --host h --protocol fc", "image import f", "image delete i",
            "volume export v", "volume export v f --format vmdk",
            "volume export v f --compress", "volume export v@ f", "dev up --nodes 0",
            "dev up --nodes 65", "volume create v --size 0", "volume create v --size 5000",
            "volume create v --size 65T", "volume create .v --size 1GiB",
            "volume create v@s --size 1GiB", "volume create ../v --size 1GiB",
            "volume create v --size 1GiB --replicas 0", "volume resize v 4097", "volume show a/b",
            "attach v --host -h", "attach v --host h:1", "clone v@s w@x", "clone v@s/t w",
            "node show n!", "volume export a/b f", "image delete i:1/2", "image import f v@s",
            "volume list --endpoint ::::", "volume list --endpoint http://h", "dev up --nodes two",
            "dev up --timeout 0", "dev kill",
            "dev up --preallocate some", "events --after yesterday", "volume list --frobnicate",
        ]
    )
    func parse_wrongUsage_isRefused(line: String) {
        let words = line.split(separator: " ").map(String.init)
        guard words != ["volume"] else {
            // A group alone shows its help.
            #expect((try? Volctl.parseAsRoot(words)) != nil)
            return
        }
        do {
            let command = try Volctl.parseAsRoot(words)
            Issue.record("parsed as \(command)")
        } catch {
            #expect(Volctl.exitCode(for: error) != .success)
            #expect(!Volctl.fullMessage(for: error).isEmpty)
        }
    }

    @Test("help of every command tells what it does", arguments: contract)
    func help_everyCommand_isThere(line: String) throws {
        let words = line.split(separator: " ").map(String.init)
        let command = try Volctl.parseAsRoot(words)
        let help = Volctl.helpMessage(for: type(of: command), columns: 100)
        #expect(help.contains("OVERVIEW"))
        #expect(help.contains("--json"))
    }

    @Test(
        "completion scripts are made for the shells that are documented",
        arguments: ["bash", "zsh", "fish"]
    )
    func completion_shells_haveScripts(shell: String) {
        let script = Volctl.completionScript(for: CompletionShell(rawValue: shell) ?? .bash)
        #expect(script.contains("volctl"))
        #expect(script.contains("rollback"))
    }

    @Test("Docs/volctl.md has a section for every command")
    func docs_everyCommand_isDescribed() throws {
        let root = URL(fileURLWithPath: #filePath)
            .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
        let text = try String(
            contentsOf: root.appendingPathComponent("Docs/volctl.md"),
            encoding: .utf8
        )
        for command in Self.commandNames(Volctl.self, "volctl") {
            #expect(text.contains("\n### \(command)\n"), "\(command) has no section")
        }
    }

    /// The full names of all commands that do something.
    private static func commandNames(_ type: any ParsableCommand.Type, _ name: String) -> [String] {
        let children = type.configuration.subcommands
        guard !children.isEmpty else { return [name] }
        return children.flatMap { child in
            commandNames(child, "\(name) \(child.configuration.commandName ?? "")")
        }
    }
}

@Suite struct DocumentTests {
    private func document(_ value: some Encodable) throws -> String {
        String(decoding: try ControlJSON.encoder(pretty: true).encode(value), as: UTF8.self) + "\n"
    }

    private let time = Date(timeIntervalSince1970: 1_767_225_600)

    private var attachment: ControlAPI.Attachment {
        ControlAPI.Attachment(
            volume: "vm1",
            host: "hv1",
            node: "node1",
            protocol: .nbd,
            readOnly: false,
            epoch: 3,
            state: .attached,
            nbdURI: "nbd://127.0.0.1:20002/vm1:3",
            nbdUnixURI: "nbd+unix:///vm1:3?socket=/d/nodes/node1/nbd.sock",
            attachedAt: time
        )
    }

    private var volume: Volume {
        Volume(
            id: 7,
            name: "vm1",
            byteCount: 10 << 30,
            logicalBlockByteCount: 512,
            durability: .writeback,
            state: .ready,
            primary: "node1",
            replicas: ["node1"],
            snapshotCount: 1,
            layerCount: 2,
            source: VolumeSource(volume: "base", snapshot: "clean"),
            attachments: [attachment],
            space: SpaceUsage(
                logicalByteCount: 10 << 30,
                writtenByteCount: 3 << 30,
                sharedByteCount: 2 << 30,
                exclusiveByteCount: 1 << 30,
                reclaimableByteCount: 512 << 20
            ),
            createdAt: time,
            epoch: 3
        )
    }

    @Test("the documents that scripts read keep their shape")
    func documents_fixtures_areSame() throws {
        #expect(try document(volume) == fixture("volume-show.json"))
        #expect(try document(attachment) == fixture("attach.json"))
        #expect(
            try document(FailureDocument(CommandFailure("in_use", "No.", remedy: "Do this.")))
                == fixture("failure.json")
        )
        #expect(
            try document(DeletionDocument(volume: "vm1", snapshot: "s", deleted: true))
                == fixture("snapshot-delete.json")
        )
        #expect(try document(DetachDocument(volume: "vm1", host: "hv1")) == fixture("detach.json"))
    }

    @Test("the state of a development cluster keeps its shape")
    func devStatus_fixture_isSame() throws {
        let layout = ClusterLayout(directory: "/nonexistent/dev")
        let file = ClusterFile(
            metaPort: 20_001,
            nodes: [.init(name: "node1", nbdPort: 20_002, adminPort: 20_003)]
        )
        #expect(try document(DevStatus(layout, file)) == fixture("dev-status.json"))
    }

    @Test("people see where a volume's bytes are")
    func volumeText_space_isAccounted() {
        let text = volumeText(volume)
        for line in [
            "Name:          vm1", "Size:          10GiB", "Primary:       node1",
            "Cloned from:   base@clean", "Attached to:   hv1", "Written:       3GiB",
            "  shared:      2GiB with other volumes",
            "  exclusive:   1GiB back when it is deleted",
            "  reclaimable: 512MiB back by itself",
        ] {
            #expect(text.split(separator: "\n").contains(Substring(line)), "\(line)\nin\n\(text)")
        }
        var silent = volume
        silent.space = nil
        #expect(volumeText(silent).contains("Space:        unknown"))
    }

    @Test("people see how the replicas of a volume are, and whether requests wait")
    func volumeText_replicas_areShown() {
        var replicated = volume
        replicated.replicas = ["n1", "n2", "n3"]
        replicated.replicaStates = [
            VolumeReplicaState(node: "n1", state: .complete, behind: 0),
            VolumeReplicaState(node: "n2", state: .resyncing, behind: 7),
            VolumeReplicaState(node: "n3", state: .unknown),
        ]
        replicated.replicaStates?[1].lacksRoom = true
        #expect(volumeText(replicated).contains("n2 (resyncing, 7 writes behind, no room), n3\n"))
        replicated.replicaStates?[1].lacksRoom = false
        replicated.serviceState = .suspended
        let text = volumeText(replicated)
        #expect(text.contains("n1 (complete), n2 (resyncing, 7 writes behind), n3\n"))
        #expect(text.contains("suspended"))
        let plain = Terminal(columnCount: nil, hasColor: false)
        #expect(volumeTable([replicated]).rendered(on: plain).contains("suspended"))
    }

    @Test("a size that the units round is shown in bytes too")
    func volumeText_oddSize_isExact() {
        var odd = volume
        odd.byteCount = 1_572_864_000 + 4096
        #expect(volumeText(odd).contains("Size:          1.4GiB (1572868096 bytes)"))
    }

    @Test("a rollback that changes the size says so")
    func rollbackText_sizes_areSaid() throws {
        let snapshot = try SnapshotReference(parsing: "vm1@monday")
        let same = rollbackText(snapshot, from: 4096, to: 4096)
        #expect(same == "vm1 reads as vm1@monday now.")
        let other = rollbackText(snapshot, from: 2 << 30, to: 1 << 30)
        #expect(other == "\(same) Its size went from 2GiB back to 1GiB.")
    }

    @Test("a volume whose node is silent is not called ready")
    func volumeTable_silentNode_isNotReady() {
        var silent = volume
        silent.space = nil
        silent.warning = "The node 'node1' does not answer."
        let plain = Terminal(columnCount: nil, hasColor: false)
        let text = volumeTable([silent]).rendered(on: plain)
        #expect(text.contains("unavailable: The node 'node1' does not answer."))
        #expect(!text.contains("ready"))
        // One volume is shown as the list has it.
        func state() -> String? {
            let line = volumeText(silent).split(separator: "\n").first { $0.hasPrefix("State:") }
            return line?.split(separator: " ").last.map(String.init)
        }
        #expect(state() == "unavailable")
        silent.state = .creating
        #expect(volumeTable([silent]).rendered(on: plain).contains("creating: The node"))
        #expect(state() == "creating")
    }

    @Test("the list of volumes shows who has them")
    func volumeTable_attached_isShown() {
        let plain = Terminal(columnCount: nil, hasColor: false)
        #expect(
            volumeTable([volume]).rendered(on: plain) == """
                NAME   SIZE  WRITTEN  SNAPSHOTS  NODE   ATTACHED TO  STATE
                vm1   10GiB     3GiB          1  node1  hv1          ready

                """
        )
    }
}
