// The one path that every change of a volume takes: intent, node, end; and its continuation when
// an earlier attempt stopped in the middle.

import ControlAPI
import Foundation
import Logging
import Metadata

/// How an operation came out.
enum OperationEnd: Sendable {
    /// It was carried out now; the volume as it is after it (or was, when it is deleted).
    case done(VolumeRecord)
    /// The same operation was carried out before.
    case repeated(volumeID: UInt64?)
    /// There was nothing to do.
    case unnecessary(VolumeRecord)
}

extension ControlPlane {
    /// Carries out a change of an existing volume.
    ///
    /// - Parameters:
    ///   - name: The volume.
    ///   - key: The client's name for the operation.
    ///   - request: The client's request.
    ///   - plan: Looks at the volume and says what to change, nil for nothing, or refuses.
    /// - Returns: How it came out.
    /// - Throws: ``ControlError``; see ``drive(_:isFirstAttempt:until:)`` for what then is so.
    func change(
        _ name: String,
        operation key: String,
        request: String,
        _ plan:
            @escaping @Sendable (VolumeRecord) async throws(ControlError)
            -> PendingOperation.Kind?
    ) async throws(ControlError) -> OperationEnd {
        // From here on: those before us, too, end within as long since they came.
        let deadline = changeDeadline
        return try await locks.withLock(name) { [self] () throws(ControlError) in
            if let end = try await repeated(key, request: request, until: deadline) { return end }
            for _ in 0..<Self.conflictCountMax {
                let current = try await requireVolume(name)
                if try await isPending(request, on: current.value) {
                    // Unrecorded it could not be told apart from a new request afterwards.
                    guard current.value.pending?.takesKeys == true else {
                        throw ControlError(
                            .busy,
                            "The same change of '\(name)' has been asked for under too many keys.",
                            help: "Repeat it under one of them, or wait until it has ended."
                        )
                    }
                    let joined = try await meta(
                        await metadata.join(key, current, request: request)
                    )
                    guard let joined else { continue }
                    return .done(try await drive(joined, isFirstAttempt: false, until: deadline))
                }
                // Also before a node is asked again for what those before us left behind.
                try requireTime(for: name, until: deadline)
                let volume = try await settled(current, until: deadline)
                guard let volume else { throw .volumeNotFound(name) }
                try requireTime(for: name, until: deadline)
                guard let kind = try await plan(volume.value) else {
                    return .unnecessary(volume.value)
                }
                let operation = PendingOperation(key: key, kind: kind, startedAt: now)
                let begun = try await meta(
                    await metadata.begin(operation, on: volume, request: request)
                )
                guard let begun else { continue }
                return .done(try await drive(begun, isFirstAttempt: true, until: deadline))
            }
            throw ControlError(
                .busy,
                "The volume '\(name)' is being changed by somebody else.",
                help: "Try again."
            )
        }
    }

    /// How often an operation begins anew because somebody else was faster.
    static var conflictCountMax: Int { 4 }

    /// When a change that is asked for now is given up: the client hears of it before it gives
    /// up itself.
    var changeDeadline: ContinuousClock.Instant {
        .now + .milliseconds(changeMillisecondsMax)
    }

    /// Refuses to begin what most likely could not be ended: its turn came too late.
    func requireTime(
        for name: String,
        until deadline: ContinuousClock.Instant
    ) throws(ControlError) {
        guard deadline - .now < .milliseconds(changeMillisecondsMax / 4) else { return }
        throw ControlError(
            .busy,
            "Earlier operations on '\(name)' took the time that this one had.",
            help: "Try again; see 'volctl node list' for a node that is down."
        )
    }

    /// Whether the volume's pending operation is what `request` asks for: somebody who heard
    /// nothing of it asks again, under a new key.
    func isPending(
        _ request: String,
        on volume: VolumeRecord
    ) async throws(ControlError) -> Bool {
        guard let pending = volume.pending else { return false }
        return try await meta(await metadata.operation(pending.key))?.value.request == request
    }

