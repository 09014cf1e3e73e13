import Foundation
import Testing

extension Conformance {
    /// Every wrong use ends as documented, says what is wrong and what helps, and loses nothing.
    @Suite("Bad input", .serialized, BadInputFixtureTrait(), .needs("nbdcopy", "qemu-io", "curl"))
    struct BadInputTests {
        /// Set to write the messages down instead of comparing them.
        static let isRecording = ProcessInfo.processInfo.environment["CAIRN_RECORD"] != nil

        @Test("a wrong use is refused as documented", arguments: BadInput.all)
        func wrongUse_isRefused(_ input: BadInput) async throws {
            let fixture = try #require(BadInputFixture.current)
            let context = try BadInputCase(fixture: fixture)
            try await input.prepare(context)
            let before = try await context.digests()
            let result = try await context.perform(input)
            #expect(result.exitCode == input.exitCode, "\(result.report)")
            let message = context.message(of: result, of: input)
            for word in input.mentions {
                let isMentioned = message.range(of: word, options: [.caseInsensitive]) != nil
                #expect(isMentioned, "no word of “\(word)” in: \(message)\n\(result.report)")
            }
            // One line, unless the usage follows.
            let isOurs = ["volnode", "volmeta", "volctl"].contains(input.command[0])
            if isOurs && input.exitCode == 1 {
                #expect(message.utf8.count <= 400, "a message is one line for people")
                #expect(!message.contains("Fatal error"), "\(result.report)")
            }
            if input.opensStore {
                let store = context.scratch.file("store.img")
                try await succeed(TestEnvironment.program("volnode"), ["check", store])
            } else {
                // What was there is there, byte for byte.
                let after = try await context.digests()
                for (name, digest) in before {
                    #expect(after[name] == digest, "a refused command changed \(name)")
                }
            }
            try await fixture.checkNothingLost(after: input.name)
            if BadInputTests.isRecording {
                try BadInputDocument.record(input, message: message)
            } else {
                let documented = BadInputDocument.current[input.name]?.message
                #expect(
                    documented == message,
                    "Docs/bad-input.md says otherwise (CAIRN_RECORD=1 …)"
                )
            }
        }

        @Test("the document has a row for each wrong use, and no other")
        func document_isComplete() throws {
            #expect(BadInput.all.count >= 60)
            #expect(Set(BadInput.all.map(\.name)).count == BadInput.all.count)
            guard !BadInputTests.isRecording else { return }
            let rows = BadInputDocument.current
            #expect(Set(rows.keys) == Set(BadInput.all.map(\.name)))
            for input in BadInput.all {
                let row = try #require(rows[input.name])
                #expect(row.command == input.command.joined(separator: " "))
                #expect(row.exitCode == input.exitCode)
            }
        }
    }
}

extension BadInputCase {
    /// The line that a person reads: the last on standard error when something was refused, the
    /// first when the usage or advice follows it.
    func message(of result: CommandResult, of input: BadInput) -> String {
        let text = result.errorOutput.isEmpty ? result.output : result.errorOutput
        let lines = text.split(separator: "\n").filter { !$0.allSatisfy(\.isWhitespace) }
        let isFirst = input.exitCode == 2 || input.command[0] == "nbdinfo"
        let line = isFirst ? lines.first : lines.last
        return normalise(line.map(String.init) ?? "")
            .replacingOccurrences(of: "|", with: "\\|")
    }

    /// A checksum of each file in the case's directory.
    func digests() async throws -> [String: String] {
        var result: [String: String] = [:]
        for name in try FileManager.default.contentsOfDirectory(atPath: scratch.path) {
            let path = scratch.file(name)
            let type = try FileManager.default.attributesOfItem(atPath: path)[.type]
            guard type as? FileAttributeType == .typeRegular else { continue }
            let sum = try await succeed("/usr/bin/cksum", [path])
            result[name] = sum.output.split(separator: " ").prefix(2).joined(separator: " ")
        }
        return result
    }
}
