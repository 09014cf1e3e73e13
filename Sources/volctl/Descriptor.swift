package import Glibc
import ProgramMain

/// A file descriptor with one owner, who closes it.
package final class Descriptor {
    /// The number; -1 once closed.
    package private(set) var number: Int32

    /// Takes over `number`.
    package init(owning number: Int32) { self.number = number }

    deinit { close() }

    /// Closes it; doing so again does nothing.
    ///
    /// A `defer` with it keeps the descriptor open for its scope, which a mere variable does not.
    package func close() {
        if number >= 0 { Glibc.close(number) }
        number = -1
    }

    /// Opens `path`; the descriptor is not inherited by programs started later.
    package static func open(
        _ path: String,
        _ flags: Int32,
        mode: mode_t = 0o644
    ) throws(CommandFailure) -> Descriptor {
        // SAFETY: the C string lives for the call.
        let number = unsafe Glibc.open(path, flags | O_CLOEXEC, mode)
        guard number >= 0 else {
            throw CommandFailure(
                "cannot_open",
                "Cannot open \(path): \(systemErrorText()).",
                remedy: errno == EACCES ? "Check its permissions." : nil
            )
        }
        return Descriptor(owning: number)
    }

    /// Makes a pipe: the end to read and the end to write.
    package static func pipe() throws(CommandFailure) -> (read: Descriptor, write: Descriptor) {
        var ends: [Int32] = [-1, -1]
        // SAFETY: pipe writes two Int32 into the array's storage.
        guard unsafe Glibc.pipe(&ends) == 0 else {
            throw CommandFailure("cannot_open", "Cannot make a pipe: \(systemErrorText()).")
        }
        return (Descriptor(owning: ends[0]), Descriptor(owning: ends[1]))
    }

    /// Lets the pipe hold 1 MiB, so that writer and reader run long stretches at a time; a kernel
    /// that refuses leaves it as it is.
    package func enlargePipe() { _ = fcntl(number, Self.setPipeSizeCommand, 1 << 20) }

    /// F_SETPIPE_SZ, which the headers hide unless `_GNU_SOURCE` is set.
    private static let setPipeSizeCommand: Int32 = 1031

    /// Reads what is there into `buffer`, waiting for the first byte.
    ///
    /// - Returns: The number of bytes; 0 at the end; nil when a signal interrupted the wait.
    package func read(into buffer: inout [UInt8]) throws(CommandFailure) -> Int? {
        // SAFETY: the pointer and count are those of one live buffer.
        let count = unsafe buffer.withUnsafeMutableBytes { bytes in
            unsafe Glibc.read(number, bytes.baseAddress, bytes.count)
        }
        if count >= 0 { return count }
        if errno == EINTR || errno == EAGAIN { return nil }
        throw CommandFailure("io_error", "Cannot read: \(systemErrorText()).")
    }
}
