/// Why stored reservations cannot be restored.
@frozen
public enum ReservationCodingError: Error, Sendable, Hashable, BitwiseCopyable {
    /// A later version wrote them: this program is too old.
    case unknownVersion(UInt8)
    /// They end early, or are longer than they say.
    case wrongLength
    /// They break an invariant: not written by us, or damaged.
    case invalid
}

extension ReservationState {
    /// The first version: see ``encoded()``.
    private static var version: UInt8 { 1 }
    private static var noHolder: UInt8 { 0xFF }
    private static var headerByteCount: Int { 10 }
    private static var registrationByteCount: Int { 19 }

    /// The state as bytes, for whoever stores it.
    ///
    /// Layout, big-endian: version 1, power-loss flag, type or 0, index of the holder or 255,
    /// generation (4), number of registrations (2); for each: key (8), target port (2), ISID (8),
    /// byte count of the name (1), name.
    public func encoded() -> [UInt8] {
        var bytes: [UInt8] = [
            Self.version, persistsThroughPowerLoss ? 1 : 0, type?.rawValue ?? 0,
            holder.flatMap(index).map { UInt8($0) } ?? Self.noHolder,
        ]
        Self.append(UInt64(generation), 4, to: &bytes)
        Self.append(UInt64(registrations.count), 2, to: &bytes)
        for registration in registrations {
            Self.append(registration.key, 8, to: &bytes)
            Self.append(UInt64(registration.identity.targetPort), 2, to: &bytes)
            Self.append(registration.identity.initiator.isid, 8, to: &bytes)
            let name = Array(registration.identity.initiator.name.utf8)
            bytes.append(UInt8(name.count))
            bytes += name
        }
        return bytes
    }

    /// Restores what ``encoded()`` gave.
    ///
    /// - Throws: ``ReservationCodingError``.
    public init(decoding bytes: [UInt8]) throws(ReservationCodingError) {
        self.init()
        guard let version = bytes.first else { throw .wrongLength }
        guard version == Self.version else { throw .unknownVersion(version) }
        guard bytes.count >= Self.headerByteCount else { throw .wrongLength }
        persistsThroughPowerLoss = bytes[1] & 1 != 0
        generation = UInt32(Self.number(bytes[4..<8]))
        var rest = bytes[Self.headerByteCount...]
        for _ in 0..<Self.number(bytes[8..<10]) {
            registrations.append(try Self.registration(&rest))
        }
        guard rest.isEmpty else { throw .wrongLength }
        try setReservation(bytes[2], bytes[3])
        guard isValid else { throw .invalid }
    }

    private mutating func setReservation(
        _ code: UInt8,
        _ holderIndex: UInt8
    ) throws(ReservationCodingError) {
        guard code != 0 else {
            guard holderIndex == Self.noHolder else { throw .invalid }
            return
        }
        guard let type = ReservationType(rawValue: code) else { throw .invalid }
        self.type = type
        guard !type.isHeldByAll else { return }
        guard Int(holderIndex) < registrations.count else { throw .invalid }
        holder = registrations[Int(holderIndex)].identity
    }

    private static func registration(
        _ rest: inout ArraySlice<UInt8>
    ) throws(ReservationCodingError) -> Registration {
        guard rest.count >= registrationByteCount else { throw .wrongLength }
        let start = rest.startIndex
        let nameCount = Int(rest[start + 18])
        guard rest.count >= registrationByteCount + nameCount else { throw .wrongLength }
        let name = rest[(start + registrationByteCount)...].prefix(nameCount)
        guard nameCount <= InitiatorPort.nameByteCountMax, name.allSatisfy({ $0 < 0x80 }) else {
            throw .invalid
        }
        let port = InitiatorPort(
            name: String(decoding: name, as: UTF8.self),
            isid: number(rest[(start + 10)..<(start + 18)])
        )
        let registration = Registration(
            identity: NexusIdentity(
                initiator: port,
                targetPort: UInt16(number(rest[(start + 8)..<(start + 10)]))
            ),
            key: number(rest[start..<(start + 8)])
        )
        rest = rest.dropFirst(registrationByteCount + nameCount)
        return registration
    }

    private static func append(_ value: UInt64, _ byteCount: Int, to bytes: inout [UInt8]) {
        for index in 0..<byteCount {
            bytes.append(UInt8(truncatingIfNeeded: value >> UInt64(8 * (byteCount - 1 - index))))
        }
    }

    private static func number(_ bytes: ArraySlice<UInt8>) -> UInt64 {
        bytes.reduce(0) { $0 << 8 | UInt64($1) }
    }

    /// Whether the invariants hold.
    public var isValid: Bool {
        guard registrations.count <= Self.registrationCountMax,
            Set(registrations.map(\.identity)).count == registrations.count,
            registrations.allSatisfy({ $0.key != 0 })
        else { return false }
        guard let type else { return holder == nil }
        if type.isHeldByAll { return holder == nil && !registrations.isEmpty }
        return holder.flatMap(index) != nil
    }
}
