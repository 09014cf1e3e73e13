// The contents that a volume or snapshot may legally have, sector by sector.

/// One sector whose contents are not known for sure.
///
/// `base` are alternatives without order: what a crash or a snapshot left open. `operations`
/// came after all of them, in this life of the store, ordered by their ticks only.
final class OpenSector {
    var base: [UInt32]
    var operations: [UInt32] = []
    /// What a read returned, and when it was submitted: whatever ended before then and was not
    /// returned is gone for good while the store lives.
    var observed: UInt32?
    var observedTick: UInt64 = 0
    /// When that read ended; it binds only reads that were submitted later.
    var observedEndTick: UInt64 = 0
    /// Whether it belongs to a snapshot: decided once and shared by all clones.
    let isFrozen: Bool

    init(base: [UInt32], isFrozen: Bool) {
        self.base = base
        self.isFrozen = isFrozen
    }
}

/// The contents of one volume or snapshot: slow, simple and apart from the code under test.
final class OracleImage {
    static var chunkSectorCount: UInt64 { 64 }
    /// Trims of more sectors than this are noted where something was written only.
    static var wideSectorCountMin: UInt64 { 4096 }

    private let history: OracleHistory
    /// Sectors with one legal value: which operation wrote it; 0 for nothing.
    private var settled: [UInt64: [UInt32]]
    /// Sectors with more than one.
    private(set) var open: [UInt64: OpenSector]
    /// Trims of wide ranges under way.
    ///
    /// They are noted only where something was ever written; elsewhere they change nothing, until
    /// something is written while they are under way.
    private var wide: [UInt32] = []
    /// What was written in the life that a crash ended, to be read back first thing.
    private(set) var doubtfulRanges: [Range<UInt64>] = []

    init(history: OracleHistory) {
        self.history = history
        settled = [:]
        open = [:]
    }

    /// A copy, as of a frozen image, that may be written.
    init(copying other: OracleImage) {
        history = other.history
        settled = other.settled
        open = other.open
    }

    // MARK: - Queries

    /// The operations whose value a read submitted at `tick` and ending now may return.
    func legal(_ sector: UInt64, readSubmittedTick tick: UInt64) -> [UInt32] {
        guard let entry = open[sector] else { return [settledOperation(sector)] }
        let floor = newestSubmission(entry) { $0.endedTick < tick }
        var result: [UInt32] = []
        let observed = tick > entry.observedEndTick ? entry.observed : nil
        if floor == 0 {
            result = entry.base.filter { observed == nil || observed == $0 }
        }
        for id in entry.operations where history[id].endedTick >= floor {
            if let observed, observed != id,
                history[id].endedTick < entry.observedTick
            {
                continue
            }
            result.append(id)
        }
        return result
    }

    /// The one operation that a settled sector comes from.
    func settledOperation(_ sector: UInt64) -> UInt32 {
        guard let chunk = settled[sector / OracleImage.chunkSectorCount] else { return 0 }
        return chunk[Int(sector % OracleImage.chunkSectorCount)]
    }

    /// The single operation a sector must hold, or nil when there are several.
    func onlyOperation(_ sector: UInt64) -> UInt32? {
        open[sector] == nil ? settledOperation(sector) : nil
    }

    /// Sectors that are not known for sure, in order.
    var openSectors: [UInt64] { open.keys.sorted() }

    /// Ranges of sectors that anything ever touched, in whole chunks, in order.
    var touchedRanges: [Range<UInt64>] {
        let size = OracleImage.chunkSectorCount
        let chunks = Set(settled.keys).union(open.keys.map { $0 / size }).sorted()
        var ranges: [Range<UInt64>] = []
        for chunk in chunks {
            if let last = ranges.last, last.upperBound == chunk * size {
                ranges[ranges.count - 1] = last.lowerBound..<(chunk + 1) * size
            } else {
                ranges.append(chunk * size..<(chunk + 1) * size)
            }
        }
        return ranges
    }

    /// The number of sectors that may hold a write: an upper bound of what is stored.
    var writtenSectorCount: Int {
        var count = 0
        for chunk in settled.values {
            for id in chunk where history[id].isWrite { count += 1 }
        }
        return count + open.count
    }

