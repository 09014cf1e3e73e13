// Images from a web server: fetched whole into a file first, because an image is checked before a
// volume is touched and because qcow2 is read out of order.

import AsyncHTTPClient
import ControlAPI
import Foundation
import Glibc
import NIOCore
import NIOHTTP1
import NIOPosix
package import ProgramMain

/// A file that was downloaded and is removed when it is not needed any more.
package struct Download {
    /// The file.
    package let path: String
    /// Open as long as the download is needed: its lock tells other imports so.
    private let file: Descriptor

    /// How long a server may send nothing, in seconds.
    private static var silenceSecondsMax: Int64 { 60 }
    /// Zeros of this length become holes in the file, in bytes.
    private static var sparseByteCount: Int { 4096 }

    /// Whether `source` names a web server rather than a file.
    package static func isURL(_ source: String) -> Bool {
        source.range(of: "^[A-Za-z][A-Za-z0-9+.-]*://", options: .regularExpression) != nil
    }

    /// Fetches `url` into a new file in `directory`.
    ///
    /// - Parameters:
    ///   - url: An http or https URL.
    ///   - directory: Where the file goes; it is made when missing.
    ///   - byteCountMax: The largest file accepted.
    ///   - progress: Shows how far it has come.
    /// - Throws: ``CommandFailure``; no file is left then.
    package init(
        _ url: String,
        into directory: String,
        byteCountMax: UInt64,
        progress: ProgressDisplay
    ) async throws {
        guard let parsed = URL(string: url), let scheme = parsed.scheme?.lowercased(),
            ["http", "https"].contains(scheme), !(parsed.host ?? "").isEmpty
        else {
            throw CommandFailure(
                "bad_url",
                "\(shownURL(url)) is not a URL that can be fetched.",
                remedy: "Give a file, or http://HOST/PATH or https://HOST/PATH."
            )
        }
        try DocumentFile.makeDirectory(directory)
        Self.sweep(directory)
        path = "\(directory)/download.\(VolumeAccess.processTag).img"
        file = try Descriptor.open(path, O_WRONLY | O_CREAT | O_TRUNC, mode: 0o600)
        _ = flock(file.number, LOCK_EX | LOCK_NB)
        do {
            try await Self.fetch(url, into: file, byteCountMax: byteCountMax, progress: progress)
        } catch {
            remove()
            throw error
        }
    }

    /// Removes the file.
    package func remove() {
        Path.remove(path)
        file.close()
    }

    /// Removes downloads that an import left when it was killed: no process has their number,
    /// and none their lock, which one in another container would.
    private static func sweep(_ directory: String) {
        let names = (try? FileManager.default.contentsOfDirectory(atPath: directory)) ?? []
        for name in names where name.hasPrefix("download.") && name.hasSuffix(".img") {
            let digits = name.dropFirst("download.".count).prefix { $0.isASCII && $0.isNumber }
            guard let pid = Int32(digits), kill(pid, 0) != 0, errno == ESRCH,
                let file = try? Descriptor.open("\(directory)/\(name)", O_RDONLY)
            else { continue }
            if flock(file.number, LOCK_EX | LOCK_NB) == 0 { Path.remove("\(directory)/\(name)") }
            file.close()
        }
    }

    private static func fetch(
        _ url: String,
        into file: Descriptor,
        byteCountMax: UInt64,
        progress: ProgressDisplay
    ) async throws {
        // A redirect would lead to a server that the user did not name.
        var configuration = HTTPClient.Configuration(
            redirectConfiguration: .disallow,
            timeout: .init(connect: .seconds(10), read: .seconds(silenceSecondsMax)),
            decompression: .disabled
        )
        configuration.connectionPool.retryConnectionEstablishment = false
        let client = HTTPClient(eventLoopGroupProvider: .singleton, configuration: configuration)
        // Ends the exchange, whatever it waits for: a server may be silent for a minute.
        let interrupter = Task {
            await Interruption.wait()
            if Interruption.isRequested { try? await client.shutdown() }
        }
        defer { interrupter.cancel() }
        do {
            try await fetch(url, client, into: file, byteCountMax, progress)
            try Interruption.check()
            try await client.shutdown()
        } catch {
            try? await client.shutdown()
            try Interruption.check()
            if let failure = error as? CommandFailure { throw failure }
            throw CommandFailure(
                "download_failed",
                "Fetching \(shownURL(url)) failed: \(describe(error)).",
                remedy: "Check the URL and that the server runs."
            )
        }
    }

    private static func fetch(
        _ url: String,
        _ client: HTTPClient,
        into file: Descriptor,
        _ byteCountMax: UInt64,
        _ progress: ProgressDisplay
    ) async throws {
        let response = try await client.execute(
            HTTPClientRequest(url: url),
            deadline: .distantFuture
        )
        guard response.status == .ok else {
            let location =
                response.headers.first(name: "Location").map { " to \(shownURL($0))" } ?? ""
            throw CommandFailure(
                "download_failed",
                "\(shownURL(url)) gave HTTP status \(response.status.code)\(location).",
                remedy: location.isEmpty
                    ? "Check the URL." : "If you trust that server, give its URL."
            )
        }
        let total = response.headers.first(name: "Content-Length").flatMap(UInt64.init)
        try checkSize(total ?? 0, url, byteCountMax)
        var writer = SparseWriter(file: file, chunkByteCount: sparseByteCount)
        for try await part in response.body {
            try Interruption.check()
            try writer.append(Array(part.readableBytesView))
            try checkSize(writer.byteCount, url, byteCountMax)
            progress.update(done: writer.byteCount, of: total)
        }
        try writer.finish()
        guard total == nil || total == writer.byteCount else {
            throw CommandFailure(
                "download_failed",
                "\(shownURL(url)) ended after \(writer.byteCount) of \(total ?? 0) bytes.",
                remedy: "Try again."
            )
        }
    }

    private static func checkSize(
        _ byteCount: UInt64,
        _ url: String,
        _ byteCountMax: UInt64
    ) throws(CommandFailure) {
        guard byteCount > byteCountMax else { return }
        throw CommandFailure(
            "download_too_large",
            "\(shownURL(url)) is larger than \(ByteSize(byteCount: byteCountMax)).",
            remedy: "Allow more with --download-limit SIZE."
        )
    }

    private static func describe(_ error: any Error) -> String {
        switch error {
        case let error as HTTPClientError where error == .connectTimeout:
            "the server did not answer in time"
        case let error as HTTPClientError where error == .readTimeout:
            "the server fell silent for \(silenceSecondsMax) seconds"
        case let error as HTTPClientError where error == .remoteConnectionClosed:
            "the server closed the connection"
        case _ where isUnknownHost(error): "the host's name has no address"
        case is NIOConnectionError: "nothing listens there"
        case let error as IOError: systemErrorText(error.errnoCode)
        default: "\(error)"
        }
    }
}

