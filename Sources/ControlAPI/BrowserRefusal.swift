// What keeps web pages away from a service on the machine that their browser runs on.

import Foundation
import HTTPTypes
public import Hummingbird
import NIOCore

/// What is known of a request besides itself.
public struct APIContext: RequestContext {
    /// What the framework keeps.
    public var coreContext: CoreRequestContextStorage
    /// Whether it came to an address that only this machine has.
    let isLoopback: Bool

    /// Creates the context of a request.
    public init(source: ApplicationRequestContextSource) {
        coreContext = .init(source: source)
        isLoopback = source.channel.localAddress?.isLoopback ?? false
    }
}

extension SocketAddress {
    fileprivate var isLoopback: Bool {
        guard let text = ipAddress else { return false }
        return text.hasPrefix("127.") || text == "::1" || text.hasPrefix("::ffff:127.")
    }
}

/// Refuses what only browsers send, whatever the route, method and body.
///
/// Without this, any web page open on the machine could use a service on loopback: its browser
/// sends a POST without a body unasked. Pages cannot leave out the headers Origin and
/// Sec-Fetch-Site of what changes anything, and programs have no reason to send them. A plain GET
/// has none; but a page can read the answer only of its own site, so its site's name must have
/// come to mean 127.0.0.1, and that name is in Host.
///
/// - Throws: ``ControlError/Code/browserRefused``.
func requireNoBrowser(_ request: Request, _ context: APIContext) throws(ControlError) {
    let names: [HTTPField.Name] = [.origin, .secFetchSite]
    if let name = names.first(where: { request.headers.contains($0) }) {
        throw ControlError(
            .browserRefused,
            "The request has the header \(name), so it comes from a web page; none may use this API.",
            help: "Use volctl, curl or another program that is not a browser."
        )
    }
    guard context.isLoopback, let authority = request.head.authority,
        !isOwnName(of: authority)
    else { return }
    throw ControlError(
        .browserRefused,
        "The request came to this machine itself under the name '\(authority.prefix(256))', which "
            + "is not its own; a web page may have made it.",
        help: "Use the address instead, or 'localhost'."
    )
}

/// Whether `authority`, a host with or without port, is an address or a name of this machine.
private func isOwnName(of authority: String) -> Bool {
    guard let host = URLComponents(string: "http://\(authority)")?.host else { return false }
    let bare = host.trimmingCharacters(in: CharacterSet(charactersIn: "[]")).lowercased()
    if ["", "localhost", ProcessInfo.processInfo.hostName.lowercased()].contains(bare) {
        return true
    }
    return (try? SocketAddress(ipAddress: bare, port: 0)) != nil
}
