// The one error of the control plane, and how it travels: RFC 9457 problem documents.

import Foundation

/// An error from the metadata service or from a node's API.
///
/// It travels as `application/problem+json`: ``Code`` is for programs, ``detail`` for people and
/// ``help`` names the command that gets them further.
public struct ControlError: Error, Sendable, Hashable {
    /// What a caller can react to.
    ///
    /// A code that this build does not know (from a newer server) is kept as it came.
    public struct Code: RawRepresentable, Sendable, Hashable, Codable {
        /// The spelling on the wire, in snake case.
        public var rawValue: String

        /// Creates a code from its spelling.
        public init(rawValue: String) { self.rawValue = rawValue }
    }

    /// What a program reacts to.
    public var code: Code
    /// What happened, in one line for people; never parsed.
    public var detail: String
    /// The command or step that helps, when one is known.
    public var help: String?
    /// The name of the host that holds the volume, for ``Code/volumeAttached``.
    public var holder: String?

    /// Creates an error.
    public init(_ code: Code, _ detail: String, help: String? = nil, holder: String? = nil) {
        self.code = code
        self.detail = detail
        self.help = help
        self.holder = holder
    }
}

extension ControlError: CustomStringConvertible {
    /// What happened and what helps, as a line of a log says it.
    public var description: String { [detail, help].compactMap(\.self).joined(separator: " ") }
}

extension ControlError {
    /// What helps with a node that takes connections and does not answer: to start a program that
    /// runs does not.
    package static func helpWithSilence(of node: String) -> String {
        "It hangs, or is cut off: see 'volctl node show \(node)'. On a development cluster 'volctl "
            + "dev kill \(node) && volctl dev start \(node)' starts it anew."
    }
}

extension ControlError.Code: CustomStringConvertible {
    /// The spelling on the wire.
    public var description: String { rawValue }
}

extension ControlError.Code {
    /// A parameter or field is outside its limits.
    public static var invalidArgument: Self { Self(rawValue: "invalid_argument") }
    /// The body is not the JSON document that the route takes.
    public static var malformedRequest: Self { Self(rawValue: "malformed_request") }
    /// No route has this path.
    public static var routeNotFound: Self { Self(rawValue: "route_not_found") }
    /// The route does not take this method.
    public static var methodNotAllowed: Self { Self(rawValue: "method_not_allowed") }
    /// The request comes from a web page.
    public static var browserRefused: Self { Self(rawValue: "browser_refused") }
    /// No volume has this name or id.
    public static var volumeNotFound: Self { Self(rawValue: "volume_not_found") }
    /// The volume has no snapshot of this name.
    public static var snapshotNotFound: Self { Self(rawValue: "snapshot_not_found") }
    /// The catalogue has no such image or version.
    public static var imageNotFound: Self { Self(rawValue: "image_not_found") }
    /// No node of this name is registered.
    public static var nodeNotFound: Self { Self(rawValue: "node_not_found") }
    /// The volume is not attached to this host.
    public static var attachmentNotFound: Self { Self(rawValue: "attachment_not_found") }
    /// The name is taken.
    public static var alreadyExists: Self { Self(rawValue: "already_exists") }
    /// Another host has the volume; ``ControlError/holder`` names it.
    public static var volumeAttached: Self { Self(rawValue: "volume_attached") }
    /// Clones, images or attachments need the thing.
    public static var inUse: Self { Self(rawValue: "in_use") }
    /// A replica has not all that is needed of it; another one may.
    public static var notComplete: Self { Self(rawValue: "not_complete") }
    /// The volume has been given away or changed since the request was sent.
    public static var outdated: Self { Self(rawValue: "outdated") }
    /// An earlier change of the volume has not ended.
    public static var busy: Self { Self(rawValue: "busy") }
    /// A limit of the store or of the service is reached.
    public static var limitReached: Self { Self(rawValue: "limit_reached") }
    /// The events asked for are no longer kept; start from the oldest kept one.
    public static var revisionCompacted: Self { Self(rawValue: "revision_compacted") }
    /// The body is larger than ``APILimits/bodyByteCountMax``.
    public static var bodyTooLarge: Self { Self(rawValue: "body_too_large") }
    /// The body is not declared as JSON.
    public static var unsupportedMediaType: Self { Self(rawValue: "unsupported_media_type") }
    /// The idempotency key was used for another request.
    public static var idempotencyKeyReused: Self { Self(rawValue: "idempotency_key_reused") }
    /// This build does not do what was asked.
    public static var unsupported: Self { Self(rawValue: "unsupported") }
    /// No node has room.
    public static var noSpace: Self { Self(rawValue: "no_space") }
    /// The service or node behind it cannot serve now; nothing was changed.
    public static var unavailable: Self { Self(rawValue: "unavailable") }
    /// Another program leads the metadata service; nothing was changed, ask that one.
    public static var standingBy: Self { Self(rawValue: "standing_by") }
    /// The request was sent and its outcome is not known; repeating it under its key is safe.
    public static var outcomeUnknown: Self { Self(rawValue: "outcome_unknown") }
    /// Nothing answers at the endpoint; nothing was sent.
    public static var unreachable: Self { Self(rawValue: "unreachable") }
    /// What answered does not speak this API.
    public static var badResponse: Self { Self(rawValue: "bad_response") }
    /// A bug or a broken database; the service's log says more.
    public static var internalError: Self { Self(rawValue: "internal_error") }