/// Writes a file from front to back and leaves holes where it is zero.
package struct SparseWriter {
    private let file: Descriptor
    private let chunkByteCount: Int
    private var pending: [UInt8] = []
    /// Bytes taken in so far.
    package private(set) var byteCount: UInt64 = 0

    /// Creates a writer at the start of an empty `file`.
    package init(file: Descriptor, chunkByteCount: Int) {
        self.file = file
        self.chunkByteCount = chunkByteCount
    }

    /// Takes in `bytes`.
    package mutating func append(_ bytes: [UInt8]) throws(CommandFailure) {
        byteCount += UInt64(bytes.count)
        pending += bytes
        let whole = pending.count / chunkByteCount * chunkByteCount
        guard whole > 0 else { return }
        try writeChunks(pending[..<whole])
        pending.removeFirst(whole)
    }

    /// Writes what is left and gives the file its length.
    package mutating func finish() throws(CommandFailure) {
        try writeChunks(pending[...])
        pending = []
        guard ftruncate(file.number, Int(byteCount)) == 0 else {
            throw CommandFailure("io_error", "Cannot write: \(systemErrorText()).")
        }
    }

    /// Writes runs of chunks that hold something, and seeks over those that do not.
    private func writeChunks(_ bytes: ArraySlice<UInt8>) throws(CommandFailure) {
        var start = bytes.startIndex
        while start < bytes.endIndex {
            let isZero = isZeroChunk(bytes, at: start)
            var end = start
            while end < bytes.endIndex, isZeroChunk(bytes, at: end) == isZero {
                end = min(end + chunkByteCount, bytes.endIndex)
            }
            if isZero {
                lseek(file.number, end - start, SEEK_CUR)
            } else {
                try file.writeAll(Array(bytes[start..<end]))
            }
            start = end
        }
    }

    private func isZeroChunk(_ bytes: ArraySlice<UInt8>, at start: Int) -> Bool {
        bytes[start..<min(start + chunkByteCount, bytes.endIndex)].allSatisfy { $0 == 0 }
    }
}
