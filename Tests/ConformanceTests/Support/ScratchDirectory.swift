import Foundation

/// A directory of one test, removed with it.
///
/// Its path is short, because a unix socket's path has 107 bytes at most. It lies on a real
/// disk where there is one (`CAIRN_SCRATCH`, or `/var/tmp`), because a store wants direct I/O
/// and a memory file system refuses that.
final class ScratchDirectory: Sendable {
    let path: String

    init() throws {
        let base = ProcessInfo.processInfo.environment["CAIRN_SCRATCH"] ?? "/var/tmp"
        let name = "cairn-\(String(UInt64.random(in: 0...UInt64.max), radix: 36))"
        path = "\(base)/\(name)"
        try FileManager.default.createDirectory(
            atPath: path,
            withIntermediateDirectories: false,
            attributes: [.posixPermissions: 0o700]
        )
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }

    /// The path of a file in it.
    func file(_ name: String) -> String { "\(path)/\(name)" }

    /// Writes a file in it and returns its path.
    @discardableResult
    func write(_ name: String, _ text: String) throws -> String {
        try text.write(toFile: file(name), atomically: false, encoding: .utf8)
        return file(name)
    }
}
