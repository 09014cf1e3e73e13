// Attachments: one host writes, or several read.

public import ControlAPI
import Foundation
import Metadata

extension ControlPlane {
    /// A volume's attachments and how earlier ones ended.
    public func attachments(of volume: String) async throws(ControlError) -> [Attachment] {
        let record = try await requireVolume(volume).value
        let all = try await attachmentsRecord(record.id)
        let node = try await meta(await metadata.node(record.primary))
        return (all.current + all.history).map { document($0, of: record, node?.value) }
    }

    /// Gives a host the volume.
    public func attach(
        _ volume: String,
        _ creation: AttachmentCreation,
        operation: String
    ) async throws(ControlError) -> Attachment {
        guard creation.protocol != .iscsi else {
            throw ControlError(
                .unsupported,
                "This build serves NBD only; iSCSI is not in it yet.",
                help: "Leave --protocol out."
            )
        }
        let request = try Self.fingerprint("attach \(volume)", creation)
        let end = try await change(volume, operation: operation, request: request) {
            [self] (record) throws(ControlError) in
            try requireServed(record, via: creation.via)
            return try await planAttachment(creation, of: record)
        }
        let record: VolumeRecord
        switch end {
        case .done(let after), .unnecessary(let after): record = after
        case .repeated: record = try await requireVolume(volume).value
        }
        return try await attachment(of: record, for: creation)
    }

    private func attachment(
        of volume: VolumeRecord,
        for creation: AttachmentCreation
    ) async throws(ControlError) -> Attachment {
        let all = try await attachmentsRecord(volume.id).current
        guard let attachment = all.first(where: { $0.host == creation.host }) else {
            throw .attachmentNotFound(volume.name, host: creation.host)
        }
        let node = try await meta(await metadata.node(volume.primary))
        let isSameMachine =
            creation.machineID != nil && creation.machineID == node?.value.machineID
        return document(attachment, of: volume, node?.value, unixURI: isSameMachine)
    }

    /// Refuses a front other than the own node of a volume without replicas.
    private func requireServed(
        _ volume: VolumeRecord,
        via node: String?
    ) throws(ControlError) {
        guard !volume.isReplicated, let node, node != volume.primary else { return }
        throw ControlError(
            .unsupported,
            "The volume '\(volume.name)' is on '\(volume.primary)' alone; a volume that has no "
                + "replicas is served only through the node that holds it.",
            help: "Leave --via out."
        )
    }

    private func planAttachment(
        _ creation: AttachmentCreation,
        of volume: VolumeRecord
    ) async throws(ControlError) -> PendingOperation.Kind? {
        let readOnly = creation.readOnly ?? false
        let isForced = creation.force ?? false
        let all = try await attachmentsRecord(volume.id)
        let current = all.current
        let others = current.filter { $0.host != creation.host }
        let own = current.first { $0.host == creation.host }
        if let own, !isForced {
            guard own.readOnly == readOnly else { throw .attachedOtherwise(volume.name, own) }
            if volume.isReplicated { return try await planMove(of: volume, to: creation.via) }
            try await requireHeld(volume)
            return nil
        }
        let conflict = others.first { !readOnly || !$0.readOnly }
        if let conflict, !isForced { throw .attachedElsewhere(volume.name, conflict) }
        guard others.count < APILimits.attachmentCountMax || isForced else {
            throw ControlError(
                .limitReached,
                "\(others.count) hosts have '\(volume.name)' attached, which is the most."
            )
        }
        let epoch = isForced ? try await epochToTake(volume) : volume.epoch
        guard epoch < APILimits.epochMax else {
            throw ControlError(.limitReached, "'\(volume.name)' has had all epochs that there are.")
        }
        let attachment = AttachmentRecord(
            host: creation.host,
            protocol: AttachmentProtocol.nbd.rawValue,
            readOnly: readOnly,
            epoch: all.epochToAttach(creation.host, takeover: isForced, epoch: epoch),
            attachedAt: now
        )
        guard volume.isReplicated else { return .attach(attachment, takeover: isForced) }
        // One more reader beside others changes nothing for the primary that serves them.
        if !others.isEmpty, !isForced, try await planMove(of: volume, to: creation.via) == nil {
            return .attach(attachment, takeover: false)
        }
        let choice = try await choosePrimary(of: volume, wanted: creation.via)
        return .attach(
            attachment,
            takeover: isForced,
            primary: choice.node,
            from: volume.primary,
            session: choice.session
        )
    }

