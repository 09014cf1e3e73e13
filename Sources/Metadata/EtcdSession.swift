// What makes transactions recognisable when their answers are lost. A process has a session, a
// lease, and below it a slot for each transaction under way: a key that only that transaction
// writes, and whose revision it compares. Slots are used again and go with the session.

import Foundation
import Synchronization

/// A key that belongs to one transaction at a time.
struct EtcdSlot {
    /// Whose it is.
    var session: MetaLease
    /// Its number within the session.
    var number: Int
    /// The revision that last wrote it; 0 when none has.
    var modified: MetaRevision
}

/// What a process keeps of its session.
struct EtcdSession {
    /// What its slots hang on; nil before the first transaction.
    var lease: MetaLease?
    /// When it was kept alive last.
    var keptAt = ContinuousClock.now
    /// Slots that nobody uses.
    var free: [EtcdSlot] = []
    /// How many there are.
    var slotCount = 0
    /// Counts transactions, to tell them apart.
    var transactionCount: UInt64 = 0
}

extension EtcdMetaStore {
    /// A slot of the session, which begins when there is none.
    func takeSlot() async throws(MetadataError) -> EtcdSlot {
        while true {
            let slot: EtcdSlot? = session.withLock { session in
                guard let lease = session.lease else { return nil }
                if let slot = session.free.popLast() { return slot }
                session.slotCount += 1
                return EtcdSlot(session: lease, number: session.slotCount, modified: 0)
            }
            if let slot { return slot }
            let lease = try await grantLease(
                milliseconds: Int(configuration.sessionSeconds) * 1000
            )
            let isOurs = session.withLock { session in
                guard session.lease == nil else { return false }
                session = EtcdSession(lease: lease, transactionCount: session.transactionCount)
                return true
            }
            // Somebody else was faster; it would also end by itself.
            if !isOurs { try? await revoke(lease) }
        }
    }

    /// Gives back a slot of which it is known what was written to it, and that nothing will be.
    func giveBack(_ slot: EtcdSlot) {
        session.withLock { session in
            if session.lease == slot.session { session.free.append(slot) }
        }
    }

    /// Forgets a session that has ended.
    func endSession(_ lease: MetaLease) {
        session.withLock { session in
            guard session.lease == lease else { return }
            session = EtcdSession(transactionCount: session.transactionCount)
        }
    }

    /// Whether a session has not ended.
    func isAlive(_ lease: MetaLease) async throws(MetadataError) -> Bool {
        do throws(MetadataError) {
            try await keepAlive(lease)
            return true
        } catch .leaseNotFound {
            return false
        }
    }

    /// What a transaction writes to its slot, but for its end.
    func newTransactionID() -> String {
        session.withLock { session in
            session.transactionCount += 1
            return "\(session.transactionCount)"
        }
    }

    /// A slot's key: outside of what any prefix of our callers reaches, which begin with "/".
    func key(of slot: EtcdSlot) -> Data {
        let session = String(slot.session.rawValue, radix: 16)
        return Data("cairn-op\(configuration.namespace)/\(session)/\(slot.number)".utf8)
    }
}
