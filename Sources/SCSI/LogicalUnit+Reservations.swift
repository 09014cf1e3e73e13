// PERSISTENT RESERVE IN and OUT, and their ancestors RESERVE and RELEASE.

internal import BlockCore

/// What goes with ``LogicalUnit/pendingReservations``.
struct PendingChange {
    let effects: ReservationEffects
    /// Whether the removed nexuses' commands are aborted.
    let aborts: Bool
}

/// The service actions of PERSISTENT RESERVE OUT.
///
/// Spec: SPC-4, table 210.
private enum ReserveAction: UInt8 {
    case register = 0x00
    case reserve = 0x01
    case release = 0x02
    case clear = 0x03
    case preempt = 0x04
    case preemptAndAbort = 0x05
    case registerAndIgnore = 0x06
    case registerAndMove = 0x07

    var isRegistering: Bool { self == .register || self == .registerAndIgnore }
    /// Whether scope and type of the command block mean something.
    var hasType: Bool {
        switch self {
        case .reserve, .preempt, .preemptAndAbort, .release: true
        default: false
        }
    }
}

extension LogicalUnit {
    /// Bytes of the basic parameter list.
    ///
    /// Spec: SPC-4, table 212.
    private static var reserveListByteCount: Int { 24 }

    // MARK: - RESERVE and RELEASE

    /// RESERVE.
    ///
    /// Spec: SPC-2, 7.21; SPC-4, 5.13.3, "compatible reservation handling".
    func planReserve(_ command: SCSICommand) -> SCSIPlan {
        if !reservations.registrations.isEmpty { return compatible(command) }
        legacyHolder = command.nexus
        return .reply(.good)
    }

    /// RELEASE; of no effect for others than the holder.
    func planRelease(_ command: SCSICommand) -> SCSIPlan {
        if !reservations.registrations.isEmpty { return compatible(command) }
        if legacyHolder == command.nexus { legacyHolder = nil }
        return .reply(.good)
    }

    private func compatible(_ command: SCSICommand) -> SCSIPlan {
        let isRegistered = identity(of: command).flatMap(reservations.index) != nil
        return .reply(SCSIReply(isRegistered ? .good : .reservationConflict))
    }

    private func identity(of command: SCSICommand) -> NexusIdentity? {
        identities[Int(command.nexus.rawValue)]
    }

    // MARK: - PERSISTENT RESERVE IN

    func planPersistentIn(_ command: SCSICommand, _ dataIn: ByteRegion) -> SCSIPlan {
        var data = DataWriter(dataIn)
        switch command.block[1] & 0x1F {
        case 0x00:
            data.append(reservations.generation)
            data.append(UInt32(8 * reservations.registrations.count))
            for registration in reservations.registrations { data.append(registration.key) }
        case 0x01: writeReservation(&data)
        case 0x02:
            data.append(UInt16(8))
            // CRH, SIP_C, ATP_C, PTPL_C; TMV and PTPL_A; all types.
            data.append(UInt8(0x1D))
            data.append(UInt8(reservations.persistsThroughPowerLoss ? 0x81 : 0x80))
            data.append(UInt16(0xEA01))
            data.skip(2)
        default: writeFullStatus(&data)
        }
        return answer(data, allocation: Int(command.block.field16(7)))
    }

    private func writeReservation(_ data: inout DataWriter) {
        data.append(reservations.generation)
        guard let type = reservations.type else {
            data.append(UInt32(0))
            return
        }
        data.append(UInt32(16))
        let holder = reservations.holder.flatMap(reservations.index)
        data.append(holder.map { reservations.registrations[$0].key } ?? 0)
        data.skip(5)
        data.append(type.rawValue)
        data.skip(2)
    }

    /// Spec: SPC-4, table 205.
    private func writeFullStatus(_ data: inout DataWriter) {
        data.append(reservations.generation)
        data.append(UInt32(0))
        for registration in reservations.registrations {
            let isHolder = reservations.isHolder(registration.identity)
            let transport = TransportID.encode(registration.identity.initiator)
            data.append(registration.key)
            data.skip(4)
            data.append(UInt8(isHolder ? 1 : 0))
            data.append(isHolder ? reservations.type?.rawValue ?? 0 : 0)
            data.skip(4)
            data.append(registration.identity.targetPort)
            data.append(UInt32(transport.count))
            data.append(transport)
        }
        data.patch(UInt32(data.count - 8), at: 4)
    }

