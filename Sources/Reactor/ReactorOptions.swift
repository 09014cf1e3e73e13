/// Which engine a reactor is to use.
public enum EngineChoice: String, Sendable, Hashable, CaseIterable {
    /// io_uring when the probe finds it whole, else libaio with epoll.
    case auto
    /// io_uring, or fail.
    case uring
    /// libaio with epoll.
    case aio
}

/// What executes a reactor's operations.
public enum EngineKind: String, Sendable, Hashable {
    /// io_uring.
    case uring
    /// libaio for devices, epoll for sockets.
    case aio
}

/// Limits and options of a reactor, decided once.
public struct ReactorOptions: Sendable {
    /// The most that ``operationCountMax`` can be.
    public static var operationCountLimit: Int { 32_768 }

    /// Which engine.
    public var engine: EngineChoice = .auto
    /// Operations in flight or completed but not yet taken, at most; more trap, so the owner
    /// looks at ``Reactor/freeOperationCount``.
    ///
    /// At most 32,768, so that the kernel's largest completion queue (65,536) holds every
    /// completion and every cancellation. The default covers thousands of connections with a
    /// receive, a send and a close each, and thousands of device transfers.
    public var operationCountMax: Int = 16_384
    /// Descriptors have numbers below this; an accepted one beyond it is closed at once.
    public var descriptorCountMax: Int = 65_536
    /// Devices attached at the same time.
    public var deviceCountMax: Int = 16
    /// Operations handed to the kernel at once (the submission queue; the aio batch).
    public var submissionCountMax: Int = 256
    /// Device transfers in flight in the aio engine; the rest wait in a queue.
    ///
    /// The kernel's `fs.aio-max-nr` bounds the sum over all processes, and is usually 65,536.
    public var aioDepthMax: Int = 1024
    /// How long to look for completions before sleeping, in nanoseconds; 0 never does.
    ///
    /// It looks only while no device works and recent looks found something. 20 us covers a
    /// wake-up of the peer on another core. io_uring only.
    public var spinNanoseconds: UInt64 = 20_000
    /// Makes the probe report io_uring as refused with this positive errno; 0 probes the kernel.
    public var uringRefusalErrno: Int32 = 0

    /// Creates the defaults.
    public init() {}
}

/// What a reactor found at start and what it decided, for the caller's log.
public struct EngineReport: Sendable, Hashable, CustomStringConvertible {
    /// The engine in use.
    public var engine: EngineKind
    /// Why this engine, in words.
    public var reason: String
    /// What of the kernel it uses, in the kernel's words.
    public var features: [String]
    /// What it would have liked and did not get, each with the reason.
    public var limitations: [String] = []

    /// One line for a log.
    public var description: String {
        var text = "engine \(engine.rawValue): \(reason)"
        if !features.isEmpty { text += "; uses " + features.joined(separator: ", ") }
        if !limitations.isEmpty { text += "; without " + limitations.joined(separator: ", ") }
        return text
    }
}

/// Why a reactor could not start.
public enum ReactorError: Error, Sendable, Hashable, CustomStringConvertible {
    /// io_uring was asked for and is refused with this errno, or lacks what the reactor needs.
    case uringUnavailable(errno: Int32)
    /// The kernel refused a libaio context or an epoll or event descriptor.
    case aioUnavailable(errno: Int32)

    /// One line for a person.
    public var description: String {
        switch self {
        case .uringUnavailable(let errno):
            "io_uring is not usable here (\(errorText(errno))); use the aio engine"
        case .aioUnavailable(let errno):
            "neither libaio nor epoll could be set up (\(errorText(errno)))"
        }
    }
}

/// What a reactor has counted since it started.
public struct ReactorCounters: Sendable, BitwiseCopyable {
    /// Turns of the loop.
    public var turnCount: UInt64 = 0
    /// Turns that slept in the kernel.
    public var sleepCount: UInt64 = 0
    /// Times that device operations were submitted before the next turn.
    public var earlySubmitCount: UInt64 = 0
    /// Completions handed out.
    public var completionCount: UInt64 = 0
    /// Completions from the kernel that no operation was waiting for.
    public var staleCompletionCount: UInt64 = 0
    /// Device transfers that the kernel cut short and that were continued.
    public var shortTransferCount: UInt64 = 0
    /// Device transfers that the kernel had no means for, and that were tried again.
    public var retryCount: UInt64 = 0
    /// Sends that went out whole at once.
    public var directSendCount: UInt64 = 0
    /// Sends that had to wait for the peer.
    public var queuedSendCount: UInt64 = 0
    /// Spins that found a completion.
    public var spinHitCount: UInt64 = 0
    /// Spins that found none.
    public var spinMissCount: UInt64 = 0
    /// Faults injected.
    public var faultCount: UInt64 = 0

    /// Creates zeroes.
    public init() {}
}
