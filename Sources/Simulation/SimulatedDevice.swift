// A disk that does everything a disk may do, under a seed.
//
// Executes `DeviceRequest`s with seeded latency, so that they end in any order; keeps what was
// not flushed apart from what was, and at a crash keeps, loses or tears each unflushed page on
// its own.
//
// Invariants:
//   a read that succeeds returns what the newest write to each page left, unless damaged
//   a write is durable once a flush that was submitted after its end has ended, or, for
//     `writeDurable`, at its own end
//   damage is counted, and there is never more of it than the scenario allows
//   of the two copies of one superblock at most one is ever damaged
//
// Checked of the store meanwhile: alignment and bounds of every transfer, and that it leaves the
// memory of a write alone until the write has ended.
//
// Not simulated: a device that gets slower with age, and reordering of reads within one request.

import BlockCore
import LogStore
public import StorageIO

/// A device in memory with a volatile cache, faults and crashes under a seed.
public final class SimulatedDevice {
    /// What the store is told about it.
    public let geometry: DeviceGeometry
    /// What it may do wrong; may change while it runs.
    public var faults: DeviceFaults
    /// The number of requests taken so far, over all crashes.
    public private(set) var requestCount: UInt64 = 0
    /// Pieces of damage so far.
    public private(set) var damageCount = 0
    /// Pieces of damage that hit a superblock.
    public private(set) var superblockDamageCount = 0
    /// Faults that were reported as an errno.
    public private(set) var errorCount = 0
    /// The first thing that the store did and no device allows.
    public private(set) var misuse: String?
    /// The request that is to fail with an I/O error, counted as `requestCount` does.
    public var failingRequest: UInt64?
    /// A planted bug of the device, for canaries.
    var canary: Canary?

    private let pages: PageStore
    private var random: SeededRandom
    private var inFlight: [InFlight] = []
    private var tick: UInt64 = 1
    private var damagedSuperblockPages: [Int] = []
    private let superblockPages: [Int]
    private let trace: SimulationTrace

    /// One request under way.
    private struct InFlight {
        var request: DeviceRequest
        var dueNanoseconds: UInt64
        var submittedTick: UInt64
        var errno: Int32 = 0
        var checksum: UInt32 = 0
        /// Whether it took effect when it was submitted rather than when it ends.
        var isEarly = false
        /// The versions it made, one per page, while it is not complete.
        var versions: [Int32] = []
        /// The page where a misdirected write lands.
        var misdirectedPage: Int?
        var isLost = false
    }

    /// Creates a device full of zeroes.
    ///
    /// - Parameters:
    ///   - byteCount: Its size, a multiple of 4096.
    ///   - superblockOffsets: Where the store's roots lie, copies of one another in pairs, of
    ///     each of which at most one is damaged.
    ///   - faults: What may go wrong.
    ///   - seed: Decides when it does.
    ///   - memory: The memory to use; one device at a time.
    ///   - trace: Where to note what it does.
    public init(
        byteCount: UInt64,
        superblockOffsets: [UInt64],
        faults: DeviceFaults,
        seed: UInt64,
        memory: SimulationMemory,
        trace: SimulationTrace
    ) {
        geometry = DeviceGeometry(byteCount: byteCount)
        self.faults = faults
        self.trace = trace
        random = SeededRandom(seed: seed)
        pages = PageStore(byteCount: byteCount, memory: memory)
        superblockPages = superblockOffsets.map { Int($0) / PageStore.pageByteCount }
    }

    /// Gives the medium back to the memory it came from.
    public func clear() { pages.clear() }

    // MARK: - Requests

    /// The number of requests under way.
    public var inFlightCount: Int { inFlight.count }

    /// When the next request ends, in nanoseconds; nil when none is under way.
    public var nextEndNanoseconds: UInt64? { inFlight.lazy.map(\.dueNanoseconds).min() }

    /// Takes a request of the store.
    public func submit(_ request: DeviceRequest, nowNanoseconds: UInt64) {
        requestCount += 1
        tick += 1
        checkContract(request)
        guard misuse == nil else { return }
        var entry = InFlight(request: request, dueNanoseconds: 0, submittedTick: tick)
        entry.dueNanoseconds = nowNanoseconds + latency(of: request)
        entry.isEarly = random.chance(perMille: 250)
        decideFaults(&entry)
        if request.kind == .write || request.kind == .writeDurable {
            entry.checksum = request.region.crc32c()
        }
        if entry.isEarly { takeEffect(&entry) }
        inFlight.append(entry)
        trace.note(1, UInt64(request.kind.rawValue) << 56 ^ request.offset, request.byteCount) {
            "\(nowNanoseconds) device #\(requestCount) \(request.kind) "
                + "\(request.offset)+\(request.byteCount) crc \(entry.checksum)"
                + (entry.errno != 0 ? " will fail" : "")
        }
        maybeDamage()
    }

