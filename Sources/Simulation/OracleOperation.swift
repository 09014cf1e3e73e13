// What the oracle remembers of every change that was asked for.

/// One change of a volume's contents, with its place in real time.
///
/// Real time is the oracle's own tick, which counts every submission and every end. X comes
/// before A when X ended before A was submitted; otherwise the two may take effect in either
/// order.
struct OracleOperation {
    enum Kind {
        /// What every sector holds before anything was written.
        case nothing
        case write
        case writeZeroes
        /// `writeZeroes` that must leave the range allocated.
        case writeZeroesAllocated
        case trim
    }

    var kind: Kind
    var volume: UInt64
    var firstSector: UInt64
    var sectorCount: UInt64
    var submittedTick: UInt64
    /// When it ended; ``never`` while it is under way.
    var endedTick: UInt64 = OracleOperation.never
    /// Whether it surely took effect: it was acknowledged.
    ///
    /// One that failed, or that a crash cut off, may have happened or not, sector by sector.
    var isCertain = false
    /// Whether its acknowledgement promised that it is durable.
    var isDurable = false

    static var never: UInt64 { .max }

    /// Whether sectors written by it hold a stamp; the others hold zeroes.
    var isWrite: Bool { kind == .write }

    func describe(_ id: UInt32) -> String {
        let name =
            switch kind {
            case .nothing: "nothing ever written"
            case .write: "write"
            case .writeZeroes: "writeZeroes"
            case .writeZeroesAllocated: "writeZeroes+noHole"
            case .trim: "trim"
            }
        if kind == .nothing { return name }
        let end =
            endedTick == OracleOperation.never
            ? "never answered"
            : (isCertain ? "answered@\(endedTick)" : "failed or cut off@\(endedTick)")
        return "\(name) #\(id) volume \(volume) sectors \(firstSector)+\(sectorCount) "
            + "submitted@\(submittedTick) \(end)" + (isDurable ? " durable" : "")
    }
}

/// All changes of a run, and which of them are known to be durable.
final class OracleHistory {
    private(set) var operations: [OracleOperation]
    /// Grows with every submission and every end.
    private(set) var tick: UInt64 = 1
    /// Everything that ended before this tick is durable.
    ///
    /// It is the submission of the newest flush, durable write or command that was acknowledged.
    /// The log is one: what is durable of it is a prefix.
    private(set) var durableTick: UInt64 = 0
    /// When the oldest read under way was submitted.
    var oldestReadTick: UInt64 = .max
    /// When the store was opened last; what is older stands without order.
    private(set) var lifeTick: UInt64 = 0

    init() {
        operations = [
            OracleOperation(
                kind: .nothing,
                volume: 0,
                firstSector: 0,
                sectorCount: 0,
                submittedTick: 0,
                endedTick: 0,
                isCertain: true,
                isDurable: true
            )
        ]
    }

    subscript(id: UInt32) -> OracleOperation { operations[Int(id)] }

    func nextTick() -> UInt64 {
        tick += 1
        return tick
    }

    func begin(_ operation: OracleOperation) -> UInt32 {
        operations.append(operation)
        return UInt32(operations.count - 1)
    }

    func end(_ id: UInt32, isCertain: Bool, isDurable: Bool) {
        operations[Int(id)].endedTick = nextTick()
        operations[Int(id)].isCertain = isCertain
        operations[Int(id)].isDurable = isCertain && isDurable
        if isCertain && isDurable { noteDurable(operations[Int(id)].submittedTick) }
    }

    /// Everything that ended before `submittedTick` is durable.
    func noteDurable(_ submittedTick: UInt64) { durableTick = max(durableTick, submittedTick) }

    /// A crash: whatever is under way has happened by now or never will.
    func cut() {
        let now = nextTick()
        var index = operations.count - 1
        // Operations are in order of submission; only those of this life can be under way.
        while index > 0, operations[index].submittedTick >= lifeTick {
            if operations[index].endedTick == OracleOperation.never {
                operations[index].endedTick = now
            }
            index -= 1
        }
    }

    /// A new life of the store begins.
    func beginLife() { lifeTick = nextTick() }
}
