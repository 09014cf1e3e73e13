// Holding what a store says against what it may say.

import BlockCore
import LogStore

extension StoreOracle {
    // MARK: - Data

    /// Judges the data that a read returned.
    ///
    /// - Parameters:
    ///   - image: The volume or snapshot read.
    ///   - sectors: The range read.
    ///   - region: The data; empty when the store says that all is zero.
    ///   - tick: When the read was submitted.
    ///   - isBlockAtomic: Whether the eight sectors of a block must be of one write.
    ///   - place: What was read, for the report.
    /// - Returns: What is wrong, or nil.
    func checkRead(
        _ image: OracleImage,
        _ sectors: Range<UInt64>,
        _ region: ByteRegion,
        submittedTick tick: UInt64,
        isBlockAtomic: Bool,
        place: String
    ) -> String? {
        if isBlockAtomic, let problem = checkBlocks(sectors, region, place) { return problem }
        for sector in sectors {
            let content = identify(region, sector, from: sectors.lowerBound)
            if let id = image.onlyOperation(sector), holds(content, id) { continue }
            let legal = image.legal(sector, readSubmittedTick: tick)
            let matches = legal.filter { holds(content, $0) }
            if matches.isEmpty {
                if isLenient, isPlausible(content) { continue }
                return describe(content, sector, legal, place)
            }
            image.observe(sector, matches: matches, readSubmittedTick: tick)
        }
        return nil
    }

    /// On a volume of 4096-byte blocks, each block is of one write.
    private func checkBlocks(
        _ sectors: Range<UInt64>,
        _ region: ByteRegion,
        _ place: String
    ) -> String? {
        for first in stride(from: sectors.lowerBound, to: sectors.upperBound, by: 8) {
            let content = identify(region, first, from: sectors.lowerBound)
            for sector in first + 1..<first + 8 {
                let other = identify(region, sector, from: sectors.lowerBound)
                if other != content, !isLenient {
                    return "\(place) sectors \(first) and \(sector) of one block hold "
                        + "\(content) and \(other)"
                }
            }
        }
        return nil
    }

    /// Takes what a read returned after a crash, to be judged with the rest by ``judge()``.
    func gather(
        _ image: OracleImage,
        _ sectors: Range<UInt64>,
        _ region: ByteRegion,
        isBlockAtomic: Bool,
        place: String
    ) -> String? {
        if isBlockAtomic, let problem = checkBlocks(sectors, region, place) { return problem }
        for sector in sectors {
            let content = identify(region, sector, from: sectors.lowerBound)
            guard let entry = image.open[sector] else {
                let id = image.settledOperation(sector)
                if !holds(content, id), !(isLenient && isPlausible(content)) {
                    return describe(content, sector, [id], place)
                }
                continue
            }
            let possible = entry.base + entry.operations
            let matches = possible.filter { holds(content, $0) }
            if matches.isEmpty {
                if isLenient, isPlausible(content) { continue }
                return describe(content, sector, possible, place)
            }
            observations.append(
                Observation(image: image, sector: sector, matches: matches, place: place)
            )
        }
        return nil
    }

    /// Judges everything gathered since the crash: what was seen tells how long the surviving
    /// prefix is, and that again what may not be missing.
    func judge() -> String? {
        guard !observations.isEmpty else { return nil }
        var survivedTick = history.durableTick
        for observation in observations where observation.matches.count == 1 {
            let operation = history[observation.matches[0]]
            if operation.kind == .write {
                survivedTick = max(survivedTick, operation.submittedTick)
            }
        }
        defer { observations = [] }
        for observation in observations {
            guard let entry = observation.image.open[observation.sector] else { continue }
            let floor = isLenient ? 0 : survivedTick
            let legal = observation.image.survivors(entry, survivedTick: floor)
            let matches = observation.matches.filter { legal.contains($0) }
            if matches.isEmpty {
                return "\(observation.place) sector \(observation.sector) holds "
                    + history[observation.matches[0]].describe(observation.matches[0])
                    + ", but what survived elsewhere was submitted@\(survivedTick), so that "
                    + "only these may be here: " + describe(legal)
            }
            observation.image.decide(observation.sector, matches: matches)
        }
        guard !isLenient else { return nil }
        for id in volumeIDs { volumes[id]?.image.refine(survivedTick: survivedTick) }
        return nil
    }

