// volctl certs …: an authority for a cluster, and certificates for its nodes.

package import ArgumentParser
import ControlAPI
import ProgramMain

/// `volctl certs`.
package struct CertsCommand: AsyncParsableCommand {
    package static let configuration = CommandConfiguration(
        commandName: "certs",
        abstract: "Make certificates for the links between nodes.",
        subcommands: [CertsCreate.self]
    )

    package init() {}
}

/// `volctl certs create`.
struct CertsCreate: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "create",
        abstract: "Make an authority if there is none, and a certificate for each node named.",
        discussion: """
            Writes ca-cert.pem and ca-key.pem, and for each node a directory with what \
            'volnode run --peer-tls-certificates' takes: copy it to the node, and nothing else. \
            The authority's key stays here, where nobody else can read it. A node that has a \
            certificate gets a new one, and takes it within a minute.

            Examples:
              volctl certs create --out /root/cairn-certs n1 n2 n3
              scp -r /root/cairn-certs/n1 n1:/etc/cairn/peer
            """
    )

    @Option(
        help: ArgumentHelp("The directory of the authority and the nodes'.", valueName: "dir"),
        completion: .directory
    )
    var out: String
    @Option(
        help: ArgumentHelp("How many days nodes' certificates are good for.", valueName: "n"),
        transform: Usage.number(1...CertifiedKey.nodeDaysMax)
    )
    var days: Int = CertifiedKey.nodeDays
    @Flag(help: "Print one JSON document on standard output.")
    var json = false
    @Argument(help: "The names of nodes.")
    var nodes: [String]

    func validate() throws {
        guard !out.isEmpty else { throw ValidationError("--out takes a directory.") }
        guard (1...CertifiedKey.nodeDaysMax).contains(days) else {
            throw ValidationError("--days takes 1 to \(CertifiedKey.nodeDaysMax).")
        }
        for node in nodes { try Usage.require(node, of: "node") }
    }

    func run() async throws {
        let files = CertificateFiles(directory: absolutePath(out))
        let isNew = !files.hasAuthority
        do throws(CommandFailure) {
            let authority = try files.authority()
            for node in nodes { try files.issue(node, by: authority, days: days) }
        } catch {
            var failure = error
            failure.rename("--data DIR", to: "--out DIR")
            throw failure
        }
        if json {
            return printDocument(
                CertificatesDocument(
                    directory: files.directory,
                    isNewAuthority: isNew,
                    nodes: nodes
                )
            )
        }
        if isNew { printText("Made an authority in \(files.directory).") }
        for node in nodes {
            printText("Made \(files.nodeDirectory(node)), good for \(counted(days, "day")).")
        }
    }
}

/// The document of `volctl certs create`.
package struct CertificatesDocument: Codable, Hashable, Sendable {
    /// Where they are.
    package var directory: String
    /// Whether the authority was made by this call.
    package var isNewAuthority: Bool
    /// The nodes that have a new certificate, each in a directory of its name.
    package var nodes: [String]
}
