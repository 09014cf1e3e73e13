// What a replica keeps, simulated: a log of which a crash leaves a prefix.

internal import BlockCore
internal import Replication

/// A block's copy: the number it came with, and a value that stands for its bytes.
struct BlockCopy: Hashable {
    var number = WriteNumber.zero
    /// Unique for each block of each write of a client; 0 for what was never written.
    var value: UInt64 = 0
}

/// The log of one replica, with what it says about each block.
///
/// Everything takes effect in memory at once, and becomes durable with a flush. What a crash
/// leaves is a prefix of the log that contains what was flushed.
final class ReplicaDisk {
    private enum Entry {
        case write(number: WriteNumber, range: BlockRange, value: UInt64)
        case fill(block: UInt64, copy: BlockCopy)
        case record(ReplicaRecord)
        case snapshot(SnapshotMark)
        case drop(UInt64)
    }

    /// The state that a part of the log leads to.
    private struct State {
        /// What was written since the last snapshot.
        var blocks: [UInt64: BlockCopy] = [:]
        /// What each snapshot has that the one before has not, the oldest first.
        var layers: [Layer] = []
        var record: ReplicaRecord
        var streamed: UInt64

        mutating func apply(_ entry: Entry, comparing: Bool) {
            switch entry {
            case .write(let number, let range, let value):
                for index in 0..<UInt64(range.count) {
                    let copy = BlockCopy(number: number, value: value == 0 ? 0 : value + index)
                    take(range.first + index, copy)
                }
                if number.epoch == record.accepted { streamed = number.counter }
            case .fill(let block, let copy):
                if comparing { take(block, copy) } else { blocks[block] = copy }
            case .record(let newer):
                record = newer
                streamed = newer.streamed
            case .snapshot(let mark):
                guard !layers.contains(where: { $0.mark == mark }) else { return }
                layers.append(Layer(mark: mark, blocks: blocks))
                blocks = [:]
            case .drop(let id): drop(id)
            }
        }

        /// Deletes a snapshot: what it has goes to the next, where that has nothing.
        private mutating func drop(_ id: UInt64) {
            guard let index = layers.firstIndex(where: { $0.mark.id == id }) else { return }
            let gone = layers.remove(at: index).blocks
            if index < layers.count {
                layers[index].blocks.merge(gone) { own, _ in own }
            } else {
                blocks.merge(gone) { own, _ in own }
            }
        }

        var liveCount: Int {
            layers.reduce(blocks.values.count { $0.value != 0 }) { count, layer in
                count + layer.blocks.values.count { $0.value != 0 }
            }
        }

        func copy(_ block: UInt64, in view: ReplicaView) -> BlockCopy {
            var isInView = view == .volume
            if isInView, let copy = blocks[block] { return copy }
            for layer in layers.reversed() {
                isInView = isInView || view == .snapshot(layer.mark.id)
                if isInView, let copy = layer.blocks[block] { return copy }
            }
            return BlockCopy()
        }

        /// Everything as it is now, or was; nil when there is no such snapshot.
        func blocks(in view: ReplicaView) -> [UInt64: BlockCopy]? {
            var result: [UInt64: BlockCopy] = [:]
            for layer in layers {
                result.merge(layer.blocks) { _, newer in newer }
                if view == .snapshot(layer.mark.id) { return result }
            }
            guard view == .volume else { return nil }
            return result.merging(blocks) { _, newer in newer }
        }

        private mutating func take(_ block: UInt64, _ copy: BlockCopy) {
            if copy.number > blocks[block, default: BlockCopy()].number { blocks[block] = copy }
        }
    }

    private struct Layer {
        var mark: SnapshotMark
        var blocks: [UInt64: BlockCopy]
    }

    private var durable: State
    private var current: State
    private var log: [Entry] = []
    private var foldedCount = 0
    private let comparesFills: Bool

    /// Blocks that may have bytes, in all layers, before writes are told that there is no room; nil
    /// while there is plenty.
    var capacity: Int?

    /// The numbers of copies that cannot be read; a block with another one can.
    private var damaged: [UInt64: WriteNumber] = [:]

    /// The greatest number each block ever had here, in memory and durably.
    private(set) var held: [UInt64: WriteNumber] = [:]
    private(set) var heldDurably: [UInt64: WriteNumber] = [:]

    init(record: ReplicaRecord, comparesFills: Bool) {
        durable = State(record: record, streamed: record.streamed)
        current = durable
        self.comparesFills = comparesFills
    }

    var record: ReplicaRecord { current.record }
    var durableRecord: ReplicaRecord { durable.record }
    var streamed: UInt64 { current.streamed }
    var blocks: [UInt64: BlockCopy] { current.blocks(in: .volume) ?? [:] }
    var snapshots: [SnapshotMark] { current.layers.map(\.mark) }
    func has(_ view: ReplicaView) -> Bool {
        switch view {
        case .volume: true
        case .snapshot(let id): current.layers.contains { $0.mark.id == id }
        }
    }
    /// The values of what was written; nil when there is no such snapshot.
    func values(in view: ReplicaView) -> [UInt64: UInt64]? {
        current.blocks(in: view)?.mapValues(\.value).filter { $0.value != 0 }
    }
    /// Blocks that have bytes, in all layers.
    var liveCount: Int { current.liveCount }

    /// Blocks of a range that have no bytes above all snapshots.
    func newCount(_ range: BlockRange) -> Int {
        (range.first..<range.first + UInt64(range.count)).count {
            current.blocks[$0, default: BlockCopy()].value == 0
        }
    }

