// What happened in a run: always a hash, on request every line.

/// The record of a run: two runs of one seed must give the same hash.
public final class SimulationTrace {
    /// A digest of everything that was noted so far.
    public private(set) var hash: UInt64 = 0x0C41_94CA_1213
    /// The number of notes.
    public private(set) var noteCount: UInt64 = 0

    private let emit: ((String) -> Void)?

    /// Creates a trace that calls `emit` with each line, if given.
    public init(emit: ((String) -> Void)? = nil) { self.emit = emit }

    /// Whether lines are wanted; spare the making of strings otherwise.
    var isVerbose: Bool { emit != nil }

    /// Notes an event by its numbers; `line` is made only when lines are wanted.
    func note(_ first: UInt64, _ second: UInt64, _ third: UInt64, line: () -> String) {
        hash = SeededRandom.mix(hash ^ first)
        hash = SeededRandom.mix(hash ^ second)
        hash = SeededRandom.mix(hash ^ third)
        noteCount += 1
        if let emit { emit(line()) }
    }

    /// Adds a line that does not count towards the hash.
    func say(_ line: () -> String) {
        if let emit { emit(line()) }
    }
}
