internal import BlockCore

/// Draws the operations of one job, in order.
///
/// Kinds, sizes and places are drawn from streams of their own, so that a change of one leaves the
/// others as they were. Nothing is allocated after the start.
package final class OperationSource {
    private let plan: JobPlan
    private let mode: AccessMode
    private let placeByteCount: UInt64
    private let placeCount: UInt64
    private let fixedByteCount: Int?

    private var kindRandom: SplitMix64
    private var sizeRandom: SplitMix64
    private var placeRandom: SplitMix64

    // Places: one of these decides.
    private var permutation: Permutation
    private var permutationIndex: UInt64 = 0
    private var passCount: UInt64 = 0
    private let map: PlaceMap?
    private let skewed: SkewedPlaces?
    private let usesPermutation: Bool
    private var runRest = 0
    private var runPlace: UInt64 = 0
    /// The next place of a sequence; reads have one, writes and trims another.
    private var cursors: (read: UInt64, change: UInt64) = (0, 0)

    private var serial: UInt64 = 0
    private var movedByteCount: UInt64 = 0
    private var countedOperations: UInt64 = 0
    private var writesSinceFlush = 0
    private var trimmed: Operation?
    private var owesFinalFlush: Bool

    /// Creates the source of a plan.
    package init(plan: JobPlan) {
        self.plan = plan
        mode = plan.options.mode
        placeByteCount = UInt64(plan.options.placeByteCount)
        placeCount = plan.placeCount
        fixedByteCount = plan.isEven ? plan.options.placeByteCount : nil
        kindRandom = SplitMix64(seed: plan.seed ^ 0x11)
        sizeRandom = SplitMix64(seed: SplitMix64.mix(plan.seed ^ 0x22))
        placeRandom = SplitMix64(seed: SplitMix64.mix(plan.seed ^ 0x33))
        permutation = Permutation(count: plan.placeCount, seed: plan.seed)
        usesPermutation = plan.visitsOnce && plan.isEven && mode.runLength == 1
        map = plan.visitsOnce && !usesPermutation ? PlaceMap(count: plan.placeCount) : nil
        skewed = SkewedPlaces(
            plan.options.distribution,
            count: plan.placeCount,
            seed: plan.seed
        )
        owesFinalFlush = plan.options.flushesAtEnd && plan.options.mode.writes
    }

    /// Begins the amount anew, at the end of a ramp; places go on where they are.
    package func restartAmount() { (movedByteCount, countedOperations) = (0, 0) }

    /// Draws the next operation.
    ///
    /// - Parameter wanted: Whether it reads or writes, in a job that does both; nil for by chance.
    /// - Returns: The operation; nil when the job has done all it was to do.
    package func next(_ wanted: Operation.Kind? = nil) -> Operation? {
        if let write = trimmed {
            trimmed = nil
            return account(write)
        }
        guard !isSpent else { return nil }
        if plan.options.flushInterval > 0, writesSinceFlush >= plan.options.flushInterval {
            writesSinceFlush = 0
            return Operation(kind: .flush, serial: serial)
        }
        let kind = mode.isMixed ? wanted ?? drawKind() : drawKind()
        let byteCount = UInt64(fixedByteCount ?? drawByteCount(kind))
        var operation = Operation(kind: kind)
        (operation.offset, operation.byteCount) =
            mode.isRandom ? random(byteCount) : next(kind, byteCount)
        if kind == .trim, mode.writes {
            var write = operation
            write.kind = .write
            trimmed = write
        }
        return account(operation)
    }

    private var isSpent: Bool {
        if let budget = plan.budget, movedByteCount >= budget { return true }
        if let limit = plan.options.operationCountMax { return countedOperations >= limit }
        return false
    }

    /// The flush behind a job's last write, once, where it is asked for: for whoever has waited for
    /// that write.
    package func finalFlush() -> Operation? {
        guard owesFinalFlush else { return nil }
        owesFinalFlush = false
        return Operation(kind: .flush, serial: serial)
    }

    private func account(_ operation: Operation) -> Operation {
        var operation = operation
        movedByteCount += UInt64(operation.byteCount)
        countedOperations += 1
        if operation.kind == .write {
            serial &+= 1
            writesSinceFlush += 1
            operation.forceUnitAccess = plan.options.forceUnitAccess
        }
        operation.serial = serial
        return operation
    }

    private func drawKind() -> Operation.Kind {
        if mode.trims { return .trim }
        guard mode.isMixed else { return mode.reads ? .read : .write }
        return kindRandom.next(below: 100) < UInt64(plan.options.readPercent) ? .read : .write
    }

    private func drawByteCount(_ kind: Operation.Kind) -> Int {
        let sizes = plan.options.blockSizes[kind]
        var point = Int(sizeRandom.next(below: 100))
        for entry in sizes.entries {
            if point < entry.percent { return entry.byteCount }
            point -= entry.percent
        }
        return sizes.entries[0].byteCount
    }

    // MARK: - Places

    private func next(_ kind: Operation.Kind, _ wanted: UInt64) -> (UInt64, Int) {
        var cursor = kind == .read ? cursors.read : cursors.change
        if cursor >= plan.byteCount { cursor = 0 }
        let byteCount = min(wanted, plan.byteCount - cursor)
        let place = plan.offset + cursor
        cursor += byteCount + mode.gapByteCount
        if kind == .read { cursors.read = cursor } else { cursors.change = cursor }
        return (place, Int(byteCount))
    }

    private func random(_ wanted: UInt64) -> (UInt64, Int) {
        if usesPermutation { return region(permutedPlace(), wanted) }
        if let map { return visit(map, wanted) }
        let place: UInt64
        if runRest > 0 {
            runRest -= 1
            place = runPlace
        } else {
            place = skewed?.next(&placeRandom) ?? placeRandom.next(below: placeCount)
            runRest = mode.runLength - 1
        }
        // A large block near the end begins earlier: it must fit.
        let count = (wanted + placeByteCount - 1) / placeByteCount
        let fitting = min(place, placeCount - min(count, placeCount))
        runPlace = fitting + count >= placeCount ? 0 : fitting + count
        return region(fitting, wanted)
    }

    private func region(_ place: UInt64, _ byteCount: UInt64) -> (UInt64, Int) {
        (plan.offset + place * placeByteCount, Int(byteCount))
    }

    private func permutedPlace() -> UInt64 {
        if permutationIndex == placeCount {
            passCount += 1
            permutationIndex = 0
            permutation = Permutation(count: placeCount, seed: plan.seed &+ passCount)
        }
        defer { permutationIndex += 1 }
        return permutation(permutationIndex)
    }

    /// A free place, and as much of what is wanted as is free behind it.
    private func visit(_ map: PlaceMap, _ wanted: UInt64) -> (UInt64, Int) {
        if map.freeCount == 0 { map.reset() }
        let start = runRest > 0 ? runPlace : placeRandom.next(below: placeCount)
        runRest = runRest > 0 ? runRest - 1 : mode.runLength - 1
        let place = map.firstFree(from: start)
        let count = (wanted + placeByteCount - 1) / placeByteCount
        let visited = map.visit(place, atMost: count)
        runPlace = place + visited >= placeCount ? 0 : place + visited
        return region(place, min(wanted, visited * placeByteCount))
    }
}
