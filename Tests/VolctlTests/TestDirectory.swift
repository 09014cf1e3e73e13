// Files for one test, and what is there for all.

import Foundation
import Glibc
import TestSupport

extension TestDirectory {
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
