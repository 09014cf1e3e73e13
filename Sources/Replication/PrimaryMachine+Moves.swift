// Moving a replica to another node: the new one is filled while it counts for nothing, then both sets
// of replicas count, and when the metadata names the new set, that one alone.
//
// Invariants:
//   a replica that is being filled counts neither for commits nor for takeovers nor for grants
//   once it has joined, whatever is committed, hardened or shown has W in the old set and in the new
//   a move is ready when W of the new set have, durably, all that was numbered before it joined
//
// Source: D. Ongaro, J. Ousterhout, In Search of an Understandable Consensus Algorithm, 2014,
// section 6 (joint consensus); the metadata service is what decides when the old set is left.

public import BlockCore

/// A replica on its way to another node.
struct ReplicaMove {
    /// The slot of the new one.
    var to: Int
    /// The slot of the one whose place it takes.
    var from: Int
    /// The last number that was given before both sets counted; nil while the new one counts for
    /// nothing.
    var joinThrough: UInt64?
    /// Whether the new set has all that the old one had when it joined.
    var isReady = false
}

/// How far a move is.
public enum MovePhase: String, Sendable, Hashable {
    /// The new replica is being filled.
    case filling
    /// It has everything, and still counts for nothing.
    case filled
    /// Both sets count.
    case joining
    /// The new set has everything: the metadata may name it.
    case ready
}

extension PrimaryMachine {
    /// Has another replica filled, which is to take the place of one that counts.
    ///
    /// - Parameters:
    ///   - slot: The slot of the one that is to go.
    ///   - instance: The new one.
    ///   - isLocal: Whether it is on this node.
    ///   - now: The time.
    /// - Returns: The slot of the new one, which the owner is to connect; nil when a move is under
    ///   way, or the primary is over.
    public func beginMove(
        of slot: Int,
        to instance: ReplicaInstance,
        isLocal: Bool,
        now: Instant
    ) -> Int? {
        guard state != .stopped, move == nil, voters.contains(slot) else { return nil }
        self.now = now
        var peer = Peer(instance: instance)
        peer.isHolding = false
        peer.isLocal = isLocal
        let target = peers.indices.first { peers[$0].isVacant } ?? peers.count
        if target == peers.count { peers.append(peer) } else { peers[target] = peer }
        move = ReplicaMove(to: target, from: slot)
        return target
    }

    /// Gives up a move whose new replica has not joined.
    ///
    /// - Returns: The slot that is vacant now; nil when both sets count already: that ends only with
    ///   the move, or with the epoch.
    public func abandonMove(now: Instant) -> Int? {
        guard state != .stopped, let move, move.joinThrough == nil else { return nil }
        self.now = now
        self.move = nil
        vacate(move.to)
        pump()
        return move.to
    }

    /// Lets both sets of replicas count, once the new one has everything.
    ///
    /// - Returns: Whether both count.
    @discardableResult
    public func joinMove(now: Instant) -> Bool {
        guard let move, state == .open, isServing else { return false }
        guard move.joinThrough == nil else { return true }
        guard isReadable(move.to) else { return false }
        self.now = now
        self.move?.joinThrough = nextCounter - 1
        self.move?.isReady = policy.defect == .joinNotAwaited
        flushWanted = nextCounter - 1
        pump()
        return true
    }

    /// Leaves the old set: the metadata names the new one.
    ///
    /// - Returns: The slot that is vacant now; nil when the move was not ready.
    public func finishMove(now: Instant) -> Int? {
        guard state != .stopped, let move, move.isReady else { return nil }
        self.now = now
        voters = votersToCome ?? voters
        self.move = nil
        if localSlot == move.from { localSlot = nil }
        if peers[move.to].isLocal { localSlot = move.to }
        vacate(move.from)
        pump()
        return move.from
    }

    /// How far the move under way is; nil when there is none.
    public var movePhase: MovePhase? {
        guard let move else { return nil }
        guard move.joinThrough == nil else { return move.isReady ? .ready : .joining }
        return isServing && isReadable(move.to) ? .filled : .filling
    }

    /// What is known of the replica that is being moved to; nil when none is.
    public var moveSummary: PeerSummary? { move.map { summary(slot: $0.to) } }

    // MARK: - Who counts

    /// The replicas that count when the move under way is over; nil while one set counts.
    private var votersToCome: SlotSet? {
        guard let move, move.joinThrough != nil else { return nil }
        var result = voters
        result.remove(move.from)
        result.insert(move.to)
        return result
    }

    /// Whether so many of some replicas count that every takeover hears one of them, and no other
    /// primary has as many: W of each set that counts.
    func isQuorum(_ slots: SlotSet) -> Bool { isQuorum(slots, of: policy.writeQuorum) }

    func isQuorum(_ slots: SlotSet, of count: Int) -> Bool {
        var counting = voters
        if policy.defect == .learnerCounted, let move { counting.insert(move.to) }
        guard slots.intersection(counting).count >= count else { return false }
        guard let next = votersToCome, policy.defect != .joinIgnored else { return true }
        return slots.intersection(next).count >= count
    }

    /// The same of slots that are listed, for those who watch from outside.
    package func isQuorum(slots: [Int]) -> Bool {
        var set = SlotSet()
        for slot in slots { set.insert(slot) }
        return isQuorum(set)
    }

    /// The replicas for which something holds.
    func slots(where holds: (Peer) -> Bool) -> SlotSet {
        var result = SlotSet()
        for slot in peers.indices where holds(peers[slot]) { result.insert(slot) }
        return result
    }

    /// The replicas that have everything and take the stream.
    var readableSlots: SlotSet { slots { $0.isStreaming && $0.isComplete } }

    /// Notes when the new set has what the old one had before it joined.
    func advanceMove() {
        guard let through = move?.joinThrough, move?.isReady == false,
            let counter = quorumCounter(ofDurable: true), counter >= through
        else { return }
        move?.isReady = true
    }

    /// Expects nothing of the replica in a slot any more, and has none there.
    private func vacate(_ slot: Int) {
        loseLink(slot)
        peers[slot] = .vacant
        for index in 0..<requests.count { requests[index].failed.remove(slot) }
    }
}
