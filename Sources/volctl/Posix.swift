// The few calls of the system that take paths, so that unsafe expressions stay in one place.

import Foundation
import Glibc
import ProgramMain

/// Calls of the system with paths; each leaves its reason in `errno`.
package enum Path {
    /// Whether something has the name `path`.
    package static func exists(_ path: String) -> Bool { isAccessible(path, F_OK) }

    /// Whether this process may use `path` as `mode` (R_OK, W_OK, X_OK) says.
    package static func isAccessible(_ path: String, _ mode: Int32) -> Bool {
        // SAFETY: the C string lives for the call.
        unsafe access(path, mode) == 0
    }

    /// Makes a directory and those above it; one that is there already is as good.
    package static func makeDirectories(_ path: String) -> Bool {
        if status(path)?.kind == .directory { return true }
        let parent = FilePath.parent(of: path)
        guard parent.isEmpty || parent == path || makeDirectories(parent) else { return false }
        // SAFETY: the C string lives for the call.
        guard unsafe mkdir(path, 0o777) != 0 else { return true }
        guard errno == EEXIST else { return false }
        // Another process may have been quicker.
        if status(path)?.kind == .directory { return true }
        errno = ENOTDIR
        return false
    }

    /// Removes a file.
    @discardableResult
    package static func remove(_ path: String) -> Bool {
        // SAFETY: the C string lives for the call.
        unsafe unlink(path) == 0
    }

    /// Gives a file another name, replacing what has it.
    package static func rename(_ path: String, to name: String) -> Bool {
        // SAFETY: both C strings live for the call.
        unsafe Glibc.rename(path, name) == 0
    }

    /// Gives a file another name that nothing has.
    ///
    /// - Returns: Whether it has the name now; if not, `errno` is EEXIST when something else has.
    package static func renameUnlessTaken(_ path: String, to name: String) -> Bool {
        // A second name, which is made only where there is none, and then the first one goes.
        // SAFETY: both C strings live for the call.
        if unsafe link(path, name) == 0 {
            remove(path)
            return true
        }
        // Some file systems have no links: there all there is, is to look just before.
        guard errno != EEXIST, linkStatus(name) == nil else {
            errno = EEXIST
            return false
        }
        return rename(path, to: name)
    }

    /// What the system knows about `path`, a link followed; nil when there is none.
    package static func status(_ path: String) -> FileStatus? {
        var status = stat()
        // SAFETY: writes one `stat` that outlives the call.
        return unsafe stat(path, &status) == 0 ? FileStatus(status) : nil
    }

    /// What the system knows about `path` itself; nil when there is none.
    package static func linkStatus(_ path: String) -> FileStatus? {
        var status = stat()
        // SAFETY: writes one `stat` that outlives the call.
        return unsafe lstat(path, &status) == 0 ? FileStatus(status) : nil
    }
}

/// What the system knows about a file.
package struct FileStatus: Hashable, Sendable {
    /// What kind of thing it is.
    package enum Kind: Hashable, Sendable {
        case file
        case directory
        case blockDevice
        /// A symbolic link that was not followed.
        case link
        case other
    }

    /// What kind of thing it is.
    package var kind: Kind
    /// The bytes that it takes on its disk, holes left out.
    package var allocatedByteCount: UInt64

    fileprivate init(_ status: stat) {
        switch status.st_mode & S_IFMT {
        case S_IFREG: kind = .file
        case S_IFDIR: kind = .directory
        case S_IFBLK: kind = .blockDevice
        case S_IFLNK: kind = .link
        default: kind = .other
        }
        // st_blocks counts 512 bytes whatever the file system's block.
        allocatedByteCount = UInt64(max(0, status.st_blocks)) * 512
    }
}
