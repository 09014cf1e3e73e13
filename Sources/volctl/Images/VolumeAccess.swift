// How volctl itself reaches a volume's data while it imports, exports or verifies.

package import ControlAPI
import Foundation
package import Glibc

/// One volume attached to this process for writing.
package struct VolumeAccess {
    /// The volume.
    package let volume: String
    private let attachment: Attachment
    private let client: ControlClient

    /// Tells this process from every other, in names of what it makes for a while.
    ///
    /// Process ids repeat from one container to the next: two imports under one name would both
    /// write.
    package static let processTag =
        "\(getpid())-\(String(UInt32.random(in: .min ... .max), radix: 16))"

    /// The host name under which an import attaches its volume; `volume show` shows it.
    package static let ownHost = hostPrefix + processTag

    private static let hostPrefix = "import-"

    /// Whether a host is another import, which may have been killed.
    package static func isOtherImport(_ host: String) -> Bool {
        host.hasPrefix(hostPrefix) && host != ownHost
    }

    /// The process of an import that runs on this machine and fills `volume`; nil when none is seen,
    /// which one of another machine or container never is.
    package static func runningImport(of host: String, into volume: String) -> pid_t? {
        guard isOtherImport(host),
            let pid = host.dropFirst(hostPrefix.count).split(separator: "-").first
                .flatMap({ pid_t($0) }),
            let status = ProcessStatus(pid: pid), !status.isZombie,
            let line = FileManager.default.contents(atPath: "/proc/\(pid)/cmdline")
        else { return nil }
        // Another program may have got the id since.
        let words = line.split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
        let isImport = ["import", volume].allSatisfy(words.contains)
        return isImport && words[0].hasSuffix("volctl") ? pid : nil
    }

    /// Attaches `volume` for writing, refused while another host has it.
    package static func forWriting(
        _ volume: String,
        _ client: ControlClient
    ) async throws(ControlError) -> VolumeAccess {
        let creation = AttachmentCreation(host: ownHost, readOnly: false)
        let attachment = try await client.attach(volume, creation)
        return VolumeAccess(volume: volume, attachment: attachment, client: client)
    }

    /// Where the volume can be written.
    package var uri: String {
        get throws(ControlError) {
            try Self.uri(of: attachment)
        }
    }

    /// Where a snapshot can be read; nobody is kept from its volume by that.
    package static func uri(of snapshot: Snapshot) throws(ControlError) -> String {
        try usable(snapshot.nbdUnixURI ?? snapshot.nbdURI, of: snapshot.volume)
    }

    /// Where an attached volume can be read and written.
    package static func uri(of attachment: Attachment) throws(ControlError) -> String {
        try usable(attachment.nbdUnixURI ?? attachment.nbdURI, of: attachment.volume)
    }

    private static func usable(
        _ uri: String?,
        of volume: String
    ) throws(ControlError) -> String {
        guard let uri else {
            throw ControlError(
                .unsupported,
                "The node of \(ValidName.quoted(volume)) serves NBD on a unix socket of another "
                    + "machine only.",
                help: "Run volctl there, or start the node with --listen-nbd."
            )
        }
        guard !uri.hasPrefix("nbds") else {
            throw ControlError(
                .unsupported,
                "The node of \(ValidName.quoted(volume)) serves NBD under TLS only, which volctl "
                    + "does not speak.",
                help: "Use 'qemu-img convert' with '--object tls-creds-x509' and the volume's URI."
            )
        }
        return uri
    }

    /// Detaches what was attached.
    package func end() async throws(ControlError) {
        try await client.detach(volume, from: Self.ownHost)
    }
}
