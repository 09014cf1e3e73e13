// A run as text: what a command line, a failing report and a file of seeds have in common.

/// A seed with its options.
public struct SimulationCase: Sendable, Hashable {
    /// The seed.
    public var seed: UInt64
    /// What to do otherwise than the seed says.
    public var options: SimulationOptions

    /// Creates a case.
    public init(seed: UInt64, options: SimulationOptions = SimulationOptions()) {
        self.seed = seed
        self.options = options
    }

    /// Parses `--seed N` and options; what follows a `#` is a story for people.
    ///
    /// - Parameter line: The text.
    public init?(line: String) {
        let words = line.prefix { $0 != "#" }.split(separator: " ").map(String.init)
        var options = SimulationOptions()
        var seed: UInt64?
        var rest = words[...]
        while let word = rest.popFirst() {
            if options.takeFlag(word) { continue }
            guard let value = rest.popFirst() else { return nil }
            if word == "--seed" {
                seed = UInt64(value)
            } else if !options.take(word, value) {
                return nil
            }
        }
        guard let seed else { return nil }
        self.init(seed: seed, options: options)
    }

    /// The arguments that repeat it.
    public var arguments: [String] { ["--seed", "\(seed)"] + options.arguments }
}

extension SimulationOptions {
    /// The options as arguments.
    public var arguments: [String] {
        var result: [String] = []
        if let operationCount { result += ["--ops", "\(operationCount)"] }
        if let crashAt { result += ["--crash-at", "\(crashAt)"] }
        if let errorAt { result += ["--error-at", "\(errorAt)"] }
        if isCalm { result.append("--calm") }
        if isCrowded { result.append("--crowded") }
        if let hasReplicas { result.append(hasReplicas ? "--replicas" : "--no-replicas") }
        if let canary { result += ["--canary", canary.rawValue] }
        return result
    }

    /// Takes an option without a value.
    ///
    /// - Parameter name: The argument.
    /// - Returns: Whether there is such an option.
    public mutating func takeFlag(_ name: String) -> Bool {
        switch name {
        case "--calm": isCalm = true
        case "--crowded": isCrowded = true
        case "--replicas": hasReplicas = true
        case "--no-replicas": hasReplicas = false
        default: return false
        }
        return true
    }

    /// Takes an option with a value.
    ///
    /// - Parameters:
    ///   - name: The argument.
    ///   - value: What follows it.
    /// - Returns: Whether there is such an option and the value makes sense.
    public mutating func take(_ name: String, _ value: String) -> Bool {
        if name == "--canary" {
            canary = Canary(rawValue: value)
            return canary != nil
        }
        guard let number = UInt64(value) else { return false }
        switch name {
        case "--ops": operationCount = Int(clamping: number)
        case "--crash-at": crashAt = number
        case "--error-at": errorAt = number
        default: return false
        }
        return true
    }
}