    // MARK: - Changes

    /// Adds an operation that was just submitted.
    ///
    /// - Parameters:
    ///   - id: The operation.
    ///   - mayPrune: Whether what is durably overwritten may be forgotten; false while a
    ///     snapshot that may still need it is being taken.
    func add(_ id: UInt32, mayPrune: Bool) {
        let operation = history[id]
        let sectors = operation.firstSector..<operation.firstSector + operation.sectorCount
        wide.removeAll { history[$0].endedTick != OracleOperation.never }
        guard operation.sectorCount > OracleImage.wideSectorCountMin, !operation.isWrite else {
            for sector in sectors { add(id, sector, mayPrune: mayPrune) }
            return
        }
        for part in parts(of: sectors) {
            for sector in part { add(id, sector, mayPrune: mayPrune) }
        }
        wide.append(id)
    }

    private func add(_ id: UInt32, _ sector: UInt64, mayPrune: Bool) {
        if let entry = open[sector], !entry.isFrozen {
            if mayPrune { prune(entry) }
            entry.operations.append(id)
            return
        }
        let base = open[sector]?.base ?? [settledOperation(sector)]
        let entry = OpenSector(base: base, isFrozen: false)
        entry.operations = wide.filter { covers($0, sector) }
        entry.operations.append(id)
        open[sector] = entry
    }

    private func covers(_ id: UInt32, _ sector: UInt64) -> Bool {
        let operation = history[id]
        return sector >= operation.firstSector
            && sector - operation.firstSector < operation.sectorCount
    }

    /// Forgets what is durably overwritten.
    private func prune(_ entry: OpenSector) {
        let floor = durableFloor(entry)
        guard floor > 0 else { return }
        entry.base = []
        entry.operations.removeAll { history[$0].endedTick < floor }
        if let observed = entry.observed, !entry.operations.contains(observed) {
            entry.observed = nil
        }
    }

    /// Notes that a read submitted at `tick` returned one of `matches`.
    func observe(_ sector: UInt64, matches: [UInt32], readSubmittedTick tick: UInt64) {
        guard let entry = open[sector] else { return }
        if entry.operations.isEmpty {
            // Nothing is under way here: what was seen must stay.
            entry.base = matches
            if !entry.isFrozen { settle(sector, plainest(matches)) }
        } else if matches.count == 1, tick >= entry.observedTick {
            entry.observed = matches[0]
            entry.observedTick = tick
            entry.observedEndTick = history.tick
        }
    }

    func settle(_ sector: UInt64, _ id: UInt32) {
        open[sector] = nil
        let chunk = sector / OracleImage.chunkSectorCount
        settled[
            chunk,
            default: Array(repeating: 0, count: Int(OracleImage.chunkSectorCount))
        ][Int(sector % OracleImage.chunkSectorCount)] = id
    }

    /// Gives up everything from `sector` on.
    func truncate(at sector: UInt64) {
        let size = OracleImage.chunkSectorCount
        for key in open.keys where key >= sector { open[key] = nil }
        for chunk in settled.keys where (chunk + 1) * size > sector {
            if chunk * size >= sector {
                settled[chunk] = nil
            } else {
                for index in Int(sector - chunk * size)..<Int(size) { settled[chunk]?[index] = 0 }
            }
        }
    }

    // MARK: - Snapshots and crashes

    /// The image of a snapshot whose command was submitted at `tick` and has ended now.
    func frozen(submittedTick tick: UInt64) -> OracleImage {
        let image = OracleImage(copying: self)
        for (sector, entry) in open where !entry.isFrozen {
            let floor = newestSubmission(entry) { $0.endedTick < tick }
            var values = floor == 0 ? entry.base : []
            values += entry.operations.filter { history[$0].endedTick >= floor }
            image.open[sector] = OpenSector(base: values, isFrozen: true)
            if values.count == 1 { image.settle(sector, values[0]) }
        }
        return image
    }

