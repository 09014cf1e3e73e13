import Foundation
import Testing

extension BadInput {
    private static func client(
        _ name: String,
        _ command: [String],
        exitCode: Int32 = 1,
        mentions: [String],
        prepare: @escaping @Sendable (BadInputCase) async throws -> Void = { _ in }
    ) -> BadInput {
        BadInput(
            name: name,
            area: .client,
            command: command,
            exitCode: exitCode,
            mentions: mentions,
            prepare: prepare
        )
    }

    private static func shell(_ uri: String, _ program: String) -> [String] {
        ["nbdsh", "-c", "h.set_strict_mode(0)", "-u", uri, "-c", program]
    }

    /// What clients get wrong; the words are theirs, the errors ours.
    static let clientCases: [BadInput] = [
        client(
            "an export that is not there",
            ["nbdinfo", "nbd+unix:///none?socket=SOCKET"],
            mentions: ["none"]
        ),
        client(
            "a snapshot that is not there",
            ["nbdinfo", "nbd+unix:///vol@none?socket=SOCKET"],
            mentions: ["vol@none"]
        ),
        client(
            "writing to a snapshot",
            shell("SNAPSHOT", "h.pwrite(bytes(512), 0)"),
            mentions: ["not permitted"]
        ),
        client(
            "reading past the end",
            shell("URI", "h.pread(4096, 16 << 20)"),
            mentions: ["Invalid argument"]
        ),
        client(
            "writing past the end",
            shell("URI", "h.pwrite(bytes(4096), 16 << 20)"),
            mentions: ["No space left"]
        ),
        client(
            "trimming past the end",
            shell("URI", "h.trim(4096, 16 << 20)"),
            mentions: ["Invalid argument"]
        ),
        client(
            "a write that is not whole blocks",
            shell("BLOCKY", "h.pwrite(bytes(512), 512)"),
            mentions: ["Invalid argument"]
        ),
        client(
            "a flag that does not exist",
            [
                "nbdsh", "-u", "URI", "-c",
                "h.set_strict_mode(0); h.pread(4096, 0, 0x4000)",
            ],
            mentions: ["Invalid argument"]
        ),
    ]
}
