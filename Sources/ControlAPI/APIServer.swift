// The HTTP server of either API: HTTP/1.1 on a TCP port or a unix socket, with every limit set.

import Foundation
public import Hummingbird
import HummingbirdCore
public import Logging
import NIOCore
import NIOPosix

/// A server of `router` at `endpoint`; run it in a service group.
///
/// - Parameters:
///   - router: ``controlRouter(service:)`` or ``nodeRouter(service:)``.
///   - endpoint: Where to listen; port 0 takes a free one. A unix socket left behind by a
///     process that died is replaced, and the new one is for its owner only.
///   - logger: Where to log.
///   - requestMillisecondsMax: How long a request may take to arrive whole.
///   - idleMillisecondsMax: How long a connection may wait for its next request.
///   - writeMillisecondsMax: How long a client may take nothing of an answer.
///   - onListening: Called with the endpoint, its real port filled in, once it accepts.
/// - Returns: An application, a `Service`.
public func apiServer(
    router: Router<APIContext>,
    endpoint: APIEndpoint,
    logger: Logger,
    requestMillisecondsMax: Int64 = APILimits.requestSecondsMax * 1000,
    idleMillisecondsMax: Int64 = APILimits.idleSecondsMax * 1000,
    writeMillisecondsMax: Int64 = APILimits.writeSecondsMax * 1000,
    onListening: @escaping @Sendable (APIEndpoint) async -> Void = { _ in }
) -> Application<RouterResponder<APIContext>> {
    let address: BindAddress =
        switch endpoint {
        case .tcp(let host, let port): .hostname(host, port: port)
        case .unix(let path): .unixDomainSocket(path: path)
        }
    return Application(
        router: router,
        server: .http1(
            configuration: HTTP1Channel.Configuration(
                additionalChannelHandlers: [
                    RequestDeadlineHandler(
                        request: .milliseconds(requestMillisecondsMax),
                        idle: .milliseconds(idleMillisecondsMax),
                        progress: .milliseconds(writeMillisecondsMax)
                    )
                ],
                idleTimeout: .milliseconds(idleMillisecondsMax),
                httpDecoderConfiguration: HTTP1Channel.Configuration.DecoderConfiguration(
                    maxHeaderFieldSize: APILimits.headerFieldByteCountMax,
                    maxHeaderListSize: APILimits.headerListByteCountMax,
                    maxHeaderFieldCount: APILimits.headerFieldCountMax
                )
            )
        ),
        configuration: ApplicationConfiguration(
            address: address,
            serverName: "cairn",
            availableConnectionsDelegate: MaximumAvailableConnections(
                APILimits.connectionCountMax
            )
        ),
        onServerRunning: { channel in
            switch endpoint {
            case .tcp(let host, let port):
                let boundPort = channel.localAddress?.port ?? port
                await onListening(.tcp(host: host, port: boundPort))
            case .unix(let path):
                try? FileManager.default.setAttributes(
                    [.posixPermissions: 0o600],
                    ofItemAtPath: path
                )
                await onListening(endpoint)
            }
        },
        logger: logger
    )
}

/// Checks before a server starts that it can listen at `endpoint`, and says what to do if not.
///
/// - Throws: ``ControlError/Code/unavailable`` when another process has the port or socket, or
///   this one may not use it; ``ControlError/Code/invalidArgument`` for an address that is not
///   this machine's.
public func requireFree(_ endpoint: APIEndpoint) async throws(ControlError) {
    if case .unix(let path) = endpoint { try await removeStaleSocket(path) }
    do {
        let bootstrap = ServerBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .serverChannelOption(.socketOption(.so_reuseaddr), value: 1)
        let channel =
            switch endpoint {
            case .tcp(let host, let port):
                try await bootstrap.bind(host: host, port: port).get()
            case .unix(let path):
                try await bootstrap.bind(unixDomainSocketPath: path).get()
            }
        try await channel.close()
        if case .unix(let path) = endpoint { try? FileManager.default.removeItem(atPath: path) }
    } catch let error as IOError {
        throw describe(error, endpoint)
    } catch {
        throw ControlError(.invalidArgument, "It cannot listen at \(endpoint): \(error).")
    }
}

private func describe(_ error: IOError, _ endpoint: APIEndpoint) -> ControlError {
    switch error.errnoCode {
    case EADDRINUSE:
        ControlError(
            .unavailable,
            "Another process listens at \(endpoint).",
            help: "Choose another address, or find the process with 'ss -ltnxp'."
        )
    case EACCES, EPERM:
        ControlError(
            .unavailable,
            "This user may not listen at \(endpoint).",
            help: "Ports below 1024 need root; a socket's directory must be writable."
        )
    case EADDRNOTAVAIL:
        ControlError(
            .invalidArgument,
            "\(endpoint) is not an address of this machine.",
            help: "Listen on 127.0.0.1, or on an address that 'ip address' shows."
        )
    case ENOENT:
        ControlError(
            .invalidArgument,
            "The directory of \(endpoint) does not exist.",
            help: "Make it first with 'mkdir -p'."
        )
    default:
        ControlError(.unavailable, "It cannot listen at \(endpoint): \(error).")
    }
}

/// Removes a socket file that nobody listens on any more.
private func removeStaleSocket(_ path: String) async throws(ControlError) {
    let attributes = try? FileManager.default.attributesOfItem(atPath: path)
    guard let type = attributes?[.type] as? FileAttributeType else { return }
    guard type == .typeSocket else {
        throw ControlError(
            .invalidArgument,
            "\(path) exists and is not a socket.",
            help: "Choose another path, or move the file away."
        )
    }
    do {
        let channel = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .connectTimeout(.milliseconds(APILimits.connectMillisecondsMax))
            .connect(unixDomainSocketPath: path).get()
        try? await channel.close()
    } catch let error as IOError where error.errnoCode == ECONNREFUSED {
        // Its owner is gone. Anything else, such as a full queue, is no sign of that.
        try? FileManager.default.removeItem(atPath: path)
    } catch {
        // Whoever has it has it still, as listening there will tell.
    }
}
