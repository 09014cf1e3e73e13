// The routes of the node API.

public import Hummingbird

/// The routes that a node serves to the metadata service.
///
/// A request that names a store, in the header `Cairn-Store`, is served only while the node has
/// that one. Another node may have come to where the one it was meant for was, and "there is no
/// such volume" from it would read as a deletion carried out.
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
    return routes.router { call in
        guard let expected = call.expectedStore else { return }
        let report = try await service.report()
        guard report.storeIdentity.lowercased() != expected.lowercased() else { return }
        throw ControlError(
            .unavailable,
            "The node '\(report.name)' has another store now, \(report.storeIdentity).",
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
        try requireID(creation.id)
        try ValidName.require(creation.name, of: "volume")
        try ValidSize.require(volumeByteCount: creation.byteCount)
        try ValidSize.require(logicalBlockByteCount: creation.logicalBlockByteCount)
        try requireDescriptor(creation.descriptor)
        let operation = try call.operation
        return try await .created(
            gate.change(creation.id, operation: operation) { () throws(ControlError) in
                try await service.createVolume(creation)
            }
        )
    }
    routes.add(.get, "v1/volumes/:id") { call in
        try await .document(service.volume(call.volumeID("id")))
    }
    routes.add(.patch, "v1/volumes/:id") { call in
        let id = try call.volumeID("id")
        let update = try await call.body(NodeVolumeUpdate.self)
        if let byteCount = update.byteCount { try ValidSize.require(volumeByteCount: byteCount) }
        if let name = update.name { try ValidName.require(name, of: "volume") }
        if let descriptor = update.descriptor { try requireDescriptor(descriptor) }
        let operation = try call.operation
        return try await .document(
            gate.change(id, operation: operation) { () throws(ControlError) in
                try await service.updateVolume(id, update)
            }
        )
    }
    routes.add(.delete, "v1/volumes/:id") { call in
        let id = try call.volumeID("id")
        let operation = try call.operation
        try await gate.change(id, operation: operation) { () throws(ControlError) in
            try await service.deleteVolume(id)
        }
        gate.forget(id)
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
        let operation = try call.operation
        return try await .created(
            gate.change(id, operation: operation) { () throws(ControlError) in
                try await service.createSnapshot(volume: id, name: creation.name)
            }
        )
    }
    routes.add(.delete, "v1/volumes/:id/snapshots/:snapshot") { call in
        let id = try call.volumeID("id")
        let name = try call.name("snapshot", of: "snapshot")
        let operation = try call.operation
        try await gate.change(id, operation: operation) { () throws(ControlError) in
            try await service.deleteSnapshot(volume: id, name: name)
        }
        return .done
    }
    routes.add(.post, "v1/volumes/:id/snapshots/:snapshot/rollback") { call in
        let id = try call.volumeID("id")
        let name = try call.name("snapshot", of: "snapshot")
        let operation = try call.operation
        return try await .document(
            gate.change(id, operation: operation) { () throws(ControlError) in
                try await service.rollback(volume: id, snapshot: name)
            }
        )
    }
    routes.add(.post, "v1/volumes/:id/snapshots/:snapshot/clones") { call in
        let id = try call.volumeID("id")
        let name = try call.name("snapshot", of: "snapshot")
        let creation = try await call.body(NodeCloneCreation.self)
        try requireID(creation.id)
        try ValidName.require(creation.name, of: "volume")
        try requireDescriptor(creation.descriptor)
        // In the order of the new volume's changes: the source's are not touched.
        let operation = try call.operation
        return try await .created(
            gate.change(creation.id, operation: operation) { () throws(ControlError) in
                try await service.clone(volume: id, snapshot: name, creation)
            }
        )
    }
}

private func requireID(_ id: UInt64) throws(ControlError) {
    guard id > 0, id <= APILimits.volumeIDMax else {
        throw ControlError(.invalidArgument, "\(id) is not a volume id.")
    }
}

private func requireDescriptor(_ descriptor: String) throws(ControlError) {
    guard descriptor.utf8.count <= APILimits.descriptorByteCountMax else {
        throw ControlError(
            .invalidArgument,
            "A descriptor has at most \(APILimits.descriptorByteCountMax) bytes."
        )
    }
}
