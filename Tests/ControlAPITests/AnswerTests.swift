// Every operation once, in the order in which a cluster would see them: what is answered is what
// Docs/openapi.yaml describes.

import ControlAPI
import ControlPlane
import Foundation
import HTTPTypes
import Hummingbird
import HummingbirdTesting
import Testing

@Suite("Answers of the control API", .timeLimit(.minutes(2)))
struct AnswerTests {
    /// A request and the operation that it is.
    private struct Step: Sendable {
        var method: HTTPRequest.Method
        var path: String
        var body: String?
        /// Parts of the path that are parameters, by their place, counted from 1.
        var parameters: [Int: String] = [:]

        var operation: String {
            let parts = path.split(separator: "/").enumerated().map { index, part in
                parameters[index + 1].map { "{\($0)}" } ?? String(part)
            }
            return "\(method.rawValue) /" + parts.joined(separator: "/")
        }
    }

    private static func volume(
        _ method: HTTPRequest.Method,
        _ path: String,
        _ body: String? = nil
    ) -> Step {
        Step(
            method: method,
            path: "/v1/volumes/" + path,
            body: body,
            parameters: [3: "volume", 5: "snapshot"]
        )
    }

    private static func image(
        _ method: HTTPRequest.Method,
        _ path: String,
        _ body: String? = nil
    ) -> Step {
        Step(
            method: method,
            path: "/v1/images/" + path,
            body: body,
            parameters: [3: "image", 5: "version"]
        )
    }

    private static func node(
        _ method: HTTPRequest.Method,
        _ path: String,
        _ body: String? = nil
    ) -> Step {
        Step(method: method, path: "/v1/nodes/" + path, body: body, parameters: [3: "node"])
    }

    private static let steps: [Step] = [
        Step(method: .get, path: "/v1/health"),
        Step(method: .get, path: "/v1/version"),
        Step(method: .post, path: "/v1/volumes", body: #"{"name":"v","byte_count":8192}"#),
        volume(.patch, "v", #"{"byte_count":16384}"#),
        volume(.post, "v/snapshots", #"{"name":"s"}"#),
        volume(.get, "v/snapshots"),
        volume(.get, "v/snapshots/s"),
        volume(.post, "v/snapshots/s/rollback"),
        volume(.post, "v/snapshots/s/clones", #"{"name":"c"}"#),
        volume(.post, "c/attachments", #"{"host":"h1","read_only":true}"#),
        volume(.post, "c/attachments", #"{"host":"h2","force":true}"#),
        volume(.get, "c/attachments"),
        volume(.get, "c"),
        Step(
            method: .post,
            path: "/v1/images",
            body: """
                {"name":"i","version":"1","volume":"v","snapshot":"s","description":"text",
                 "sha256":"\(String(repeating: "a", count: 64))"}
                """
        ),
        Step(method: .get, path: "/v1/images"),
        image(.get, "i/versions/1"),
        image(.post, "i/versions/1/clones", #"{"name":"d"}"#),
        Step(method: .get, path: "/v1/volumes?limit=1"),
        Step(method: .get, path: "/v1/nodes"),
        node(.get, "n1"),
        node(.get, "n1/strays"),
        node(.patch, "n1", #"{"draining":true}"#),
        Step(method: .get, path: "/v1/events"),
    ]

    /// What a node with a store that has failed says.
    private static func registration() throws -> String {
        var registration = Cluster.registration(0)
        registration.stores = [
            NodeStore(
                path: "/dev/a",
                identity: registration.storeIdentity,
                space: registration.space,
                failures: StoreFailures(stopped: true, requestCount: 7, volume: "v")
            )
        ]
        return String(decoding: try ControlJSON.encoder().encode(registration), as: UTF8.self)
    }

    @Test("Every operation answers what its description says")
    func operations_all_answerAsDescribed() async throws {
        let (cluster, plane) = try await Cluster.serving()
        cluster.nodes[0].plant(.small(77))
        let file = try OpenAPIFile()
        let steps = [Self.node(.put, "n1", try Self.registration())] + Self.steps
        let app = Application(router: controlRouter(service: plane), logger: Cluster.quiet)
        try await app.test(.router) { client in
            for step in steps {
                let answer = try await client.send(step.method, step.path, step.body)
                let operation = String(step.operation.prefix { $0 != "?" })
                #expect([200, 201].contains(answer.status), "\(operation): \(answer.status)")
                #expect(answer.headers[.contentType]?.hasPrefix("application/json") == true)
                let wrong = try file.problems(
                    answer.body,
                    "application/json",
                    operation,
                    answer.status
                )
                #expect(wrong == [])
            }
        }
        let described = file.statuses.filter { $0.value.contains(200) || $0.value.contains(201) }
        let asked = Set(steps.map { String($0.operation.prefix { $0 != "?" }) })
        #expect(asked == Set(described.keys))
    }
}
