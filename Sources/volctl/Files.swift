// Small files that other programs may be reading: written whole or not at all.

import ControlAPI
import Foundation
import Glibc
import ProgramMain

/// Directories of the user, as the XDG base directory specification has them.
package struct UserDirectories: Sendable {
    /// The context and nothing else.
    package var configuration: String
    /// The default development cluster.
    package var state: String
    /// Downloads under way.
    package var cache: String

    /// Finds them from the environment; relative values do not count, as the specification says.
    package init(environment: [String: String] = ProcessInfo.processInfo.environment) {
        let home = environment["HOME"].flatMap { $0.isEmpty ? nil : $0 } ?? "/root"
        func directory(_ variable: String, _ fallback: String) -> String {
            guard let value = environment[variable], value.hasPrefix("/") else {
                return "\(home)/\(fallback)/cairn"
            }
            return "\(value)/cairn"
        }
        configuration = directory("XDG_CONFIG_HOME", ".config")
        state = directory("XDG_STATE_HOME", ".local/state")
        cache = directory("XDG_CACHE_HOME", ".cache")
    }

    /// The file that names the cluster used last.
    package var contextFile: String { "\(configuration)/context.json" }
    /// The development cluster's directory when none is given.
    package var defaultCluster: String { "\(state)/dev" }
}

/// What reading a file gave.
package enum FileContent<Document> {
    /// There is no such file.
    case absent
    /// It is there and does not hold what it should, or cannot be read; the text says why.
    case damaged(String)
    /// What it holds.
    case document(Document)
}

/// Reads and replaces small JSON files.
package enum DocumentFile {
    /// The largest file read, in bytes: a cluster of a thousand nodes needs a quarter of it.
    package static var byteCountMax: Int { 1 << 20 }

    /// Reads the document in `path`.
    package static func read<Document: Decodable>(
        _ type: Document.Type,
        from path: String
    ) -> FileContent<Document> {
        guard Path.exists(path) else {
            return errno == ENOENT || errno == ENOTDIR ? .absent : .damaged(systemErrorText())
        }
        guard let data = FileManager.default.contents(atPath: path) else {
            return .damaged("it cannot be read")
        }
        guard data.count <= byteCountMax else { return .damaged("it is too large") }
        guard let document = try? ControlJSON.decoder().decode(type, from: data) else {
            return .damaged(
                data.isEmpty ? "it is empty" : "it is not the JSON document it should be"
            )
        }
        return .document(document)
    }

    /// Replaces `path` by `document`: a reader, and a crash, see the old or the new one.
    package static func write(
        _ document: some Encodable,
        to path: String
    ) throws(CommandFailure) {
        let directory = FilePath.parent(of: path)
        try makeDirectory(directory)
        guard let data = try? ControlJSON.encoder(pretty: true).encode(document) else {
            preconditionFailure("documents of this program are encodable")
        }
        let temporary = "\(path).new.\(getpid())"
        do throws(CommandFailure) {
            let file = try Descriptor.open(temporary, O_WRONLY | O_CREAT | O_TRUNC, mode: 0o600)
            defer { file.close() }
            try file.writeAll(Array(data) + [UInt8(ascii: "\n")])
            guard fsync(file.number) == 0, Path.rename(temporary, to: path) else {
                throw CommandFailure("io_error", "Cannot write \(path): \(systemErrorText()).")
            }
        } catch {
            Path.remove(temporary)
            throw error
        }
    }

    /// Makes a directory and those above it.
    package static func makeDirectory(_ path: String) throws(CommandFailure) {
        guard !Path.makeDirectories(path) else { return }
        let reason = systemErrorText()
        throw CommandFailure(
            "cannot_write",
            "Cannot make the directory \(path): \(reason).",
            remedy: "Choose another with --data DIR, or change its owner."
        )
    }
}

/// A lock between programs, given back when the program ends however it ends.
package struct FileLock {
    private let file: Descriptor

    /// Takes the lock of `path`, waiting for at most `seconds`.
    ///
    /// - Parameters:
    ///   - path: The file; it is made when missing.
    ///   - seconds: How long to wait for its holder.
    ///   - onWait: Called once when it has to wait.
    /// - Throws: ``CommandFailure`` when the holder does not give it back in time.
    package init(path: String, seconds: Int, onWait: () -> Void) async throws {
        file = try Descriptor.open(path, O_RDWR | O_CREAT)
        let deadline = ContinuousClock.now + .seconds(seconds)
        var hasWaited = false
        while flock(file.number, LOCK_EX | LOCK_NB) != 0 {
            guard errno == EWOULDBLOCK || errno == EINTR, ContinuousClock.now < deadline else {
                throw CommandFailure(
                    "busy",
                    "Another volctl has held \(path) for \(seconds) seconds.",
                    remedy: "Wait for it, or find it with: fuser \(path.shellQuoted)"
                )
            }
            if !hasWaited { onWait() }
            hasWaited = true
            try await Task.sleep(for: .milliseconds(50))
        }
    }

    /// Gives the lock back; also keeps it until here.
    package func release() { file.close() }
}

extension Descriptor {
    /// Writes all of `bytes`.
    package func writeAll(_ bytes: [UInt8]) throws(CommandFailure) {
        var remaining = bytes[...]
        while !remaining.isEmpty {
            // SAFETY: the pointer and count are those of one live buffer.
            let count = unsafe remaining.withUnsafeBytes { bytes in
                unsafe Glibc.write(number, bytes.baseAddress, bytes.count)
            }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else {
                throw CommandFailure("io_error", "Cannot write: \(systemErrorText()).")
            }
            remaining = remaining.dropFirst(count)
        }
    }
}
