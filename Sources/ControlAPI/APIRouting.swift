// What both routers share: a call, an answer, a table of routes, and one place where every error
// becomes a problem document.

import Foundation
public import HTTPTypes
import Hummingbird
import Logging
import NIOCore

/// A request as the handlers of a route see it: checked parameters and a decoded body.
public struct APICall: Sendable {
    let request: Request
    let parameters: Parameters

    /// The path parameter `name`, a valid name of a `what`.
    public func name(_ name: String, of what: String) throws(ControlError) -> String {
        let value = parameter(name)
        try ValidName.require(value, of: what)
        return value
    }

    /// The path parameter `name`, percent-decoded; empty when it is not valid UTF-8.
    public func parameter(_ name: String) -> String {
        (parameters.get(name) ?? "").removingPercentEncoding ?? ""
    }

    /// The path parameter `name`, a volume's id.
    public func volumeID(_ name: String) throws(ControlError) -> UInt64 {
        guard let id = UInt64(parameter(name)), id > 0, id <= APILimits.volumeIDMax else {
            throw ControlError(
                .invalidArgument,
                "\(ValidName.quoted(parameter(name))) is not a volume id."
            )
        }
        return id
    }

    /// The query parameter `name` as a number in `range`, or `default` when it is absent.
    public func number(
        _ name: String,
        in range: ClosedRange<UInt64>,
        default value: UInt64
    ) throws(ControlError) -> UInt64 {
        guard let text = query(name) else { return value }
        guard let number = UInt64(text), range.contains(number) else {
            throw ControlError(
                .invalidArgument,
                "The parameter '\(name)' is not a number from \(range.lowerBound) to "
                    + "\(range.upperBound)."
            )
        }
        return number
    }

    /// The query parameter `name` as `true` or `false`; false when it is absent.
    public func flag(_ name: String) throws(ControlError) -> Bool {
        switch query(name) {
        case nil, "false": return false
        case "true": return true
        default:
            throw ControlError(.invalidArgument, "The parameter '\(name)' is not true or false.")
        }
    }

    /// The query parameter `name`.
    public func query(_ name: String) -> String? {
        request.uri.queryParameters[Substring(name)].map(String.init)
    }

    /// The operation that the request belongs to: repeating it with the same key changes nothing.
    ///
    /// A request without the header is an operation of its own.
    public func operationKey() throws(ControlError) -> String {
        guard let key = request.headers[.idempotencyKey] else { return UUID().uuidString }
        let bytes = key.utf8
        let isPrintable = bytes.allSatisfy { (0x21...0x7E).contains($0) }
        guard (1...APILimits.idempotencyKeyByteCountMax).contains(bytes.count), isPrintable else {
            throw ControlError(
                .invalidArgument,
                "The header Idempotency-Key has 1 to \(APILimits.idempotencyKeyByteCountMax) "
                    + "printable characters without spaces."
            )
        }
        return key
    }

    /// The identities of the stores that the node must have that the request is for, in lower
    /// case; none when it is for any.
    var expectedStores: [String] {
        guard let first = request.headers[.cairnStore] else { return [] }
        let others = request.headers[.cairnOtherStores] ?? ""
        return [first.lowercased()] + others.lowercased().split(separator: ",").map(String.init)
    }

    /// What a change of a volume is part of; nil when it is nobody's.
    var operation: NodeOperation? {
        get throws(ControlError) {
            guard let text = request.headers[.cairnOperation] else { return nil }
            guard let operation = NodeOperation(headerText: text) else {
                throw ControlError(
                    .invalidArgument,
                    "The header Cairn-Operation is not TERM.REVISION.EPOCH."
                )
            }
            return operation
        }
    }

    /// The decoded body.
    public func body<Document: Decodable>(
        _ type: Document.Type,
        byteCountMax: Int = APILimits.bodyByteCountMax
    ) async throws(ControlError) -> Document {
        try requireJSON()
        let data: Data
        do {
            let buffer = try await request.body.collect(upTo: byteCountMax)
            data = Data(buffer.readableBytesView)
        } catch is NIOTooManyBytesError {
            throw ControlError(
                .bodyTooLarge,
                "The body is larger than \(byteCountMax) bytes."
            )
        } catch {
            throw ControlError(.malformedRequest, "The body ended early.")
        }
        return try ControlJSON.decodeRequest(type, from: data)
    }

    /// Insists on the media type that a browser sends to another site only after asking it.
    ///
    /// What browsers say of themselves is refused before; this holds for those that do not.
    private func requireJSON() throws(ControlError) {
        let type = request.headers[.contentType]?.split(separator: ";").first ?? ""
        guard type.trimmingCharacters(in: .whitespaces).lowercased() == "application/json" else {
            throw ControlError(
                .unsupportedMediaType,
                "The body is not declared as JSON.",
                help: "Send the header 'Content-Type: application/json'."
            )
        }
    }
}

extension HTTPField.Name {
    /// Spec: draft-ietf-httpapi-idempotency-key-header.
    static let idempotencyKey = Self.make("Idempotency-Key")

    /// Spec: W3C Fetch Metadata Request Headers, section 2.4.
    static let secFetchSite = Self.make("Sec-Fetch-Site")

    /// A store of the node that a request is meant for.
    static let cairnStore = Self.make("Cairn-Store")

