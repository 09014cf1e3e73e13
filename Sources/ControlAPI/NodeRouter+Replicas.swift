// The node API's routes of replicas and their snapshots, and the checks of what both files' routes
// take.

import Hummingbird

func addReplicas(
    of service: some NodeService,
    _ gate: OperationGate,
    to routes: inout RouteTable
) {
    routes.add(.post, "v1/services/:id/snapshots") { call in
        let id = try call.volumeID("id")
        let taking = try await call.body(NodeSnapshotTaking.self)
        try requireSnapshot(taking.snapshot)
        try requireLeaseEpoch(taking.leaseEpoch)
        let node = try gate.admit(call.operation, to: service)
        return try await .document(node.takeSnapshot(of: id, taking))
    }
    routes.add(.delete, "v1/replicas/:id/snapshots/:snapshot") { call in
        let id = try call.volumeID("id")
        let snapshot = try call.snapshotID("snapshot")
        let node = try gate.admit(call.operation, to: service)
        try await node.deleteReplicaSnapshot(of: id, snapshot)
        return .done
    }
    routes.add(.post, "v1/replicas/:id/snapshots/:snapshot/clones") { call in
        let id = try call.volumeID("id")
        let snapshot = try call.snapshotID("snapshot")
        let creation = try await call.body(NodeReplicaCloneCreation.self)
        try require(creation.volume)
        try requireInstance(creation.instance)
        try requireInstance(creation.newInstance)
        try requireNumber(creation.number)
        guard creation.volume.id != id else {
            throw ControlError(.invalidArgument, "A clone has another id than its source.")
        }
        let node = try gate.admit(call.operation, to: service)
        try await node.cloneReplica(of: id, snapshot, creation)
        return .done
    }
    routes.add(.post, "v1/replicas/:id/snapshots/:snapshot/rollback") { call in
        let id = try call.volumeID("id")
        let snapshot = try call.snapshotID("snapshot")
        let rollback = try await call.body(NodeReplicaRollback.self)
        try requireInstance(rollback.instance)
        try requireInstance(rollback.newInstance)
        try requireNumber(rollback.number)
        try requireLeaseEpoch(rollback.epoch)
        guard rollback.newInstance != rollback.instance else {
            throw ControlError(.invalidArgument, "A rollback makes another instance.")
        }
        let node = try gate.admit(call.operation, to: service)
        try await node.rollBackReplica(of: id, snapshot, rollback)
        return .done
    }
}

extension APICall {
    /// The path parameter `name`, the id of a replicated volume's snapshot.
    fileprivate func snapshotID(_ name: String) throws(ControlError) -> UInt64 {
        guard let id = UInt64(parameter(name)) else {
            throw ControlError(
                .invalidArgument,
                "\(ValidName.quoted(parameter(name))) is not the id of a snapshot."
            )
        }
        try requireSnapshot(id)
        return id
    }
}

// MARK: - Checks

func require(_ creation: NodeVolumeCreation) throws(ControlError) {
    try requireID(creation.id)
    try requireEpoch(creation.epoch)
    try ValidName.require(creation.name, of: "volume")
    try ValidSize.require(volumeByteCount: creation.byteCount)
    try ValidSize.require(logicalBlockByteCount: creation.logicalBlockByteCount)
    try requireDescriptor(creation.descriptor)
    if let replica = creation.replica { try requireInstance(replica.instance) }
}

private func requireSnapshot(_ id: UInt64) throws(ControlError) {
    guard (1...APILimits.snapshotIDMax).contains(id) else {
        throw ControlError(
            .invalidArgument,
            "The id of a snapshot is from 1 to \(APILimits.snapshotIDMax)."
        )
    }
}

private func requireNumber(_ number: UInt64) throws(ControlError) {
    guard (1...APILimits.writeNumberMax).contains(number) else {
        throw ControlError(
            .invalidArgument,
            "A write number is from 1 to \(APILimits.writeNumberMax)."
        )
    }
}

func requireLeaseEpoch(_ epoch: UInt64) throws(ControlError) {
    guard (1...APILimits.leaseEpochMax).contains(epoch) else {
        throw ControlError(
            .invalidArgument,
            "A lease epoch is from 1 to \(APILimits.leaseEpochMax)."
        )
    }
}

func requireInstance(_ instance: UInt64) throws(ControlError) {
    guard (1...APILimits.instanceMax).contains(instance) else {
        throw ControlError(
            .invalidArgument,
            "The instance of a replica is from 1 to \(APILimits.instanceMax)."
        )
    }
}

func requireEpoch(_ epoch: UInt64?) throws(ControlError) {
    guard epoch ?? 0 <= APILimits.epochMax else {
        throw ControlError(.invalidArgument, "An epoch is at most \(APILimits.epochMax).")
    }
}

func requireID(_ id: UInt64) throws(ControlError) {
    guard id > 0, id <= APILimits.volumeIDMax else {
        throw ControlError(.invalidArgument, "\(id) is not a volume id.")
    }
}

func requireDescriptor(_ descriptor: String) throws(ControlError) {
    guard descriptor.utf8.count <= APILimits.descriptorByteCountMax else {
        throw ControlError(
            .invalidArgument,
            "A descriptor has at most \(APILimits.descriptorByteCountMax) bytes."
        )
    }
}
