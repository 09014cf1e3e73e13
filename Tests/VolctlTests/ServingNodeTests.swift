// Tools that depend on a node are given up when it falls silent, and only then.

import ChildProcesses
import Foundation
import Glibc
import TestSupport
import Testing
import volctl

@Suite struct ServingNodeTests {
    private func node(port: UInt16) -> ServingNode {
        var limits = SilenceLimits()
        limits.answerSecondsMax = 0.5
        limits.patienceSeconds = 0.4
        limits.standstillSecondsMax = 0.5
        return ServingNode(name: "n1", uri: "nbd://127.0.0.1:\(port)/v@s", limits: limits)
    }

    private let sleeper = Tool(name: "sleep", package: "coreutils")

    @Test(
        "a node that takes a connection and says nothing is told before the work begins",
        .enabled(if: areInstalled("qemu-img"))
    )
    func requireAnswer_silentNode_isTold() throws {
        // It waits for the client, which waits for it, as for a program that is stopped.
        let server = try CannedServer(answer: "")
        let failure = #expect(throws: CommandFailure.self) {
            try node(port: server.port).requireAnswer()
        }
        #expect(failure?.code == "unavailable")
        #expect(failure?.problem.contains("The node 'n1' does not answer: 1 s after") == true)
        let anew = "volctl dev kill n1 && volctl dev start n1"
        #expect(failure?.remedy?.contains(anew) == true, "to start what runs does not help")
    }

    @Test("a refusal is an answer", .enabled(if: areInstalled("qemu-img")))
    func requireAnswer_refusal_isAnswer() throws {
        var node = node(port: try LoopbackPort.pick(avoiding: []))
        node.limits.answerSecondsMax = 30
        try node.requireAnswer()
    }

    @Test(
        "a tool that stands still because its node is silent is given up",
        .enabled(if: areInstalled("qemu-img"))
    )
    func run_silentNode_isGivenUp() throws {
        let server = try CannedServer(answer: "")
        let failure = #expect(throws: CommandFailure.self) {
            try sleeper.run(["600"], servedBy: node(port: server.port)) { _ in }
        }
        #expect(failure?.problem.contains("'n1' does not answer: nothing has moved for") == true)
    }

    @Test(
        "a tool that stands still though its node refuses others has longer, and not for ever",
        .enabled(if: areInstalled("qemu-img"))
    )
    func run_standstill_hasLimit() throws {
        var node = node(port: try LoopbackPort.pick(avoiding: []))
        node.limits.answerSecondsMax = 30
        let failure = #expect(throws: CommandFailure.self) {
            try sleeper.run(["600"], servedBy: node) { _ in }
        }
        #expect(failure?.problem.contains("'n1' refuses a new connection: ") == true)
        #expect(failure?.problem.contains("onnection refused") == true)
    }

    @Test(
        "a tool that stands still though its node lets others in has longer, and not for ever",
        .enabled(if: areInstalled("qemu-img", "qemu-nbd"))
    )
    func run_standstillOfToolAlone_hasLimit() async throws {
        let directory = try TestDirectory()
        let disk = try directory.file("disk", [UInt8](repeating: 0, count: 1 << 20))
        let port = try LoopbackPort.pick(avoiding: [])
        let null = try Descriptor.open("/dev/null", O_WRONLY)
        defer { null.close() }
        let server = try ChildSpecification(
            try Tool(name: "qemu-nbd", package: "qemu-utils").located(),
            ["-r", "-t", "-f", "raw", "-x", "v@s", "-b", "127.0.0.1", "-p", "\(port)", disk],
            output: null.number,
            error: null.number
        ).start()
        defer {
            kill(server, SIGKILL)
            _ = ChildEnd.wait(for: server)
        }
        var node = node(port: port)
        node.limits.answerSecondsMax = 30
        let look = ["info", "-f", "raw", node.uri]
        let listens = try await isEventually {
            (try? Tool.qemuImage.run(look, within: 30))??.isSuccess == true
        }
        try #require(listens)
        let failure = #expect(throws: CommandFailure.self) {
            try sleeper.run(["600"], servedBy: node) { _ in }
        }
        #expect(failure?.problem.contains("although the node 'n1' takes") == true)
    }

    @Test("what ends in time is not given up, and what does not is")
    func run_within_endsInTime() throws {
        #expect(try sleeper.run(["0"], within: 60)?.isSuccess == true)
        #expect(try sleeper.run(["600"], within: 0.3) == nil)
    }

    @Test("a program that works is seen to, and one that waits is seen not to")
    func runNanoseconds_work_counts() async throws {
        let before = try #require(StandstillClock.runNanoseconds(of: getpid()))
        let digest = ContentDigest()
        digest.update(zeroCount: 64 << 20)
        _ = digest.finish()
        #expect(try #require(StandstillClock.runNanoseconds(of: getpid())) > before)
        let null = try Descriptor.open("/dev/null", O_WRONLY)
        defer { null.close() }
        let pid = try ChildSpecification(
            try sleeper.located(),
            ["600"],
            output: null.number,
            error: null.number
        ).start()
        defer {
            kill(pid, SIGKILL)
            _ = ChildEnd.wait(for: pid)
        }
        // Once it sleeps it does nothing more; when that is, nobody knows.
        var last: UInt64?
        var isStill = false
        for _ in 0..<100 where !isStill {
            let now = StandstillClock.runNanoseconds(of: pid)
            isStill = now != nil && now == last
            last = now
            try await Task.sleep(for: .milliseconds(100))
        }
        #expect(isStill)
        #expect(StandstillClock.runNanoseconds(of: 1 << 22) == nil)
    }
}
