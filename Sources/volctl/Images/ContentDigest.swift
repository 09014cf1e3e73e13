// The SHA-256 of what a disk holds, however it is stored.
//
// It is the digest of the disk's bytes from first to last, holes as zeros, so that
// `sha256sum` of a raw image gives the same.

import COpenSSL
import Foundation
import Glibc
package import ProgramMain

/// A SHA-256 under way.
///
/// libcrypto's is used because it has the CPU's SHA instructions: 1.5 GB/s where portable code
/// makes a quarter.
@safe
package final class ContentDigest {
    // SAFETY: owned by this object, freed in `deinit`, never handed out.
    private let context = unsafe EVP_MD_CTX_new()
    /// Bytes taken in so far.
    package private(set) var byteCount: UInt64 = 0

    private static let zeros = [UInt8](repeating: 0, count: 1 << 20)

    /// Creates an empty digest.
    package init() {
        // SAFETY: the context was just made; EVP_sha256 is a constant of the library.
        let isReady = unsafe EVP_DigestInit_ex(context, EVP_sha256(), nil) == 1
        precondition(isReady, "libcrypto has SHA-256")
    }

    deinit {
        // SAFETY: made in the initialiser, freed once.
        unsafe EVP_MD_CTX_free(context)
    }

    /// Takes in `bytes`.
    package func update(_ bytes: ArraySlice<UInt8>) {
        // SAFETY: the pointer and count are those of one live buffer.
        unsafe bytes.withUnsafeBytes { buffer in
            _ = unsafe EVP_DigestUpdate(context, buffer.baseAddress, buffer.count)
        }
        byteCount += UInt64(bytes.count)
    }

    /// Takes in `count` zeros.
    package func update(zeroCount count: UInt64) {
        var remaining = count
        while remaining > 0 {
            let part = min(remaining, UInt64(Self.zeros.count))
            update(Self.zeros[..<Int(part)])
            remaining -= part
        }
    }

    /// The digest in hex; nothing may be taken in afterwards.
    package func finish() -> String {
        var digest = [UInt8](repeating: 0, count: 32)
        // SAFETY: SHA-256 writes 32 bytes.
        _ = unsafe EVP_DigestFinal_ex(context, &digest, nil)
        let digits = Array("0123456789abcdef")
        return String(digest.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] })
    }
}

// MARK: - What is digested

extension ContentDigest {
    /// The digest of an image file's disk.
    ///
    /// - Parameters:
    ///   - image: The image.
    ///   - progress: Shows how far it has come.
    /// - Returns: The digest in hex.
    /// - Throws: ``CommandFailure`` when the image cannot be read.
    package static func of(_ image: DiskImage, progress: ProgressDisplay) throws -> String {
        switch image.format {
        case .raw: try ofFile(image.path, byteCount: image.virtualByteCount, progress: progress)
        case .qcow2:
            // nbdcopy starts the server itself and ends it afterwards.
            try ofStream(
                [
                    "--", "[", try Tool.qemuServer.located(), "-r", "-f", "qcow2", image.path, "]",
                    "-",
                ],
                byteCount: image.virtualByteCount,
                progress: progress
            )
        }
    }

    /// The digest of the first `byteCount` bytes of a volume or snapshot.
    package static func ofExport(
        _ node: ServingNode,
        byteCount: UInt64,
        progress: ProgressDisplay
    ) throws -> String {
        try ofStream(
            ["--", node.uri, "-"],
            servedBy: node,
            byteCount: byteCount,
            progress: progress
        )
    }

    /// SEEK_DATA and SEEK_HOLE, which the headers hide unless `_GNU_SOURCE` is set.
    private static var seekData: Int32 { 3 }
    private static var seekHole: Int32 { 4 }

    private enum Stop: Error { case atEnd }

    /// The digest of what `nbdcopy` writes, up to `byteCount` bytes of it.
    private static func ofStream(
        _ arguments: [String],
        servedBy node: ServingNode? = nil,
        byteCount: UInt64,
        progress: ProgressDisplay
    ) throws -> String {
        let digest = ContentDigest()
        do {
            let result = try Tool.nbdCopy.run(arguments, servedBy: node) { piece in
                let wanted = min(UInt64(piece.count), byteCount - digest.byteCount)
                digest.update(piece.prefix(Int(wanted)))
                progress.update(done: digest.byteCount, of: byteCount)
                // What lies behind the image in a larger volume is not part of it.
                if digest.byteCount == byteCount, wanted < UInt64(piece.count) { throw Stop.atEnd }
            }
            guard result.isSuccess else {
                throw CommandFailure("io_error", "Reading back failed: \(result.reason).")
            }
        } catch Stop.atEnd {}
        guard digest.byteCount == byteCount else {
            throw CommandFailure(
                "io_error",
                "Reading back ended after \(digest.byteCount) of \(byteCount) bytes."
            )
        }
        return digest.finish()
    }

    /// The digest of a raw file; holes are not read.
    private static func ofFile(
        _ path: String,
        byteCount: UInt64,
        progress: ProgressDisplay
    ) throws -> String {
        let file = try Descriptor.open(path, O_RDONLY)
        defer { file.close() }
        let digest = ContentDigest()
        var buffer = [UInt8](repeating: 0, count: 1 << 20)
        while digest.byteCount < byteCount {
            try Interruption.check()
            let position = Int(digest.byteCount)
            let data = lseek(file.number, position, Self.seekData)
            // ENXIO: a hole up to the end. Devices and some file systems know no holes.
            let start = data >= 0 ? UInt64(data) : errno == ENXIO ? byteCount : digest.byteCount
            digest.update(zeroCount: min(start, byteCount) - digest.byteCount)
            guard digest.byteCount < byteCount else { break }
            let hole = lseek(file.number, Int(digest.byteCount), Self.seekHole)
            let end = hole > Int(digest.byteCount) ? min(UInt64(hole), byteCount) : byteCount
            lseek(file.number, Int(digest.byteCount), SEEK_SET)
            while digest.byteCount < end {
                try Interruption.check()
                guard let count = try file.read(into: &buffer) else { continue }
                guard count > 0 else {
                    throw CommandFailure("io_error", "\(path) became shorter while it was read.")
                }
                digest.update(buffer[..<min(count, Int(end - digest.byteCount))])
                progress.update(done: digest.byteCount, of: byteCount)
            }
        }
        progress.update(done: byteCount, of: byteCount)
        return digest.finish()
    }
}
