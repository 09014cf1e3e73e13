// "Did you mean": the names nearest to one that does not exist.

/// Up to three of `names` that a slip of the fingers may have turned into `name`, nearest first.
package func nearestNames(to name: String, among names: [String]) -> [String] {
    let wanted = Array(name.lowercased())
    // A third of the letters may be wrong, and one always may.
    let distanceMax = max(1, wanted.count / 3)
    let near = names.compactMap { candidate -> (distance: Int, name: String)? in
        let letters = Array(candidate.lowercased())
        let distance =
            letters.starts(with: wanted) && wanted.count >= 3
            ? 1 : editDistance(wanted, letters, atMost: distanceMax)
        return distance <= distanceMax ? (distance, candidate) : nil
    }
    return near.sorted { ($0.distance, $0.name) < ($1.distance, $1.name) }.prefix(3).map(\.name)
}

/// `did you mean 'a' or 'b'?`, or nil without candidates.
package func didYouMean(_ name: String, among names: [String]) -> String? {
    let nearest = nearestNames(to: name, among: names).map { "'\($0)'" }
    guard !nearest.isEmpty else { return nil }
    return "did you mean \(nearest.joined(separator: " or "))?"
}

/// The Levenshtein distance with adjacent transpositions, or more than `limit` when it is more.
private func editDistance(_ left: [Character], _ right: [Character], atMost limit: Int) -> Int {
    guard abs(left.count - right.count) <= limit else { return limit + 1 }
    var beforeLast = [Int](repeating: 0, count: right.count + 1)
    var last = Array(0...right.count)
    for row in 0..<left.count {
        var current = [row + 1]
        for column in 0..<right.count {
            let substituted = last[column] + (left[row] == right[column] ? 0 : 1)
            var best = min(substituted, last[column + 1] + 1, current[column] + 1)
            let swapped =
                row > 0 && column > 0 && left[row] == right[column - 1]
                && left[row - 1] == right[column]
            if swapped { best = min(best, beforeLast[column - 1] + 1) }
            current.append(best)
        }
        (beforeLast, last) = (last, current)
    }
    return last[right.count]
}
