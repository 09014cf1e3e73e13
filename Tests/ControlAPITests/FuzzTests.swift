// Random requests at all routes: whatever is sent, the answer is one that the OpenAPI file
// documents, and the service and its node still agree afterwards. One seed, printed on failure,
// repeats a run.

import ControlAPI
import ControlPlane
import Foundation
import HTTPTypes
import Hummingbird
import HummingbirdTesting
import Testing

/// SplitMix64: the same numbers from the same seed everywhere.
struct SeededGenerator: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }
}

/// Requests, half of them sensible.
private struct RequestMaker {
    /// A request.
    struct Made {
        /// What it began as.
        var operation: String
        var method: String
        var path: String
        /// Whether the path was replaced by another.
        var isBent: Bool
        var body: String?
    }

    var random: SeededGenerator
    let operations: [(method: String, path: String)]

    private mutating func one<Choice>(of choices: [Choice]) -> Choice {
        choices[Int.random(in: 0..<choices.count, using: &random)]
    }

    private mutating func chance(_ percent: Int) -> Bool {
        Int.random(in: 0..<100, using: &random) < percent
    }

    mutating func next() -> Made {
        let operation = one(of: operations)
        var method = operation.method
        if chance(5) { method = one(of: ["GET", "PUT", "TRACE", "OPTIONS", "HEAD", "FROB"]) }
        let parts = operation.path.split(separator: "/").map { part in
            part.hasPrefix("{") ? pathName() : String(part)
        }
        var path = "/" + parts.joined(separator: "/")
        if chance(20) { path += "?" + one(of: Self.queries) }
        let isBent = chance(2)
        if isBent { path = one(of: ["/", "//", "/v1", "/v1/volumes/", "/%00", "/v1/%2e%2e"]) }
        let body: String? = ["POST", "PUT", "PATCH"].contains(method) ? body() : nil
        return Made(
            operation: "\(method) \(operation.path)",
            method: method,
            path: path,
            isBent: isBent,
            body: body
        )
    }

    private static let queries = [
        "after=a", "limit=1", "limit=-1", "limit=99999999999999999999", "after=%00", "&&==",
        "follow=false", "after=5", "limit=1&limit=2", "after=%FF",
    ]

    private mutating func pathName() -> String {
        chance(85)
            ? one(of: ["a", "b", "c", "n1", "s", "h1", "h2", "1"])
            : one(of: [
                "%20", "-", "..", "a%2Fb", "%ff%fe", "%", String(repeating: "x", count: 300),
            ])
    }

    private mutating func body() -> String {
        if chance(5) { return one(of: Self.garbage) }
        let fields = Self.fields.filter { _ in chance(60) }
        var text = "{"
        for (index, field) in fields.enumerated() {
            let value = chance(85) ? one(of: field.values) : one(of: Self.strangeValues)
            text += (index == 0 ? "" : ",") + "\"\(field.name)\":\(value)"
        }
        text += "}"
        if chance(3) {
            let cut = Int.random(in: 0..<text.count, using: &random)
            text = String(text.prefix(cut))
        }
        return text
    }