    private func identify(
        _ region: ByteRegion,
        _ sector: UInt64,
        from first: UInt64
    ) -> SectorStamp.Content {
        if region.isEmpty { return .zero }
        let offset = Int(sector - first) * SectorStamp.byteCount
        return SectorStamp.identify(region, at: offset, sector: sector, run: run)
    }

    private func holds(_ content: SectorStamp.Content, _ id: UInt32) -> Bool {
        switch content {
        case .zero: !history[id].isWrite
        case .operation(let written): written == id
        case .misplaced, .torn, .foreign: false
        }
    }

    /// Whether contents are of this run and place at all, if not of this time.
    private func isPlausible(_ content: SectorStamp.Content) -> Bool {
        switch content {
        case .zero: true
        case .operation(let id): id < UInt32(history.operations.count)
        case .misplaced, .torn, .foreign: false
        }
    }

    private func describe(
        _ content: SectorStamp.Content,
        _ sector: UInt64,
        _ legal: [UInt32],
        _ place: String
    ) -> String {
        let what =
            switch content {
            case .zero: "zeroes"
            case .foreign: "foreign bytes"
            case .torn(let id): "a torn sector of " + name(id)
            case .misplaced(let id, let other): "sector \(other) of " + name(id)
            case .operation(let id): name(id)
            }
        return "\(place) sector \(sector) holds \(what); legal: " + describe(legal)
    }

    private func name(_ id: UInt32) -> String {
        id < UInt32(history.operations.count) ? history[id].describe(id) : "an unknown write \(id)"
    }

    private func describe(_ ids: [UInt32]) -> String {
        ids.map { history[$0].describe($0) }.joined(separator: " | ")
    }

    // MARK: - Status

    /// Judges what a store said about the allocation of `sectors`: bit 0 of `value` hole, bit 1
    /// reads as zero.
    func checkAllocation(
        _ image: OracleImage,
        _ sectors: Range<UInt64>,
        value: UInt64,
        submittedTick tick: UInt64,
        place: String
    ) -> String? {
        guard value < 4 else { return "\(place): allocation flags \(value)" }
        if isLenient { return nil }
        if value & 1 != 0, value & 2 == 0 { return "\(place): a hole that does not read as zero" }
        for sector in sectors {
            let legal = image.legal(sector, readSubmittedTick: tick)
            if value & 2 != 0, !legal.contains(where: { !history[$0].isWrite }) {
                return "\(place) sector \(sector) is reported as zero; legal: " + describe(legal)
            }
            if value & 1 != 0, legal.count == 1, isAllocated(legal[0], sector) {
                return "\(place) sector \(sector) is reported as a hole; legal: "
                    + describe(legal)
            }
        }
        return nil
    }

    /// Whether an operation surely left the block of `sector` allocated.
    private func isAllocated(_ id: UInt32, _ sector: UInt64) -> Bool {
        let operation = history[id]
        guard operation.kind == .writeZeroesAllocated else { return operation.isWrite }
        let first = sector & ~7
        return operation.firstSector <= first
            && first + 8 <= operation.firstSector + operation.sectorCount
    }

    /// Judges a range that a store reports as not changed since a snapshot.
    func checkUnchanged(
        _ image: OracleImage,
        since snapshot: OracleImage,
        _ sectors: Range<UInt64>,
        submittedTick tick: UInt64,
        place: String
    ) -> String? {
        if isLenient { return nil }
        for sector in sectors {
            let now = Set(image.legal(sector, readSubmittedTick: tick).map(value))
            let then = Set(snapshot.legal(sector, readSubmittedTick: tick).map(value))
            if now.isDisjoint(with: then) {
                return "\(place) sector \(sector) is reported as unchanged, but went from "
                    + "\(then.sorted()) to \(now.sorted())"
            }
        }
        return nil
    }

    private func value(_ id: UInt32) -> UInt32 { history[id].isWrite ? id : 0 }
}
