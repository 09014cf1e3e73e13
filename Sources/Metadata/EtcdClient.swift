// Exchanges with etcd's JSON gateway: one member after another until one answers or time is over,
// with every failure told apart by whether etcd may have acted on what was sent.

import AsyncHTTPClient
import Foundation
import NIOCore
import NIOHTTP1
import NIOPosix
import NIOSSL
import Synchronization

/// Why one try came to nothing.
enum EtcdFailure: Error {
    /// Nothing was done; another member may do it.
    case notDone(String)
    /// It may have been done, or may be yet.
    case unknown(String)
    /// etcd will not do it; the number is gRPC's code.
    case refused(code: Int, String)
}

/// One try of several.
struct EtcdTry {
    /// Counts from 0.
    var number: Int
    /// Whether one before it may have been done, or may be yet.
    var mayHaveHappened: Bool
    /// When all tries are over.
    var deadline: ContinuousClock.Instant
}

/// Talks to the members of an etcd cluster.
final class EtcdClient: Sendable {
    /// Bytes of one answer: far more than the largest range has.
    static var answerByteCountMax: Int { 256 << 20 }
    /// The pause before members that failed are asked again, in milliseconds.
    static var pauseMilliseconds: Int { 50 }

    let configuration: EtcdConfiguration
    private let http: HTTPClient
    /// The member that answered last.
    private let preferred = Mutex(0)

    /// Connects when it is used.
    ///
    /// - Throws: ``MetadataError/databaseUnusable(path:detail:)`` when a file for TLS is no good.
    init(_ configuration: EtcdConfiguration) throws(MetadataError) {
        self.configuration = configuration
        var http = HTTPClient.Configuration(
            redirectConfiguration: .disallow,
            timeout: .init(connect: .milliseconds(configuration.tryMillisecondsMax)),
            decompression: .disabled
        )
        http.connectionPool.retryConnectionEstablishment = false
        http.httpVersion = .http1Only
        http.tlsConfiguration = try Self.transportSecurity(configuration.transportSecurity)
        self.http = HTTPClient(eventLoopGroupProvider: .singleton, configuration: http)
    }

    /// Ends all connections.
    func close() async { try? await http.shutdown() }

    private static func transportSecurity(
        _ files: EtcdConfiguration.TransportSecurity
    ) throws(MetadataError) -> TLSConfiguration {
        var tls = TLSConfiguration.makeClientConfiguration()
        if let path = files.authorityPath {
            try readable(path) { _ = try NIOSSLCertificate.fromPEMFile(path) }
            tls.trustRoots = .file(path)
        }
        if let path = files.certificatePath {
            try readable(path) {
                let chain = try NIOSSLCertificate.fromPEMFile(path)
                tls.certificateChain = chain.map { .certificate($0) }
            }
        }
        if let path = files.privateKeyPath {
            try readable(path) {
                tls.privateKey = .privateKey(try NIOSSLPrivateKey(file: path, format: .pem))
            }
        }
        return tls
    }

    private static func readable(_ path: String, _ body: () throws -> Void) throws(MetadataError) {
        do { try body() } catch {
            throw .databaseUnusable(path: path, detail: "it is not a PEM file for TLS")
        }
    }

    // MARK: - Tries

    /// Tries until it is done or refused, or time is over.
    ///
    /// - Throws: ``MetadataError/unavailable(_:)`` when nothing was done,
    ///   ``MetadataError/outcomeUnknown(_:)`` when that is not certain, or what a refusal means.
    func repeating<Answer>(
        _ body: (EtcdTry) async throws(EtcdFailure) -> Answer
    ) async throws(MetadataError) -> Answer {
        let limit = Duration.milliseconds(configuration.totalMillisecondsMax)
        var current = EtcdTry(number: 0, mayHaveHappened: false, deadline: .now + limit)
        while true {
            let reason: String
            do throws(EtcdFailure) {
                return try await body(current)
            } catch {
                switch error {
                case .refused(let code, let message): throw Self.meaning(code, message)
                case .notDone(let detail): reason = detail
                case .unknown(let detail):
                    reason = detail
                    current.mayHaveHappened = true
                }
            }
            current.number += 1
            if current.number.isMultiple(of: configuration.endpoints.count) {
                try? await Task.sleep(for: .milliseconds(Self.pauseMilliseconds))
            }
            guard .now < current.deadline, !Task.isCancelled else {
                throw current.mayHaveHappened ? .outcomeUnknown(reason) : .unavailable(reason)
            }
        }
    }

    /// Asks for what may be done twice.
    func ask<Answer: Decodable>(
        _ path: String,
        _ body: Data
    ) async throws(MetadataError) -> Answer {
        do throws(MetadataError) {
            return try await repeating { (current) throws(EtcdFailure) in
                try await exchange(path, body, current)
            }
        } catch {
            if case .outcomeUnknown(let detail) = error { throw .unavailable(detail) }
            throw error
        }
    }

    static func meaning(_ code: Int, _ message: String) -> MetadataError {
        switch code {
        case 3: .transactionInvalid("something that etcd refuses (\(message))")
        case 5: .leaseNotFound
        case 8: .storeFull(message)
        case 11: .compacted(oldest: 0)
        default: .storeFailed(message)
        }
    }

