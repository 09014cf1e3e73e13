// Two volmeta on one etcd: one leads, the others stand by.

import ControlAPI
import Logging
import Metadata
import ServiceLifecycle
import Synchronization

/// Tries to lead until it does.
final class Candidate: Service {
    private struct State {
        var leadership: Leadership?
        var holder = "unknown"
    }

    /// How long it waits between two attempts, in milliseconds.
    private static let attemptMilliseconds = 500

    private let store: any MetaStore
    private let name: String
    private let logger: Logger
    private let state = Mutex(State())

    init(store: any MetaStore, name: String, logger: Logger) {
        self.store = store
        self.name = name
        self.logger = logger
    }

    /// What it has attained.
    var leadership: Leadership? { state.withLock(\.leadership) }
    /// Who leads.
    var holder: String { state.withLock(\.holder) }

    /// What clients are told meanwhile.
    var refusal: ControlError {
        ControlError(
            .standingBy,
            "Another volmeta leads: \(holder).",
            help: "Name all of them, with commas between: this one takes over when that one ends."
        )
    }

    /// Tries once.
    func attempt() async throws -> Bool {
        switch try await Leadership.attempt(in: store, as: name) {
        case .leads(let leadership):
            state.withLock { $0.leadership = leadership }
            return true
        case .follows(let leader):
            state.withLock { $0.holder = leader.name }
            return false
        }
    }

    func run() async throws {
        await cancelWhenGracefulShutdown { [self] in
            while !Task.isCancelled {
                do {
                    if try await attempt() { return }
                } catch {
                    logger.warning("cannot stand by", metadata: ["reason": "\(error)"])
                }
                try? await Task.sleep(for: .milliseconds(Self.attemptMilliseconds))
            }
        }
    }
}

/// Ends when this process leads no more.
final class LeaderKeeper: Service {
    private let leadership: Leadership
    private let logger: Logger
    private let lost = Atomic(false)

    init(leadership: Leadership, logger: Logger) {
        self.leadership = leadership
        self.logger = logger
    }

    /// Whether it ended for that reason.
    var isLost: Bool { lost.load(ordering: .relaxed) }

    func run() async throws {
        await cancelWhenGracefulShutdown { [self] in
            await leadership.keep(logger: logger)
            if !Task.isCancelled { lost.store(true, ordering: .relaxed) }
        }
    }
}
