/// An option as it was written, and what its value can be read as.
///
/// Every reading either succeeds or names the option, its value and what would have been right.
package struct OptionText: Sendable, Equatable {
    /// The option's name, as the table has it.
    package var name: String
    /// What follows the equals sign; "1" when nothing does, as in job files.
    package var value: String

    /// Creates an option's text.
    package init(name: String, value: String) {
        self.name = name
        self.value = value
    }

    /// The error that says what the value should have been.
    package func wrong(_ expected: String) -> BenchError {
        BenchError("\(name)=\(value): \(expected)")
    }

    /// Reads part of the value as this option's.
    private func part(_ text: Substring) -> OptionText {
        OptionText(name: name, value: String(text))
    }

    // MARK: - Numbers

    /// A whole number in `range`.
    package func count(_ range: ClosedRange<Int>) throws(BenchError) -> Int {
        guard let number = Int(value), range.contains(number) else {
            throw wrong("a whole number from \(range.lowerBound) to \(range.upperBound)")
        }
        return number
    }

    /// A number in `range`, with or without decimals.
    package func number(_ range: ClosedRange<Double>) throws(BenchError) -> Double {
        guard let number = Double(value), range.contains(number) else {
            throw wrong("a number from \(range.lowerBound) to \(range.upperBound)")
        }
        return number
    }

    /// Yes or no: 1 or 0.
    package func flag() throws(BenchError) -> Bool {
        switch value {
        case "1", "true": return true
        case "0", "false": return false
        default: throw wrong("1 or 0")
        }
    }

    // MARK: - Sizes and times

    /// Bytes: `4k`, `1m`, `10g`, `2t` or plain.
    package func size() throws(BenchError) -> UInt64 {
        var text = value.lowercased()[...]
        if text.hasSuffix("ib") || text.hasSuffix("i") {
            throw wrong("fio reads Ki as 1000; write k, m, g or t, which are powers of 1024")
        }
        if text.count > 1, text.last == "b" { text.removeLast() }
        let shifts: [Character: UInt64] = ["k": 10, "m": 20, "g": 30, "t": 40, "p": 50]
        let shift = text.last.flatMap { shifts[$0] } ?? 0
        if shift > 0 { text.removeLast() }
        guard let number = UInt64(text), number <= UInt64(Int64.max) >> shift else {
            throw wrong("a size such as 4k, 1m or 10g")
        }
        return number << shift
    }

    /// Bytes or a percentage of the target.
    package func extent() throws(BenchError) -> Extent {
        guard value.last == "%" else { return .bytes(try size()) }
        guard let percent = Int(value.dropLast()), (0...100).contains(percent) else {
            throw wrong("a size, or a percentage from 0% to 100%")
        }
        return .percent(percent)
    }

    /// Microseconds; a bare number counts in `unit`.
    ///
    /// - Parameter unit: Microseconds that a number without a unit counts.
    /// - Returns: Microseconds.
    /// - Throws: ``BenchError`` when it is no time.
    package func microseconds(unit: UInt64) throws(BenchError) -> UInt64 {
        let units: [(suffix: String, microseconds: Double)] = [
            ("us", 1), ("usec", 1), ("ms", 1e3), ("msec", 1e3), ("sec", 1e6), ("s", 1e6),
            ("m", 60e6), ("h", 3600e6), ("d", 86_400e6),
        ]
        let digits = value.prefix { $0.isNumber || $0 == "." }
        let suffix = value[digits.endIndex...]
        let scale =
            suffix.isEmpty ? Double(unit) : units.first { $0.suffix == suffix }?.microseconds
        guard let scale, let number = Double(digits), number >= 0, number * scale <= 1e15 else {
            throw wrong("a time such as 10, 500ms, 30s or 2m")
        }
        return UInt64((number * scale).rounded())
    }

    // MARK: - Lists

    /// Up to three values for reads, writes and trims; what is left out is as the one before it.
    package func perDirection<Value>(
        _ read: (OptionText) throws(BenchError) -> Value
    ) throws(BenchError) -> PerDirection<Value> {
        let parts = value.split(separator: ",", omittingEmptySubsequences: false)
        guard parts.count <= 3, let first = parts.first else {
            throw wrong("at most three values: reads, writes, trims")
        }
        var values = PerDirection(repeating: try read(part(first)))
        if parts.count > 1, !parts[1].isEmpty {
            values.write = try read(part(parts[1]))
            values.trim = values.write
        }
        if parts.count > 2, !parts[2].isEmpty { values.trim = try read(part(parts[2])) }
        return values
    }

    /// Percentages between colons.
    package func percentiles() throws(BenchError) -> [Double] {
        var result: [Double] = []
        for piece in value.split(separator: ":") {
            guard let number = Double(piece), number > 0, number <= 100 else {
                throw wrong("percentages between colons, such as 50:99:99.999")
            }
            result.append(number)
        }
        guard !result.isEmpty, result.count <= JobLimits.percentileCountMax else {
            throw wrong("from 1 to \(JobLimits.percentileCountMax) percentages")
        }
        return result.sorted()
    }

    /// Block sizes and their shares: `4k/10:64k/50:32k/`; shares left out divide what remains.
    package func blockSplit() throws(BenchError) -> BlockSizes {
        var entries: [(byteCount: UInt64, percent: Int?)] = []
        for piece in value.split(separator: ":") {
            let parts = piece.split(separator: "/", omittingEmptySubsequences: false)
            let byteCount = try part(parts[0]).size()
            guard parts.count <= 2 else { throw wrong("sizes and percents: 4k/10:64k/90") }
            let text = parts.count == 2 ? parts[1] : ""
            let percent = Int(text)
            guard text.isEmpty || percent.map((0...100).contains) == true else {
                throw wrong("sizes and percents: 4k/10:64k/90")
            }
            entries.append((byteCount, percent))
        }
        let given = entries.compactMap(\.percent).reduce(0, +)
        let openCount = entries.filter { $0.percent == nil }.count
        guard !entries.isEmpty, entries.count <= JobLimits.splitCountMax, given <= 100,
            openCount > 0 || given == 100
        else { throw wrong("percents that come to 100, of 1 to \(JobLimits.splitCountMax) sizes") }
        var openRest = 100 - given
        var openLeft = openCount
        var sizes: [BlockSizes.Entry] = []
        for entry in entries {
            var percent = entry.percent ?? 0
            if entry.percent == nil {
                percent = openRest / openLeft
                openRest -= percent
                openLeft -= 1
            }
            let byteCount = try JobLimits.blockByteCount(entry.byteCount, of: self)
            sizes.append(BlockSizes.Entry(byteCount: byteCount, percent: percent))
        }
        return BlockSizes(entries: sizes)
    }

    /// The bytes of a pattern: `0xdeadbeef`, `"text"` or a number.
    package func pattern() throws(BenchError) -> [UInt8] {
        let bytes: [UInt8]
        if value.count >= 3, value.first == "\"", value.last == "\"" {
            bytes = Array(value.dropFirst().dropLast().utf8)
        } else if value.hasPrefix("0x"), value.count > 2 {
            bytes = try hexBytes(value.dropFirst(2))
        } else if let number = UInt64(value) {
            bytes = try hexBytes(String(number, radix: 16)[...])
        } else {
            throw wrong("0x and hex digits, \"text\", or a number")
        }
        guard bytes.count <= JobLimits.patternByteCountMax else {
            throw wrong("at most \(JobLimits.patternByteCountMax) bytes")
        }
        return bytes
    }

    private func hexBytes(_ digits: Substring) throws(BenchError) -> [UInt8] {
        var text = String(digits)
        if text.count % 2 == 1 { text = "0" + text }
        var bytes: [UInt8] = []
        var rest = text[...]
        while !rest.isEmpty {
            guard let byte = UInt8(rest.prefix(2), radix: 16) else {
                throw wrong("0x and hex digits, \"text\", or a number")
            }
            bytes.append(byte)
            rest = rest.dropFirst(2)
        }
        return bytes
    }
}
