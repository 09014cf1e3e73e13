// Free ports of the loopback interface.

import Glibc

/// Picks loopback ports that nobody listens on.
///
/// They lie below the range from which the kernel takes ports for outgoing connections, so that
/// a stopped cluster finds its ports free when it comes back.
package enum LoopbackPort {
    private static var candidates: Range<UInt16> { 20_000..<30_000 }
    private static var attemptCountMax: Int { 1_000 }

    /// A free port that is not in `taken`.
    package static func pick(avoiding taken: Set<UInt16>) throws(CommandFailure) -> UInt16 {
        for _ in 0..<attemptCountMax {
            let port = UInt16.random(in: candidates)
            if !taken.contains(port), isFree(port) { return port }
        }
        throw CommandFailure(
            "no_port",
            "No free port was found between \(candidates.lowerBound) and \(candidates.upperBound).",
            remedy: "Look at what listens: ss -ltn"
        )
    }

    /// How long a port may stay taken after its program was killed.
    ///
    /// The kernel closes the sockets of a killed program some time after it is gone: measured, up
    /// to half a second where io_uring holds them and the machine is busy.
    package static var releaseSecondsMax: Double { 3 }

    /// Waits until a server could listen on `port`.
    ///
    /// - Parameters:
    ///   - port: The port.
    ///   - program: Whose port it is, for the failure.
    ///   - seconds: How long to wait at most.
    /// - Throws: ``CommandFailure`` `port_taken` that says how to find who has it.
    package static func waitUntilFree(
        _ port: UInt16,
        of program: String,
        seconds: Double = releaseSecondsMax
    ) async throws {
        let deadline = ContinuousClock.now + .seconds(seconds)
        while !isFree(port) {
            guard ContinuousClock.now < deadline else {
                throw CommandFailure(
                    "port_taken",
                    "Port \(port) of \(program) is taken by another program.",
                    remedy: "Find it with 'ss -ltnp sport = :\(port)' and stop it, "
                        + "or start another cluster with --data DIR."
                )
            }
            try await Task.sleep(for: .milliseconds(50))
        }
    }

    /// Whether a server could listen on `port` now.
    package static func isFree(_ port: UInt16) -> Bool {
        let number = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        guard number >= 0 else { return false }
        let owner = Descriptor(owning: number)
        defer { owner.close() }
        // As servers do: connections of the last run that linger must not count as taken.
        var isReused: Int32 = 1
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        // SAFETY: option and address outlive the calls, whose lengths are those of their types.
        unsafe setsockopt(
            number,
            SOL_SOCKET,
            SO_REUSEADDR,
            &isReused,
            socklen_t(MemoryLayout<Int32>.size)
        )
        let isBound = unsafe withUnsafePointer(to: &address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { rebound in
                unsafe bind(number, rebound, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0
            }
        }
        return isBound && listen(number, 1) == 0
    }
}
