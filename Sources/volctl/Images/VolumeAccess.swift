// How volctl itself reaches a volume's data while it imports, exports or verifies.

package import ControlAPI
import Foundation
import Glibc

/// NBD URIs of one volume, and what to undo when they are not needed any more.
package struct VolumeAccess {
    /// The volume.
    package let volume: String
    /// The URI of the volume itself.
    package let uri: String
    private let client: ControlClient
    private let ownHost: String?

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
        try await attach(volume, readOnly: false, client)
    }

    /// Reaches `volume` for reading: through the attachment that it has, or a read-only one.
    package static func forReading(
        _ volume: Volume,
        _ client: ControlClient
    ) async throws(ControlError) -> VolumeAccess {
        let current = volume.attachments.first { $0.state == .attached && !$0.readOnly }
        if let current, let uri = current.nbdUnixURI ?? current.nbdURI, !uri.hasPrefix("nbds") {
            return VolumeAccess(volume: volume.name, uri: uri, client: client, ownHost: nil)
        }
        return try await attach(volume.name, readOnly: true, client)
    }

    private static func attach(
        _ volume: String,
        readOnly: Bool,
        _ client: ControlClient
    ) async throws(ControlError) -> VolumeAccess {
        let attachment = try await client.attach(
            volume,
            AttachmentCreation(host: ownHost, readOnly: readOnly)
        )
        guard let uri = attachment.nbdUnixURI ?? attachment.nbdURI else {
            try await client.detach(volume, from: ownHost)
            throw ControlError(
                .badResponse,
                "The service gave no NBD URI for \(ValidName.quoted(volume))."
            )
        }
        guard !uri.hasPrefix("nbds") else {
            try await client.detach(volume, from: ownHost)
            throw ControlError(
                .unsupported,
                "The node '\(attachment.node)' serves NBD under TLS only, which volctl does not speak.",
                help: "Attach the volume and use 'qemu-img convert' with '--object tls-creds-x509'."
            )
        }
        return VolumeAccess(volume: volume, uri: uri, client: client, ownHost: ownHost)
    }

    /// The URI of a snapshot of the volume.
    package func uri(snapshot: String) -> String? {
        Self.uri(uri, export: "\(volume)@\(snapshot)")
    }

    /// `uri` with another export name.
    package static func uri(_ uri: String, export: String) -> String? {
        guard var components = URLComponents(string: uri) else { return nil }
        components.path = "/\(export)"
        return components.string
    }

    /// Detaches what was attached.
    package func end() async throws(ControlError) {
        guard let ownHost else { return }
        try await client.detach(volume, from: ownHost)
    }
}