    /// What a host that has a replicated volume, and asks for it again, needs: nothing while its
    /// primary is up, unless it wants another one.
    private func planMove(
        of volume: VolumeRecord,
        to wanted: String?
    ) async throws(ControlError) -> PendingOperation.Kind? {
        let live = try await meta(await metadata.liveNode(volume.primary))
        let isServed = live != nil && volume.served?.isQuarantined != true
        if isServed, wanted == nil || wanted == volume.primary { return nil }
        let choice = try await choosePrimary(of: volume, wanted: wanted)
        return .move(primary: choice.node, from: volume.primary, session: choice.session)
    }

    /// Refuses to hand out again what the node says it has lost; one that does not answer may have
    /// it.
    private func requireHeld(_ volume: VolumeRecord) async throws(ControlError) {
        do throws(ControlError) {
            _ = try await askedBriefly(volume.primary) { node throws(ControlError) in
                try await node.volume(volume.id)
            }
        } catch  where error.code == .volumeNotFound {
            throw .volumeLost(volume.name, on: volume.primary)
        } catch {
            // It is attached all the same.
        }
    }

    /// The epoch that a takeover must exceed.
    ///
    /// The node may have given the volume away in a later one than the metadata knows, which then
    /// is a copy of earlier.
    private func epochToTake(_ volume: VolumeRecord) async throws(ControlError) -> UInt64 {
        // Nobody but the metadata gives export epochs of a replicated volume: its lease epoch
        // fences, whatever a node says.
        guard !volume.isReplicated else { return volume.epoch }
        do throws(ControlError) {
            let held = try await askedBriefly(volume.primary) { node throws(ControlError) in
                try await node.volume(volume.id)
            }
            return max(held.epoch, volume.epoch)
        } catch  where error.code == .volumeNotFound {
            return volume.epoch
        } catch  where error.code == .unreachable {
            throw .nodeGone(volume.primary)
        } catch  where error.code == .unavailable {
            throw error
        } catch {
            throw .nodeSilent(volume.primary)
        }
    }

    /// Takes it back.
    public func detach(
        _ volume: String,
        from host: String,
        operation: String
    ) async throws(ControlError) {
        let request = "detach \(volume) from \(host)"
        _ = try await change(volume, operation: operation, request: request) {
            [self] (record) throws(ControlError) in
            let current = try await attachmentsRecord(record.id).current
            guard current.contains(where: { $0.host == host }) else {
                throw .attachmentNotFound(volume, host: host)
            }
            return .detach(host: host)
        }
    }
}

extension ControlError {
    static func attachmentNotFound(_ volume: String, host: String) -> Self {
        ControlError(
            .attachmentNotFound,
            "The volume '\(volume)' is not attached to host '\(host)'.",
            help: "'volctl volume show \(volume)' shows who has it."
        )
    }

    /// The host has it, for the other use: a change would cut off its own VM.
    fileprivate static func attachedOtherwise(
        _ volume: String,
        _ own: AttachmentRecord
    ) -> Self {
        ControlError(
            .volumeAttached,
            "The host '\(own.host)' itself has '\(volume)' attached, for "
                + (own.readOnly ? "reading only." : "writing."),
            help: "To change that its connections are closed: detach it first with 'volctl detach "
                + "\(volume) --host \(own.host)', or attach with '--force'.",
            holder: own.host
        )
    }

    fileprivate static func attachedElsewhere(
        _ volume: String,
        _ holder: AttachmentRecord
    ) -> Self {
        ControlError(
            .volumeAttached,
            "The volume '\(volume)' is attached to host '\(holder.host)'"
                + (holder.readOnly ? ", read-only." : "."),
            help:
                "'volctl detach \(volume) --host \(holder.host)' frees it; '--force' takes it from "
                + "a dead host.",
            holder: holder.host
        )
    }
}
