// What people read: tables, lines of errors, suggestions, bars.

import ControlAPI
import Foundation
import ProgramMain
import TestSupport
import Testing
import volctl

@Suite struct NodeTextTests {
    private func node(_ room: StoreRoom?, usedPercent: UInt64, draining: Bool = false) -> Node {
        Node(
            name: "n1",
            state: .up,
            draining: draining,
            adminEndpoint: "http://127.0.0.1:1",
            nbdEndpoint: nil,
            nbdUnixPath: nil,
            nbdTLS: .off,
            storeIdentity: String(repeating: "0", count: 32),
            version: "test",
            space: StoreSpaceUsage(
                capacityByteCount: 100 << 30,
                liveByteCount: usedPercent << 30,
                availableByteCount: (100 - usedPercent) << 30,
                garbageByteCount: 0,
                room: room
            ),
            volumeCount: 1,
            lastSeenAt: nil
        )
    }

    @Test(
        "a node that fills is seen to",
        arguments: [
            (84, .ample, "up"), (100, nil, "up"), (85, .scarce, "up, filling"),
            (100, .scarce, "up, filling"), (70, .refusing, "up, full"),
            (3, .waiting, "up, disk full"),
        ] as [(UInt64, StoreRoom?, String)]
    )
    func nodeTable_saysHowFull(percent: UInt64, room: StoreRoom?, state: String) {
        let terminal = Terminal(columnCount: nil, hasColor: false)
        let node = node(room, usedPercent: percent)
        let line = nodeTable([node]).rendered(on: terminal).split(separator: "\n")[1]
        #expect(line.contains("\(percent)%"))
        #expect(line.contains(" \(state) "))
        let text = nodeText(node)
        #expect(text.contains("\(percent)%"))
        #expect(text.contains("delete volumes") == (room == .scarce || room == .refusing))
        #expect(text.contains("make room on the file system") == (room == .waiting))
        #expect(text.contains("writes are refused") == (room == .refusing))
    }

    @Test("stores are told apart by their paths")
    func storeTable_stores_haveLines() {
        func store(
            _ path: String,
            _ liveByteCount: UInt64,
            _ failures: StoreFailures?
        ) -> NodeStore {
            NodeStore(
                path: path,
                identity: nil,
                space: StoreSpaceUsage(
                    capacityByteCount: 100 << 30,
                    liveByteCount: liveByteCount,
                    availableByteCount: (100 << 30) - liveByteCount,
                    garbageByteCount: 0
                ),
                failures: failures
            )
        }
        let terminal = Terminal(columnCount: nil, hasColor: false)
        let table = storeTable([
            store("/dev/a", 25 << 30, nil), store("/dev/b", 0, StoreFailures()),
            store("/dev/c", 0, StoreFailures(requestCount: 1)),
            store("/dev/d", 0, StoreFailures(stopped: true, requestCount: 1)),
        ])
        let lines = table.rendered(on: terminal).split(separator: "\n")
        #expect(lines.count == 5)
        #expect(lines[0].hasPrefix("STORE   STATE    CAPACITY   LIVE  USED  AVAILABLE  IDENTITY"))
        #expect(lines[1].hasPrefix("/dev/a  -          100GiB  25GiB   25%      75GiB  -"))
        #expect(lines[2].hasPrefix("/dev/b  good       100GiB     0B    0%     100GiB  -"))
        #expect(lines[3].hasPrefix("/dev/c  damaged "))
        #expect(lines[4].hasPrefix("/dev/d  stopped "))
    }

