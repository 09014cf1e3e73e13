// The medium of a simulated device and the volatile cache in front of it.

import BlockCore

/// The memory that simulated devices use, mapped once and handed from run to run.
///
/// Ten thousand seeds must not map and unmap ten thousand disks: a run clears what the one
/// before touched, no more.
public final class SimulationMemory {
    /// The largest device, in bytes.
    public static var deviceByteCountMax: Int { 128 << 20 }
    /// Pages that can be in the volatile cache at once; more are destaged.
    static var versionCountMax: Int { 16_384 }

    let image: ByteRegion
    let versions: ByteRegion
    let buffers: ByteRegion
    private let arena: MemoryArena

    /// Bytes for the buffers of requests in flight.
    static var bufferByteCount: Int { 48 << 20 }

    /// Maps the memory; pages cost nothing until they are touched.
    public init() {
        let versionByteCount = SimulationMemory.versionCountMax * PageStore.pageByteCount
        arena = MemoryArena(
            byteCount: SimulationMemory.deviceByteCountMax + versionByteCount
                + SimulationMemory.bufferByteCount
        )
        image = arena.allocate(byteCount: SimulationMemory.deviceByteCountMax)
        versions = arena.allocate(byteCount: versionByteCount)
        buffers = arena.allocate(byteCount: SimulationMemory.bufferByteCount)
    }
}

/// Pages that are durable, and versions of pages that are not yet.
///
/// Invariants: a page's versions form a list, newest first; a version that becomes durable takes
/// its place in the image and ends all older ones; a reader sees the newest version, or else the
/// image.
final class PageStore {
    static var pageByteCount: Int { BlockGeometry.blockByteCount }
    /// Not completed yet: no flush covers it.
    static var never: UInt64 { .max }

    private struct Version: BitwiseCopyable {
        var page: Int32 = -1
        var older: Int32 = -1
        var completedTick: UInt64 = 0
    }

    let pageCount: Int
    private let memory: SimulationMemory
    private let newest: FixedArray<Int32>
    private let versions: FixedArray<Version>
    private let isListed: FixedArray<Bool>
    private let wasWritten: FixedArray<Bool>
    private(set) var isUnreadable: [Int: Bool] = [:]
    /// Pages with versions, in the order of their first one; the order makes runs repeatable.
    private var listed: [Int32] = []
    /// Every page ever written, for clearing and for choosing victims of damage.
    private(set) var writtenPages: [Int32] = []
    private var freeVersions: [Int32]

    init(byteCount: UInt64, memory: SimulationMemory) {
        precondition(byteCount <= UInt64(SimulationMemory.deviceByteCountMax), "device too large")
        pageCount = Int(byteCount) / PageStore.pageByteCount
        self.memory = memory
        newest = FixedArray(repeating: -1, count: pageCount)
        versions = FixedArray(repeating: Version(), count: SimulationMemory.versionCountMax)
        isListed = FixedArray(repeating: false, count: pageCount)
        wasWritten = FixedArray(repeating: false, count: pageCount)
        freeVersions = Array(0..<Int32(SimulationMemory.versionCountMax))
    }

    /// Gives the medium back as zeroes; the last thing done with a device.
    func clear() {
        for page in writtenPages { image(Int(page)).zero() }
        writtenPages = []
    }

    // MARK: - Transfers

    /// The contents of a page as a reader sees them.
    func page(_ page: Int) -> ByteRegion {
        newest[page] >= 0 ? data(newest[page]) : image(page)
    }

    /// Puts a version of `page` before all others.
    ///
    /// - Returns: The version, to be completed later.
    @discardableResult
    func write(_ page: Int, from source: ByteRegion, completedTick: UInt64) -> Int32 {
        if freeVersions.isEmpty { destageOldest() }
        let version = freeVersions.removeLast()
        data(version).copy(from: source)
        versions[Int(version)] = Version(
            page: Int32(page),
            older: newest[page],
            completedTick: completedTick
        )
        newest[page] = version
        noteWritten(page)
        if !isListed[page] {
            isListed[page] = true
            listed.append(Int32(page))
        }
        isUnreadable[page] = nil
        return version
    }

    /// Says that the write of the newest uncompleted versions of `page` ended.
    func complete(_ version: Int32, of page: Int, tick: UInt64, isDurable: Bool) {
        guard holds(version, page) else { return }
        versions[Int(version)].completedTick = tick
        if isDurable { commit(page, version) }
    }

    /// Makes every version that completed before `tick` durable.
    func flush(before tick: UInt64) {
        let pages = listed
        listed = []
        for page in pages {
            var version = newest[Int(page)]
            while version >= 0, versions[Int(version)].completedTick >= tick {
                version = versions[Int(version)].older
            }
            if version >= 0 { commit(Int(page), version) }
            relist(page)
        }
    }

    /// Drops some of the versions that completed before `tick`, as after a failed flush.
    func dropSome(before tick: UInt64, random: inout SeededRandom) {
        let pages = listed
        listed = []
        for page in pages {
            let version = newest[Int(page)]
            if version >= 0, versions[Int(version)].completedTick < tick,
                random.chance(perMille: 500)
            {
                dropAll(Int(page))
            }
            relist(page)
        }
    }

    // MARK: - Crash

    /// Decides what is left of every version, and forgets the cache.
    func crash(_ kind: CrashKind, random: inout SeededRandom) {
        for page in listed {
            resolve(Int(page), kind, &random)
            dropAll(Int(page))
            isListed[Int(page)] = false
        }
        listed = []
    }