    /// The end of the operation `key` when it began before: that of its first run.
    ///
    /// - Throws: ``ControlError/Code/idempotencyKeyReused`` when it was another request.
    func repeated(
        _ key: String,
        request: String,
        until deadline: ContinuousClock.Instant
    ) async throws(ControlError) -> OperationEnd? {
        let operation = try await meta(await metadata.operation(key))
        guard let operation = operation?.value else { return nil }
        guard operation.request == request else {
            throw ControlError(
                .idempotencyKeyReused,
                "The idempotency key was used for another request.",
                help: "Use a new key for a new operation."
            )
        }
        guard !operation.isDone, let id = operation.volumeID else {
            return .repeated(volumeID: operation.volumeID)
        }
        let volume = try await meta(await metadata.volume(id: id))
        guard let volume, let pending = volume.value.pending, pending.isKnown(as: key) else {
            return .repeated(volumeID: id)
        }
        return .done(try await drive(volume, isFirstAttempt: false, until: deadline))
    }

    /// The volume without a pending operation: carries on the one that it has.
    ///
    /// - Returns: nil when that was a deletion or a creation that the node refused.
    func settled(
        _ volume: Versioned<VolumeRecord>,
        until deadline: ContinuousClock.Instant
    ) async throws(ControlError) -> Versioned<VolumeRecord>? {
        guard let pending = volume.value.pending else { return volume }
        do throws(ControlError) {
            _ = try await drive(volume, isFirstAttempt: false, until: deadline)
        } catch  where error.leavesOutcomeOpen || error.code == .unavailable {
            throw ControlError(
                .busy,
                "An earlier operation on '\(volume.value.name)' (\(pending.kind.words)) has not "
                    + "ended: the node '\(volume.value.primary)' does not answer.",
                help: "It ends by itself when the node is back; see 'volctl node list'."
            )
        } catch {
            // The node refused it, so it is abandoned; that is an end too.
            logger.notice(
                "an interrupted operation was refused",
                metadata: ["volume": "\(volume.value.name)", "reason": "\(error.detail)"]
            )
        }
        return try await meta(await metadata.volume(id: volume.value.id))
    }

    /// Carries a pending operation to its end.
    ///
    /// - Parameters:
    ///   - volume: The volume with its pending operation.
    ///   - isFirstAttempt: Whether the node cannot have heard of it before.
    ///   - deadline: When to wait for the node no more.
    /// - Returns: The volume after it.
    /// - Throws: ``ControlError``; the operation is abandoned when the node refused it or was
    ///   never reached in any attempt. It stays pending when nobody knows, and then the error is
    ///   ``ControlError/Code/outcomeUnknown``.
    func drive(
        _ volume: Versioned<VolumeRecord>,
        isFirstAttempt: Bool,
        until deadline: ContinuousClock.Instant
    ) async throws(ControlError) -> VolumeRecord {
        guard let pending = volume.value.pending else { return volume.value }
        guard !volume.value.isReplicated else {
            return try await driveReplicated(
                volume,
                pending,
                isFirstAttempt: isFirstAttempt,
                until: deadline
            )
        }
        let outcome: ClusterMetadata.Outcome
        do throws(ControlError) {
            let node = try await nodeService(of: volume, isFirstAttempt: isFirstAttempt)
            try await requireAnswer(of: volume.value.primary, until: deadline)
            outcome = try await answered(by: volume.value.primary, until: deadline) {
                [self] () throws(ControlError) in
                try await carryOut(
                    pending.kind,
                    on: volume.value,
                    node,
                    isFirstAttempt: isFirstAttempt
                )
            }
        } catch {
            throw try await failed(error, volume, isFirstAttempt: isFirstAttempt)
        }
        let event = EventRecord(
            time: now,
            kind: pending.kind.eventKind,
            subject: volume.value.name,
            message: pending.kind.eventMessage(volume.value)
        )
        _ = try await meta(await metadata.finish(volume, outcome: outcome, at: now, event: event))
        if pending.kind.changesHosts { describeSoon(volume.value.id) }
        let after = try await meta(await metadata.volume(id: volume.value.id))
        return after?.value ?? volume.value
    }

