// Parts of paths, as text.
//
// Foundation's own trap on a path of one character: see Docs/WORKAROUNDS.md.

/// Parts of paths.
package enum FilePath {
    /// The directory that something lies in.
    ///
    /// - Parameter path: Its path; slashes at the end do not count.
    /// - Returns: The path before the last part, "/" for what lies in the root, "" for a name
    ///   alone.
    package static func parent(of path: String) -> String {
        let path = trimmed(path)
        guard let slash = path.lastIndex(of: "/") else { return "" }
        return String(trimmed(String(path[...slash])))
    }

    /// The last part of a path.
    ///
    /// - Parameter path: The path; slashes at the end do not count.
    /// - Returns: What lies behind the last slash before those.
    package static func name(of path: String) -> String {
        let path = trimmed(path)
        guard path != "/", let slash = path.lastIndex(of: "/") else { return String(path) }
        return String(path[path.index(after: slash)...])
    }

    /// A path without slashes at its end, but for the root.
    private static func trimmed(_ path: String) -> Substring {
        var rest = path[...]
        while rest.count > 1, rest.last == "/" { rest.removeLast() }
        return rest
    }
}
