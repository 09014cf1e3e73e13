// libiscsi's own tests of a target, all of them, against a node in this process.

import BlockCore
import Foundation
import LogStore
import StorageNode
import TestSupport
import Testing

private let testProgram = "/usr/bin/iscsi-test-cu"

@Suite(
    "libiscsi's tests",
    .enabled(
        if: FileManager.default.isExecutableFile(atPath: testProgram),
        "needs iscsi-test-cu: Debian's libiscsi-bin"
    ),
    .timeLimit(.minutes(20))
)
struct ISCSIConformanceTests {
    /// What a test that does not pass has for a reason.
    private static let reasons: [String: String] = [
        "WriteAtomic16": "a write that crosses leaves of the map is several records: not atomic",
        "WriteSame10.ZeroBlocks": "WSNZ is 1: WRITE SAME needs a length",
        "WriteSame16.ZeroBlocks": "WSNZ is 1: WRITE SAME needs a length",
        "GetLBAStatus.UnmapSingle":
            "the test takes a physical block for one logical block (i + 1 for i + lbppb)",
        "iSCSITMF.LUNResetSimpleAsync":
            "the test looks for the answer before it has sent its request (line 157)",
    ]

    /// Tests that look at volumes of another kind: removable ones.
    private static let removable = ["PreventAllow.", "StartStopUnit."]
    private static let readOnly = ["ReadOnly."]

    /// What came of a test.
    private enum Outcome { case passed, skipped, failed }

    @Test("Every test of libiscsi passes on a volume of its kind, or has a reason not to")
    func libiscsi_allTests_pass() async throws {
        let names = try testNames()
        #expect(names.count > 200)
        let special = Self.removable + Self.readOnly
        try await run(names.filter { name in !special.contains { name.hasPrefix($0) } })
        try await run(names.filter { name in Self.removable.contains { name.hasPrefix($0) } }) {
            $0.hasRemovableUnits = true
        }
        try await run(
            names.filter { name in Self.readOnly.contains { name.hasPrefix($0) } },
            access: .readOnly
        )
    }

    /// The tests, without `ALL.`; SANITIZE is not there, and its tests need a flag of their own.
    private func testNames() throws -> [String] {
        let listing = try runProgram(testProgram, ["--list"]).output
        var names: [String] = []
        for line in listing.split(separator: "\n") where line.hasPrefix("ALL.") {
            let name = String(line.dropFirst("ALL.".count))
            let isTest = name.split(separator: ".").count == 2
            if isTest, !name.hasPrefix("Sanitize.") { names.append(name) }
        }
        return names
    }

    private func run(
        _ names: [String],
        access: VolumeAccess = .readWrite,
        configure: (inout NodeConfiguration) -> Void = { _ in }
    ) async throws {
        let node = try await TestNode(storeByteCount: 512 << 20) { configuration in
            configuration.iscsiListeners = [.tcp(host: "127.0.0.1", port: 0)]
            configure(&configuration)
        }
        try await node.makeVolume(
            "disk",
            id: 1,
            byteCount: 100 << 20,
            blockByteCount: 512,
            access: access
        )
        let url = "iscsi://\(try #require(node.node.iscsiListeners.first))/iqn.2026-01.cairn:disk/0"
        for name in names {
            let second = name.hasPrefix("MultipathIO.") ? [url] : []
            let result = try runProgram(
                testProgram,
                ["--dataloss", "--ignore", "-v", "-t", "ALL." + name, url] + second,
                within: 120
            )
            let (outcome, text) = judge(result)
            let isKnown = Self.reasons.keys.contains { name.hasPrefix($0) }
            #expect((outcome == .passed) != isKnown, "\(name) has \(outcome): \(text)")
        }
        await node.stop()
    }

    private func judge(_ result: ProgramResult) -> (Outcome, String) {
        let output = result.output + result.errorOutput
        // The program's own probing before the suite may say that something was skipped.
        let body = output.range(of: "Suite:").map { String(output[$0.lowerBound...]) } ?? output
        let summary = output.split(separator: "\n").first {
            $0.drop { $0 == " " }.hasPrefix("tests ")
        }
        let counts = (summary ?? "").split(separator: " ").compactMap { Int($0) }
        guard result.exitCode != nil, counts.count >= 4, counts[1] > 0, counts[3] == 0 else {
            return (.failed, String(body.suffix(800)))
        }
        return (body.contains("[SKIPPED]") ? .skipped : .passed, String(body.suffix(300)))
    }
}
