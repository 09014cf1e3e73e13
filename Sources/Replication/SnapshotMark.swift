// Snapshots of a placement group: where in its stream each was taken.

/// A snapshot, and the number it has in the stream.
@frozen
public struct SnapshotMark: Hashable, Sendable, BitwiseCopyable {
    /// Which snapshot: the metadata service gives ids out; never 0.
    public var id: UInt64
    /// Its number: what has a greater one is not in it.
    public var number: WriteNumber

    /// Snapshots that a primary takes of one volume.
    public static var countMax: Int { 512 }
    /// Snapshots of one replica, with those that were deleted while it was away.
    ///
    /// It says all of them when it is sealed, in one frame.
    public static var heldCountMax: Int { 960 }

    /// Creates a mark.
    @inlinable
    public init(id: UInt64, number: WriteNumber) {
        self.id = id
        self.number = number
    }

    /// Whether it can exist.
    public var isValid: Bool { id != 0 && number.isValid && number.counter > 0 }

    /// Whether marks that came over a wire can be those of one replica: not too many, in the order of
    /// their numbers.
    public static func areValid(_ marks: [SnapshotMark]) -> Bool {
        marks.count <= heldCountMax && marks.allSatisfy(\.isValid)
            && zip(marks, marks.dropFirst()).allSatisfy { $0.number < $1.number }
    }
}

extension SnapshotMark {
    private static let idDigitCount = 16
    private static let numberDigitCount = 14

    /// The name of the snapshot in a replica's store: id and number in hexadecimal digits.
    public var name: String {
        Self.hex(id, Self.idDigitCount) + "-" + Self.hex(number.rawValue, Self.numberDigitCount)
    }

    /// Reads a name; nil when it is not one of a replica's snapshot.
    public init?(name: String) {
        let parts = name.split(separator: "-", omittingEmptySubsequences: false)
        guard parts.count == 2, parts[0].utf8.count == Self.idDigitCount,
            parts[1].utf8.count == Self.numberDigitCount,
            let id = UInt64(parts[0], radix: 16), let number = UInt64(parts[1], radix: 16)
        else { return nil }
        self.init(id: id, number: WriteNumber(rawValue: number))
        guard isValid, self.name == name else { return nil }
    }

    private static func hex(_ value: UInt64, _ digitCount: Int) -> String {
        let digits = String(value, radix: 16)
        return String(repeating: "0", count: max(digitCount - digits.utf8.count, 0)) + digits
    }
}

/// What of a replica is looked at.
@frozen
public enum ReplicaView: Hashable, Sendable, BitwiseCopyable {
    /// The volume, as it is now.
    case volume
    /// What it was when the snapshot with this id was taken.
    case snapshot(UInt64)
}