    // MARK: - PERSISTENT RESERVE OUT

    func planPersistentOut(_ command: SCSICommand) -> SCSIPlan {
        guard let action = ReserveAction(rawValue: command.block[1] & 0x1F) else {
            return .fail(.invalidField(command: 1, bit: 4))
        }
        if action.hasType {
            guard command.block[2] >> 4 == 0 else {
                return .fail(.invalidField(command: 2, bit: 7))
            }
            guard action == .release || ReservationType(rawValue: command.block[2]) != nil else {
                return .fail(.invalidField(command: 2, bit: 3))
            }
        }
        let byteCount = Int(command.block.field32(5))
        guard byteCount >= Self.reserveListByteCount else {
            return .fail(.illegalRequest, .parameterListLength)
        }
        return collect(command, byteCount: byteCount)
    }

    func finishPersistentOut(_ command: SCSICommand, _ parameters: ByteRegion) -> SCSIPlan {
        guard pendingReservations == nil else { return .reply(SCSIReply(.busy)) }
        guard let identity = identity(of: command),
            let action = ReserveAction(rawValue: command.block[1] & 0x1F)
        else { return .fail(.hardwareError, .internalFailure) }
        var state = reservations
        let effects: ReservationEffects
        do {
            effects = try change(&state, action, identity, command, parameters)
        } catch {
            switch error {
            case .conflict: return .reply(SCSIReply(.reservationConflict))
            case .sense(let sense): return .fail(sense)
            }
        }
        let dataOut = UInt32(parameters.byteCount)
        guard state != reservations else {
            return SCSIPlan(.reply(.good), dataOutByteCount: dataOut)
        }
        pendingReservations = state
        pendingChange = PendingChange(effects: effects, aborts: action == .preemptAndAbort)
        return SCSIPlan(.storeReservations, dataOutByteCount: dataOut)
    }

    private func change(
        _ state: inout ReservationState,
        _ action: ReserveAction,
        _ identity: NexusIdentity,
        _ command: SCSICommand,
        _ parameters: ByteRegion
    ) throws(ReservationRefusal) -> ReservationEffects {
        let key = parameters.loadBigEndian(0, as: UInt64.self)
        let newKey = parameters.loadBigEndian(8, as: UInt64.self)
        // Checked when the command came: only RELEASE may name none.
        let type = ReservationType(rawValue: command.block[2])
        let flags = parameters.load(20, as: UInt8.self)
        if action == .registerAndMove {
            return try move(&state, identity, key, newKey, parameters)
        }
        let namesPorts = flags & 0x08 != 0
        if namesPorts, action != .register { throw .sense(.invalidField(parameters: 20, bit: 3)) }
        if !namesPorts, parameters.byteCount != Self.reserveListByteCount {
            throw .sense(SCSISense(.illegalRequest, .parameterListLength))
        }
        if action.isRegistering {
            return try state.register(
                identity,
                key: action == .register ? key : nil,
                newKey: newKey,
                others: try others(state, identity, flags, parameters),
                persists: flags & 0x01 != 0
            )
        }
        switch (action, type) {
        case (.release, _): return try state.release(identity, key: key, type: type)
        case (.clear, _): return try state.clear(identity, key: key)
        case (.reserve, let type?):
            try state.reserve(identity, key: key, type: type)
            return ReservationEffects()
        case (_, let type?):
            return try state.preempt(identity, key: key, victim: newKey, type: type)
        default: throw .sense(.invalidField(command: 2, bit: 3))
        }
    }