    private func resolve(_ page: Int, _ kind: CrashKind, _ random: inout SeededRandom) {
        guard newest[page] >= 0 else { return }
        switch kind {
        case .process:
            // What was acknowledged stays; what was in flight may have come whole or in part.
            let base = newestCompleted(page)
            if base >= 0 { image(page).copy(from: data(base)) }
            mixSectors(page, keptPerMille: 500, &random) { $0.completedTick == PageStore.never }
        case .power(let kept):
            guard random.chance(perMille: kept) else { return }
            let count = versionCount(page)
            // Mostly the newest; a cache may also have destaged an older one and no more.
            let age = random.chance(perMille: 800) ? 0 : random.below(count)
            image(page).copy(from: data(version(page, age: age)))
        case .tornPower(let kept):
            mixSectors(page, keptPerMille: kept, &random) { _ in true }
        }
    }

    /// Takes each sector from the image or from one of the versions that `isCandidate` admits.
    private func mixSectors(
        _ page: Int,
        keptPerMille: Int,
        _ random: inout SeededRandom,
        where isCandidate: (Version) -> Bool
    ) {
        var version = newest[page]
        var candidates: [Int32] = []
        while version >= 0 {
            if isCandidate(versions[Int(version)]) { candidates.append(version) }
            version = versions[Int(version)].older
        }
        guard !candidates.isEmpty else { return }
        let isWhole = random.chance(perMille: 500)
        if isWhole {
            guard random.chance(perMille: keptPerMille) else { return }
            image(page).copy(from: data(random.pick(candidates)))
            return
        }
        for offset in stride(from: 0, to: PageStore.pageByteCount, by: SectorStamp.byteCount)
        where random.chance(perMille: keptPerMille) {
            let source = data(random.pick(candidates))
            image(page).copy(from: source.slice(offset, SectorStamp.byteCount), at: offset)
        }
    }

    // MARK: - Damage

    /// Flips up to 8 bits of what `page` holds.
    func rot(_ page: Int, random: inout SeededRandom) {
        let bytes = self.page(page)
        for _ in 0..<random.within(1...8) {
            let offset = random.below(PageStore.pageByteCount)
            let bit = UInt8(1) << UInt8(random.below(8))
            bytes.store(bytes.load(offset, as: UInt8.self) ^ bit, at: offset)
        }
    }

    /// Makes `page` fail every read until it is written again.
    func makeUnreadable(_ page: Int) { isUnreadable[page] = true }

    /// Replaces what a discarded page holds, at once and for good.
    func scramble(_ page: Int, random: inout SeededRandom) {
        dropAll(page)
        switch random.below(3) {
        case 0: image(page).zero()
        case 1:
            noteWritten(page)
            image(page).store(random.next(), at: random.below(512) * 8)
        default: break
        }
    }

    // MARK: - Private

    private func image(_ page: Int) -> ByteRegion {
        memory.image.slice(page * PageStore.pageByteCount, PageStore.pageByteCount)
    }

    private func data(_ version: Int32) -> ByteRegion {
        memory.versions.slice(Int(version) * PageStore.pageByteCount, PageStore.pageByteCount)
    }

    private func noteWritten(_ page: Int) {
        guard !wasWritten[page] else { return }
        wasWritten[page] = true
        writtenPages.append(Int32(page))
    }

    private func holds(_ version: Int32, _ page: Int) -> Bool {
        var current = newest[page]
        while current >= 0 {
            if current == version { return true }
            current = versions[Int(current)].older
        }
        return false
    }

    private func versionCount(_ page: Int) -> Int {
        var count = 0
        var current = newest[page]
        while current >= 0 {
            count += 1
            current = versions[Int(current)].older
        }
        return count
    }

    private func version(_ page: Int, age: Int) -> Int32 {
        var current = newest[page]
        for _ in 0..<age { current = versions[Int(current)].older }
        return current
    }

    private func newestCompleted(_ page: Int) -> Int32 {
        var current = newest[page]
        while current >= 0, versions[Int(current)].completedTick == PageStore.never {
            current = versions[Int(current)].older
        }
        return current
    }

    /// Makes `version` the durable one and ends all older versions.
    private func commit(_ page: Int, _ version: Int32) {
        image(page).copy(from: data(version))
        if newest[page] == version {
            newest[page] = -1
        } else {
            var current = newest[page]
            while versions[Int(current)].older != version {
                current = versions[Int(current)].older
            }
            versions[Int(current)].older = -1
        }
        release(version)
    }

    private func release(_ first: Int32) {
        var version = first
        while version >= 0 {
            let older = versions[Int(version)].older
            versions[Int(version)] = Version()
            freeVersions.append(version)
            version = older
        }
    }

    private func dropAll(_ page: Int) {
        release(newest[page])
        newest[page] = -1
    }

    private func relist(_ page: Int32) {
        if newest[Int(page)] >= 0 {
            listed.append(page)
        } else {
            isListed[Int(page)] = false
        }
    }

    /// A full cache writes the oldest pages out by itself.
    private func destageOldest() {
        for (index, page) in listed.enumerated() {
            let version = newestCompleted(Int(page))
            guard version >= 0 else { continue }
            commit(Int(page), version)
            listed.remove(at: index)
            relist(page)
            return
        }
        preconditionFailure("more writes in flight than the volatile cache holds")
    }
}
