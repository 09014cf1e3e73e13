// Which writes a replica's past consists of.

public import BlockCore

/// The epochs that led to an epoch, with how far each of them went.
///
/// An epoch has one primary, which chose one source: so an epoch has one lineage, and two lineages
/// that contain the same epoch are the same up to its beginning. Epochs that came to nothing are
/// in no lineage but those of replicas that followed them in vain.
public struct Lineage: Hashable, Sendable {
    /// The last number of each epoch, oldest first; the last one is where the epoch began whose
    /// lineage this is.
    public private(set) var ends: [WriteNumber]

    /// Steps that are kept.
    ///
    /// A replica that was away for more takeovers gets all blocks anew.
    public static var stepCountMax: Int { 64 }

    /// The lineage of epoch 0, in which nothing was written.
    public static var origin: Lineage { Lineage(ends: []) }

    private init(ends: [WriteNumber]) { self.ends = ends }

    /// Creates a lineage that came over a wire; nil when the ends are not ascending by epoch, not
    /// below `epoch`, or too many.
    ///
    /// - Parameters:
    ///   - ends: The last numbers, oldest first.
    ///   - epoch: The epoch whose lineage it is.
    public init?(checking ends: [WriteNumber], of epoch: Epoch) {
        guard ends.count <= Lineage.stepCountMax else { return nil }
        var last: Epoch?
        for end in ends {
            guard end.isValid, end.epoch < epoch else { return nil }
            if let last, end.epoch <= last { return nil }
            last = end.epoch
        }
        self.ends = ends
    }

    /// Where the epoch began whose lineage this is.
    public var base: WriteNumber { ends.last ?? .zero }

    /// The lineage of an epoch that goes on where a replica with this lineage ends.
    ///
    /// - Parameter end: The last number up to which the replica has everything.
    /// - Returns: The lineage, without its oldest step where there would be too many.
    public func continued(from end: WriteNumber) -> Lineage {
        var result = ends.filter { $0.epoch < end.epoch }
        result.append(end)
        if result.count > Lineage.stepCountMax { result.removeFirst() }
        return Lineage(ends: result)
    }

    /// The last number up to which a replica's past is that of another lineage too.
    ///
    /// - Parameters:
    ///   - end: The last number up to which the replica has everything of this lineage.
    ///   - other: The lineage of an epoch that the replica has never followed.
    /// - Returns: A number on both; zero when too many steps lie between to tell.
    public func commonPoint(end: WriteNumber, with other: Lineage) -> WriteNumber {
        let own = continued(from: end).ends
        for theirs in other.ends.reversed() {
            guard let mine = own.last(where: { $0.epoch == theirs.epoch }) else { continue }
            return min(mine, theirs)
        }
        return .zero
    }
}
