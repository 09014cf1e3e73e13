// The files of a cluster's certificates: the authority's, and a directory for each node.

import Foundation
import Glibc
import ProgramMain

/// A directory with an authority, and with a directory of credentials for each node.
///
///     ca-cert.pem  ca-key.pem  NODE/ca-cert.pem  NODE/node-cert.pem  NODE/node-key.pem
///
/// What is in a node's directory is what `volnode run --peer-tls-certificates` takes. The
/// authority's key stays where it was made.
package struct CertificateFiles: Hashable, Sendable {
    /// The directory.
    package var directory: String

    /// Creates the paths below `directory`.
    package init(directory: String) { self.directory = directory }

    /// The authority's certificate.
    package var authorityFile: String { "\(directory)/ca-cert.pem" }
    /// The authority's key.
    package var authorityKeyFile: String { "\(directory)/ca-key.pem" }
    /// The credentials of the node called `name`.
    package func nodeDirectory(_ name: String) -> String { "\(directory)/\(name)" }
    /// The certificate of the node called `name`.
    package func nodeFile(_ name: String) -> String { "\(nodeDirectory(name))/node-cert.pem" }

    /// Whether there is an authority.
    package var hasAuthority: Bool {
        Path.exists(authorityFile) || Path.exists(authorityKeyFile)
    }

    /// The authority: the one that is there, or a new one.
    ///
    /// - Throws: ``CommandFailure`` when the one that is there cannot be used, which is then left
    ///   as it is.
    package func authority() throws(CommandFailure) -> CertifiedKey {
        guard hasAuthority else {
            try DocumentFile.makeDirectory(directory)
            let made = try CertifiedKey.newAuthority()
            // The certificate last: what was begun and not finished is no authority.
            try write(try made.keyText(), to: authorityKeyFile, mode: 0o600)
            try write(try made.certificateText(), to: authorityFile, mode: 0o644)
            return made
        }
        guard let certificate = FileManager.default.contents(atPath: authorityFile),
            let key = FileManager.default.contents(atPath: authorityKeyFile),
            let found = CertifiedKey(certificateText: Array(certificate), keyText: Array(key))
        else {
            throw CommandFailure(
                "bad_authority",
                "\(authorityFile) and \(authorityKeyFile) are not an authority and its key.",
                remedy: "Put back what was there, or choose another directory."
            )
        }
        return found
    }

    /// Makes a key and a certificate for the node called `name`, in place of those that are there.
    package func issue(
        _ name: String,
        by authority: CertifiedKey,
        days: Int
    ) throws(CommandFailure) {
        let made = try authority.newNode(name, days: days)
        try DocumentFile.makeDirectory(nodeDirectory(name))
        try write(try authority.certificateText(), to: "\(nodeDirectory(name))/ca-cert.pem")
        try write(try made.keyText(), to: "\(nodeDirectory(name))/node-key.pem", mode: 0o600)
        try write(try made.certificateText(), to: nodeFile(name))
    }

    /// Replaces a file: a reader sees the old or the new one, and a key is never readable by others.
    private func write(
        _ bytes: [UInt8],
        to path: String,
        mode: mode_t = 0o644
    ) throws(CommandFailure) {
        let temporary = "\(path).new.\(getpid())"
        do throws(CommandFailure) {
            let flags = O_WRONLY | O_CREAT | O_TRUNC
            let file = try Descriptor.open(temporary, flags, mode: mode)
            defer { file.close() }
            try file.writeAll(bytes)
            guard fsync(file.number) == 0, Path.rename(temporary, to: path) else {
                throw CommandFailure("io_error", "Cannot write \(path): \(systemErrorText()).")
            }
        } catch {
            Path.remove(temporary)
            throw error
        }
    }
}
