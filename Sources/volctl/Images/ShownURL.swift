// URLs as people may see them.

/// A URL without what may be secret in it: for messages, progress, events and the catalogue.
///
/// A user and password, the query (which is where signatures of object stores are) and the
/// fragment are replaced by `…`. Of what is no proper URL rather more is, and of one that could
/// also be no proper one: `host:80/a@b` may be a user `host` whose password begins with digits.
package func shownURL(_ url: String) -> String {
    let start = authorityStart(of: url)
    let rest = url[start...]
    // A path alone has no user, nor has a query.
    if start == url.startIndex, let first = rest.first, "/?#".contains(first) {
        return cutQuery(rest)
    }
    let authority = rest.prefix { !"/?#".contains($0) }
    let path = rest.prefix { !"?#".contains($0) }
    if let at = authority.lastIndex(of: "@") {
        return url[..<start] + "…@" + cutQuery(rest[rest.index(after: at)...])
    }
    guard !authority.hasPrefix("["), authority.contains(":"), rest.contains("@") else {
        return url[..<start] + cutQuery(rest)
    }
    // A slash or question mark in a password should have been escaped.
    guard let at = path.lastIndex(of: "@") else { return url[..<start] + "…" }
    return url[..<start] + "…@" + cutQuery(rest[rest.index(after: at)...])
}

/// Where user and host are to be looked for: after `SCHEME://` or `//`, else at the start.
private func authorityStart(of url: String) -> String.Index {
    let afterScheme: String.Index
    if url.hasPrefix("//") {
        afterScheme = url.startIndex
    } else {
        // Not one that stands further on, in a query.
        guard let mark = url.firstRange(of: "://"),
            url[..<mark.lowerBound].allSatisfy({ $0.isLetter || $0.isNumber || "+-.".contains($0) })
        else { return url.startIndex }
        afterScheme = url.index(after: mark.lowerBound)
    }
    // Some clients take any number of slashes.
    return url[afterScheme...].firstIndex { $0 != "/" } ?? url.endIndex
}

private func cutQuery(_ text: Substring) -> String {
    guard let mark = text.firstIndex(where: { $0 == "?" || $0 == "#" }) else { return String(text) }
    return text[...mark] + "…"
}
