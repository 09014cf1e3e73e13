// "Did you mean": the name nearest to one that does not exist.

/// `did you mean 'a'?`, or nil when no name is near.
///
/// A third of the letters may be wrong, and one always may; a beginning of three letters counts as
/// near, too.
package func didYouMean(_ name: String, among names: [String]) -> String? {
    let wanted = Array(name.lowercased().utf8)
    let distanceMax = max(1, wanted.count / 3)
    var best: (distance: Int, name: String)?
    for candidate in names {
        let letters = Array(candidate.utf8)
        let isBeginning = wanted.count >= 3 && letters.starts(with: wanted)
        let distance = isBeginning ? 1 : editDistance(wanted, letters)
        guard distance <= distanceMax else { continue }
        if let best, (best.distance, best.name) <= (distance, candidate) { continue }
        best = (distance, candidate)
    }
    return best.map { "did you mean '\($0.name)'?" }
}

/// How many letters are put in, taken out, replaced or swapped with their neighbour.
private func editDistance(_ left: [UInt8], _ right: [UInt8]) -> Int {
    var rows = [Array(0...right.count)]
    for (row, letter) in left.enumerated() {
        var current = [row + 1]
        for (column, other) in right.enumerated() {
            var least = min(rows[row][column + 1], current[column]) + 1
            least = min(least, rows[row][column] + (letter == other ? 0 : 1))
            if row > 0, column > 0, letter == right[column - 1], left[row - 1] == other {
                least = min(least, rows[row - 1][column - 1] + 1)
            }
            current.append(least)
        }
        rows.append(current)
    }
    return rows[left.count][right.count]
}
