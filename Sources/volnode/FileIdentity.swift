// Which file or device a path leads to.

import Glibc

/// A file or device, whatever it is called.
struct FileIdentity: Hashable {
    private let device: UInt64
    private let number: UInt64

    /// Finds out what `path` leads to, a link followed; nil when that is nothing.
    init?(of path: String) {
        var status = stat()
        // SAFETY: the C string and the struct outlive the call.
        guard unsafe stat(path, &status) == 0 else { return nil }
        // A disk has a node in more than one directory: what counts is which disk.
        let isBlockDevice = status.st_mode & S_IFMT == S_IFBLK
        device = isBlockDevice ? .max : UInt64(status.st_dev)
        number = UInt64(isBlockDevice ? UInt64(status.st_rdev) : UInt64(status.st_ino))
    }
}