    @Test(
        "a node whose stores could not serve everything is seen to",
        arguments: [
            ([nil], "up", "Failures:      -"),
            ([.init(), nil], "up", "none since it was started"),
            ([.init(requestCount: 1)], "up, damaged", "1 request since it was started"),
            (
                [.init(requestCount: 2, volume: "a"), .init(requestCount: 1)], "up, damaged",
                "3 requests since it was started, the last of volume a"
            ),
            (
                [.init(requestCount: 1), .init(stopped: true)], "up, store stopped, damaged",
                "a store has stopped, see the node's log; 1 request"
            ),
            (
                [.init(stopped: true)], "up, store stopped",
                "a store has stopped, see the node's log"
            ),
        ] as [([StoreFailures?], String, String)]
    )
    func nodeTable_saysWhatFailed(failures: [StoreFailures?], state: String, text: String) {
        var node = node(.ample, usedPercent: 3)
        let space = StoreSpaceUsage(stores: [])
        node.stores = failures.map {
            NodeStore(path: "/dev/a", identity: nil, space: space, failures: $0)
        }
        let terminal = Terminal(columnCount: nil, hasColor: false)
        let line = nodeTable([node]).rendered(on: terminal).split(separator: "\n")[1]
        #expect(line.contains(" \(state)  "))
        #expect(nodeText(node).contains(text + "\n"))
    }

    @Test("what its volumes would take in full stands beside what there is")
    func nodeTable_thinVolumes_areTold() {
        var node = node(.ample, usedPercent: 3)
        node.provisionedByteCount = 300 << 30
        let terminal = Terminal(columnCount: nil, hasColor: false)
        let lines = nodeTable([node]).rendered(on: terminal).split(separator: "\n")
        #expect(lines[0].contains("VOLUMES  PROVISIONED  CAPACITY"))
        #expect(lines[1].contains("      1       300GiB    100GiB"))
        #expect(nodeText(node).contains("1, 300GiB if they were written in full\n"))
    }

    @Test("one that drains too is both")
    func nodeTable_drains_isBoth() {
        let terminal = Terminal(columnCount: nil, hasColor: false)
        let table = nodeTable([node(.scarce, usedPercent: 90, draining: true)])
        #expect(table.rendered(on: terminal).contains("up, draining, filling"))
    }
}

@Suite struct FilePathTests {
    @Test(
        "a path has a directory and a name",
        arguments: [
            ("C", "", "C"), ("é", "", "é"), ("/", "/", "/"), ("/a", "/", "a"), ("a/b", "a", "b"),
            ("./a", ".", "a"), ("/a/b//", "/a", "b"), ("a//b", "a", "b"), ("", "", ""),
            ("/var/lib/store.img", "/var/lib", "store.img"),
        ]
    )
    func parts(path: String, parent: String, name: String) {
        #expect(FilePath.parent(of: path) == parent)
        #expect(FilePath.name(of: path) == name)
    }
}

@Suite struct TableTests {
    private func table() -> Table {
        var table = Table([.text("NAME"), .number("SIZE"), .text("NODE")])
        table.append(["vm1", "10GiB", "node1"])
        table.append(["a-much-longer-name-than-others", "512MiB", ""])
        return table
    }

    @Test("outside a terminal columns are aligned and nothing is cut")
    func rendered_pipe_isAligned() {
        let plain = Terminal(columnCount: nil, hasColor: false)
        #expect(
            table().rendered(on: plain) == """
                NAME                              SIZE  NODE
                vm1                              10GiB  node1
                a-much-longer-name-than-others  512MiB  -

                """
        )
    }

    @Test("on a narrow terminal the widest text column gives way", arguments: [24, 30, 40, 60])
    func rendered_narrowTerminal_fits(columnCount: Int) {
        let text = table().rendered(on: Terminal(columnCount: columnCount, hasColor: false))
        for line in text.split(separator: "\n") { #expect(line.count <= max(columnCount, 25)) }
        #expect(text.contains("512MiB"), "numbers are never cut")
    }

    @Test("colours are written only where they are wanted")
    func rendered_color_marksHeader() {
        let colored = table().rendered(on: Terminal(columnCount: 80, hasColor: true))
        #expect(colored.hasPrefix("\u{1B}[1mNAME"))
        let plain = table().rendered(on: Terminal(columnCount: 80, hasColor: false))
        #expect(!plain.contains("\u{1B}"))
    }

    @Test("control characters in a cell do not reach the terminal")
    func rendered_controlCharacters_areReplaced() {
        var table = Table([.text("NAME")])
        table.append(["evil\u{1B}[2J\nname"])
        let text = table.rendered(on: Terminal(columnCount: nil, hasColor: false))
        #expect(text == "NAME\nevil?[2J name\n")
    }

    @Test("NO_COLOR and a dumb terminal switch colours off, but a pipe has none anyway")
    func terminal_pipe_hasNoColor() throws {
        let directory = try TestDirectory()
        let file = try Descriptor.open("\(directory.path)/out", 0o101)
        defer { file.close() }
        let terminal = Terminal(descriptor: file.number, environment: ["TERM": "xterm"])
        #expect(terminal.columnCount == nil)
        #expect(!terminal.hasColor)
    }
}

