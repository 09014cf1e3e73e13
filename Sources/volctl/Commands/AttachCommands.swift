// volctl attach and volctl detach

package import ArgumentParser
package import ControlAPI
import Foundation
import ProgramMain

/// `volctl attach`.
package struct AttachCommand: ClusterCommand {
    package static let configuration = CommandConfiguration(
        commandName: "attach",
        abstract: "Give a host a volume, and get the URI to connect to.",
        discussion: """
            One host at a time, or several with --read-only. --force takes the volume from a host \
            that is dead, fenced: its connections are closed, and the name in its URI opens nothing \
            any more.

            Examples:
              volctl attach vm1 --host hv1
              volctl attach vm1 --host hv2 --force
              qemu-system-x86_64 -drive if=virtio,format=raw,file=$(volctl attach vm1 --host hv1 \
            --json | jq -r .nbd_uri)
            """
    )

    @Argument(help: "The volume.", completion: NameCompletion.volumes)
    var volume: String
    @Option(help: "The host that gets it.")
    var host: String
    @Option(
        help: "The node to serve it; default the volume's primary.",
        completion: NameCompletion.nodes
    )
    var via: String?
    @Flag(help: "Attach for reading only; several hosts may.")
    var readOnly = false
    @Flag(help: "Take it from the host that has it, fenced.")
    var force = false
    @Option(help: "How the host reaches it; default nbd.")
    var `protocol`: AttachmentProtocol?
    @OptionGroup package var cluster: ClusterOptions

    package init() {}

    package func validate() throws {
        try Usage.require(volume, of: "volume")
        try Usage.require(host, of: "host")
        try Usage.require(via, of: "node")
    }

    package func run() async throws {
        let creation = AttachmentCreation(
            host: host,
            via: via,
            readOnly: readOnly,
            force: force,
            protocol: `protocol`
        )
        let attachment = try await cluster.withClient { client in
            try await client.named(volume) { () throws(ControlError) in
                try await client.attach(volume, creation)
            }
        }
        if cluster.json {
            printDocument(attachment)
        } else {
            printText(attachmentText(attachment))
        }
    }
}

/// The text of `volctl attach`.
package func attachmentText(_ attachment: Attachment) -> String {
    let mode = attachment.readOnly ? " for reading only" : ""
    var text = "\(attachment.host) has \(attachment.volume)\(mode), served by \(attachment.node)."
    if let uri = attachment.nbdURI { text += "\n  \(uri.printable)" }
    if let uri = attachment.nbdUnixURI { text += "\n  \(uri.printable)" }
    return text
}

/// `volctl detach`.
package struct DetachCommand: ClusterCommand {
    package static let configuration = CommandConfiguration(
        commandName: "detach",
        abstract: "Take a volume back from a host.",
        discussion: """
            Its connections are closed, and the name in its URI opens nothing any more. Hosts that \
            read a volume together share one name and stay connected until the last of them is \
            detached.
            """
    )

    @Argument(help: "The volume.", completion: NameCompletion.volumes)
    var volume: String
    @Option(help: "The host that has it.")
    var host: String
    @OptionGroup package var cluster: ClusterOptions

    package init() {}

    package func validate() throws {
        try Usage.require(volume, of: "volume")
        try Usage.require(host, of: "host")
    }

    package func run() async throws {
        try await cluster.withClient { client in
            try await client.named(volume) { () throws(ControlError) in
                try await client.detach(volume, from: host)
            }
        }
        if cluster.json {
            printDocument(DetachDocument(volume: volume, host: host))
        } else {
            printText("\(host) does not have \(volume) any more.")
        }
    }
}

/// The document of `volctl detach`.
package struct DetachDocument: Codable, Hashable, Sendable {
    /// The volume.
    package var volume: String
    /// The host that had it.
    package var host: String
    /// Always `detached`.
    package var state = AttachmentState.detached

    /// Creates a document.
    package init(volume: String, host: String) {
        self.volume = volume
        self.host = host
    }
}
