// Requests to a metadata service of several programs, of which one leads and the others refuse.
//
// A refusal says that nothing was done, so the next one is asked. When the one that leads dies, the
// others refuse until one of them leads: whoever may wait is waited for.

import Foundation
import NIOHTTP1
import Synchronization

/// Sends requests to whichever of several services leads.
struct LeaderClient: Sendable {
    /// Which of them was found to lead.
    private final class Choice: Sendable {
        let index = Mutex<Int?>(nil)
    }

    private let clients: [APIClient]
    /// For how long to look for one that leads, and to ask again, in milliseconds.
    private let repeatMillisecondsMax: Int64
    /// How long one of them may take to say whether it leads, in milliseconds.
    private let leaderMillisecondsMax: Int64
    private let choice = Choice()

    /// Creates a client of all that `clients` ask; the first is looked at first.
    init(
        _ clients: [APIClient],
        leaderMillisecondsMax: Int64 = APILimits.leaderMillisecondsMax
    ) {
        precondition(!clients.isEmpty, "a service has an address")
        repeatMillisecondsMax = clients[0].repeatMillisecondsMax
        self.leaderMillisecondsMax = leaderMillisecondsMax
        self.clients = clients.count == 1 ? clients : clients.map { $0.askingOnce() }
    }

    /// Sends a request and decodes the document in the answer.
    func document<Document: Decodable & Sendable>(
        _ method: HTTPMethod,
        _ path: String,
        body: (any Encodable)? = nil,
        operationKey: String? = nil
    ) async throws(ControlError) -> Document {
        let isRepeatable = method == .GET || operationKey != nil
        return try await asking(isRepeatable: isRepeatable) { client throws(ControlError) in
            try await client.document(method, path, body: body, operationKey: operationKey)
        }
    }

    /// Sends a request whose answer has no document.
    func perform(
        _ method: HTTPMethod,
        _ path: String,
        body: (any Encodable)? = nil,
        operationKey: String? = nil
    ) async throws(ControlError) {
        try await asking(isRepeatable: operationKey != nil) { client throws(ControlError) in
            try await client.perform(method, path, body: body, operationKey: operationKey)
        }
    }

    /// Reads an answer that goes on for ever, line by line.
    func lines(
        _ path: String,
        _ onLine: (Data) async throws(ControlError) -> Bool
    ) async throws(ControlError) {
        // Lines that have come must not come again, so it is not repeated.
        try await asking(isRepeatable: false) { client throws(ControlError) in
            try await client.lines(path, onLine)
        }
    }

    /// Asks the one that leads, again when it turns out not to.
    ///
    /// - Parameters:
    ///   - isRepeatable: Whether a request of which nobody knows what came of it may be sent
    ///     again: it reads, or has a key.
    ///   - question: The request.
    /// - Returns: The answer.
    /// - Throws: ``ControlError``; of several attempts the first whose outcome is not known.
    private func asking<Value>(
        isRepeatable: Bool,
        _ question: (APIClient) async throws(ControlError) -> Value
    ) async throws(ControlError) -> Value {
        guard clients.count > 1 else { return try await question(clients[0]) }
        let end = ContinuousClock.now + .milliseconds(repeatMillisecondsMax)
        var unknown: ControlError?
        while true {
            do throws(ControlError) {
                return try await question(clients[try await leader()])
            } catch {
                choice.index.withLock { $0 = nil }
                switch error.code {
                case .unreachable, .standingBy: break
                case .outcomeUnknown where isRepeatable: unknown = unknown ?? error
                case .busy where unknown != nil: break
                default: throw error
                }
                let failure = unknown ?? error
                let pause = Duration.milliseconds(APILimits.repeatIntervalMilliseconds)
                // Nobody there at all: nobody to wait for.
                guard failure.code != .unreachable, .now + pause < end,
                    (try? await Task.sleep(for: pause)) != nil
                else { throw failure }
            }
        }
    }

    /// Finds the one that leads.
    ///
    /// - Throws: ``ControlError``: `standingBy` when all that answer stand by, `outcomeUnknown` when
    ///   one does not say, `unreachable` when nobody is there.
    private func leader() async throws(ControlError) -> Int {
        if let index = choice.index.withLock({ $0 }) { return index }
        var failures: [ControlError] = []
        for (index, client) in clients.enumerated() {
            do throws(ControlError) {
                let asker = client.askingOnce(within: leaderMillisecondsMax)
                let _: HealthReport = try await asker.document(.GET, "/v1/health")
            } catch  where Self.isNoLeader(error) {
                failures.append(error)
                continue
            } catch {
                // It tried to: what is wrong there, the question itself will tell.
            }
            choice.index.withLock { $0 = index }
            return index
        }
        if let error = failures.first(where: { $0.code == .standingBy }) { throw error }
        if let error = failures.first(where: { $0.code != .unreachable }) { throw error }
        let list = clients.map { "\($0.endpoint)" }.joined(separator: ", ")
        throw ControlError(
            .unreachable,
            "Nothing answers at any of \(list).",
            help: clients[0].unreachableHelp
        )
    }

    private static func isNoLeader(_ error: ControlError) -> Bool {
        [.unreachable, .standingBy, .outcomeUnknown].contains(error.code)
    }
}