    /// Who else a REGISTER is for: listed initiator ports, all target ports.
    private func others(
        _ state: ReservationState,
        _ identity: NexusIdentity,
        _ flags: UInt8,
        _ parameters: ByteRegion
    ) throws(ReservationRefusal) -> [NexusIdentity] {
        var initiators = [identity.initiator]
        if flags & 0x08 != 0 {
            guard state.index(of: identity) == nil else {
                throw .sense(.invalidField(parameters: 20, bit: 3))
            }
            initiators += try listedPorts(parameters)
        }
        var ports = [identity.targetPort]
        if flags & 0x04 != 0 { ports += description.portGroups.map(\.targetPort) }
        var result: [NexusIdentity] = []
        for initiator in initiators {
            for port in ports {
                let each = NexusIdentity(initiator: initiator, targetPort: port)
                if each != identity, !result.contains(each) { result.append(each) }
            }
        }
        return result
    }

    private func listedPorts(
        _ parameters: ByteRegion
    ) throws(ReservationRefusal) -> [InitiatorPort] {
        let listOffset = Self.reserveListByteCount + 4
        guard parameters.byteCount >= listOffset,
            UInt64(parameters.loadBigEndian(24, as: UInt32.self))
                == UInt64(parameters.byteCount - listOffset)
        else { throw .sense(SCSISense(.illegalRequest, .parameterListLength)) }
        var rest = parameters.array()[listOffset...]
        var result: [InitiatorPort] = []
        while !rest.isEmpty {
            guard let (port, byteCount) = TransportID.decode(rest) else {
                throw .sense(.invalidField(parameters: rest.startIndex))
            }
            result.append(port)
            rest = rest.dropFirst(byteCount)
        }
        return result
    }

    private func move(
        _ state: inout ReservationState,
        _ identity: NexusIdentity,
        _ key: UInt64,
        _ newKey: UInt64,
        _ parameters: ByteRegion
    ) throws(ReservationRefusal) -> ReservationEffects {
        let flags = parameters.load(17, as: UInt8.self)
        let listed = UInt64(parameters.loadBigEndian(20, as: UInt32.self))
        guard listed == UInt64(parameters.byteCount - Self.reserveListByteCount) else {
            throw .sense(SCSISense(.illegalRequest, .parameterListLength))
        }
        let list = parameters.array()[Self.reserveListByteCount...]
        guard let (port, byteCount) = TransportID.decode(list), byteCount == list.count else {
            throw .sense(.invalidField(parameters: Self.reserveListByteCount))
        }
        let targetPort = parameters.loadBigEndian(18, as: UInt16.self)
        guard description.portGroups.contains(where: { $0.targetPort == targetPort }) else {
            throw .sense(.invalidField(parameters: 18))
        }
        return try state.move(
            identity,
            key: key,
            to: NexusIdentity(initiator: port, targetPort: targetPort),
            newKey: newKey,
            unregisters: flags & 0x02 != 0,
            persists: flags & 0x01 != 0
        )
    }
}

extension LogicalUnit {
    /// Goes on after ``SCSIPlan/Step/storeReservations``: from here on the new ones are in force.
    ///
    /// Durable: ``StoreOutcome/stored`` says that ``pendingReservations`` are kept where the next
    /// node to serve the volume finds them.
    ///
    /// - Precondition: there are pending reservations.
    public func reservationsStored(_ outcome: StoreOutcome) -> ReservationOutcome {
        guard let state = pendingReservations, let change = pendingChange else {
            preconditionFailure("no reservations wait to be stored")
        }
        pendingReservations = nil
        pendingChange = nil
        guard outcome == .stored else {
            return ReservationOutcome(reply: SCSIReply(.busy), aborted: NexusSet())
        }
        reservations = state
        refreshAccess()
        for (identity, attention) in change.effects.told {
            for index in indices(of: identity) { nexuses[index].attentions.insert(attention) }
        }
        var aborted = NexusSet()
        if change.aborts {
            for identity in change.effects.removed {
                for index in indices(of: identity) { aborted.insert(NexusIndex(UInt8(index))) }
            }
        }
        return ReservationOutcome(reply: .good, aborted: aborted)
    }

    private func indices(of identity: NexusIdentity) -> [Int] {
        identities.indices.filter { identities[$0] == identity }
    }
}
