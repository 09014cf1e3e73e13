// One HTTP exchange of either API: bounded in time and size, with every failure told apart by
// whether the other side may have acted on it.

import AsyncHTTPClient
import Foundation
import HTTPTypes
import NIOCore
import NIOHTTP1
import NIOPosix

/// Sends requests to one endpoint.
struct APIClient: Sendable {
    /// The service or node.
    let endpoint: APIEndpoint
    /// How long to wait for an answer.
    var answerMillisecondsMax: Int64
    /// A store that a node must have to be the one that is meant.
    var storeIdentity: String?
    /// Further ones.
    var otherStoreIdentities: [String] = []
    /// What the changes that a node is asked for are part of.
    var operation: NodeOperation?
    /// For how long a change of which nobody knows whether it was made is asked for again, under
    /// its key, in milliseconds.
    var repeatMillisecondsMax: Int64 = 0
    /// What to tell the user when nothing answers.
    let unreachableHelp: String
    /// What to tell the user when it is not known what an answer would have been.
    let brokenOffHelp: String
    /// The same, when the question was a change.
    let changeUnknownHelp: String

    /// One pool of connections for the process, so that clients are plain values.
    private static let http: HTTPClient = {
        var configuration = HTTPClient.Configuration(
            redirectConfiguration: .disallow,
            timeout: .init(
                connect: .milliseconds(APILimits.connectMillisecondsMax),
                read: .milliseconds(APILimits.silenceMillisecondsMax)
            ),
            decompression: .disabled
        )
        // A refused connection is an answer, not a reason to wait.
        configuration.connectionPool.retryConnectionEstablishment = false
        configuration.httpVersion = .http1Only
        return HTTPClient(eventLoopGroupProvider: .singleton, configuration: configuration)
    }()

    /// The same, which asks again for nothing by itself and waits no longer than given.
    func askingOnce(within milliseconds: Int64 = .max) -> Self {
        var client = self
        client.repeatMillisecondsMax = 0
        client.answerMillisecondsMax = min(milliseconds, answerMillisecondsMax)
        return client
    }

    /// Sends a request and decodes the document in the answer.
    func document<Document: Decodable>(
        _ method: HTTPMethod,
        _ path: String,
        body: (any Encodable)? = nil,
        operationKey: String? = nil
    ) async throws(ControlError) -> Document {
        let data = try await exchange(method, path, body: body, operationKey: operationKey)
        do {
            return try ControlJSON.decoder().decode(Document.self, from: data)
        } catch {
            throw badResponse("an answer that is not the document of \(method) \(path)")
        }
    }

    /// Sends a request whose answer has no document.
    func perform(
        _ method: HTTPMethod,
        _ path: String,
        body: (any Encodable)? = nil,
        operationKey: String? = nil
    ) async throws(ControlError) {
        _ = try await exchange(method, path, body: body, operationKey: operationKey)
    }

    private func exchange(
        _ method: HTTPMethod,
        _ path: String,
        body: (any Encodable)?,
        operationKey: String?
    ) async throws(ControlError) -> Data {
        let request = try request(method, path, body: body, operationKey: operationKey)
        let isRepeatable = method == .GET || operationKey != nil
        do throws(ControlError) {
            return try await exchange(request, isRepeatable, answerMillisecondsMax)
        } catch  where error.code == .outcomeUnknown && operationKey != nil {
            return try await repeated(request, after: error)
        }
    }

    /// Asks again until it is known what has become of a change, or time is over.
    ///
    /// The key tells the service that it is the same change: whoever carried it on meanwhile, its
    /// end is told, and it is not made twice.
    private func repeated(
        _ request: HTTPClientRequest,
        after error: ControlError
    ) async throws(ControlError) -> Data {
        let end = ContinuousClock.now + .milliseconds(repeatMillisecondsMax)
        while true {
            let pause = Duration.milliseconds(APILimits.repeatIntervalMilliseconds)
            let rest = Int64((end - .now - pause) / .milliseconds(1))
            guard rest > 0, (try? await Task.sleep(for: pause)) != nil else { throw error }
            do throws(ControlError) {
                return try await exchange(request, true, min(rest, answerMillisecondsMax))
            } catch  where error.code == .outcomeUnknown || error.isNoAnswer {
                continue
            }
        }
    }

    private func exchange(
        _ request: HTTPClientRequest,
        _ isRepeatable: Bool,
        _ milliseconds: Int64
    ) async throws(ControlError) -> Data {
        // Around all of it: the timeout of the HTTP client ends with the answer's head.
        let answer = await withTimeLimit(milliseconds: milliseconds) {
            () -> Result<Data, ControlError> in
            do throws(ControlError) {
                return .success(try await send(request, isRepeatable: isRepeatable))
            } catch {
                return .failure(error)
            }
        }
        return try (answer ?? .failure(brokenOff(request))).get()
    }

    private func send(
        _ request: HTTPClientRequest,
        isRepeatable: Bool
    ) async throws(ControlError) -> Data {
        var answer: (status: Int, data: Data)
        do throws(ControlError) {
            answer = try await send(request)
        } catch  where error.code == .outcomeUnknown && isRepeatable && !Task.isCancelled {
            // A kept-alive connection may have been closed under our request: once more. That
            // this one is not sent says nothing of the first.
            let first = error
            do throws(ControlError) {
                answer = try await send(request)
            } catch  where error.code == .unreachable && request.method != .GET {
                throw first
            }
        }
        // An answer is one also when it says that nobody knows the outcome: asking again would
        // take as long again.
        guard !(200..<300).contains(answer.status) else { return answer.data }
        throw problem(status: answer.status, answer.data)
    }

