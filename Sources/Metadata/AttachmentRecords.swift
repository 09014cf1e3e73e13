// Who has a volume, and who had it.

public import Foundation

/// A volume's binding to a host.
public struct AttachmentRecord: Sendable, Hashable, Codable {
    /// The host.
    public var host: String
    /// `nbd`.
    public var `protocol`: String
    /// Whether the host may only read.
    public var readOnly: Bool
    /// The fencing number.
    public var epoch: UInt64
    /// When it was made.
    public var attachedAt: Date
    /// When it ended.
    public var detachedAt: Date?
    /// Why it ended.
    public var detachReason: String?

    /// Creates a record.
    public init(
        host: String,
        protocol: String,
        readOnly: Bool,
        epoch: UInt64,
        attachedAt: Date
    ) {
        self.host = host
        self.protocol = `protocol`
        self.readOnly = readOnly
        self.epoch = epoch
        self.attachedAt = attachedAt
    }
}

/// All attachments of one volume.
public struct AttachmentsRecord: Sendable, Hashable, Codable {
    /// Those that are: one, or several that only read.
    public var current: [AttachmentRecord]
    /// Those that were, newest first.
    public var history: [AttachmentRecord]

    /// Nobody, ever.
    public init() {
        current = []
        history = []
    }

    /// Ended attachments kept.
    public static var historyCountMax: Int { 32 }

    /// Gives the volume to a host; with `takeover` everyone else loses it.
    public mutating func attach(_ attachment: AttachmentRecord, takeover: Bool, at time: Date) {
        end(at: time, reason: "attached again") { $0.host == attachment.host }
        end(at: time, reason: "taken over by \(attachment.host)") { _ in takeover }
        current.append(attachment)
    }

    /// Takes the volume from a host.
    ///
    /// - Parameters:
    ///   - host: The host.
    ///   - time: Now.
    ///   - epoch: The volume's epoch.
    /// - Returns: The volume's epoch afterwards: a new one once nobody has it, the same while
    ///   others still read it under that.
    public mutating func detach(_ host: String, at time: Date, epoch: UInt64) -> UInt64 {
        end(at: time, reason: "detached") { $0.host == host }
        return current.isEmpty ? epoch + 1 : epoch
    }

    /// The epoch for one more attachment.
    ///
    /// - Parameters:
    ///   - host: Who attaches.
    ///   - takeover: Whether everyone else loses the volume.
    ///   - epoch: The volume's epoch.
    /// - Returns: The same epoch for one who reads beside others, otherwise a new one: under it
    ///   only this host can open the volume.
    public func epochToAttach(_ host: String, takeover: Bool, epoch: UInt64) -> UInt64 {
        let others = current.contains { $0.host != host }
        return others && !takeover ? epoch : epoch + 1
    }

    /// Ends the attachments for which `condition` holds.
    private mutating func end(
        at time: Date,
        reason: String,
        where condition: (AttachmentRecord) -> Bool
    ) {
        var ended = current.filter(condition)
        current.removeAll(where: condition)
        for index in ended.indices {
            ended[index].detachedAt = time
            ended[index].detachReason = reason
        }
        history = Array((ended + history).prefix(Self.historyCountMax))
    }
}
