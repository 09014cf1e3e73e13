// Transactions: sent until their end is known, done once.
//
// One that changes something goes as a transaction within one: the outer compares its slot with
// what was written to it last, the inner is the caller's, and what it changes includes the slot.
//
//   outer: slot unchanged?  yes → inner: compares?  yes → changes, slot := ID + "+"
//                                                   no  → reads;   slot := ID + "-"
//                           no  → read the slot
//
// So a try that comes late finds its slot changed and does nothing, and a try after one that was
// done finds its own ID there, with how it ended. The first try does not write the slot when a
// compare does not hold: it changed nothing, and there is none before it to fence.

import Foundation
import Logging

extension EtcdMetaStore {
    /// Runs a transaction; durable when it returns.
    public func transact(
        _ transaction: MetaTransaction
    ) async throws(MetadataError) -> MetaTransactionResult {
        try transaction.validate()
        let isReadOnly =
            !transaction.success.contains(where: \.isChange)
            && !transaction.failure.contains(where: \.isChange)
        return isReadOnly ? try await read(transaction) : try await change(transaction)
    }

    // MARK: - Reading

    /// Runs a transaction without changes, in the state of a revision or the newest one.
    private func read(
        _ transaction: MetaTransaction,
        at revision: MetaRevision? = nil
    ) async throws(MetadataError) -> MetaTransactionResult {
        let message = EtcdTransaction(
            compare: transaction.compares.map(compare),
            success: transaction.success.map { operation($0, at: revision) },
            failure: transaction.failure.map { operation($0, at: revision) }
        )
        let answer: EtcdTransactionAnswer = try await client.ask(
            "/v3/kv/txn",
            EtcdCoding.encode(message)
        )
        var result = result(of: transaction, answer)
        result.revision = self.revision(answer.header)
        let operations = result.succeeded ? transaction.success : transaction.failure
        let responses = answer.responses ?? []
        for (index, operation) in operations.enumerated() where responses.indices.contains(index) {
            guard case .range(let prefix, _, let countMax) = operation,
                responses[index].responseRange?.more == true
            else { continue }
            try await readPages(
                prefix,
                countMax,
                at: revision ?? result.revision,
                into: &result.records[index]
            )
        }
        return result
    }

    /// Reads on in the state of a revision after the first page of a range.
    private func readPages(
        _ prefix: String,
        _ countMax: Int,
        at revision: MetaRevision,
        into records: inout [MetaRecord]
    ) async throws(MetadataError) {
        let wanted = Self.clamped(countMax)
        while let last = records.last, records.count < wanted {
            let rest = MetaOperation.range(
                prefix: prefix,
                after: last.key,
                countMax: wanted - records.count
            )
            let answer: EtcdRangeAnswer = try await client.ask(
                "/v3/kv/range",
                EtcdCoding.encode(operation(rest, at: revision).requestRange)
            )
            let page = answer.kvs ?? []
            records += page.map(record)
            guard !page.isEmpty, answer.more == true else { return }
        }
    }

    // MARK: - Changing

    private func change(
        _ transaction: MetaTransaction
    ) async throws(MetadataError) -> MetaTransactionResult {
        while true {
            let slot = try await takeSlot()
            if let result = try await change(transaction, slot) { return result }
        }
    }

    /// Nil when the slot's session has ended before anything was done.
    private func change(
        _ transaction: MetaTransaction,
        _ slot: EtcdSlot
    ) async throws(MetadataError) -> MetaTransactionResult? {
        let id = newTransactionID()
        let first = EtcdCoding.encode(message(transaction, slot, id, isFirst: true))
        var mayHaveHappened = false
        do throws(MetadataError) {
            let answer: EtcdTransactionAnswer = try await client.repeating {
                (current) throws(EtcdFailure) in
                mayHaveHappened = current.mayHaveHappened
                let body =
                    current.number == 0
                    ? first : EtcdCoding.encode(message(transaction, slot, id, isFirst: false))
                return try await client.exchange("/v3/kv/txn", body, current)
            }
            return try await end(transaction, slot, id, answer, mayHaveHappened)
        } catch {
            if case .unavailable = error {
                giveBack(slot)
                throw error
            }
            // A try may be done yet, or was: its slot is not used again, and a refusal of a later
            // one says nothing of it.
            guard !mayHaveHappened else {
                throw .outcomeUnknown(error.description)
            }
            switch error {
            case .outcomeUnknown: break
            case .leaseNotFound:
                guard try await isAlive(slot.session) else {
                    endSession(slot.session)
                    return nil
                }
                giveBack(slot)
            default: giveBack(slot)
            }
            throw error
        }
    }