    /// The HTTP status that carries this code.
    public var httpStatus: Int {
        switch self {
        case .invalidArgument, .malformedRequest: 400
        case .browserRefused: 403
        case .routeNotFound, .volumeNotFound, .snapshotNotFound, .imageNotFound, .nodeNotFound,
            .attachmentNotFound:
            404
        case .methodNotAllowed: 405
        case .alreadyExists, .volumeAttached, .inUse, .notComplete, .outdated, .busy,
            .limitReached:
            409
        case .revisionCompacted: 410
        case .bodyTooLarge: 413
        case .unsupportedMediaType: 415
        case .idempotencyKeyReused, .unsupported: 422
        case .unavailable, .unreachable, .standingBy: 503
        case .outcomeUnknown: 504
        case .noSpace: 507
        case .badResponse: 502
        default: 500
        }
    }

    /// All codes that this build sends.
    public static var all: [Self] {
        [
            .invalidArgument, .malformedRequest, .browserRefused, .routeNotFound,
            .methodNotAllowed, .volumeNotFound, .snapshotNotFound, .imageNotFound, .nodeNotFound,
            .attachmentNotFound, .alreadyExists, .volumeAttached, .inUse, .notComplete, .outdated,
            .busy, .limitReached,
            .revisionCompacted, .bodyTooLarge, .unsupportedMediaType, .idempotencyKeyReused,
            .unsupported, .noSpace, .unavailable, .standingBy, .outcomeUnknown, .unreachable,
            .badResponse, .internalError,
        ]
    }
}

/// The body of an error answer.
///
/// Spec: RFC 9457, "Problem Details for HTTP APIs"; `code`, `help` and `holder` are extensions.
public struct ProblemDocument: Sendable, Hashable, Codable {
    /// The media type of the document.
    public static var mediaType: String { "application/problem+json" }

    /// A URI of the kind of problem: `urn:cairn:problem:` and the code.
    public var type: String
    /// The kind of problem in words.
    public var title: String
    /// The HTTP status.
    public var status: Int
    /// What a program reacts to.
    public var code: ControlError.Code
    /// What happened, for people.
    public var detail: String
    /// The command that helps.
    public var help: String?
    /// The host that holds the volume.
    public var holder: String?

    /// Creates the document of an error.
    public init(_ error: ControlError) {
        type = "urn:cairn:problem:\(error.code.rawValue)"
        title = error.code.rawValue.replacingOccurrences(of: "_", with: " ")
        status = error.code.httpStatus
        code = error.code
        detail = error.detail
        help = error.help
        holder = error.holder
    }

    /// The error that the document carries.
    public var error: ControlError {
        ControlError(code, detail, help: help, holder: holder)
    }
}