    /// After a crash: what was returned before it binds no more.
    ///
    /// - Precondition: the history was cut.
    func crash() {
        // Also what must have survived: it is read before anything can overwrite the evidence.
        if doubtfulRanges.isEmpty { doubtfulRanges = blocks(of: openSectors) }
        for entry in open.values where !entry.isFrozen { entry.observed = nil }
        refine(survivedTick: history.durableTick)
    }

    /// Drops what something overwrote that must have survived.
    ///
    /// - Parameter survivedTick: Whatever ended before it survived, because something that was
    ///   submitted then did: the log survives as a prefix.
    func refine(survivedTick: UInt64) {
        for (sector, entry) in open where !entry.isFrozen {
            let floor = survivingFloor(entry, survivedTick)
            if floor > 0 {
                entry.base = []
                entry.operations.removeAll { history[$0].endedTick < floor }
            }
            let rest = entry.base + entry.operations
            precondition(!rest.isEmpty, "a sector without a legal value")
            if rest.count == 1 { settle(sector, rest[0]) }
        }
    }

    /// What a sector may hold after a crash, given how long the surviving prefix is.
    func survivors(_ entry: OpenSector, survivedTick: UInt64) -> [UInt32] {
        let floor = entry.isFrozen ? 0 : survivingFloor(entry, survivedTick)
        return (floor == 0 ? entry.base : [])
            + entry.operations.filter { history[$0].endedTick >= floor }
    }

    /// Takes what was found in a sector after a crash: it stays.
    func decide(_ sector: UInt64, matches: [UInt32]) {
        guard let entry = open[sector] else { return }
        if entry.isFrozen {
            entry.base = matches
        } else {
            settle(sector, plainest(matches))
        }
    }

    /// A new life begins: whatever is still open stands without order.
    func beginLife() {
        doubtfulRanges = []
        for entry in open.values where !entry.isFrozen {
            entry.base += entry.operations
            entry.operations = []
        }
    }

    /// Of several operations that left the same bytes, one that promises nothing else.
    private func plainest(_ matches: [UInt32]) -> UInt32 {
        matches.first { history[$0].kind != .writeZeroesAllocated } ?? matches[0]
    }

    private func survivingFloor(_ entry: OpenSector, _ survivedTick: UInt64) -> UInt64 {
        newestSubmission(entry) { $0.isDurable || $0.endedTick < survivedTick }
    }

    private func durableFloor(_ entry: OpenSector) -> UInt64 {
        // A read that was submitted before the newer write ended may still return the older.
        newestSubmission(entry) {
            $0.endedTick < history.oldestReadTick
                && ($0.isDurable || $0.endedTick < history.durableTick)
        }
    }

    private func newestSubmission(
        _ entry: OpenSector,
        where condition: (OracleOperation) -> Bool
    ) -> UInt64 {
        var newest: UInt64 = 0
        for id in entry.operations {
            let operation = history[id]
            if operation.isCertain, operation.submittedTick > newest, condition(operation) {
                newest = operation.submittedTick
            }
        }
        return newest
    }
}

extension OracleImage {
    /// Ranges of sectors that are not known for sure, in whole blocks, in order.
    var openRanges: [Range<UInt64>] {
        blocks(
            of: openSectors.filter { sector in
                guard let entry = open[sector] else { return false }
                return entry.base.count + entry.operations.count > 1
            }
        )
    }

    /// The blocks that hold `sectors`, which are in order.
    private func blocks(of sectors: [UInt64]) -> [Range<UInt64>] {
        var ranges: [Range<UInt64>] = []
        for sector in sectors {
            let first = sector & ~7
            if let last = ranges.last, last.upperBound >= first {
                if last.upperBound == first {
                    ranges[ranges.count - 1] = last.lowerBound..<first + 8
                }
            } else {
                ranges.append(first..<first + 8)
            }
        }
        return ranges
    }

    /// The parts of `sectors` that anything ever touched.
    func parts(of sectors: Range<UInt64>) -> [Range<UInt64>] {
        touchedRanges.compactMap { range in
            let part = range.clamped(to: sectors)
            return part.isEmpty ? nil : part
        }
    }
}
