// What is being taken away from those who use it, although the store still has it.

package import BlockCore

/// What one command takes away.
package enum Withdrawal: Hashable, Sendable {
    /// A volume and its snapshots.
    case volume(VolumeID)
    /// A volume without its snapshots, or one snapshot.
    case export(VolumeID, LayerID)

    func covers(_ key: ExportKey) -> Bool {
        switch self {
        case .volume(let volume): volume == key.volume
        case .export(let volume, let layer): volume == key.volume && layer == key.layer
        }
    }
}

/// The withdrawals of a store that have not ended.
///
/// Several commands may take the same away, or parts of one another, and end in any order: it
/// comes back when the last of them has ended.
package struct WithdrawalTable {
    private var counts: [Withdrawal: Int] = [:]

    /// Creates a table in which everything is there.
    package init() {}

    /// Lets nobody open any of `exports` until as many calls of ``restore(_:)``.
    package mutating func withdraw(_ exports: Withdrawal) { counts[exports, default: 0] += 1 }

    /// Ends one withdrawal.
    ///
    /// - Precondition: One of the same has begun and not ended.
    package mutating func restore(_ exports: Withdrawal) {
        guard let count = counts[exports] else { preconditionFailure("nothing is withdrawn") }
        counts[exports] = count == 1 ? nil : count - 1
    }

    /// Whether a volume, or its snapshot `layer`, is being taken away.
    package func isWithdrawn(_ volume: VolumeID, layer: LayerID = .none) -> Bool {
        counts[.volume(volume)] != nil || counts[.export(volume, layer)] != nil
    }
}
