// What is told of replicas whose stores have no room for a volume that this node serves.

internal import BlockCore
internal import Replication

/// What was last told of a served volume's room.
struct ServiceRoomWatch: BitwiseCopyable {
    /// Replicas whose stores have none, by slot.
    var roomlessSlots: UInt8 = 0
    /// Whether writes are refused.
    var refusesWrites = false
    /// Refusals up to the last look, and when there was one.
    var refusedCount: UInt64 = 0
    var refusedAt: Instant?
    /// When to look again.
    var lookAt = Instant(nanoseconds: 0)

    /// Between two looks: a store that hovers at its limit is not told of at every turn.
    static let lookNanoseconds: UInt64 = 1_000_000_000
    /// Without a refusal for so long, and with room, writes are not refused any more.
    static let roomyNanoseconds: UInt64 = 5_000_000_000
}

extension Worker {
    /// Tells of what has changed about a volume's room since the last look.
    func watchRoom(_ primary: PrimaryHost) {
        guard let machine = primary.machine, primary.room.lookAt <= now else { return }
        primary.room.lookAt = now.advanced(byNanoseconds: ServiceRoomWatch.lookNanoseconds)
        if machine.refusedCount != primary.room.refusedCount {
            primary.room.refusedCount = machine.refusedCount
            primary.room.refusedAt = now
        }
        let pause = ServiceRoomWatch.roomyNanoseconds
        let hasRefused = primary.room.refusedAt.map { now < $0.advanced(byNanoseconds: pause) }
        let refusesWrites = machine.isOutOfRoom || hasRefused == true
        let slots = machine.roomlessSlots
        guard slots != primary.room.roomlessSlots || refusesWrites != primary.room.refusesWrites
        else { return }
        primary.room.roomlessSlots = slots
        primary.room.refusesWrites = refusesWrites
        let nodes = primary.slots.indices.filter { slots & 1 << UInt8($0) != 0 }
            .map { primary.slots[$0].placement.node }
        shared.sink(
            .serviceRoomChanged(
                volume: primary.assignment.name,
                nodes: nodes,
                refusesWrites: refusesWrites
            )
        )
    }
}
