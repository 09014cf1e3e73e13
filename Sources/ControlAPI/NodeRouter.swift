// The routes of the node API.

public import Hummingbird

/// The routes that a node serves to the metadata service.
///
/// A request that names stores, in the headers `Cairn-Store` and `Cairn-Other-Stores`, is served
/// only while the node has all of them. Another node may have come to where the one it was meant
/// for was, and "there is no such volume" from it would read as a deletion carried out.
///
/// - Parameter service: The node.
/// - Returns: A router for ``apiServer(router:endpoint:logger:onListening:)``.
public func nodeRouter(service: some NodeService) -> Router<APIContext> {
    var routes = RouteTable()
    routes.add(.get, "v1/node") { _ in try await .document(service.report()) }
    routes.add(.get, "v1/stats") { _ in try await .document(service.statistics()) }
    let gate = OperationGate()
    addVolumes(of: service, gate, to: &routes)
    addSnapshots(of: service, gate, to: &routes)
    addServices(of: service, gate, to: &routes)
    addReplicas(of: service, gate, to: &routes)
    return routes.router { call in
        let expected = call.expectedStores
        guard !expected.isEmpty else { return }
        let report = try await service.report()
        let present = [report.storeIdentity] + (report.storeIdentities ?? [])
        let missing = Set(expected).subtracting(present.map { $0.lowercased() })
        guard let first = missing.min() else { return }
        throw ControlError(
            .unavailable,
            missing.count == expected.count
                ? "The node '\(report.name)' has another store now, \(report.storeIdentity)."
                : "The node '\(report.name)' does not have its store \(first) now.",
            help: "Wait until it has registered with it; its log says what keeps it from that."
        )
    }
}

private func addVolumes(
    of service: some NodeService,
    _ gate: OperationGate,
    to routes: inout RouteTable
) {
    routes.add(.get, "v1/volumes") { _ in
        try await .document(NodeVolumeList(volumes: service.volumes()))
    }
    routes.add(.post, "v1/volumes") { call in
        let creation = try await call.body(NodeVolumeCreation.self)
        try require(creation)
        let node = try gate.admit(call.operation, to: service)
        return try await .created(node.createVolume(creation))
    }
    routes.add(.get, "v1/volumes/:id") { call in
        try await .document(service.volume(call.volumeID("id")))
    }
    routes.add(.patch, "v1/volumes/:id") { call in
        let id = try call.volumeID("id")
        let update = try await call.body(NodeVolumeUpdate.self)
        try requireEpoch(update.epoch)
        if let byteCount = update.byteCount { try ValidSize.require(volumeByteCount: byteCount) }
        if let name = update.name { try ValidName.require(name, of: "volume") }
        if let descriptor = update.descriptor { try requireDescriptor(descriptor) }
        let node = try gate.admit(call.operation, to: service)
        return try await .document(node.updateVolume(id, update))
    }
    routes.add(.delete, "v1/volumes/:id") { call in
        try await gate.admit(call.operation, to: service).deleteVolume(call.volumeID("id"))
        return .done
    }
}

private func addSnapshots(
    of service: some NodeService,
    _ gate: OperationGate,
    to routes: inout RouteTable
) {
    routes.add(.post, "v1/volumes/:id/snapshots") { call in
        let id = try call.volumeID("id")
        let creation = try await call.body(SnapshotCreation.self)
        try ValidName.require(creation.name, of: "snapshot")
        let node = try gate.admit(call.operation, to: service)
        return try await .created(node.createSnapshot(volume: id, name: creation.name))
    }
    routes.add(.delete, "v1/volumes/:id/snapshots/:snapshot") { call in
        let id = try call.volumeID("id")
        let name = try call.name("snapshot", of: "snapshot")
        let node = try gate.admit(call.operation, to: service)
        try await node.deleteSnapshot(volume: id, name: name)
        return .done
    }
    routes.add(.post, "v1/volumes/:id/snapshots/:snapshot/rollback") { call in
        let id = try call.volumeID("id")
        let name = try call.name("snapshot", of: "snapshot")
        let node = try gate.admit(call.operation, to: service)
        return try await .document(node.rollback(volume: id, snapshot: name))
    }
    routes.add(.post, "v1/volumes/:id/snapshots/:snapshot/clones") { call in
        let id = try call.volumeID("id")
        let name = try call.name("snapshot", of: "snapshot")
        let creation = try await call.body(NodeCloneCreation.self)
        try requireID(creation.id)
        try requireEpoch(creation.epoch)
        try ValidName.require(creation.name, of: "volume")
        try requireDescriptor(creation.descriptor)
        let node = try gate.admit(call.operation, to: service)
        return try await .created(node.clone(volume: id, snapshot: name, creation))
    }
}

private func addServices(
    of service: some NodeService,
    _ gate: OperationGate,
    to routes: inout RouteTable
) {
    routes.add(.get, "v1/services") { _ in
        try await .document(NodeServiceList(services: service.services()))
    }
    routes.add(.put, "v1/services/:id") { call in
        let id = try call.volumeID("id")
        let assignment = try await call.body(NodeServiceAssignment.self)
        guard assignment.volume == id else {
            throw ControlError(
                .invalidArgument,
                "The body is of the volume \(assignment.volume), the path of \(id)."
            )
        }
        try require(assignment)
        let node = try gate.admit(call.operation, to: service)
        return try await .document(node.serve(assignment))
    }
    routes.add(.delete, "v1/services/:id") { call in
        let id = try call.volumeID("id")
        let epoch = try call.number("lease_epoch", in: 0...APILimits.leaseEpochMax, default: 0)
        try requireLeaseEpoch(epoch)
        let node = try gate.admit(call.operation, to: service)
        try await node.stopServing(id, leaseEpoch: epoch)
        return .done
    }
}

private func require(_ assignment: NodeServiceAssignment) throws(ControlError) {
    try ValidName.require(assignment.name, of: "volume")
    try ValidSize.require(volumeByteCount: assignment.byteCount)
    try ValidSize.require(logicalBlockByteCount: assignment.logicalBlockByteCount)
    try requireLeaseEpoch(assignment.leaseEpoch)
    try requireEpoch(assignment.exportEpoch)
    let placements = assignment.placements
    guard (1...APILimits.replicaCountMax).contains(placements.count) else {
        throw ControlError(
            .invalidArgument,
            "A volume has 1 to \(APILimits.replicaCountMax) replicas."
        )
    }
    guard (1...placements.count).contains(assignment.writeQuorum),
        2 * assignment.writeQuorum > placements.count
    else {
        throw ControlError(
            .invalidArgument,
            "\(assignment.writeQuorum) of \(placements.count) replicas are not a majority."
        )
    }
    guard Set(placements.map(\.node)).count == placements.count,
        Set(placements.map(\.instance)).count == placements.count
    else { throw ControlError(.invalidArgument, "Two placements have one node or instance.") }
    for placement in placements {
        try ValidName.require(placement.node, of: "node")
        try requireInstance(placement.instance)
        guard (placement.peerEndpoint ?? "").utf8.count <= APILimits.endpointByteCountMax else {
            throw ControlError(.invalidArgument, "The endpoint of a peer is too long.")
        }
    }
}
