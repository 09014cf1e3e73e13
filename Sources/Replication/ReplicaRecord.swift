// What a replica keeps durably about itself.

public import BlockCore

/// The part of a replica's state that it keeps in its log, between its writes.
///
/// The log keeps a prefix: when a record is there after a crash, so is every write before it. So
/// making a record durable makes all durable that the replica had applied.
public struct ReplicaRecord: Sendable, Hashable {
    /// Which replica it is.
    public var instance: ReplicaInstance
    /// The highest epoch it has answered.
    public var promised: Epoch
    /// The epoch whose writes it takes, or took last.
    public var accepted: Epoch
    /// What led to the accepted epoch.
    public var lineage: Lineage
    /// Whether it has everything of its lineage, and nothing that is not: then it has, in all, the
    /// lineage and the accepted epoch's writes up to what it has applied.
    public var isComplete: Bool
    /// When it is not complete: the last number up to which it has everything of the lineage.
    ///
    /// Blocks with greater numbers may be there or not, and may be strays.
    public var common: WriteNumber
    /// When the record was written: the counter up to which it had the stream.
    public var streamed: UInt64
    /// Whether it still has, or knows to be in its lineage, all that it ever acknowledged.
    public var remembers: Bool
    /// Whether it took a lost replica's place and was never complete: it says nothing about what
    /// was acknowledged there.
    public var isBlank: Bool

    /// The record of a replica that is as old as its volume.
    public static func created(_ instance: ReplicaInstance) -> ReplicaRecord {
        ReplicaRecord(
            instance: instance,
            promised: Epoch(0),
            accepted: Epoch(0),
            lineage: .origin,
            isComplete: true,
            common: .zero,
            streamed: 0,
            remembers: true,
            isBlank: false
        )
    }

    /// The record of a replica that takes a lost one's place.
    public static func replacing(_ instance: ReplicaInstance) -> ReplicaRecord {
        var result = created(instance)
        result.isComplete = false
        result.isBlank = true
        return result
    }

    /// The record of a replica that is made of another one's snapshot: complete, up to a number.
    ///
    /// Its past is none: whoever has the same number has the same content. It has promised the next
    /// epoch, because it has acknowledged nothing that it could forget.
    public static func made(_ instance: ReplicaInstance, at number: WriteNumber) -> ReplicaRecord {
        var result = created(instance)
        result.accepted = number.epoch
        result.promised = Epoch(number.epoch.rawValue + 1)
        result.streamed = number.counter
        return result
    }

    /// Whether what was applied and not durable may have counted, and may be gone after a restart.
    ///
    /// An incomplete replica counts nowhere, and one that has promised a higher epoch than it
    /// follows has taken nothing since that promise was durable.
    var mayHaveForgotten: Bool {
        isComplete && promised == accepted && accepted.rawValue > 0
    }
}
