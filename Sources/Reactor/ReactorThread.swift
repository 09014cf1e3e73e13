internal import CLinux

/// A thread of its own for a reactor's loop.
public struct ReactorThread: ~Copyable, Sendable {
    private let identifier: UInt64

    private final class Start: Sendable {
        let name: String
        let body: @Sendable () -> Void

        init(name: String, body: @escaping @Sendable () -> Void) {
            self.name = name
            self.body = body
        }
    }

    /// Runs `body` on a new thread.
    ///
    /// - Parameters:
    ///   - name: What tools show; the first 15 bytes count.
    ///   - body: The loop. Create the reactor in it, or hand one over that nobody else touches.
    /// - Returns: The thread, to be joined.
    /// - Throws: ``ThreadError``; nothing runs.
    public static func start(
        name: String,
        body: @escaping @Sendable () -> Void
    ) throws(ThreadError) -> ReactorThread {
        // SAFETY: the retain here is balanced by the release in the thread, or below on failure.
        let context = unsafe Unmanaged.passRetained(Start(name: name, body: body))
        var identifier: UInt64 = 0
        let result = unsafe cbl_thread_start(
            &identifier,
            { context in
                guard let context = unsafe context else { return nil }
                let start = unsafe Unmanaged<Start>.fromOpaque(context).takeRetainedValue()
                unsafe cbl_name_thread(start.name)
                start.body()
                return nil
            },
            context.toOpaque()
        )
        guard result == 0 else {
            unsafe context.release()
            throw ThreadError(errno: 0 - result)
        }
        return ReactorThread(identifier: identifier)
    }

    /// Waits until the body has returned.
    public consuming func join() { _ = cbl_thread_join(identifier) }
}

/// The system refused a thread.
public struct ThreadError: Error, Sendable, Hashable {
    /// Why.
    public let errno: Int32
}
