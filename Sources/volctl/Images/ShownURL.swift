// URLs as people may see them.

/// A URL without what may be secret in it: for messages, progress, events and the catalogue.
///
/// A user and password, the query (which is where signatures of object stores are) and the
/// fragment are replaced by `…`. Of what is no proper URL rather more is.
package func shownURL(_ url: String) -> String {
    guard let scheme = url.firstRange(of: "://") else { return cutQuery(url[...]) }
    let rest = url[scheme.upperBound...]
    let end = rest.firstIndex { "/?#".contains($0) } ?? rest.endIndex
    var start = rest.startIndex
    if let at = rest[..<end].lastIndex(of: "@") {
        start = rest.index(after: at)
    } else if hasPassword(rest[..<end]), let at = rest.lastIndex(of: "@") {
        // A password with a slash or question mark in it, which should have been escaped.
        start = rest.index(after: at)
    }
    let hidden = start == rest.startIndex ? "" : "…@"
    return String(url[..<scheme.upperBound]) + hidden + cutQuery(rest[start...])
}

/// Whether something like `HOST:PORT` has no port: then it may be the start of `USER:PASSWORD`.
private func hasPassword(_ authority: Substring) -> Bool {
    guard !authority.hasPrefix("["), let colon = authority.firstIndex(of: ":") else {
        return false
    }
    return !authority[authority.index(after: colon)...].allSatisfy(\.isNumber)
}

private func cutQuery(_ text: Substring) -> String {
    guard let mark = text.firstIndex(where: { $0 == "?" || $0 == "#" }) else { return String(text) }
    return text[...mark] + "…"
}
