// A directory for one test.

import Foundation
import Synchronization

/// Directories that are there now.
private let present = Mutex<Set<String>>([])

/// Has those removed that somebody still has when the process ends.
private let removalAtExit: Void = {
    _ = atexit {
        for path in present.withLock({ $0 }) { try? FileManager.default.removeItem(atPath: path) }
    }
}()

/// A new directory, removed with all that is in it when nobody has it any more, at the latest when
/// the process ends.
///
/// Its path is short, because unix sockets go into it.
public final class TestDirectory: Sendable {
    /// Where it is.
    public let path: String

    /// Makes one.
    ///
    /// - Throws: What the system says.
    public init() throws {
        path = "/tmp/cairn-test-\(UUID().uuidString.prefix(13))"
        try FileManager.default.createDirectory(
            atPath: path,
            withIntermediateDirectories: false,
            attributes: [.posixPermissions: 0o700]
        )
        _ = removalAtExit
        present.withLock { _ = $0.insert(path) }
    }

    deinit {
        try? FileManager.default.removeItem(atPath: path)
        present.withLock { _ = $0.remove(path) }
    }
}
