/// A job file, taken apart: fio's INI syntax.
///
///     file    = { line }
///     line    = [ "[" name "]" | name [ "=" value ] ] [ comment ] newline
///
/// Nothing is judged here but the form; ``JobList`` knows what the options mean.
package struct JobFile: Sendable, Equatable {
    /// An option and where it stands.
    package struct Assignment: Sendable, Equatable {
        /// The option's name.
        package var name: String
        /// Its value, "1" when it has none.
        package var value: String
        /// The line, counted from 1.
        package var line: Int
    }

    /// A section and its options.
    package struct Section: Sendable, Equatable {
        /// The name between the brackets.
        package var name: String
        /// Its options, in order.
        package var assignments: [Assignment]

        /// Whether its options hold for the sections that follow.
        package var isGlobal: Bool { name == "global" }
    }

    /// Where the text came from, for errors.
    package var path: String
    /// All sections, in order.
    package var sections: [Section] = []

    /// Takes a text apart.
    ///
    /// - Parameters:
    ///   - text: The file's content.
    ///   - path: What errors call it.
    ///   - variable: The value of an environment variable, or nil.
    /// - Throws: ``BenchError`` with path and line.
    package init(
        parsing text: String,
        path: String,
        variable: (String) -> String? = { _ in nil }
    ) throws(BenchError) {
        self.path = path
        let lines = text.split(omittingEmptySubsequences: false) { $0.isNewline }
        for (index, raw) in lines.enumerated() {
            let line = JobFile.trim(JobFile.withoutComment(raw))
            guard !line.isEmpty else { continue }
            try add(line, number: index + 1, variable)
        }
        guard sections.contains(where: { !$0.isGlobal }) else {
            throw BenchError("\(path): no job; one begins with [NAME]")
        }
    }

    private mutating func add(
        _ line: Substring,
        number: Int,
        _ variable: (String) -> String?
    ) throws(BenchError) {
        let place = "\(path):\(number)"
        if line.first == "[" {
            guard line.last == "]", line.count > 2 else {
                throw BenchError("\(place): a section is a name in brackets")
            }
            sections.append(Section(name: String(line.dropFirst().dropLast()), assignments: []))
            return
        }
        guard !sections.isEmpty else {
            throw BenchError("\(place): an option before the first section; begin with [global]")
        }
        let parts = line.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
        let name = JobFile.trim(parts[0])
        guard !name.isEmpty else { throw BenchError("\(place): a value without an option") }
        var value = "1"
        if parts.count == 2 {
            value = try JobFile.expand(JobFile.trim(parts[1]), place, variable)
            guard !value.isEmpty else { throw BenchError("\(place): \(name) has no value") }
        }
        sections[sections.count - 1].assignments.append(
            Assignment(name: String(name), value: value, line: number)
        )
    }

    /// A comment takes the whole line, or begins after a space.
    private static func withoutComment(_ line: Substring) -> Substring {
        var isAfterSpace = true
        var isQuoted = false
        for index in line.indices {
            let character = line[index]
            if character == "\"" { isQuoted.toggle() }
            if !isQuoted, isAfterSpace, character == ";" || character == "#" {
                return line[..<index]
            }
            isAfterSpace = character == " " || character == "\t"
        }
        return line
    }

    private static func trim(_ text: Substring) -> Substring {
        var result = text
        while let last = result.last, last.isWhitespace { result.removeLast() }
        return result.drop { $0.isWhitespace }
    }

    private static func expand(
        _ text: Substring,
        _ place: String,
        _ variable: (String) -> String?
    ) throws(BenchError) -> String {
        var result = ""
        var rest = text
        while let dollar = rest.firstIndex(of: "$") {
            result += rest[..<dollar]
            rest = rest[rest.index(after: dollar)...]
            guard rest.first == "{", let end = rest.firstIndex(of: "}") else {
                result.append("$")
                continue
            }
            let name = String(rest[rest.index(after: rest.startIndex)..<end])
            guard let value = variable(name) else {
                throw BenchError("\(place): the environment has no \(name)")
            }
            result += value
            rest = rest[rest.index(after: end)...]
        }
        return result + rest
    }
}