    /// Decides what a failed node call means for the operation.
    private func failed(
        _ error: ControlError,
        _ volume: Versioned<VolumeRecord>,
        isFirstAttempt: Bool
    ) async throws(ControlError) -> ControlError {
        let name = volume.value.primary
        if error.leavesOutcomeOpen {
            return ControlError(
                .outcomeUnknown,
                "The node '\(name)' did not say whether it has done it.",
                help: volume.value.helpWhilePending
            )
        }
        if !error.isRefusal, !isFirstAttempt {
            // It stays pending: an earlier attempt may have reached the node, or waits there.
            return ControlError(
                .outcomeUnknown,
                "The node '\(name)' cannot be asked whether it has done it, in an earlier attempt.",
                help: volume.value.helpWhilePending
            )
        }
        _ = try await meta(await metadata.abandon(volume))
        // An earlier attempt may have been carried out all the same.
        if !isFirstAttempt { reconcileSoon.yield(name) }
        guard error.code != .volumeNotFound else {
            // A clone in the making cannot be missing: what it was to be made of is.
            let isInMaking = volume.value.state == .creating
            let missing = isInMaking ? volume.value.source?.volumeName : nil
            return .volumeLost(missing ?? volume.value.name, on: name)
        }
        guard error.code == .unreachable || error.code == .unavailable else { return error }
        guard error.code == .unavailable else { return .nodeGone(name) }
        let help = error.help ?? ControlError.helpWithSilence(of: name)
        return ControlError(.unavailable, error.detail, help: help)
    }
}

extension VolumeRecord {
    /// What to do about an operation of which nobody knows whether the node has done it.
    ///
    /// Once it has ended, the same wish cannot be told from a new one: a second rollback, or a
    /// takeover from whoever connected meanwhile.
    fileprivate var helpWhilePending: String {
        "It ends by itself when the node answers. Look first: as long as 'volctl volume show "
            + "\(name)' says that an operation has not ended, the same command carries it on; after "
            + "that it is a new one."
    }
}

extension ControlError {
    /// The node answers for all that it has, and the volume is not among it.
    static func volumeLost(_ volume: String, on node: String) -> Self {
        ControlError(
            .volumeNotFound,
            "The node '\(node)' does not hold the volume '\(volume)' any more: the store that it "
                + "was in is lost.",
            help: "To forget it, take it from the hosts that have it ('volctl volume show "
                + "\(volume)') and then: volctl volume delete \(volume)"
        )
    }

    /// The node was not reached, so it has not done anything: nobody takes a connection there.
    static func nodeGone(_ name: String) -> Self {
        ControlError(
            .unavailable,
            "The node '\(name)' does not answer.",
            help: "See 'volctl node list'; on a development cluster 'volctl dev start \(name)'."
        )
    }

    /// The node was not asked, because it does not answer: its program may be there and hang.
    static func nodeSilent(_ name: String) -> Self {
        ControlError(
            .unavailable,
            "The node '\(name)' does not answer.",
            help: helpWithSilence(of: name)
        )
    }

    /// Whether the node has seen what it was asked, and will not do it.
    var isRefusal: Bool {
        !leavesOutcomeOpen && code != .unreachable && code != .unavailable && code != .busy
    }

    /// Whether the other side may have done what it was asked.
    ///
    /// A code that this build does not know is no proof of a refusal, so it counts as open.
    var leavesOutcomeOpen: Bool {
        switch code {
        case .invalidArgument, .malformedRequest, .browserRefused, .routeNotFound,
            .methodNotAllowed, .volumeNotFound, .snapshotNotFound, .nodeNotFound, .alreadyExists,
            .inUse, .notComplete, .outdated, .busy, .limitReached, .bodyTooLarge,
            .unsupportedMediaType,
            .unsupported,
            .noSpace, .unavailable, .unreachable, .standingBy:
            false
        default: true
        }
    }
}