    private func message(
        _ transaction: MetaTransaction,
        _ slot: EtcdSlot,
        _ id: String,
        isFirst: Bool
    ) -> EtcdTransaction {
        let key = key(of: slot)
        func mark(_ end: String) -> EtcdOperation {
            let lease = "\(slot.session.rawValue)"
            return EtcdOperation(
                requestPut: EtcdPut(key: key, value: Data((id + end).utf8), lease: lease)
            )
        }
        var inner = EtcdTransaction(
            compare: transaction.compares.map(compare),
            success: transaction.success.map { operation($0) },
            failure: transaction.failure.map { operation($0) }
        )
        inner.success.append(mark("+"))
        if !isFirst || transaction.failure.contains(where: \.isChange) {
            inner.failure.append(mark("-"))
        }
        return EtcdTransaction(
            compare: [
                slot.modified == 0
                    ? .absent(key) : .modified(key, equals: slot.modified)
            ],
            success: [EtcdOperation(requestTxn: inner)],
            failure: [EtcdOperation(requestRange: EtcdRange(key: key))]
        )
    }

    /// What has become of a transaction.
    private func end(
        _ transaction: MetaTransaction,
        _ slot: EtcdSlot,
        _ id: String,
        _ answer: EtcdTransactionAnswer,
        _ mayHaveHappened: Bool
    ) async throws(MetadataError) -> MetaTransactionResult? {
        var slot = slot
        if answer.succeeded == true {
            guard let inner = answer.responses?.first?.responseTxn else {
                throw .outcomeUnknown("etcd's answer has no end of the transaction")
            }
            var result = result(of: transaction, inner)
            result.revision = revision(answer.header)
            let operations = result.succeeded ? transaction.success : transaction.failure
            if (inner.responses?.count ?? 0) > operations.count { slot.modified = result.revision }
            giveBack(slot)
            return result
        }
        let found = answer.responses?.first?.responseRange?.kvs?.first
        let text = found?.value.map { String(decoding: $0, as: UTF8.self) }
        guard let found, let text, text == id + "+" || text == id + "-" else {
            // Nobody else writes it, so the session has ended and a try may have come before that.
            endSession(slot.session)
            guard mayHaveHappened else { return nil }
            throw .outcomeUnknown("the session has ended meanwhile")
        }
        logger.info("a transaction whose answer was lost", metadata: ["succeeded": "\(text)"])
        slot.modified = found.modified
        giveBack(slot)
        return try await again(transaction, succeeded: text.hasSuffix("+"), at: found.modified)
    }

    /// The result of a transaction that was done at a revision, with what it read, read again.
    private func again(
        _ transaction: MetaTransaction,
        succeeded: Bool,
        at revision: MetaRevision
    ) async throws(MetadataError) -> MetaTransactionResult {
        let operations = succeeded ? transaction.success : transaction.failure
        var result = MetaTransactionResult(
            succeeded: succeeded,
            revision: revision,
            records: operations.map { _ in [] },
            counts: operations.map { _ in 0 }
        )
        let reading = operations.indices.filter { !operations[$0].isChange }
        guard !reading.isEmpty else { return result }
        let reads = MetaTransaction(success: reading.map { operations[$0] })
        let answer = try await read(reads, at: revision)
        for (position, index) in reading.enumerated() {
            result.records[index] = answer.records[position]
            result.counts[index] = answer.counts[position]
        }
        return result
    }

    // MARK: - Messages