    /// Its other stores, separated by commas.
    static let cairnOtherStores = Self.make("Cairn-Other-Stores")

    /// The operation that a request to a node is part of.
    static let cairnOperation = Self.make("Cairn-Operation")

    private static func make(_ name: String) -> Self {
        guard let field = Self(name) else { preconditionFailure("not a header name") }
        return field
    }
}

/// What a handler answers.
public struct APIAnswer: Sendable {
    let response: Response

    init(_ response: Response) { self.response = response }

    /// A document.
    public static func document<Document: Encodable>(
        _ document: Document,
        status: HTTPResponse.Status = .ok
    ) throws(ControlError) -> APIAnswer {
        do {
            let data = try ControlJSON.encoder().encode(document)
            return APIAnswer(json(data, status: status, type: "application/json"))
        } catch {
            throw ControlError(.internalError, "The answer could not be written as JSON.")
        }
    }

    /// A document made by the request.
    public static func created<Document: Encodable>(
        _ document: Document
    ) throws(ControlError) -> APIAnswer {
        try .document(document, status: .created)
    }

    /// Done, and nothing to say.
    public static var done: APIAnswer { APIAnswer(Response(status: .noContent)) }

    static func json(_ data: Data, status: HTTPResponse.Status, type: String) -> Response {
        var headers = HTTPFields()
        headers[.contentType] = type
        headers[.cacheControl] = "no-store"
        return Response(
            status: status,
            headers: headers,
            body: ResponseBody(byteBuffer: ByteBuffer(bytes: data))
        )
    }

    static func problem(_ error: ControlError) -> Response {
        let document = ProblemDocument(error)
        // Strings and a number only; when even that fails the status still tells.
        let data = (try? ControlJSON.encoder().encode(document)) ?? Data("{}".utf8)
        let status = HTTPResponse.Status(code: document.status)
        return json(data, status: status, type: ProblemDocument.mediaType)
    }
}

/// Routes as they are added, so that a wrong method is told from a wrong path.
struct RouteTable {
    /// Throws ``ControlError``; untyped because closures do not infer a typed throw.
    typealias Handler = @Sendable (APICall) async throws -> APIAnswer

    private(set) var routes: [(method: HTTPRequest.Method, path: String, handler: Handler)] = []

    mutating func add(
        _ method: HTTPRequest.Method,
        _ path: String,
        _ handler: @escaping Handler
    ) {
        routes.append((method, path, handler))
    }

    /// The routes as Hummingbird serves them.
    ///
    /// - Parameter check: What each call has to pass before its handler sees it.
    /// - Returns: A router with these routes.
    func router(
        check: @escaping @Sendable (APICall) async throws -> Void = { _ in }
    ) -> Router<APIContext> {
        let router = Router(context: APIContext.self)
        router.add(middleware: ProblemMiddleware(methodsByPath: methodsByPath))
        for route in routes {
            let handler = route.handler
            router.on(RouterPath(route.path), method: route.method) { request, context in
                let call = APICall(request: request, parameters: context.parameters)
                try await check(call)
                return try await handler(call).response
            }
        }
        return router
    }

    private var methodsByPath: [[Substring]: [String]] {
        var result: [[Substring]: [String]] = [:]
        for route in routes {
            result[route.path.split(separator: "/"), default: []].append(route.method.rawValue)
        }
        return result
    }
}

/// Refuses web pages, and turns whatever goes wrong into a problem document.
private struct ProblemMiddleware: RouterMiddleware {
    /// Methods by path pattern; a pattern's part that starts with `:` matches anything.
    let methodsByPath: [[Substring]: [String]]

    func handle(
        _ request: Request,
        context: APIContext,
        next: @concurrent (Request, APIContext) async throws -> Response
    ) async throws -> Response {
        do {
            try requireNoBrowser(request, context)
            return try await next(request, context)
        } catch let error as ControlError {
            if error.code == .internalError {
                context.logger.error("request failed", metadata: ["detail": "\(error.detail)"])
            }
            return APIAnswer.problem(error)
        } catch let error as HTTPError where error.status == .notFound {
            return noRoute(request)
        } catch let error as HTTPError {
            return APIAnswer.problem(ControlError(.malformedRequest, error.body ?? "Bad request."))
        } catch {
            context.logger.error("request failed", metadata: ["error": "\(error)"])
            return APIAnswer.problem(
                ControlError(.internalError, "The service failed; its log says why.")
            )
        }
    }

    private func noRoute(_ request: Request) -> Response {
        let parts = request.uri.path.split(separator: "/")
        let match = methodsByPath.first { pattern, _ in
            pattern.count == parts.count
                && zip(pattern, parts).allSatisfy { $0.hasPrefix(":") || $0 == $1 }
        }
        guard let methods = match?.value else {
            return APIAnswer.problem(
                ControlError(
                    .routeNotFound,
                    "No route has the path \(ValidName.quoted(request.uri.path)).",
                    help: "Docs/openapi.yaml lists the routes."
                )
            )
        }
        let allowed = methods.sorted().joined(separator: ", ")
        var response = APIAnswer.problem(
            ControlError(.methodNotAllowed, "This path takes \(allowed) only.")
        )
        response.headers[.allow] = allowed
        return response
    }
}
