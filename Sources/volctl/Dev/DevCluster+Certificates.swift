// Certificates for the links between a development cluster's nodes.

import Foundation

extension DevCluster {
    private var certificates: CertificateFiles {
        CertificateFiles(directory: layout.certificateDirectory)
    }

    /// How long a development node's certificate is good for: as long as the authority is.
    private static var nodeDays: Int { CertifiedKey.nodeDaysMax }

    /// Makes an authority for a cluster of which nothing runs.
    ///
    /// Where nodes of an older program run, without TLS, all go on without it until all have been
    /// stopped: the two kinds cannot reach each other.
    func makeAuthority() throws(CommandFailure) {
        guard !file.nodes.contains(where: { ProgramRecord(layout, $0.name).state == .running })
        else { return }
        _ = try certificates.authority()
    }

    /// What `volnode run` is told of certificates; makes those of a node that has none.
    func certificateArguments(of node: ClusterFile.Node) throws(CommandFailure) -> [String] {
        guard certificates.hasAuthority else { return [] }
        if !Path.exists(certificates.nodeFile(node.name)) {
            let authority = try certificates.authority()
            try certificates.issue(node.name, by: authority, days: Self.nodeDays)
        }
        return ["--peer-tls-certificates", certificates.nodeDirectory(node.name)]
    }
}
