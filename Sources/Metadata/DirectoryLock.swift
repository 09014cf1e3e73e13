// One process per data directory: an advisory lock that the kernel drops when the process ends.

import Foundation

/// Holds `DIRECTORY/lock` while it lives.
final class DirectoryLock: Sendable {
    private let descriptor: CInt

    /// How often the lock is tried, every 20 ms: a program that this process is just starting holds
    /// what it inherited until it runs.
    private static let attemptCountMax = 50

    /// Takes the lock.
    ///
    /// - Throws: ``MetadataError/databaseLocked(path:)`` when another process has it.
    init(directory: String) throws(MetadataError) {
        let path = directory + "/lock"
        // SAFETY: the string lives for the call; `open` keeps nothing of it.
        descriptor = unsafe open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else {
            throw .databaseUnusable(path: directory, detail: "it is not writable")
        }
        var attemptCount = 1
        while flock(descriptor, LOCK_EX | LOCK_NB) != 0 {
            guard errno == EWOULDBLOCK, attemptCount < Self.attemptCountMax else {
                _ = Glibc.close(descriptor)
                throw .databaseLocked(path: directory)
            }
            attemptCount += 1
            usleep(20_000)
        }
    }

    deinit { _ = Glibc.close(descriptor) }
}
