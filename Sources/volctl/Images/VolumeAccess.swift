// How volctl itself reaches a volume's data while it imports, exports or verifies.

package import ControlAPI
import Foundation
import Glibc

/// The NBD URI of a volume, and what to undo when it is not needed any more.
package struct VolumeAccess {
    /// The volume.
    package let volume: String
    /// The URI of the volume itself.
    package let uri: String
    private let client: ControlClient
    private let ownHost: String

    /// The host name under which this process attaches volumes; `volume show` shows it.
    ///
    /// Process ids repeat from one container to the next: two imports under one name would both
    /// write.
    package static let ownHost =
        "volctl-\(getpid())-\(String(UInt32.random(in: .min ... .max), radix: 16))"

    /// Attaches `volume` for writing, refused while another host has it.
    package static func forWriting(
        _ volume: String,
        _ client: ControlClient
    ) async throws(ControlError) -> VolumeAccess {
        let creation = AttachmentCreation(host: ownHost, readOnly: false)
        let attachment = try await client.attach(volume, creation)
        do throws(ControlError) {
            let uri = try usable(attachment.nbdUnixURI ?? attachment.nbdURI, of: volume)
            return VolumeAccess(volume: volume, uri: uri, client: client, ownHost: ownHost)
        } catch {
            try await client.detach(volume, from: ownHost)
            throw error
        }
    }

    /// Where a snapshot can be read; nobody is kept from its volume by that.
    package static func uri(of snapshot: Snapshot) throws(ControlError) -> String {
        try usable(snapshot.nbdUnixURI ?? snapshot.nbdURI, of: snapshot.volume)
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
        try await client.detach(volume, from: ownHost)
    }
}
