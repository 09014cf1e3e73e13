// Tables for people: aligned columns, cut to the terminal's width, plain text elsewhere.

package import ProgramMain

/// A table with a header row.
package struct Table: Sendable {
    /// One column.
    package struct Column: Sendable {
        /// The header, in capitals by custom.
        package var title: String
        /// Whether the cells are numbers or sizes, which align on the right.
        package var isNumeric: Bool

        /// Creates a left-aligned column.
        package static func text(_ title: String) -> Column {
            Column(title: title, isNumeric: false)
        }
        /// Creates a right-aligned column.
        package static func number(_ title: String) -> Column {
            Column(title: title, isNumeric: true)
        }
    }

    /// The columns, left to right.
    package var columns: [Column]
    /// The rows; each has one cell per column.
    package private(set) var rows: [[String]] = []

    /// Creates an empty table.
    package init(_ columns: [Column]) { self.columns = columns }

    /// Appends a row; an empty cell prints as a dash, so that columns stay countable.
    package mutating func append(_ cells: [String]) {
        precondition(cells.count == columns.count, "a row has one cell per column")
        rows.append(cells.map { $0.isEmpty ? "-" : $0.printable })
    }

    /// The table as lines that end with a newline.
    package func rendered(on terminal: Terminal) -> String {
        let titles = columns.map(\.title)
        var widths = titles.map(\.count)
        for row in rows {
            for (index, cell) in row.enumerated() { widths[index] = max(widths[index], cell.count) }
        }
        if let columnCount = terminal.columnCount { shrink(&widths, to: columnCount) }
        var text = Style.bold.apply(line(titles, widths), on: terminal) + "\n"
        for row in rows { text += line(row, widths) + "\n" }
        return text
    }

    private func line(_ cells: [String], _ widths: [Int]) -> String {
        var line = ""
        for (index, cell) in cells.enumerated() {
            let shown = cell.shortened(to: widths[index])
            let padding = String(repeating: " ", count: widths[index] - shown.count)
            if index > 0 { line += "  " }
            line += columns[index].isNumeric ? padding + shown : shown + padding
        }
        while line.last == " " { line.removeLast() }
        return line
    }

    /// Takes from the widest text column, one by one, until the line fits or all are at 8.
    private func shrink(_ widths: inout [Int], to columnCount: Int) {
        var excess = widths.reduce(0, +) + 2 * (widths.count - 1) - columnCount
        while excess > 0 {
            let candidates = widths.indices.filter { !columns[$0].isNumeric && widths[$0] > 8 }
            guard let widest = candidates.max(by: { widths[$0] < widths[$1] }) else { return }
            widths[widest] -= 1
            excess -= 1
        }
    }
}

/// Lines of `name: value`, aligned, for one thing shown in full.
package func fieldLines(_ fields: [(name: String, value: String)]) -> String {
    let width = fields.map(\.name.count).max() ?? 0
    return fields.map { field in
        let padding = String(repeating: " ", count: width - field.name.count)
        return "\(field.name):\(padding) \(field.value.printable)\n"
    }.joined()
}