    private func request(
        _ method: HTTPMethod,
        _ path: String,
        body: (any Encodable)?,
        operationKey: String?
    ) throws(ControlError) -> HTTPClientRequest {
        var request = HTTPClientRequest(url: endpoint.url(path: path))
        request.method = method
        request.headers.add(name: "Accept", value: "application/json")
        if let operationKey {
            request.headers.add(name: "Idempotency-Key", value: operationKey)
        }
        if let storeIdentity {
            request.headers.add(name: "Cairn-Store", value: storeIdentity)
        }
        if !otherStoreIdentities.isEmpty {
            let list = otherStoreIdentities.joined(separator: ",")
            request.headers.add(name: "Cairn-Other-Stores", value: list)
        }
        if let operation {
            request.headers.add(name: "Cairn-Operation", value: operation.headerText)
        }
        if let body {
            guard let data = try? ControlJSON.encoder().encode(body) else {
                throw ControlError(.invalidArgument, "The request cannot be written as JSON.")
            }
            request.headers.add(name: "Content-Type", value: "application/json")
            request.body = .bytes(ByteBuffer(bytes: data))
        }
        return request
    }

    private func send(
        _ request: HTTPClientRequest
    ) async throws(ControlError) -> (status: Int, data: Data) {
        do {
            let response = try await Self.http.execute(request, deadline: .distantFuture)
            let buffer = try await response.body.collect(upTo: APILimits.answerByteCountMax)
            return (Int(response.status.code), Data(buffer.readableBytesView))
        } catch {
            throw failure(error, request)
        }
    }

    /// Reads an answer that goes on for ever, line by line.
    ///
    /// It ends when `onLine` returns false or the other side ends it. Empty lines are signs of
    /// life and not passed on.
    func lines(
        _ path: String,
        _ onLine: (Data) async throws(ControlError) -> Bool
    ) async throws(ControlError) {
        let request = try request(.GET, path, body: nil, operationKey: nil)
        do {
            // It has no end to wait for; the read timeout of the client notices silence.
            let response = try await Self.http.execute(request, deadline: .distantFuture)
            guard response.status == .ok else {
                let buffer = try await response.body.collect(upTo: APILimits.bodyByteCountMax)
                let data = Data(buffer.readableBytesView)
                throw problem(status: Int(response.status.code), data)
            }
            var splitter = LineSplitter()
            for try await part in response.body {
                splitter.append(Data(part.readableBytesView))
                while let line = splitter.next() {
                    guard try await onLine(line) else { return }
                }
                guard splitter.pendingByteCount <= APILimits.lineByteCountMax else {
                    throw badResponse("a line without end")
                }
            }
        } catch let error as ControlError {
            throw error
        } catch {
            throw failure(error, request)
        }
    }

    private func problem(status: Int, _ data: Data) -> ControlError {
        guard
            let document = try? ControlJSON.decoder().decode(ProblemDocument.self, from: data)
        else { return badResponse("HTTP status \(status) without a problem document") }
        return document.error
    }

    private func badResponse(_ what: String) -> ControlError {
        ControlError(
            .badResponse,
            "\(endpoint) gave \(what).",
            help: "Is this the right port, and are both sides of the same version?"
        )
    }

    /// Tells "nothing was sent" from "nobody knows".
    func failure(_ error: any Error, _ request: HTTPClientRequest) -> ControlError {
        let neverSent: Bool
        switch error {
        case let error as HTTPClientError:
            neverSent =
                error == .connectTimeout || error == .invalidURL
                || error == .getConnectionFromPoolTimeout
        case is NIOConnectionError, is ChannelError:
            neverSent = true
        case let error as IOError:
            neverSent = [ECONNREFUSED, ENOENT, EHOSTUNREACH, ENETUNREACH, EACCES, ETIMEDOUT]
                .contains(error.errnoCode)
        default:
            neverSent = false
        }
        if neverSent {
            let reason = isUnknownHost(error) ? ": the host's name has no address" : ""
            return ControlError(
                .unreachable,
                "Nothing answers at \(endpoint)\(reason).",
                help: unreachableHelp
            )
        }
        return brokenOff(request)
    }

    /// Nobody knows what the other side did.
    private func brokenOff(_ request: HTTPClientRequest) -> ControlError {
        ControlError(
            .outcomeUnknown,
            "The connection to \(endpoint) broke or timed out after the request was sent.",
            help: request.method == .GET ? brokenOffHelp : changeUnknownHelp
        )
    }
}

/// Whether a connection failed because nobody knows the host's name.
package func isUnknownHost(_ error: any Error) -> Bool {
    guard let error = error as? NIOConnectionError else { return false }
    return error.connectionErrors.isEmpty && (error.dnsAError ?? error.dnsAAAAError) != nil
}

extension ControlError {
    /// Whether it says nothing of a change that was asked for before.
    fileprivate var isNoAnswer: Bool { code == .unreachable || code == .busy }
}

/// Cuts bytes into lines.
private struct LineSplitter {
    private var pending = Data()

    var pendingByteCount: Int { pending.count }

    mutating func append(_ data: Data) { pending.append(data) }

    /// The next whole line that is not empty.
    mutating func next() -> Data? {
        while let end = pending.firstIndex(of: UInt8(ascii: "\n")) {
            let line = Data(pending[pending.startIndex..<end])
            pending = Data(pending[(end + 1)...])
            if !line.isEmpty { return line }
        }
        return nil
    }
}
