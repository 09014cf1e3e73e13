// The routes over HTTP: documented, checked, and unmoved by whatever is thrown at them.

import ControlAPI
import ControlPlane
import Foundation
import HTTPTypes
import Hummingbird
import HummingbirdTesting
import NIOCore
import Testing

private func application(_ plane: ControlPlane) -> some ApplicationProtocol {
    Application(router: controlRouter(service: plane), logger: Cluster.quiet)
}

extension TestClientProtocol {
    /// Sends JSON text, and gives status and body.
    func send(
        _ method: HTTPRequest.Method,
        _ path: String,
        _ body: String? = nil,
        type: String? = "application/json",
        key: String? = nil
    ) async throws -> (status: Int, body: Data, headers: HTTPFields) {
        var headers = HTTPFields()
        if body != nil, let type { headers[.contentType] = type }
        if let key, let name = HTTPField.Name("Idempotency-Key") { headers[name] = key }
        let buffer = body.map { ByteBuffer(string: $0) }
        let response = try await execute(
            uri: path,
            method: method,
            headers: headers,
            body: buffer
        )
        return (
            response.status.code, Data(response.body.readableBytesView), response.headers
        )
    }
}

private func problem(_ body: Data) throws -> ProblemDocument {
    try ControlJSON.decoder().decode(ProblemDocument.self, from: body)
}

@Suite("Control API over HTTP", .timeLimit(.minutes(2)))
struct RouterTests {
    @Test("Every route is in the OpenAPI file, and every operation there is a route")
    func routes_matchOpenAPI() async throws {
        let (_, plane) = try await Cluster.serving()
        let served = controlRouter(service: plane).routes.map { route in
            let parts = route.path.description.split(separator: "/").map { part in
                part.hasPrefix(":")
                    ? "{\(part.dropFirst())}"
                    : part.hasPrefix("{") ? String(part) : String(part)
            }
            return "\(route.method.rawValue) /" + parts.joined(separator: "/")
        }
        let documented = try OpenAPIFile()
        #expect(Set(served) == Set(documented.statuses.keys))
        #expect(served.count == documented.statuses.count)
        #expect(documented.problemCodes == Set(ControlError.Code.all.map(\.rawValue)))
    }

    @Test("Each error code has a status that the file may document")
    func codes_haveStatuses() {
        for code in ControlError.Code.all {
            #expect((400...599).contains(code.httpStatus))
        }
        #expect(ControlError.Code(rawValue: "from_the_future").httpStatus == 500)
    }

    @Test("Accounts of space that no node has are refused, absurd ones survived")
    func nodes_absurdSpace() async throws {
        let (_, plane) = try await Cluster.serving()
        @Sendable func space(_ capacity: UInt64, _ live: UInt64) -> String {
            #"{"capacity_byte_count":\#(capacity),"live_byte_count":\#(live),"#
                + #""available_byte_count":0,"garbage_byte_count":0}"#
        }
        @Sendable func registration(_ space: String) -> String {
            #"{"admin_endpoint":"http://127.0.0.1:7000","version":"1","store_identity":""#
                + String(repeating: "0", count: 32) + #"","space":"# + space + "}"
        }
        let limit = APILimits.nodeByteCountMax
        let tooFull = space(1, 0).dropLast() + #","fullest_percent":101}"#
        try await application(plane).test(.router) { client in
            for space in [space(1, .max), space(.max, 1), space(1, limit + 1), String(tooFull)] {
                let answer = try await client.send(.put, "/v1/nodes/n1", registration(space))
                #expect(answer.status == 400)
                let beat = #"{"session":1,"space":\#(space)}"#
                let late = try await client.send(.post, "/v1/nodes/n1/heartbeat", beat)
                #expect(late.status == 400)
            }
            for space in [space(1, limit), space(0, limit), space(limit, limit - 1)] {
                let answer = try await client.send(.put, "/v1/nodes/n1", registration(space))
                #expect(answer.status == 200)
            }
        }
    }