    // MARK: - One exchange

    /// One try with the member that answered last; when it fails, the next one's turn has come.
    func exchange<Answer: Decodable>(
        _ path: String,
        _ body: Data,
        _ current: EtcdTry
    ) async throws(EtcdFailure) -> Answer {
        let index = preferred.withLock(\.self)
        let limit = min(
            Duration.milliseconds(configuration.tryMillisecondsMax),
            current.deadline - .now
        )
        let answer: (status: Int, data: Data)
        do {
            answer = try await withLimit(limit) { [self] in
                let request = request(path, body, at: index)
                let response = try await http.execute(request, deadline: .distantFuture)
                let buffer = try await response.body.collect(upTo: Self.answerByteCountMax)
                return (Int(response.status.code), Data(buffer.readableBytesView))
            }
        } catch {
            rotate(from: index)
            throw failure(error, at: index)
        }
        guard answer.status == 200 else {
            let problem = problem(answer.status, answer.data, at: index)
            if case .refused = problem {} else { rotate(from: index) }
            throw problem
        }
        do {
            return try EtcdCoding.decoder().decode(Answer.self, from: answer.data)
        } catch {
            rotate(from: index)
            throw .unknown("\(configuration.endpoints[index]) does not answer as etcd does")
        }
    }

    /// The next line-by-line answer, from a member of its own choice.
    ///
    /// - Parameters:
    ///   - path: What is asked.
    ///   - body: The question.
    ///   - index: Which member is asked, counted beyond the one that answered last.
    /// - Returns: The lines, in pieces.
    /// - Throws: What ended it before it began.
    func stream(
        _ path: String,
        _ body: Data,
        at index: Int
    ) async throws -> HTTPClientResponse.Body {
        let first = preferred.withLock(\.self)
        let index = (first + index) % configuration.endpoints.count
        var request = request(path, body, at: index)
        // Or a member that is cut off from its leader would say for ever that nothing changes.
        request.headers.add(name: "Grpc-Metadata-hasleader", value: "true")
        let response = try await http.execute(request, deadline: .distantFuture)
        guard response.status == .ok else {
            throw EtcdFailure.notDone("\(configuration.endpoints[index]): \(response.status)")
        }
        return response.body
    }

    private func request(_ path: String, _ body: Data, at index: Int) -> HTTPClientRequest {
        var request = HTTPClientRequest(url: configuration.endpoints[index] + path)
        request.method = .POST
        request.headers.add(name: "Content-Type", value: "application/json")
        request.body = .bytes(ByteBuffer(bytes: body))
        return request
    }

    private func rotate(from index: Int) {
        preferred.withLock { preferred in
            // Another one may have seen it too.
            if preferred == index { preferred = (index + 1) % configuration.endpoints.count }
        }
    }

    private func failure(_ error: any Error, at index: Int) -> EtcdFailure {
        let name = configuration.endpoints[index]
        switch error {
        case is EtcdTimeout: return .unknown("\(name) has not answered in time")
        case is NIOConnectionError: return .notDone("nothing answers at \(name)")
        case let error as IOError where error.errnoCode == ECONNREFUSED:
            return .notDone("nothing listens at \(name)")
        case let error as HTTPClientError where error == .connectTimeout:
            return .notDone("nothing answers at \(name)")
        default: return .unknown("\(name): \(error)")
        }
    }

    private func problem(_ status: Int, _ data: Data, at index: Int) -> EtcdFailure {
        let name = configuration.endpoints[index]
        guard let problem = try? EtcdCoding.decoder().decode(EtcdProblem.self, from: data),
            let code = problem.code
        else { return .unknown("\(name) answered with status \(status)") }
        let message = problem.message ?? problem.error ?? "status \(status)"
        switch code {
        case 3, 5, 6, 7, 9, 11, 16: return .refused(code: code, message)
        case 8 where message.contains("space"): return .refused(code: code, message)
        case 8: return .notDone("\(name): \(message)")
        default: return .unknown("\(name): \(message)")
        }
    }
}

/// Time was up.
struct EtcdTimeout: Error {}

/// Runs `body`, cancelled when it takes longer.
///
/// - Throws: ``EtcdTimeout``, or what `body` throws.
func withLimit<Value: Sendable>(
    _ limit: Duration,
    _ body: @escaping @Sendable () async throws -> Value
) async throws -> Value {
    try await withThrowingTaskGroup(of: Value.self) { group in
        group.addTask { try await body() }
        group.addTask {
            try await Task.sleep(for: limit)
            throw EtcdTimeout()
        }
        defer { group.cancelAll() }
        guard let value = try await group.next() else { throw EtcdTimeout() }
        return value
    }
}

/// How messages are written and read.
enum EtcdCoding {
    static func encode(_ message: some Encodable) -> Data {
        let encoder = JSONEncoder()
        encoder.keyEncodingStrategy = .convertToSnakeCase
        do {
            return try encoder.encode(message)
        } catch {
            preconditionFailure("messages are made of text and numbers")
        }
    }

    static func decoder() -> JSONDecoder {
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        return decoder
    }
}
