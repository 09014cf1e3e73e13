// Map pages in memory: a fixed number of frames, found by key, evicted by a clock.
//
// Invariants:
//   - a dirty frame is never evicted; only a checkpoint makes it clean
//   - a dirty frame's parent page is resident, dirty and pinned once per dirty child
//   - a frame is loading, or holds a verified page, or has failed

internal import BlockCore
internal import LogFormat

/// Names a map page: layer slot, level and index in the level.
struct PageKey: Hashable, BitwiseCopyable {
    let rawValue: UInt64

    init(layer: Int, level: UInt8, index: UInt64) {
        precondition(index < 1 << 29, "page index beyond the largest volume")
        rawValue = UInt64(layer) << 32 | UInt64(level) << 29 | index
    }

    init(rawValue: UInt64) { self.rawValue = rawValue }

    var layer: Int { Int(rawValue >> 32) }
    var level: UInt8 { UInt8((rawValue >> 29) & 7) }
    var index: UInt64 { rawValue & ((1 << 29) - 1) }
}

/// What is known of a frame.
struct FrameFlags: OptionSet, BitwiseCopyable {
    var rawValue: UInt16

    /// Its page is being read.
    static var loading: Self { Self(rawValue: 1) }
    /// Its page could not be read or does not match its checksum.
    static var failed: Self { Self(rawValue: 2) }
    /// Changed since it was last written.
    static var dirty: Self { Self(rawValue: 4) }
    /// Dirty, and part of the checkpoint under way in its present form.
    static var frozen: Self { Self(rawValue: 8) }
    /// Its parent does not name it yet.
    static var unlinked: Self { Self(rawValue: 16) }
    /// Every entry has been looked up through all ancestors.
    static var resolved: Self { Self(rawValue: 32) }
    /// Used since the clock's hand last passed.
    static var referenced: Self { Self(rawValue: 64) }
    /// The layer has no such page; the frame only remembers what ancestors hold.
    static var phantom: Self { Self(rawValue: 128) }
}

/// One frame's book-keeping.
struct Frame: BitwiseCopyable {
    var key: UInt64 = 0
    var flags: FrameFlags = []
    var isUsed = false
    /// Dirty children, and users that hold it across a wait.
    var pinCount: UInt32 = 0
    /// The checksum its page must have; while loading.
    var expectedCRC: UInt32 = 0
    /// The layer slot where looking up through ancestors goes on.
    var resolveNext: Int32 = -1
    /// First request slot waiting for it, or -1.
    var waitHead: Int32 = -1
    /// Next frame in its hash bucket, or -1.
    var hashNext: Int32 = -1
    /// One bit per entry that was inherited from an ancestor.
    var inherited0: UInt64 = 0
    var inherited1: UInt64 = 0
    var inherited2: UInt64 = 0
    var inherited3: UInt64 = 0

    @inline(always)
    func isInherited(_ entry: Int) -> Bool {
        let bit: UInt64 = 1 << UInt64(entry & 63)
        return switch entry >> 6 {
        case 0: inherited0 & bit != 0
        case 1: inherited1 & bit != 0
        case 2: inherited2 & bit != 0
        default: inherited3 & bit != 0
        }
    }

    @inline(always)
    mutating func setInherited(_ entry: Int, _ value: Bool) {
        let bit: UInt64 = 1 << UInt64(entry & 63)
        switch entry >> 6 {
        case 0: inherited0 = value ? inherited0 | bit : inherited0 & ~bit
        case 1: inherited1 = value ? inherited1 | bit : inherited1 & ~bit
        case 2: inherited2 = value ? inherited2 | bit : inherited2 & ~bit
        default: inherited3 = value ? inherited3 | bit : inherited3 & ~bit
        }
    }

    var hasInherited: Bool { inherited0 | inherited1 | inherited2 | inherited3 != 0 }

    mutating func clearInherited() {
        inherited0 = 0
        inherited1 = 0
        inherited2 = 0
        inherited3 = 0
    }
}

/// The frames and their index.
final class MapCache {
    /// Number of frames.
    let count: Int
    let frames: FixedArray<Frame>
    private let memory: ByteRegion
    private let buckets: FixedArray<Int32>
    private let bucketMask: UInt64
    private var freeHead: Int32 = -1
    private var hand = 0
    private(set) var dirtyCount = 0
    private(set) var usedCount = 0
    private let resolvingLinks: SlotLinks
    /// The frames whose `resolveNext` names a layer.
    private var resolving = SlotList()
    /// Frames looked at for layers that were merged; what tests bound instead of time.
    private(set) var resolvingStepCount: UInt64 = 0

    init(count: Int, arena: MemoryArena) {
        self.count = count
        memory = arena.allocate(byteCount: count * 4096)
        frames = FixedArray(repeating: Frame(), count: count)
        var bucketCount = 16
        while bucketCount < count * 2 { bucketCount *= 2 }
        resolvingLinks = SlotLinks(count: count)
        buckets = FixedArray(repeating: -1, count: bucketCount)
        bucketMask = UInt64(bucketCount - 1)
        for index in stride(from: count - 1, through: 0, by: -1) {
            frames[index].hashNext = freeHead
            freeHead = Int32(index)
        }
    }

