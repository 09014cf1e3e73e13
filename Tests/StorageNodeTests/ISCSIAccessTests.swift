import Foundation
import ISCSISession
import StorageNode
import TestSupport
import Testing

@Suite struct ISCSIAccessTests {
    private func access(_ text: String, mode: Int = 0o600) throws -> ISCSIAccess {
        let directory = try TestDirectory()
        defer { withExtendedLifetime(directory) {} }
        let path = directory.path + "/initiators"
        try text.write(toFile: path, atomically: false, encoding: .utf8)
        try FileManager.default.setAttributes([.posixPermissions: mode], ofItemAtPath: path)
        return try ISCSIAccess(path: path)
    }

    @Test("Rules are what the lines say")
    func file_rules_areRead() throws {
        let access = try access(
            """
            # who may use what
            iqn.2026-01.example:a  vm01  host:0123456789ab  cairn:abcdefghijkl

            iqn.2026-01.example:b  *     -   # trusted
            *                      vm02  any:0123456789ab
            """
        )
        #expect(
            access.rules == [
                ISCSIRule(
                    initiator: "iqn.2026-01.example:a",
                    volume: "vm01",
                    credentials: ISCSICredentials(
                        user: "host",
                        secret: Array("0123456789ab".utf8),
                        ownUser: "cairn",
                        ownSecret: Array("abcdefghijkl".utf8)
                    )
                ),
                ISCSIRule(initiator: "iqn.2026-01.example:b", volume: nil, credentials: nil),
                ISCSIRule(
                    initiator: nil,
                    volume: "vm02",
                    credentials: ISCSICredentials(user: "any", secret: Array("0123456789ab".utf8))
                ),
            ]
        )
    }

    @Test(
        "A line that is no rule is refused, with its number and without its secrets",
        arguments: [
            ("* *", ISCSIRuleFault.wordCount), ("* * - - -", .wordCount), ("host * -", .initiator),
            ("* * user", .credentials), ("* * :0123456789ab", .credentials),
            ("* * - cairn:abcdefghijkl", .credentials), ("* * user:0123456789a", .secretLength),
            ("* * user:0123456789ab own:short", .secretLength),
            ("* * user:0123456789ab own:0123456789ab", .sameSecret),
        ]
    )
    func file_malformed_isRefused(_ line: String, _ fault: ISCSIRuleFault) throws {
        do {
            _ = try access("\n" + line + "\n")
            Issue.record("\(line) was accepted")
        } catch let error as ISCSIAccessError {
            guard case .malformed(_, let number, let found) = error else {
                Issue.record("\(error)")
                return
            }
            #expect(number == 2)
            #expect(found == fault)
            #expect(!"\(error)".contains("0123456789a"))
        }
    }

    @Test("A file that others may look into is refused, and one that is not there")
    func file_exposed_isRefused() throws {
        for mode in [0o640, 0o604, 0o620, 0o601] {
            #expect(throws: ISCSIAccessError.self) { try access("* * -", mode: mode) }
        }
        #expect(throws: Never.self) { try access("* * -", mode: 0o400) }
        #expect(throws: ISCSIAccessError.unreadable(path: "/nowhere/at/all", errno: 2)) {
            try ISCSIAccess(path: "/nowhere/at/all")
        }
        #expect(throws: ISCSIAccessError.self) { try ISCSIAccess(path: "/tmp") }
    }
}
