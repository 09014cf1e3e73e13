// A client that takes its time.

import ControlAPI
import Foundation
import Glibc
import TestSupport

/// A connection to a loopback port whose calls have limits.
///
/// Waiting for the other side takes no thread from it: the server runs in this process.
final class SlowConnection: Sendable {
    private let descriptor: Int32

    init(port: UInt16) throws {
        // Not for programs that another test starts: they would keep it open.
        let kind = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue)
        descriptor = socket(AF_INET, kind, 0)
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        let descriptor = descriptor
        // SAFETY: the address outlives the call, whose length is that of its type.
        let result = unsafe withUnsafePointer(to: &address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { rebound in
                unsafe connect(descriptor, rebound, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
        guard result == 0 else { throw POSIXError(.ECONNREFUSED) }
    }

    /// Connects to a unix socket: there the end of the other side is seen over what it has sent.
    init(unixPath path: String) throws {
        let kind = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue)
        descriptor = socket(AF_UNIX, kind, 0)
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        let descriptor = descriptor
        let bytes = Array(path.utf8)
        // SAFETY: the bytes are cut to the field that they are copied to.
        unsafe withUnsafeMutableBytes(of: &address.sun_path) { field in
            unsafe field.copyBytes(from: bytes.prefix(APIEndpoint.unixPathByteCountMax))
        }
        // SAFETY: the address outlives the call, whose length is that of its type.
        let result = unsafe withUnsafePointer(to: &address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { rebound in
                unsafe connect(descriptor, rebound, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        guard result == 0 else { throw POSIXError(.ECONNREFUSED) }
    }

    deinit { close(descriptor) }

    /// Whether the other side has sent something.
    var hasInput: Bool { poll(POLLIN) }

    /// Whether the other side of a unix socket has closed, with or without unread bytes.
    var isHungUp: Bool { poll(POLLHUP) }

    private func poll(_ events: Int32) -> Bool {
        var polled = pollfd(fd: descriptor, events: Int16(events), revents: 0)
        // SAFETY: one entry, as the count says.
        guard unsafe Glibc.poll(&polled, 1, 0) > 0 else { return false }
        return polled.revents & Int16(events) != 0
    }

    func send(_ text: String) {
        let bytes = Array(text.utf8)
        // SAFETY: pointer and count are those of a live array.
        _ = unsafe Glibc.send(descriptor, bytes, bytes.count, Int32(MSG_NOSIGNAL))
    }

    /// The head of the next answer, once its body has arrived too; nil when the other side closes
    /// before, and after `seconds`.
    func nextAnswer(seconds: Int) async -> String? {
        var text = ""
        for _ in 0..<(seconds * 10) {
            if let end = text.range(of: "\r\n\r\n") {
                let head = String(text[..<end.lowerBound])
                let length = head.lowercased().firstMatch(of: /content-length: ([0-9]+)/)
                let byteCount = length.flatMap { Int($0.1) } ?? 0
                if text[end.upperBound...].utf8.count >= byteCount { return head }
            }
            guard let bytes = await receive() else { continue }
            guard !bytes.isEmpty else { return nil }
            text += String(decoding: bytes, as: UTF8.self)
        }
        return nil
    }

    /// Sends `text` every 100 ms; true once the other side has closed without a word, false when
    /// it says something and after `seconds`.
    func isCut(trickling text: String, seconds: Int) async -> Bool {
        for _ in 0..<(seconds * 10) {
            if let bytes = await receive() { return bytes.isEmpty }
            send(text)
        }
        return false
    }

    /// What the other side sends; empty when it has closed, nil when nothing comes in 100 ms.
    private func receive() async -> [UInt8]? {
        var bytes: [UInt8]?
        _ = try? await isEventually(within: .milliseconds(100)) {
            bytes = received()
            return bytes != nil
        }
        return bytes
    }

    private func received() -> [UInt8]? {
        var polled = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        // SAFETY: one entry, as the count says.
        guard unsafe Glibc.poll(&polled, 1, 0) > 0 else { return nil }
        var bytes = [UInt8](repeating: 0, count: 4096)
        // SAFETY: pointer and count are those of a live array.
        let byteCount = unsafe recv(descriptor, &bytes, bytes.count, 0)
        return Array(bytes.prefix(max(0, byteCount)))
    }
}
