// One process per data directory: an advisory lock that the kernel drops when the process ends.

import Foundation

/// Holds `DIRECTORY/lock` while it lives.
final class DirectoryLock: Sendable {
    private let descriptor: CInt

    /// Takes the lock, without waiting.
    ///
    /// - Throws: ``MetadataError/databaseLocked(path:)`` when another process has it.
    init(directory: String) throws(MetadataError) {
        let path = directory + "/lock"
        // SAFETY: the string lives for the call; `open` keeps nothing of it.
        descriptor = unsafe open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else {
            throw .databaseUnusable(path: directory, detail: "it is not writable")
        }
        guard flock(descriptor, LOCK_EX | LOCK_NB) == 0 else {
            _ = Glibc.close(descriptor)
            throw .databaseLocked(path: directory)
        }
    }

    deinit { _ = Glibc.close(descriptor) }
}