    private static let fields: [(name: String, values: [String])] = [
        ("name", [#""a""#, #""b""#, #""c""#, #""s""#]),
        ("byte_count", ["4096", "8192", "1048576", "70368744177664"]),
        ("logical_block_byte_count", ["512", "4096"]),
        ("durability", [#""writeback""#, #""writethrough""#]),
        ("replicas", ["1", "3"]), ("allow_shrink", ["true", "false"]),
        ("version", [#""1""#]), ("volume", [#""a""#, #""b""#]), ("snapshot", [#""s""#]),
        ("host", [#""h1""#, #""h2""#]), ("read_only", ["true", "false"]),
        ("force", ["true", "false"]), ("protocol", [#""nbd""#, #""iscsi""#]),
        ("draining", ["false", "false", "true"]), ("session", ["1", "2"]),
        ("description", [#""text""#]),
        ("admin_endpoint", [#""http://127.0.0.1:1""#]),
        ("store_identity", [#""\#(String(repeating: "0", count: 32))""#]),
        ("lost_stores", ["[]", #"["\#(String(repeating: "1", count: 32))"]"#, #"["1"]"#]),
        (
            "stores",
            [
                "[]",
                #"[{"path":"/a","space":\#(space(capacity: 9, live: 1)),"#
                    + #""failures":{"stopped":true,"request_count":2,"volume":"a"}}]"#,
            ]
        ),
        (
            "space",
            [
                #"{"capacity_byte_count":9,"live_byte_count":0,"available_byte_count":9,"#
                    + #""garbage_byte_count":0}"#,
                space(capacity: 0, live: .max), space(capacity: 1, live: .max),
                space(capacity: .max, live: .max), space(capacity: 1, live: 1 << 60),
                space(capacity: 1 << 60, live: (1 << 60) - 1),
            ]
        ),
    ]

    private static func space(capacity: UInt64, live: UInt64) -> String {
        #"{"capacity_byte_count":\#(capacity),"live_byte_count":\#(live),"#
            + #""available_byte_count":\#(live),"garbage_byte_count":\#(live)}"#
    }

    private static let strangeValues = [
        "null", "-1", "0", "1e308", "1e999", "99999999999999999999999", "0.1", "true", "[]", "{}",
        #""""#, #""-""#, #""\u0000""#, #""\ud800""#, "\"\(String(repeating: "y", count: 2000))\"",
        "[[[[[[[[[[]]]]]]]]]]", #"{"a":{"a":{"a":1}}}"#,
    ]

    private static let garbage = [
        "", "null", "[]", "\"x\"", "12", "{", "{\"name\"", "\u{FEFF}{}", "{}{}", "nul",
        String(repeating: "[", count: 60_000), String(repeating: "{\"a\":", count: 10_000),
        "{\"name\":\"" + String(repeating: "z", count: 66_000) + "\"}",
        "{\"name\":\"a\",\"name\":\"b\",\"byte_count\":4096}",
    ]
}

@Suite("Random requests", .timeLimit(.minutes(3)))
struct RandomRequestTests {
    /// Requests of a run in the smoke tests; CAIRN_FUZZ_REQUESTS asks for more.
    static var requestCount: Int {
        ProcessInfo.processInfo.environment["CAIRN_FUZZ_REQUESTS"].flatMap(Int.init) ?? 3000
    }

    /// The seed of a run; CAIRN_FUZZ_SEED repeats one.
    static var seed: UInt64 {
        ProcessInfo.processInfo.environment["CAIRN_FUZZ_SEED"].flatMap(UInt64.init) ?? 1
    }

    @Test("Every answer is a documented one, and nothing is left half done")
    func random_documentedStatusesOnly() async throws {
        let file = try OpenAPIFile()
        let (cluster, plane) = try await Cluster.serving()
        let operations = file.statuses.keys.sorted().map { key in
            let parts = key.split(separator: " ")
            return (method: String(parts[0]), path: String(parts[1]))
        }
        let app = Application(router: controlRouter(service: plane), logger: Cluster.quiet)
        let statuses = try await app.test(.router) { client in
            var maker = RequestMaker(
                random: SeededGenerator(state: Self.seed),
                operations: operations
            )
            var statuses: [Int: Int] = [:]
            for number in 0..<Self.requestCount {
                let request = maker.next()
                let method = try #require(HTTPRequest.Method(rawValue: request.method))
                let answer = try await client.send(method, request.path, request.body)
                statuses[answer.status, default: 0] += 1
                // A path or method that was bent is no operation of the file.
                var allowed = file.statuses[request.operation] ?? [404, 405]
                allowed.formUnion([400, 404, 405])
                #expect(
                    allowed.contains(answer.status),
                    "seed \(Self.seed), request \(number): \(request) gave \(answer.status)"
                )
                try Self.check(answer, number)
                guard !request.isBent,
                    file.statuses[request.operation]?.contains(answer.status) == true,
                    let type = answer.headers[.contentType]?.split(separator: ";").first
                else { continue }
                let wrong = try file.problems(
                    answer.body,
                    String(type),
                    request.operation,
                    answer.status
                )
                #expect(wrong == [], "seed \(Self.seed), request \(number)")
            }
            return statuses
        }
        // The run must reach success as well as refusal, or it proves little.
        for status in [200, 201, 204, 400, 404, 409] {
            #expect((statuses[status] ?? 0) > 0, "no request got \(status)")
        }
        #expect(statuses[500] == nil)
        try await cluster.requireAgreement("random requests, seed \(Self.seed)")
    }

    private static func check(
        _ answer: (status: Int, body: Data, headers: HTTPFields),
        _ number: Int
    ) throws {
        guard answer.status >= 400 else { return }
        let document = try? ControlJSON.decoder().decode(ProblemDocument.self, from: answer.body)
        #expect(document?.status == answer.status, "seed \(seed), request \(number)")
        #expect(document.map { ControlError.Code.all.contains($0.code) } == true)
    }
}
