// What has to hold at every step, whatever clients see.

internal import BlockCore
internal import Replication

/// Watches disks and acknowledgements from outside.
struct ReplicationInvariants {
    private struct Content: Equatable {
        var range: BlockRange
        var value: UInt64
    }
    private var contents: [WriteNumber: Content] = [:]
    private var records: [ReplicaInstance: ReplicaRecord] = [:]
    private var owners: [WriteNumber: Int] = [:]
    /// The greatest acknowledged number of each block.
    private(set) var acknowledged: [UInt64: WriteNumber] = [:]
    private let quorum: Int

    init(quorum: Int) { self.quorum = quorum }

    /// A write reached a replica: its number names it for ever.
    mutating func write(_ number: WriteNumber, _ range: BlockRange, _ value: UInt64) -> String? {
        let content = Content(range: range, value: value)
        if let other = contents[number], other != content {
            return "two writes have the number \(number)"
        }
        contents[number] = content
        return nil
    }

    /// A replica's record is durable: epochs only grow.
    mutating func persisted(_ record: ReplicaRecord) -> String? {
        defer { records[record.instance] = record }
        guard let before = records[record.instance] else { return nil }
        if record.promised < before.promised { return "a promise shrank: \(before) \(record)" }
        if record.accepted < before.accepted { return "an epoch shrank: \(before) \(record)" }
        if record.accepted > record.promised { return "more accepted than promised: \(record)" }
        return nil
    }

    /// A replica says something that it must not forget: it is durable.
    func told(_ message: ReplicaMessage, _ record: ReplicaRecord) -> String? {
        switch message.body {
        case .sealed where record.promised < message.epoch:
            "epoch \(message.epoch.rawValue) was promised and is not durable: \(record)"
        case .opened where record.accepted < message.epoch:
            "epoch \(message.epoch.rawValue) was accepted and is not durable: \(record)"
        case .completed where !record.isComplete:
            "a replica says that it is complete, and does not know it durably: \(record)"
        default: nil
        }
    }

    /// A client was told that a write happened: W replicas once had each of its blocks, or newer.
    mutating func acknowledge(
        _ number: WriteNumber,
        _ range: BlockRange,
        isDurable: Bool,
        by process: Int,
        stores: [ReplicaDisk]
    ) -> String? {
        if let other = owners[number], other != process {
            return "two primaries committed \(number)"
        }
        owners[number] = process
        for block in range.first..<range.first + UInt64(range.count) {
            acknowledged[block] = max(acknowledged[block, default: .zero], number)
            let count = stores.count { store in
                let held = isDurable ? store.heldDurably[block] : store.held[block]
                return (held ?? .zero) >= number
            }
            if count < quorum {
                return "\(number) was acknowledged with \(count) replicas holding block \(block)"
            }
        }
        return nil
    }
}