    /// Ends the request that is due first, if any is due by now.
    public func takeEnd(nowNanoseconds: UInt64) -> DeviceCompletion? {
        var first: Int?
        for (index, entry) in inFlight.enumerated() where entry.dueNanoseconds <= nowNanoseconds {
            if let best = first, inFlight[best].dueNanoseconds <= entry.dueNanoseconds { continue }
            first = index
        }
        guard let first else { return nil }
        var entry = inFlight.remove(at: first)
        tick += 1
        if !entry.isEarly { takeEffect(&entry) }
        finish(entry)
        trace.note(2, entry.request.token, UInt64(entry.errno)) {
            "\(nowNanoseconds) device end \(entry.request.kind) \(entry.request.offset)"
                + "+\(entry.request.byteCount) errno \(entry.errno)"
        }
        return DeviceCompletion(token: entry.request.token, errno: entry.errno)
    }

    /// Stops everything: in-flight requests end nowhere, unflushed pages meet their fate.
    ///
    /// - Precondition: the memory of the requests in flight is still there.
    public func crash(_ kind: CrashKind) {
        for var entry in inFlight where !entry.isEarly && random.chance(perMille: 500) {
            let isWrite = entry.request.kind == .write || entry.request.kind == .writeDurable
            if isWrite { takeEffect(&entry) }
        }
        inFlight.removeAll()
        pages.crash(kind, random: &random)
        tick += 1
    }

    /// Reads what is there now, at once; what cannot be read gives an errno.
    ///
    /// - Parameters:
    ///   - offset: Bytes from the start of the device, a multiple of 4096.
    ///   - region: Whole pages to fill.
    /// - Returns: 0, or an errno.
    func readThrough(_ offset: UInt64, _ region: ByteRegion) -> Int32 {
        let first = Int(offset) / PageStore.pageByteCount
        let count = region.byteCount / PageStore.pageByteCount
        guard region.byteCount % PageStore.pageByteCount == 0, first + count <= pages.pageCount
        else { return SimulatedDevice.ioError }
        for index in 0..<count {
            if pages.isUnreadable[first + index] == true { return SimulatedDevice.ioError }
            region.copy(from: pages.page(first + index), at: index * PageStore.pageByteCount)
        }
        return 0
    }

    // MARK: - Effects

    private func takeEffect(_ entry: inout InFlight) {
        let request = entry.request
        let first = Int(request.offset) / PageStore.pageByteCount
        let count = Int(request.byteCount) / PageStore.pageByteCount
        switch request.kind {
        case .read:
            for index in 0..<count { readPage(first + index, index, &entry) }
        case .write, .writeDurable:
            let written = entry.errno == 0 ? count : random.below(count + 1)
            if !entry.isLost {
                for index in 0..<written { writePage(first + index, index, &entry) }
            }
            if let page = entry.misdirectedPage {
                pages.write(page, from: source(entry, 0), completedTick: tick)
            }
        case .discard:
            for index in 0..<count { pages.scramble(first + index, random: &random) }
        case .flush: break
        }
    }

    private func readPage(_ page: Int, _ index: Int, _ entry: inout InFlight) {
        if pages.isUnreadable[page] == true {
            entry.errno = SimulatedDevice.ioError
            errorCount += 1
            return
        }
        entry.request.region.copy(from: pages.page(page), at: index * PageStore.pageByteCount)
    }

    private func writePage(_ page: Int, _ index: Int, _ entry: inout InFlight) {
        let version = pages.write(page, from: source(entry, index), completedTick: PageStore.never)
        entry.versions.append(version)
    }

    private func source(_ entry: InFlight, _ index: Int) -> ByteRegion {
        entry.request.region.slice(index * PageStore.pageByteCount, PageStore.pageByteCount)
    }

    private func finish(_ entry: InFlight) {
        let request = entry.request
        switch request.kind {
        case .read, .discard: break
        case .write, .writeDurable:
            if request.region.crc32c() != entry.checksum {
                note(misuse: "changed the memory of a write at \(request.offset) under way")
            }
            let isDurable =
                request.kind == .writeDurable && entry.errno == 0
                && canary != .forgetDurableWrite
            let first = Int(request.offset) / PageStore.pageByteCount
            for (index, version) in entry.versions.enumerated() {
                pages.complete(version, of: first + index, tick: tick, isDurable: isDurable)
            }
        case .flush:
            if entry.errno != 0 {
                pages.dropSome(before: entry.submittedTick, random: &random)
            } else if canary != .forgetFlush {
                pages.flush(before: entry.submittedTick)
            }
        }
    }

    // MARK: - Faults

    private static var ioError: Int32 { 5 }

    private func latency(of request: DeviceRequest) -> UInt64 {
        let spread = faults.latencyNanosecondsMax - faults.latencyNanosecondsMin + 1
        let base = faults.latencyNanosecondsMin + random.below(spread)
        return random.chance(perMillion: faults.slowPerMillion) ? base * 100 : base
    }