    /// A frame's page.
    @inline(always)
    func page(_ frame: Int) -> ByteRegion { memory.slice(frame &* 4096, 4096) }

    @inline(always)
    private func bucket(_ key: UInt64) -> Int {
        Int(((key &* 0x9E37_79B9_7F4A_7C15) >> 20) & bucketMask)
    }

    /// The frame of `key`, or -1.
    @inline(always)
    func find(_ key: PageKey) -> Int {
        var frame = buckets[bucket(key.rawValue)]
        while frame >= 0 {
            if frames[Int(frame)].key == key.rawValue { return Int(frame) }
            frame = frames[Int(frame)].hashNext
        }
        return -1
    }

    /// Takes a frame for `key`, evicting a clean one if need be.
    ///
    /// - Returns: The frame, its page undefined; -1 when every frame is dirty, pinned or loading.
    func allocate(_ key: PageKey) -> Int {
        if freeHead < 0, !evictOne() { return -1 }
        let frame = Int(freeHead)
        freeHead = frames[frame].hashNext
        var fresh = Frame()
        fresh.key = key.rawValue
        fresh.isUsed = true
        fresh.flags = [.referenced]
        let slot = bucket(key.rawValue)
        fresh.hashNext = buckets[slot]
        frames[frame] = fresh
        buckets[slot] = Int32(frame)
        usedCount += 1
        return frame
    }

    /// Makes sure that the next `wanted` calls of ``allocate(_:)`` find a frame.
    ///
    /// - Returns: false when too many frames are dirty, pinned or loading.
    func reserve(_ wanted: Int) -> Bool {
        while count - usedCount < wanted {
            guard evictOne() else { return false }
        }
        return true
    }

    /// Gives a clean frame back.
    func release(_ frame: Int) {
        precondition(frames[frame].isUsed, "released twice")
        precondition(!frames[frame].flags.contains(.dirty), "a dirty page is never dropped")
        precondition(frames[frame].waitHead < 0, "requests wait for the page")
        setResolveNext(frame, -1)
        let slot = bucket(frames[frame].key)
        var cursor = buckets[slot]
        if Int(cursor) == frame {
            buckets[slot] = frames[frame].hashNext
        } else {
            while Int(frames[Int(cursor)].hashNext) != frame {
                cursor = frames[Int(cursor)].hashNext
            }
            frames[Int(cursor)].hashNext = frames[frame].hashNext
        }
        frames[frame].isUsed = false
        frames[frame].hashNext = freeHead
        freeHead = Int32(frame)
        usedCount -= 1
    }

    func setDirty(_ frame: Int) {
        guard !frames[frame].flags.contains(.dirty) else { return }
        frames[frame].flags.insert(.dirty)
        dirtyCount += 1
    }

    func clearDirty(_ frame: Int) {
        guard frames[frame].flags.contains(.dirty) else { return }
        frames[frame].flags.remove([.dirty, .frozen])
        dirtyCount -= 1
    }

    // MARK: - Frames being looked up

    /// Says in which layer's slot looking up goes on, or with -1 that it does not.
    @inline(always)
    func setResolveNext(_ frame: Int, _ layer: Int32) {
        let old = frames[frame].resolveNext
        frames[frame].resolveNext = layer
        // Who looks up below more pages than there are frames must find its place again.
        if layer >= 0 { frames[frame].flags.insert(.referenced) }
        guard (old < 0) != (layer < 0) else { return }
        if layer < 0 {
            resolvingLinks.remove(frame, from: &resolving)
        } else {
            resolvingLinks.append(frame, to: &resolving)
        }
    }

    /// Has leaves looked up from the top again that may have passed a layer before it took a
    /// leaf's entries over.
    func restartResolving(_ leafIndex: UInt64) {
        var cursor = resolving.first
        while cursor >= 0 {
            let frame = Int(cursor)
            cursor = resolvingLinks.next(frame)
            resolvingStepCount += 1
            let key = PageKey(rawValue: frames[frame].key)
            if key.level == 0, key.index == leafIndex { setResolveNext(frame, -1) }
        }
    }

    /// Looks for frames that are listed as being looked up and are not, or the other way round.
    func brokenResolving() -> String? {
        for frame in 0..<count {
            let isResolving = frames[frame].isUsed && frames[frame].resolveNext >= 0
            guard isResolving == resolvingLinks.isListed(frame) else {
                return "frame \(frame) is being looked up: \(isResolving), listed otherwise"
            }
        }
        return nil
    }

    private func evictOne() -> Bool {
        for _ in 0..<(2 * count) {
            let frame = hand
            hand = hand + 1 == count ? 0 : hand + 1
            let flags = frames[frame].flags
            guard frames[frame].isUsed, frames[frame].pinCount == 0,
                frames[frame].waitHead < 0,
                flags.isDisjoint(with: [.loading, .dirty])
            else { continue }
            if flags.contains(.referenced) {
                frames[frame].flags.remove(.referenced)
                continue
            }
            release(frame)
            return true
        }
        return false
    }
}