@Suite struct OutputTests {
    private enum Sink {
        /// Makes standard output a device without room.
        static func fill() {
            // SAFETY: the C string lives for the call.
            let descriptor = unsafe open("/dev/full", O_WRONLY)
            precondition(descriptor >= 0 && dup2(descriptor, STDOUT_FILENO) >= 0)
        }

        /// Makes standard output a pipe that nobody reads.
        static func abandon() {
            signal(SIGPIPE, SIG_IGN)
            let pipe = Pipe()
            let writer = pipe.fileHandleForWriting.fileDescriptor
            precondition(dup2(writer, STDOUT_FILENO) >= 0)
            precondition(close(pipe.fileHandleForReading.fileDescriptor) == 0)
        }
    }

    private func message(_ result: ExitTest.Result?) throws -> String {
        String(decoding: try #require(result).standardErrorContent, as: UTF8.self)
    }

    @Test("what finds no room is a failure, for people and programs")
    func writeText_full_fails() async throws {
        let text = await #expect(
            processExitsWith: .exitCode(1),
            observing: [\.standardErrorContent]
        ) {
            Sink.fill()
            printText("a table")
        }
        #expect(try message(text).contains(": Standard output cannot be written: No space"))
        let document = await #expect(
            processExitsWith: .exitCode(1),
            observing: [\.standardErrorContent]
        ) {
            Sink.fill()
            printDocument(["a": 1])
        }
        #expect(try message(document).contains(": Standard output cannot be written"))
    }

    @Test("a reader that has gone is a failure for a document, and none for text")
    func writeText_brokenPipe_failsForPrograms() async throws {
        let text = await #expect(
            processExitsWith: .exitCode(0),
            observing: [\.standardErrorContent]
        ) {
            Sink.abandon()
            printText("a table")
            exit(3)
        }
        #expect(try !message(text).contains("volctl:"))
        let document = await #expect(
            processExitsWith: .exitCode(1),
            observing: [\.standardErrorContent]
        ) {
            Sink.abandon()
            printDocument(["a": 1])
        }
        #expect(try message(document).contains("Broken pipe"))
        await #expect(processExitsWith: .exitCode(1)) {
            Sink.abandon()
            printLine(["a": 1])
        }
    }
}

@Suite struct FailureTests {
    @Test("a failure is one line that says what and what to do")
    func line_anyFailure_isOneLine() {
        let failure = CommandFailure("x", "It broke:\nbadly.", remedy: "Mend it: mend\u{1B}[1m")
        #expect(failure.line == "volctl: It broke: badly. Mend it: mend?[1m")
        #expect(CommandFailure("x", "It broke.").line == "volctl: It broke.")
    }

    @Test("an error of the service keeps its code, what happened and what helps")
    func init_controlError_keepsAll() {
        let error = ControlError(.inUse, "It has clones.", help: "Delete them first.")
        let failure = CommandFailure(error)
        #expect(failure.code == "in_use")
        #expect(failure.line == "volctl: It has clones. Delete them first.")
    }

    @Test("an error of the service is a sentence wherever it is logged")
    func description_controlError_isSentence() {
        let error = ControlError(.unavailable, "The node is down.", help: "Start it.", holder: "h")
        #expect("\(error as any Error)" == "The node is down. Start it.")
        #expect("\(ControlError(.inUse, "It is in use."))" == "It is in use.")
    }

