// What the tests do with files, and what they ask the system.

import Foundation

enum TestFiles {
    /// Bytes of this process in memory.
    static func residentByteCount() throws -> Int {
        let text = try String(contentsOfFile: "/proc/self/statm", encoding: .utf8)
        guard let pageCount = text.split(separator: " ").dropFirst().first.flatMap({ Int($0) })
        else { throw ClientError("statm: \(text)") }
        return pageCount * 4096
    }

    /// Writes a secret.
    static func write(_ text: String, to path: String) throws {
        try text.write(toFile: path, atomically: true, encoding: .utf8)
        try FileManager.default.setAttributes([.posixPermissions: 0o600], ofItemAtPath: path)
    }

    /// Writes bytes in the middle of a file.
    static func write(_ bytes: [UInt8], to path: String, at offset: UInt64) throws {
        guard let file = FileHandle(forWritingAtPath: path) else {
            throw ClientError("cannot open \(path)")
        }
        try file.seek(toOffset: offset)
        try file.write(contentsOf: Data(bytes))
        try file.close()
    }

    /// Makes a file's first MiB zeroes.
    static func blank(_ path: String) throws {
        guard let file = FileHandle(forWritingAtPath: path) else {
            throw ClientError("cannot open \(path)")
        }
        try file.write(contentsOf: Data(count: 1 << 20))
        try file.close()
    }
}