    private func decideFaults(_ entry: inout InFlight) {
        let request = entry.request
        var fails = false
        switch request.kind {
        case .read: fails = random.chance(perMillion: faults.readErrorPerMillion)
        case .write, .writeDurable:
            fails = random.chance(perMillion: faults.writeErrorPerMillion)
            decideDamage(&entry)
        case .flush: fails = random.chance(perMillion: faults.flushErrorPerMillion)
        case .discard: break
        }
        if fails || failingRequest == requestCount {
            entry.errno = SimulatedDevice.ioError
            errorCount += 1
        }
    }

    private func decideDamage(_ entry: inout InFlight) {
        guard damageCount < faults.damageCountMax else { return }
        let first = Int(entry.request.offset) / PageStore.pageByteCount
        if random.chance(perMillion: faults.lostWritePerMillion), admitsDamage(first) {
            entry.isLost = true
            countDamage(first, "lost write")
        } else if random.chance(perMillion: faults.misdirectedWritePerMillion),
            let victim = victim(), victim != first, admitsDamage(victim)
        {
            entry.misdirectedPage = victim
            countDamage(victim, "misdirected write")
            if random.chance(perMille: 500), admitsDamage(first) {
                entry.isLost = true
                countDamage(first, "and lost")
            }
        }
    }

    private func maybeDamage() {
        guard damageCount < faults.damageCountMax else { return }
        if random.chance(perMillion: faults.rotPerMillion), let page = victim(),
            admitsDamage(page)
        {
            pages.rot(page, random: &random)
            countDamage(page, "rot")
        }
        if random.chance(perMillion: faults.unreadablePerMillion), let page = victim(),
            admitsDamage(page)
        {
            pages.makeUnreadable(page)
            countDamage(page, "unreadable")
        }
    }

    private func victim() -> Int? {
        pages.writtenPages.isEmpty ? nil : Int(random.pick(pages.writtenPages))
    }

    private func admitsDamage(_ page: Int) -> Bool {
        guard let slot = superblockPages.firstIndex(of: page) else { return true }
        return faults.mayDamageSuperblock
            && !damagedSuperblockPages.contains(superblockPages[slot ^ 1])
    }

    private func countDamage(_ page: Int, _ what: String) {
        damageCount += 1
        if superblockPages.contains(page) {
            damagedSuperblockPages.append(page)
            superblockDamageCount += 1
        }
        trace.say { "damage: \(what) at \(page * PageStore.pageByteCount)" }
    }

    // MARK: - Contract

    private func checkContract(_ request: DeviceRequest) {
        let page = UInt64(PageStore.pageByteCount)
        if request.kind == .flush { return }
        if request.offset % page != 0 || request.byteCount % page != 0 || request.byteCount == 0 {
            note(misuse: "\(request.kind) not aligned: \(request.offset)+\(request.byteCount)")
        } else if request.byteCount > geometry.byteCount
            || request.offset > geometry.byteCount - request.byteCount
        {
            note(
                misuse: "\(request.kind) beyond the device: \(request.offset)"
                    + "+\(request.byteCount)"
            )
        } else if request.kind != .discard,
            UInt64(request.region.byteCount) != request.byteCount
        {
            note(misuse: "\(request.kind) of \(request.byteCount) with another region")
        }
    }

    private func note(misuse text: String) {
        if misuse == nil { misuse = "the store " + text }
    }
}

/// A bug planted on purpose, to see that the simulation would find it.
public enum Canary: String, Sendable, CaseIterable {
    /// The device acknowledges flushes and does nothing.
    case forgetFlush = "forget-flush"
    /// The device treats a durable write as a volatile one.
    case forgetDurableWrite = "forget-durable-write"
    /// A flush of a volume is acknowledged without asking the store.
    case skipVolumeFlush = "skip-volume-flush"
    /// A write asked to be durable is given to the store as an ordinary one.
    case dropForceUnitAccess = "drop-fua"
    /// A read now and then returns what the block held before.
    case staleRead = "stale-read"
    /// A trim is acknowledged without asking the store.
    case skipTrim = "skip-trim"
    /// Replay takes changes that were numbered from outside for the store's own.
    case replayIgnoresNumbers = "replay-ignores-numbers"
    /// A checkpoint does not say how far the streams of its volumes came.
    case forgetPosition = "forget-position"

    /// Whether only volumes with numbered changes can show it.
    var isOfReplicas: Bool { storeDefect != nil }

    /// The bug as the store plants it.
    var storeDefect: StoreDefect? {
        switch self {
        case .replayIgnoresNumbers: .replayIgnoresNumbers
        case .forgetPosition: .positionNotCheckpointed
        case .forgetFlush, .forgetDurableWrite, .skipVolumeFlush, .dropForceUnitAccess, .staleRead,
            .skipTrim:
            nil
        }
    }
}
