internal import Glibc

/// Small files, whole.
package enum TextFile {
    /// The text of a file; nil when it cannot be read or is larger than a job file may be.
    package static func read(_ path: String) -> String? {
        // SAFETY: the path is lent for the call.
        let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else { return nil }
        defer { _ = close(descriptor) }
        var text: [UInt8] = []
        var bytes = [UInt8](repeating: 0, count: 1 << 16)
        while text.count <= JobLimits.jobFileByteCountMax {
            // SAFETY: the array is borrowed for the call with its own count.
            let count = unsafe bytes.withUnsafeMutableBytes { buffer in
                unsafe Glibc.read(descriptor, buffer.baseAddress, buffer.count)
            }
            guard count >= 0 else { return nil }
            if count == 0 { return String(decoding: text, as: UTF8.self) }
            text += bytes.prefix(count)
        }
        return nil
    }

    /// Looks whether a file can be written, and leaves what is in it.
    ///
    /// - Throws: ``BenchError`` with path and reason.
    package static func checkWritable(_ path: String) throws(BenchError) {
        // SAFETY: the path is lent for the call.
        let descriptor = unsafe open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else { throw BenchError("\(path): \(describe(errno))", code: errno) }
        _ = close(descriptor)
    }

    /// Writes a file anew.
    ///
    /// - Throws: ``BenchError`` with path and reason.
    package static func write(_ text: String, to path: String) throws(BenchError) {
        let file = try OutputFile(path: path)
        defer { file.close() }
        try file.write(text)
    }
}

/// A file that is written from its beginning on, or a stream that is open already.
package struct OutputFile: Sendable {
    private let path: String
    private let descriptor: Int32

    /// Standard output.
    package static let standardOutput = OutputFile(path: "standard output", descriptor: 1)
    /// Standard error.
    package static let standardError = OutputFile(path: "standard error", descriptor: 2)

    private init(path: String, descriptor: Int32) {
        self.path = path
        self.descriptor = descriptor
    }

    /// Makes the file empty, or new.
    ///
    /// - Throws: ``BenchError`` with path and reason.
    package init(path: String) throws(BenchError) {
        self.path = path
        // SAFETY: the path is lent for the call.
        descriptor = unsafe open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o644)
        guard descriptor >= 0 else { throw BenchError("\(path): \(describe(errno))", code: errno) }
    }

    /// Writes all of `text`.
    ///
    /// - Throws: ``BenchError`` with path and reason; part of it may be written.
    package func write(_ text: String) throws(BenchError) {
        var rest = Array(text.utf8)[...]
        while !rest.isEmpty {
            // SAFETY: the slice is borrowed for the call with its own count.
            let count = unsafe rest.withUnsafeBytes { bytes in
                unsafe Glibc.write(descriptor, bytes.baseAddress, bytes.count)
            }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { throw BenchError("\(path): \(describe(errno))", code: errno) }
            rest = rest.dropFirst(count)
        }
    }

    /// Whether a person is looking.
    package var isTerminal: Bool { isatty(descriptor) == 1 }

    /// Closes the file.
    package func close() { _ = Glibc.close(descriptor) }
}