    @Test("What a node tells of its stores fits into a request, and what does not is refused")
    func nodes_manyStores_areCut() async throws {
        let path = "/" + String(repeating: "é", count: 400) + "/store.img"
        let store = NodeStore(
            path: path,
            identity: String(repeating: "a", count: 32),
            space: .empty
        )
        let all = [NodeStore](repeating: store, count: 100)
        let told = NodeStore.told(all)
        #expect(told.count == APILimits.nodeStoreCountMax)
        #expect(told.allSatisfy { $0.path.utf8.count <= APILimits.endpointByteCountMax })
        #expect(told.allSatisfy { path.hasSuffix($0.path) && $0.path.hasSuffix("é/store.img") })
        func body(_ stores: [NodeStore]) throws -> String {
            let beat = NodeHeartbeat(session: 1, space: .empty, stores: stores)
            return String(decoding: try ControlJSON.encoder().encode(beat), as: UTF8.self)
        }
        #expect(try body(told).utf8.count <= APILimits.bodyByteCountMax)
        let (_, plane) = try await Cluster.serving()
        var strange = store
        strange.path = "/dev/a"
        strange.identity = "x"
        var failing = told[0]
        failing.failures = StoreFailures(requestCount: .max, volume: "not a name")
        #expect(
            NodeStore.told([failing])[0].failures
                == StoreFailures(requestCount: APILimits.failedRequestCountMax)
        )
        var named = told[0]
        named.failures = StoreFailures(volume: "not a name")
        failing.failures?.volume = nil
        let bodies = try [
            body([store]), body([strange]), body([failing]), body([named]),
            body([NodeStore](repeating: told[0], count: APILimits.nodeStoreCountMax + 1)),
        ]
        try await application(plane).test(.router) { client in
            for body in bodies {
                let answer = try await client.send(.post, "/v1/nodes/n1/heartbeat", body)
                #expect(answer.status == 400)
            }
        }
    }

    @Test(
        "A document of a node is read whatever its numbers are",
        arguments: [
            (0, .max, 0), (1, .max, 100), (.max, .max, 100), (.max, .max - 1, 99), (100, 99, 99),
            (1000, 999, 99), (1000, 849, 84), (1000, 0, 0),
        ] as [(UInt64, UInt64, Int)]
    )
    func space_usedPercent(capacity: UInt64, live: UInt64, percent: Int) {
        let space = StoreSpaceUsage(
            capacityByteCount: capacity,
            liveByteCount: live,
            availableByteCount: .max,
            garbageByteCount: .max
        )
        #expect(space.usedPercent == percent)
    }

    @Test("A volume's life in JSON")
    func volume_life() async throws {
        let (_, plane) = try await Cluster.serving()
        try await application(plane).test(.router) { client in
            let body = #"{"name": "vm1", "byte_count": 1048576, "a_new_field": 1}"#
            let made = try await client.send(.post, "/v1/volumes", body, key: "op1")
            #expect(made.status == 201)
            let volume = try ControlJSON.decoder().decode(Volume.self, from: made.body)
            #expect(volume.name == "vm1")
            let text = String(decoding: made.body, as: UTF8.self)
            #expect(text.contains(#""primary":"n1""#))
            #expect(text.contains(#""replicas":["n1"]"#))
            let again = try await client.send(.post, "/v1/volumes", body, key: "op1")
            #expect(again.status == 201)
            let other = #"{"name": "vm2", "byte_count": 4096}"#
            let reused = try await client.send(.post, "/v1/volumes", other, key: "op1")
            #expect(reused.status == 422)
            let attached = try await client.send(
                .post,
                "/v1/volumes/vm1/attachments",
                #"{"host": "hv1"}"#
            )
            #expect(attached.status == 201)
            #expect(String(decoding: attached.body, as: UTF8.self).contains(#""nbd_uri":"nbd://"#))
            let conflict = try await client.send(
                .post,
                "/v1/volumes/vm1/attachments",
                #"{"host": "hv2"}"#
            )
            #expect(conflict.status == 409)
            #expect(try problem(conflict.body).holder == "hv1")
            #expect(conflict.headers[.contentType] == "application/problem+json")
            for (host, status) in [("hv2", 409), ("a%20b", 400)] {
                let refused = try await client.send(.delete, "/v1/volumes/vm1?host=\(host)")
                #expect(refused.status == status)
            }
            let gone = try await client.send(.delete, "/v1/volumes/vm1/attachments/hv1")
            #expect(gone.status == 204)
            #expect(try await client.send(.delete, "/v1/volumes/vm1?host=hv1").status == 404)
            #expect(try await client.send(.delete, "/v1/volumes/vm1").status == 204)
            #expect(try await client.send(.get, "/v1/volumes/vm1").status == 404)
        }
    }

    @Test("Wrong paths, methods, types and sizes get their own statuses")
    func errors_status() async throws {
        let (_, plane) = try await Cluster.serving()
        let large = #"{"name": ""# + String(repeating: "x", count: 70_000) + #""}"#
        let deep = String(repeating: "[", count: 20_000)
        try await application(plane).test(.router) { client in
            #expect(try await client.send(.get, "/").status == 404)
            #expect(try await client.send(.get, "/v2/volumes").status == 404)
            let method = try await client.send(.put, "/v1/volumes")
            #expect(method.status == 405)
            #expect(method.headers[.allow] == "GET, POST")
            let body = #"{"name": "v", "byte_count": 4096}"#
            let form = try await client.send(.post, "/v1/volumes", body, type: "text/plain")
            #expect(form.status == 415)
            #expect(try await client.send(.post, "/v1/volumes", body, type: nil).status == 415)
            #expect(try await client.send(.post, "/v1/volumes", large).status == 413)
            #expect(try await client.send(.post, "/v1/volumes", deep).status == 400)
            #expect(try await client.send(.post, "/v1/volumes", "").status == 400)
            #expect(try await client.send(.get, "/v1/volumes?limit=0").status == 400)
            #expect(try await client.send(.get, "/v1/volumes?after=-x").status == 400)
            for follow in ["", "maybe", "TRUE", "1"] {
                let events = try await client.send(.get, "/v1/events?follow=\(follow)")
                #expect(events.status == 400, "\(follow)")
            }
            let key = String(repeating: "k", count: 129)
            #expect(try await client.send(.post, "/v1/volumes", body, key: key).status == 400)
        }
    }

    @Test("No web page uses either API", arguments: ["Origin", "sec-fetch-site"])
    func browser_isRefused(header: String) async throws {
        let (cluster, plane) = try await Cluster.serving()
        let creation = VolumeCreation(name: "v", byteCount: 4096)
        let volume = try await plane.createVolume(creation, operation: "k1")
        let snapshot = SnapshotCreation(name: "s")
        _ = try await plane.createSnapshot(of: "v", snapshot, operation: "k2")
        let name = try #require(HTTPField.Name(header))
        // Even an empty one, and one of the same site: the site's name may have been rebound.
        for value in ["null", "", "same-origin", "http://127.0.0.1:7400"] {
            @Sendable func refuse(
                _ client: some TestClientProtocol,
                _ method: HTTPRequest.Method,
                _ path: String
            ) async throws {
                let fields: HTTPFields = [name: value]
                let answer = try await client.execute(uri: path, method: method, headers: fields)
                #expect(answer.status == .forbidden, "\(method) \(path)")
                #expect(answer.headers[.contentType] == ProblemDocument.mediaType)
                let document = try problem(Data(answer.body.readableBytesView))
                #expect(document.code == .browserRefused)
                #expect(document.help != nil)
            }
            try await application(plane).test(.router) { client in
                try await refuse(client, .post, "/v1/volumes/v/snapshots/s/rollback")
                try await refuse(client, .get, "/v1/volumes")
                try await refuse(client, .delete, "/v1/volumes/v")
                try await refuse(client, .options, "/v1/volumes")
                try await refuse(client, .get, "/nowhere")
            }
            let node = Application(
                router: nodeRouter(service: cluster.nodes[0]),
                logger: Cluster.quiet
            )
            try await node.test(.router) { client in
                try await refuse(client, .post, "/v1/volumes/\(volume.id)/snapshots/s/rollback")
                try await refuse(client, .get, "/v1/node")
            }
        }
        #expect(cluster.nodes[0].held[volume.id]?.rollbacks == [])
    }

    @Test(
        "Names outside the rule are refused everywhere, by name",
        arguments: [
            "", ".x", "-x", "a b", "a/b", "a@b", "ä", "a\u{0}b", "a\nb", "%", "..",
            String(repeating: "n", count: 129),
        ]
    )
    func names_invalid(name: String) async throws {
        let (_, plane) = try await Cluster.serving()
        #expect(!ValidName.check(name))
        let quoted = String(
            decoding: try ControlJSON.encoder().encode(name),
            as: UTF8.self
        )
        try await application(plane).test(.router) { client in
            let body = #"{"name": \#(quoted), "byte_count": 4096}"#
            let answer = try await client.send(.post, "/v1/volumes", body)
            #expect(answer.status == 400)
            #expect(try problem(answer.body).help?.contains("A name is") == true)
        }
    }

    @Test(
        "Sizes outside the rule are refused, with what to do",
        arguments: [
            ("0", "10GiB"), ("1", "4096"), ("4097", "8192"), ("70368744181760", "64TiB"),
            ("18446744073709551615", "64TiB"),
        ]
    )
    func sizes_invalid(size: String, help: String) async throws {
        let (_, plane) = try await Cluster.serving()
        try await application(plane).test(.router) { client in
            let body = #"{"name": "v", "byte_count": \#(size)}"#
            let answer = try await client.send(.post, "/v1/volumes", body)
            #expect(answer.status == 400)
            #expect(try problem(answer.body).help?.contains(help) == true)
        }
    }

    @Test(
        "Values of the wrong kind are refused, naming the field",
        arguments: [
            #"{"name": "v"}"#, #"{"name": "v", "byte_count": "4096"}"#,
            #"{"name": "v", "byte_count": -4096}"#, #"{"name": "v", "byte_count": 4096.5}"#,
            #"{"name": "v", "byte_count": 1e99}"#, #"{"name": "v", "byte_count": null}"#,
            #"{"name": "v", "byte_count": 18446744073709551616}"#,
        ]
    )
    func values_invalid(body: String) async throws {
        let (_, plane) = try await Cluster.serving()
        try await application(plane).test(.router) { client in
            let answer = try await client.send(.post, "/v1/volumes", body)
            #expect(answer.status == 400)
            let document = try problem(answer.body)
            #expect(document.code == .malformedRequest)
            #expect(document.detail.contains("byte_count") || document.detail.contains("number"))
            #expect(document.detail != "The body is not a JSON document.")
        }
    }

    @Test("Block sizes and durabilities that are not served are refused")
    func values_notServed() async throws {
        let (_, plane) = try await Cluster.serving()
        try await application(plane).test(.router) { client in
            for field in [
                #""logical_block_byte_count": 1024"#, #""durability": "maybe""#,
                #""replicas": 0"#, #""node": "-""#,
            ] {
                let body = #"{"name": "v", "byte_count": 4096, \#(field)}"#
                let answer = try await client.send(.post, "/v1/volumes", body)
                #expect(answer.status == 400, "\(field)")
            }
        }
    }
}
