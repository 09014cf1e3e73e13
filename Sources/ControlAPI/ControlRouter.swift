// The routes of the control API; Docs/openapi.yaml describes them, and a test holds the two equal.

import Foundation
import HTTPTypes
public import Hummingbird
import NIOCore

/// The routes that the metadata service serves.
///
/// - Parameters:
///   - service: The metadata service.
///   - refusal: Why nothing is served; nil when it is.
/// - Returns: A router for ``apiServer(router:endpoint:logger:onListening:)``.
public func controlRouter(
    service: some ControlService,
    refusal: @escaping @Sendable () -> ControlError? = { nil }
) -> Router<APIContext> {
    var routes = RouteTable()
    routes.add(.get, "v1/health") { _ in try await .document(service.health()) }
    routes.add(.get, "v1/version") { _ in try .document(service.version()) }
    addVolumes(of: service, to: &routes)
    addSnapshots(of: service, to: &routes)
    addImages(of: service, to: &routes)
    addAttachments(of: service, to: &routes)
    addNodes(of: service, to: &routes)
    addEvents(of: service, to: &routes)
    return routes.router { _ in
        if let error = refusal() { throw error }
    }
}

private func addVolumes(of service: some ControlService, to routes: inout RouteTable) {
    routes.add(.get, "v1/volumes") { call in
        let countMax = try call.number(
            "limit",
            in: 1...UInt64(APILimits.pageCountMax),
            default: UInt64(APILimits.pageCountMax)
        )
        let after = call.query("after")
        if let after { try ValidName.require(after, of: "volume") }
        return try await .document(service.volumes(after: after, countMax: Int(countMax)))
    }
    routes.add(.post, "v1/volumes") { call in
        let creation = try await call.body(VolumeCreation.self)
        try ValidName.require(creation.name, of: "volume")
        try ValidSize.require(volumeByteCount: creation.byteCount)
        if let byteCount = creation.logicalBlockByteCount {
            try ValidSize.require(logicalBlockByteCount: byteCount)
        }
        if let node = creation.node { try ValidName.require(node, of: "node") }
        return try await .created(
            service.createVolume(creation, operation: call.operationKey())
        )
    }
    routes.add(.get, "v1/volumes/:volume") { call in
        try await .document(service.volume(call.name("volume", of: "volume")))
    }
    routes.add(.patch, "v1/volumes/:volume") { call in
        let name = try call.name("volume", of: "volume")
        let update = try await call.body(VolumeUpdate.self)
        guard let byteCount = update.byteCount else {
            throw ControlError(.invalidArgument, "The field 'byte_count' is missing.")
        }
        try ValidSize.require(volumeByteCount: byteCount)
        return try await .document(
            service.updateVolume(name, update, operation: call.operationKey())
        )
    }
    routes.add(.delete, "v1/volumes/:volume") { call in
        let host = call.query("host")
        if let host { try ValidName.require(host, of: "host") }
        try await service.deleteVolume(
            call.name("volume", of: "volume"),
            heldBy: host,
            operation: call.operationKey()
        )
        return .done
    }
}

private func addSnapshots(of service: some ControlService, to routes: inout RouteTable) {
    let all: String = "v1/volumes/:volume/snapshots"
    let one: String = all + "/:snapshot"
    routes.add(.get, all) { call in
        let volume = try call.name("volume", of: "volume")
        return try await .document(SnapshotList(snapshots: service.snapshots(of: volume)))
    }
    routes.add(.post, all) { call in
        let volume = try call.name("volume", of: "volume")
        let creation = try await call.body(SnapshotCreation.self)
        try ValidName.require(creation.name, of: "snapshot")
        return try await .created(
            service.createSnapshot(of: volume, creation, operation: call.operationKey())
        )
    }
    routes.add(.get, one) { call in
        let (volume, snapshot) = try call.snapshot()
        return try await .document(
            service.snapshot(snapshot, of: volume, machineID: call.query("machine_id"))
        )
    }
    routes.add(.delete, one) { call in
        let (volume, snapshot) = try call.snapshot()
        try await service.deleteSnapshot(snapshot, of: volume, operation: call.operationKey())
        return .done
    }
    routes.add(.post, one + "/rollback") { call in
        let (volume, snapshot) = try call.snapshot()
        return try await .document(
            service.rollback(volume, to: snapshot, operation: call.operationKey())
        )
    }
    routes.add(.post, one + "/clones") { call in
        let (volume, snapshot) = try call.snapshot()
        let creation = try await call.body(CloneCreation.self)
        try ValidName.require(creation.name, of: "volume")
        return try await .created(
            service.clone(
                volume,
                snapshot: snapshot,
                creation,
                operation: call.operationKey()
            )
        )
    }
}

private func addImages(of service: some ControlService, to routes: inout RouteTable) {
    let one: String = "v1/images/:image/versions/:version"
    routes.add(.get, "v1/images") { _ in
        try await .document(ImageList(images: service.images()))
    }
    routes.add(.post, "v1/images") { call in
        let creation = try await call.body(ImageCreation.self)
        try check(creation)
        return try await .created(service.createImage(creation, operation: call.operationKey()))
    }
    routes.add(.get, one) { call in
        let (image, version) = try call.image()
        return try await .document(service.image(image, version: version))
    }
    routes.add(.delete, one) { call in
        let (image, version) = try call.image()
        try await service.deleteImage(image, version: version, operation: call.operationKey())
        return .done
    }
    routes.add(.post, one + "/clones") { call in
        let (image, version) = try call.image()
        let creation = try await call.body(CloneCreation.self)
        try ValidName.require(creation.name, of: "volume")
        return try await .created(
            service.cloneImage(
                image,
                version: version,
                creation,
                operation: call.operationKey()
            )
        )
    }
}