    @Test("words of a command are quoted when a shell would take them apart")
    func shellQuoted_words_areSafe() {
        #expect("vm1@a.b".shellQuoted == "vm1@a.b")
        #expect("/a dir/x".shellQuoted == "'/a dir/x'")
        #expect("it's".shellQuoted == #"'it'\''s'"#)
        #expect("".shellQuoted == "''")
        #expect("$(reboot)".shellQuoted == "'$(reboot)'")
    }
}

@Suite struct SuggestionTests {
    @Test("slips of the fingers find the name that was meant, nearest first")
    func nearestNames_slip_finds() {
        let names = ["vm1", "vm2", "database", "base", "vm10"]
        #expect(nearestNames(to: "vm1", among: names).first == "vm1")
        #expect(nearestNames(to: "databse", among: names) == ["database"])
        #expect(nearestNames(to: "dtaabase", among: names) == ["database"])
        #expect(nearestNames(to: "Base", among: names) == ["base"])
        #expect(nearestNames(to: "data", among: names) == ["database"], "a beginning counts")
    }

    @Test("nothing alike gives no suggestion")
    func didYouMean_nothingAlike_isNil() {
        #expect(didYouMean("web", among: ["database", "vm1"]) == nil)
        #expect(didYouMean("x", among: []) == nil)
        #expect(didYouMean("vm3", among: ["vm1", "vm2"]) == "did you mean 'vm1' or 'vm2'?")
    }

    @Test("a suggestion comes before what the service advises")
    func suggesting_name_precedesHelp() {
        let error = ControlError(.volumeNotFound, "No volume 'vm3'.", help: "List them.")
        #expect(error.suggesting("vm3", among: ["vm1"]).help == "Did you mean 'vm1'? List them.")
        #expect(error.suggesting("zzz", among: ["vm1"]) == error)
    }
}

@Suite struct ProgressTests {
    @Test("a bar fits its terminal and shows how far the work is", arguments: [30, 60, 80, 200])
    func barLine_anyWidth_fits(columnCount: Int) {
        for percent in stride(from: 0, through: 100, by: 5) {
            let line = barLine(
                "convert",
                fraction: Double(percent) / 100,
                detail: "1GiB of 2GiB",
                columnCount
            )
            #expect(line.count < columnCount)
        }
    }

    @Test("a bar looks as documented")
    func barLine_half_looksSo() {
        #expect(
            barLine("convert", fraction: 0.5, detail: "1GiB of 2GiB", 50)
                == "convert   [#########.........]  50%  1GiB of 2GiB"
        )
        #expect(barLine("download", fraction: nil, detail: "5MiB", 80) == "download  5MiB")
    }

    @Test("programs get one document per line, and the last value always")
    func update_json_writesLines() throws {
        var text = ""
        let progress = ProgressDisplay(
            .json,
            isJSON: true,
            terminal: Terminal(columnCount: nil, hasColor: false)
        ) { text += $0 }
        progress.begin("convert")
        progress.update(done: 1, of: 4)
        progress.update(done: 2, of: 4)
        progress.update(done: 4, of: 4)
        let events = try text.split(separator: "\n").map {
            try ControlJSON.decoder().decode(ProgressDisplay.Event.self, from: Data($0.utf8))
        }
        #expect(events.first?.event == "phase")
        #expect(events.first?.phase == "convert")
        #expect(events.last?.percent == 100)
        #expect(events.last?.byteCount == 4)
    }

    @Test("without a terminal nothing is shown unless asked for")
    func update_pipe_isSilent() {
        var text = ""
        let progress = ProgressDisplay(
            .auto,
            isJSON: false,
            terminal: Terminal(columnCount: nil, hasColor: false)
        ) { text += $0 }
        progress.begin("convert")
        progress.update(percent: 50)
        progress.note("hello")
        progress.finishLine()
        #expect(text.isEmpty)
    }
}
