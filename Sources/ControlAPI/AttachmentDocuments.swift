// Attachments and events as the control API shows them.

public import Foundation

/// How a host reaches a volume.
public enum AttachmentProtocol: String, Sendable, Hashable, Codable, CaseIterable {
    /// Network block device.
    case nbd
    /// iSCSI; a later build.
    case iscsi
}

/// Where an attachment is in its life.
public enum AttachmentState: String, Sendable, Hashable, Codable, CaseIterable {
    /// The host may use the volume.
    case attached
    /// It ended.
    case detached
}

/// A volume's binding to a host.
public struct Attachment: Sendable, Hashable, Codable {
    /// The volume's name.
    public var volume: String
    /// The hypervisor host.
    public var host: String
    /// The node that serves it.
    public var node: String
    /// How the host reaches it.
    public var `protocol`: AttachmentProtocol
    /// Whether the host may only read.
    public var readOnly: Bool
    /// The fencing number; hosts that read beside each other have the same one.
    public var epoch: UInt64
    /// Where it is in its life.
    public var state: AttachmentState
    /// Where to connect: `nbd://HOST:PORT/VOLUME:EPOCH`.
    public var nbdURI: String?
    /// Where to connect on the same machine: `nbd+unix:///VOLUME:EPOCH?socket=PATH`.
    public var nbdUnixURI: String?
    /// When it was made.
    public var attachedAt: Date
    /// When it ended.
    public var detachedAt: Date?
    /// Why it ended: `detached`, `taken over by HOST`, `attached again`.
    public var detachReason: String?

    /// The names on the wire, before the snake_case of ``ControlJSON``.
    enum CodingKeys: String, CodingKey {
        case volume
        case host
        case node
        case `protocol`
        case readOnly
        case epoch
        case state
        case nbdURI = "nbdUri"
        case nbdUnixURI = "nbdUnixUri"
        case attachedAt
        case detachedAt
        case detachReason
    }

    /// Creates an attachment's document.
    public init(
        volume: String,
        host: String,
        node: String,
        protocol: AttachmentProtocol,
        readOnly: Bool,
        epoch: UInt64,
        state: AttachmentState,
        nbdURI: String? = nil,
        nbdUnixURI: String? = nil,
        attachedAt: Date,
        detachedAt: Date? = nil,
        detachReason: String? = nil
    ) {
        self.volume = volume
        self.host = host
        self.node = node
        self.protocol = `protocol`
        self.readOnly = readOnly
        self.epoch = epoch
        self.state = state
        self.nbdURI = nbdURI
        self.nbdUnixURI = nbdUnixURI
        self.attachedAt = attachedAt
        self.detachedAt = detachedAt
        self.detachReason = detachReason
    }
}

/// A volume's attachments: those that are, then those that were, newest first.
public struct AttachmentList: Sendable, Hashable, Codable {
    /// The attachments; at most 32 ended ones are kept.
    public var attachments: [Attachment]

    /// Creates a list.
    public init(attachments: [Attachment]) { self.attachments = attachments }
}

/// Body of `POST /v1/volumes/{volume}/attachments`.
public struct AttachmentCreation: Sendable, Hashable, Codable {
    /// The hypervisor host that gets the volume.
    public var host: String
    /// The node to serve it; default its primary, which is all that this build does.
    public var via: String?
    /// Attaches for reading only; several hosts may at the same time.
    public var readOnly: Bool?
    /// Takes the volume from whoever has it, with a higher epoch.
    public var force: Bool?
    /// How the host reaches it; default `nbd`.
    public var `protocol`: AttachmentProtocol?
    /// The machine that asks, see ``MachineIdentifier``; when it is the node's own machine, the
    /// answer has a unix-socket URI too.
    public var machineID: String?

    /// The names on the wire, before the snake_case of ``ControlJSON``.
    enum CodingKeys: String, CodingKey {
        case host
        case via
        case readOnly
        case force
        case `protocol`
        case machineID = "machineId"
    }

    /// Creates a body.
    public init(
        host: String,
        via: String? = nil,
        readOnly: Bool? = nil,
        force: Bool? = nil,
        protocol: AttachmentProtocol? = nil,
        machineID: String? = MachineIdentifier.current
    ) {
        self.host = host
        self.via = via
        self.readOnly = readOnly
        self.force = force
        self.protocol = `protocol`
        self.machineID = machineID
    }
}

/// What tells one machine from another, so that unix sockets are offered only where they work.
public enum MachineIdentifier {
    /// The kernel's boot id, the same for all processes of this machine until it restarts.
    public static var current: String? {
        guard
            let text = try? String(
                contentsOfFile: "/proc/sys/kernel/random/boot_id",
                encoding: .utf8
            )
        else { return nil }
        return text.trimmingCharacters(in: .whitespacesAndNewlines)
    }
}

/// Something that happened in the cluster.
public struct ClusterEvent: Sendable, Hashable, Codable {
    /// Its place in the order of all events; pass it as `after` to go on from here.
    public var revision: UInt64
    /// When it happened.
    public var time: Date
    /// What kind it is: `volume.created`, `node.down`, …; see Docs/control-api.md.
    public var kind: String
    /// The volume, node or image it is about.
    public var subject: String
    /// What happened, for people.
    public var message: String

    /// Creates an event.
    public init(revision: UInt64, time: Date, kind: String, subject: String, message: String) {
        self.revision = revision
        self.time = time
        self.kind = kind
        self.subject = subject
        self.message = message
    }
}

/// Some events, oldest first.
public struct EventList: Sendable, Hashable, Codable {
    /// The events.
    public var events: [ClusterEvent]
    /// Pass as `after` for what comes next, also when there were none.
    public var nextAfter: UInt64

    /// Creates a list.
    public init(events: [ClusterEvent], nextAfter: UInt64) {
        self.events = events
        self.nextAfter = nextAfter
    }
}