private func check(_ creation: ImageCreation) throws(ControlError) {
    try ValidName.require(creation.name, of: "image")
    try ValidName.require(creation.version, of: "version")
    try ValidName.require(creation.volume, of: "volume")
    try ValidName.require(creation.snapshot, of: "snapshot")
    guard (creation.description ?? "").utf8.count <= APILimits.descriptionByteCountMax else {
        throw ControlError(
            .invalidArgument,
            "A description has at most \(APILimits.descriptionByteCountMax) bytes."
        )
    }
    if let digest = creation.sha256 {
        guard digest.utf8.count == 64, digest.allSatisfy(\.isHexDigit) else {
            throw ControlError(.invalidArgument, "A SHA-256 is written as 64 hex digits.")
        }
    }
}

private func addAttachments(of service: some ControlService, to routes: inout RouteTable) {
    let all: String = "v1/volumes/:volume/attachments"
    routes.add(.get, all) { call in
        let volume = try call.name("volume", of: "volume")
        return try await .document(AttachmentList(attachments: service.attachments(of: volume)))
    }
    routes.add(.post, all) { call in
        let volume = try call.name("volume", of: "volume")
        let creation = try await call.body(AttachmentCreation.self)
        try ValidName.require(creation.host, of: "host")
        if let node = creation.via { try ValidName.require(node, of: "node") }
        return try await .created(
            service.attach(volume, creation, operation: call.operationKey())
        )
    }
    routes.add(.delete, all + "/:host") { call in
        let volume = try call.name("volume", of: "volume")
        let host = try call.name("host", of: "host")
        try await service.detach(volume, from: host, operation: call.operationKey())
        return .done
    }
}

private func addNodes(of service: some ControlService, to routes: inout RouteTable) {
    let one: String = "v1/nodes/:node"
    routes.add(.get, "v1/nodes") { _ in
        try await .document(NodeList(nodes: service.nodes()))
    }
    routes.add(.get, one) { call in
        try await .document(service.node(call.name("node", of: "node")))
    }
    routes.add(.put, one) { call in
        let node = try call.name("node", of: "node")
        let registration = try await call.body(NodeRegistration.self)
        try registration.check()
        return try await .document(service.registerNode(node, registration))
    }
    routes.add(.patch, one) { call in
        let node = try call.name("node", of: "node")
        return try await .document(service.updateNode(node, call.body(NodeUpdate.self)))
    }
    routes.add(.delete, one) { call in
        try await service.deleteNode(call.name("node", of: "node"), isLost: call.flag("lost"))
        return .done
    }
    routes.add(.get, one + "/strays") { call in
        let node = try call.name("node", of: "node")
        return try await .document(StrayVolumeList(volumes: service.strays(of: node)))
    }
    routes.add(.delete, one + "/strays/:id") { call in
        let node = try call.name("node", of: "node")
        try await service.deleteStray(call.volumeID("id"), of: node)
        return .done
    }
    routes.add(.post, one + "/heartbeat") { call in
        let node = try call.name("node", of: "node")
        let heartbeat = try await call.body(
            NodeHeartbeat.self,
            byteCountMax: APILimits.heartbeatByteCountMax
        )
        try heartbeat.check()
        try await service.heartbeat(node, heartbeat)
        return .done
    }
}

private func addEvents(of service: some ControlService, to routes: inout RouteTable) {
    routes.add(.get, "v1/events") { call in
        let after = try call.number("after", in: 0...UInt64(Int64.max), default: 0)
        if try call.flag("follow") {
            return try await .follow(service.followEvents(after: after))
        }
        let countMax = try call.number(
            "limit",
            in: 1...UInt64(APILimits.eventPageCountMax),
            default: UInt64(APILimits.eventPageCountMax)
        )
        return try await .document(service.events(after: after, countMax: Int(countMax)))
    }
}

extension APICall {
    fileprivate func snapshot() throws(ControlError) -> (volume: String, snapshot: String) {
        (try name("volume", of: "volume"), try name("snapshot", of: "snapshot"))
    }

    fileprivate func image() throws(ControlError) -> (image: String, version: String) {
        (try name("image", of: "image"), try name("version", of: "version"))
    }
}

extension APIAnswer {
    /// Events as NDJSON, one document a line, until one side ends; an empty line now and then
    /// shows that the connection lives.
    fileprivate static func follow(_ events: AsyncStream<[ClusterEvent]>) -> APIAnswer {
        var headers = HTTPFields()
        headers[.contentType] = "application/x-ndjson"
        headers[.cacheControl] = "no-store"
        let body = ResponseBody { writer in
            let encoder = ControlJSON.encoder()
            for await batch in events {
                var buffer = ByteBuffer()
                for event in batch {
                    buffer.writeBytes(try encoder.encode(event))
                    buffer.writeInteger(UInt8(ascii: "\n"))
                }
                // An empty batch is the service's sign of life.
                if batch.isEmpty { buffer.writeInteger(UInt8(ascii: "\n")) }
                try await writer.write(buffer)
            }
            try await writer.finish(nil)
        }
        return APIAnswer(Response(status: .ok, headers: headers, body: body))
    }
}