    /// What is said of its room.
    var room: ReplicaRoom {
        guard let capacity else { return .plentiful }
        let left = UInt32(max(capacity - liveCount, 0))
        return ReplicaRoom(
            writeBlockCount: left,
            trimBlockCount: ReplicaRoom.plentifulBlockCount,
            layerCount: left
        )
    }

    /// Entries of the log so far: what a flush that begins now covers.
    var position: Int { foldedCount + log.count }

    func copy(_ block: UInt64, in view: ReplicaView = .volume) -> BlockCopy {
        current.copy(block, in: view)
    }

    func take(_ mark: SnapshotMark) { add(.snapshot(mark)) }

    func drop(_ id: UInt64) { add(.drop(id)) }

    func write(number: WriteNumber, range: BlockRange, value: UInt64) {
        add(.write(number: number, range: range, value: value))
        for block in range.first..<range.first + UInt64(range.count) {
            held[block] = max(held[block, default: .zero], number)
        }
    }

    func fill(block: UInt64, copy: BlockCopy) {
        add(.fill(block: block, copy: copy))
        held[block] = max(held[block, default: .zero], copy.number)
    }

    /// Repairs a block's copy, where it has the number that the bytes are of.
    ///
    /// - Returns: What is wrong, or nil.
    func repair(block: UInt64, with other: BlockCopy, comparing: Bool) -> String? {
        guard comparing else {
            current.blocks[block] = other
            durable.blocks[block] = other
            damaged[block] = nil
            return nil
        }
        guard isDamaged(block), copy(block).number == other.number else { return nil }
        damaged[block] = nil
        return copy(block) == other ? nil : "a repair of block \(block) brings other bytes"
    }

    /// Whether a block's copy cannot be read.
    func isDamaged(_ block: UInt64) -> Bool { isDamaged(block, in: .volume) }

    func isDamaged(_ block: UInt64, in view: ReplicaView) -> Bool {
        guard let number = damaged[block] else { return false }
        return copy(block, in: view).number == number
    }

    /// Forgets damage to what only snapshots still have.
    func forgiveOldDamage() { damaged = damaged.filter { isDamaged($0.key) } }

    /// The blocks whose copies cannot be read, ascending.
    var damagedBlocks: [UInt64] { damaged.keys.filter(isDamaged).sorted() }

    /// A durable copy cannot be read any more, or, as if that had not been, again.
    func damage(_ block: UInt64, _ isDamaged: Bool) {
        damaged[block] = isDamaged ? durableCopy(block).number : nil
    }

    func durableCopy(_ block: UInt64) -> BlockCopy {
        durable.copy(block, in: .volume)
    }

    /// The blocks of which there is a durable copy, ascending.
    var durableBlocks: [UInt64] { (durable.blocks(in: .volume) ?? [:]).keys.sorted() }

    func append(_ record: ReplicaRecord) { add(.record(record)) }

    private func add(_ entry: Entry) {
        log.append(entry)
        current.apply(entry, comparing: comparesFills)
    }

    /// Everything up to a position is durable.
    func flushed(through position: Int) {
        let count = position - foldedCount
        guard count > 0 else { return }
        for entry in log.prefix(count) {
            durable.apply(entry, comparing: comparesFills)
            note(entry)
        }
        log.removeFirst(count)
        foldedCount = position
    }

    private func note(_ entry: Entry) {
        switch entry {
        case .write(let number, let range, _):
            for block in range.first..<range.first + UInt64(range.count) {
                heldDurably[block] = max(heldDurably[block, default: .zero], number)
            }
        case .fill(let block, let copy):
            heldDurably[block] = max(heldDurably[block, default: .zero], copy.number)
        case .record, .snapshot, .drop: break
        }
    }

    /// The process dies: of what was not flushed a prefix is left.
    ///
    /// - Parameter random: Chooses how much.
    /// - Returns: The blocks whose copies are gone, with the values.
    func crash(_ random: inout SeededRandom) -> [(block: UInt64, value: UInt64)] {
        let kept = random.chance(perMille: 500) ? 0 : random.within(0...log.count)
        let before = blocks
        current = durable
        for entry in log.prefix(kept) { current.apply(entry, comparing: comparesFills) }
        var lost: [(block: UInt64, value: UInt64)] = []
        for entry in log.suffix(log.count - kept) {
            guard case .write(_, let range, let value) = entry, value != 0 else { continue }
            for index in 0..<UInt64(range.count) {
                lost.append((range.first + index, value + index))
            }
        }
        let after = blocks
        for (block, copy) in before where after[block] != copy {
            lost.append((block, copy.value))
        }
        log.removeLast(log.count - kept)
        // What a start finds stays found: opening makes it durable before anybody hears of it.
        flushed(through: position)
        return lost
    }

    /// Blocks above a number, a few at a time.
    func scan(
        _ view: ReplicaView,
        above: WriteNumber,
        from: UInt64,
        countMax: Int
    ) -> (entries: [ScanEntry], next: UInt64?) {
        let found = (current.blocks(in: view) ?? [:]).filter {
            $0.key >= from && $0.value.number > above
        }
        .map { ScanEntry(block: $0.key, number: $0.value.number) }
        .sorted { $0.block < $1.block }
        guard found.count > countMax else { return (found, nil) }
        return (Array(found.prefix(countMax)), found[countMax].block)
    }
}
