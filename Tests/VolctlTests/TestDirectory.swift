// A directory for one test, removed with it.

import Foundation
import Glibc

/// A temporary directory with a short path: unix sockets go into it.
final class TestDirectory: Sendable {
    let path: String

    init() throws {
        path = "/tmp/volctl-test.\(getpid()).\(UInt32.random(in: 0...UInt32.max))"
        try FileManager.default.createDirectory(atPath: path, withIntermediateDirectories: false)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    /// Writes a file and gives its path.
    func file(_ name: String, _ bytes: [UInt8] = []) throws -> String {
        let file = "\(path)/\(name)"
        try Data(bytes).write(to: URL(fileURLWithPath: file))
        return file
    }

    /// Writes a file of text and gives its path.
    func file(_ name: String, text: String) throws -> String { try file(name, Array(text.utf8)) }
}

/// The file of the repository called `name` below `Fixtures/volctl`.
func fixture(_ name: String, of testFile: String = #filePath) throws -> String {
    let root = URL(fileURLWithPath: testFile)
        .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
    let url = root.appendingPathComponent("Fixtures/volctl/\(name)")
    return try String(contentsOf: url, encoding: .utf8)
}

/// Whether all programs of `names` are installed.
func areInstalled(_ names: String...) -> Bool {
    names.allSatisfy { name in
        (ProcessInfo.processInfo.environment["PATH"] ?? "").split(separator: ":")
            .contains { FileManager.default.isExecutableFile(atPath: "\($0)/\(name)") }
    }
}