    private func compare(_ compare: MetaCompare) -> EtcdCompare {
        switch compare {
        case .exists(let key): .exists(stored(key))
        case .absent(let key): .absent(stored(key))
        // What does not exist is of revision 0 to etcd.
        case .unchanged(let key, since: 0): .never(stored(key))
        case .unchanged(let key, let revision): .modified(stored(key), equals: revision)
        case .empty(let prefix): .absent(stored(prefix), end: end(ofPrefix: prefix))
        }
    }

    private func operation(
        _ operation: MetaOperation,
        at revision: MetaRevision? = nil
    ) -> EtcdOperation {
        let pinned = revision.map { "\($0)" }
        switch operation {
        case .get(let key):
            return EtcdOperation(requestRange: EtcdRange(key: stored(key), revision: pinned))
        case .range(let prefix, let after, let countMax):
            var first = stored(prefix)
            if let after, !after.utf8.lexicographicallyPrecedes(prefix.utf8) {
                first = stored(after) + [0]
            }
            return EtcdOperation(
                requestRange: EtcdRange(
                    key: first,
                    rangeEnd: end(ofPrefix: prefix),
                    limit: min(max(1, Self.clamped(countMax)), Self.pageCountMax),
                    revision: pinned
                )
            )
        case .changed(let prefix, let after, let countMax):
            return EtcdOperation(
                requestRange: EtcdRange(
                    key: stored(prefix),
                    rangeEnd: end(ofPrefix: prefix),
                    limit: max(1, Self.clamped(countMax)),
                    revision: pinned,
                    sortOrder: "ASCEND",
                    sortTarget: "MOD",
                    minModRevision: "\(after + 1)"
                )
            )
        case .count(let prefix):
            return EtcdOperation(
                requestRange: EtcdRange(
                    key: stored(prefix),
                    rangeEnd: end(ofPrefix: prefix),
                    revision: pinned,
                    countOnly: true
                )
            )
        case .put(let key, let value, let lease):
            let lease = lease.map { "\($0.rawValue)" }
            return EtcdOperation(
                requestPut: EtcdPut(key: stored(key), value: value, lease: lease)
            )
        case .delete(let key):
            return EtcdOperation(requestDeleteRange: EtcdDelete(key: stored(key)))
        case .deleteAll(let prefix):
            let end = end(ofPrefix: prefix)
            return EtcdOperation(
                requestDeleteRange: EtcdDelete(key: stored(prefix), rangeEnd: end)
            )
        }
    }

    private static func clamped(_ countMax: Int) -> Int {
        min(max(countMax, 0), MetaLimits.rangeCountMax)
    }

    /// What the operations of the branch that was taken have read; the revision is the caller's.
    private func result(
        of transaction: MetaTransaction,
        _ answer: EtcdTransactionAnswer
    ) -> MetaTransactionResult {
        let succeeded = answer.succeeded == true
        let operations = succeeded ? transaction.success : transaction.failure
        let responses = answer.responses ?? []
        var result = MetaTransactionResult(
            succeeded: succeeded,
            revision: 0,
            records: operations.map { _ in [] },
            counts: operations.map { _ in 0 }
        )
        for (index, operation) in operations.enumerated() where responses.indices.contains(index) {
            guard let range = responses[index].responseRange else { continue }
            switch operation {
            case .count: result.counts[index] = Int(range.count?.value ?? 0)
            case .get: result.records[index] = (range.kvs ?? []).map(record)
            case .range(_, _, let countMax):
                result.records[index] = (range.kvs ?? []).prefix(max(0, countMax)).map(record)
            case .changed(_, _, let countMax):
                // etcd sorts by revision alone.
                let records = (range.kvs ?? []).prefix(max(0, countMax)).map(record)
                result.records[index] = records.sorted {
                    ($0.modifyRevision, $0.key) < ($1.modifyRevision, $1.key)
                }
            case .put, .delete, .deleteAll: break
            }
        }
        return result
    }

    func revision(_ header: EtcdHeader?) -> MetaRevision {
        MetaRevision(header?.revision?.value ?? 0)
    }
}
