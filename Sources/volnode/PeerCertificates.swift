// Certificates of links between nodes: whether they are wanted, and new ones as they come.

import ArgumentParser
import Foundation
import Logging
import ProgramMain
import ServiceLifecycle
import StorageNode

/// Whether links to other nodes use TLS.
enum PeerTLSPolicy: String, ExpressibleByArgument, CaseIterable {
    /// They do not, whatever network they cross.
    case off
    /// They do, and nothing else is spoken.
    case require
}

extension Run {
    /// Refuses links in the clear that nobody has asked for.
    func requirePeerTLS() throws {
        switch (peerTls, peerTlsCertificates) {
        case (.off?, .some):
            throw ValidationError(
                "--peer-tls off and --peer-tls-certificates exclude each other. Leave one of them out."
            )
        case (.require?, nil):
            throw ValidationError(
                "--peer-tls require needs --peer-tls-certificates; 'volctl certs create' makes them."
            )
        case (nil, nil):
            guard let listenPeer,
                !PeerAddress(host: listenPeer.host, port: listenPeer.port).isLoopback
            else { return }
            throw ValidationError(
                "Whoever reaches '\(listenPeer)' could read and change every replica here. Add "
                    + "--peer-tls-certificates DIR, which 'volctl certs create' makes, or --peer-tls off "
                    + "on a network that nobody else is on."
            )
        default: return
        }
    }
}

/// Takes new certificates of links between nodes as they come, for the handshakes that follow.
struct PeerCertificateWatch: Service {
    let node: StorageNode
    let directory: String
    let logger: Logger

    /// Between two looks at the files.
    private static let pause = Duration.seconds(60)
    /// Looks between two warnings of what expires soon: a day's.
    private static let warningLookCount = 1440
    private static let names = ["ca-cert.pem", "ca-crl.pem", "node-cert.pem", "node-key.pem"]

    func run() async throws {
        await cancelWhenGracefulShutdown {
            var known = self.state
            var lookCount = 0
            while (try? await Task.sleep(for: Self.pause)) != nil {
                let state = self.state
                lookCount += 1
                guard state != known || lookCount >= Self.warningLookCount else { continue }
                self.reload(isNew: state != known)
                known = state
                lookCount = 0
            }
        }
    }

    private func reload(isNew: Bool) {
        do throws(TLSError) {
            for warning in try node.reloadPeerCredentials() { logger.warning("\(warning)") }
            if isNew { logger.notice("new certificates for links to other nodes") }
        } catch {
            logger.error(
                "certificates for links to other nodes cannot be used; those before are kept",
                metadata: ["reason": "\(error)"]
            )
        }
    }

    /// What changes when a file is written or replaced.
    private var state: [String] {
        Self.names.map { name in
            let path = "\(directory)/\(name)"
            guard let found = try? FileManager.default.attributesOfItem(atPath: path) else {
                return "none"
            }
            let number = (found[.systemFileNumber] as? NSNumber)?.uint64Value ?? 0
            let size = (found[.size] as? NSNumber)?.uint64Value ?? 0
            let date = found[.modificationDate] as? Date ?? .distantPast
            return "\(number) \(size) \(date.timeIntervalSince1970)"
        }
    }
}
