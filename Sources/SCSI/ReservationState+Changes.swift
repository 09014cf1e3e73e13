// What the service actions of PERSISTENT RESERVE OUT do to reservations: values in, values out.
//
// Spec: SPC-4, sections 5.13.6 to 5.13.11.

/// Why a service action is refused.
enum ReservationRefusal: Error, Hashable {
    /// The status RESERVATION CONFLICT.
    case conflict
    /// CHECK CONDITION.
    case sense(SCSISense)
}

/// What a service action does beside changing the state.
struct ReservationEffects {
    /// Who has to be told what.
    var told: [(identity: NexusIdentity, attention: UnitAttention)] = []
    /// Whose registrations were removed by another.
    var removed: [NexusIdentity] = []
}

extension ReservationState {
    private func key(of identity: NexusIdentity) -> UInt64? {
        index(of: identity).map { registrations[$0].key }
    }

    /// Throws unless `identity` is registered under `key`.
    private func check(_ identity: NexusIdentity, _ key: UInt64) throws(ReservationRefusal) {
        guard self.key(of: identity) == key else { throw .conflict }
    }

    // MARK: - Registering

    /// REGISTER, and REGISTER AND IGNORE EXISTING KEY with a `key` of nil.
    ///
    /// - Parameters:
    ///   - identity: Who asks.
    ///   - key: The key that it says it has.
    ///   - newKey: The key that it wants; 0 to be registered no more.
    ///   - others: Further nexuses to register (SPEC_I_PT, ALL_TG_PT).
    ///   - persists: APTPL.
    /// - Returns: Who has to be told.
    /// - Throws: ``ReservationRefusal``; the state is then of no use.
    mutating func register(
        _ identity: NexusIdentity,
        key: UInt64?,
        newKey: UInt64,
        others: [NexusIdentity],
        persists: Bool
    ) throws(ReservationRefusal) -> ReservationEffects {
        var effects = ReservationEffects()
        if let key, self.key(of: identity) ?? 0 != key { throw .conflict }
        if newKey == 0 {
            guard index(of: identity) != nil else { return effects }
            unregister(identity, &effects)
        } else {
            for each in [identity] + others { try put(each, newKey) }
        }
        persistsThroughPowerLoss = persists
        generation &+= 1
        return effects
    }

    private mutating func put(
        _ identity: NexusIdentity,
        _ key: UInt64
    ) throws(ReservationRefusal) {
        if let index = index(of: identity) {
            registrations[index].key = key
        } else {
            guard registrations.count < Self.registrationCountMax else {
                throw .sense(SCSISense(.illegalRequest, .insufficientRegistrations))
            }
            registrations.append(Registration(identity: identity, key: key))
        }
    }

    /// The holder's going releases the reservation; where all hold it, the last one's.
    private mutating func unregister(
        _ identity: NexusIdentity,
        _ effects: inout ReservationEffects
    ) {
        let wasHolder = isHolder(identity)
        registrations.removeAll { $0.identity == identity }
        guard wasHolder, let type else { return }
        if type.isHeldByAll, !registrations.isEmpty { return }
        if type.isForRegistrants { tellOthers(than: identity, .reservationsReleased, &effects) }
        release()
    }

    private mutating func release() {
        type = nil
        holder = nil
    }

    private func tellOthers(
        than identity: NexusIdentity,
        _ attention: UnitAttention,
        _ effects: inout ReservationEffects
    ) {
        for registration in registrations where registration.identity != identity {
            effects.told.append((registration.identity, attention))
        }
    }

    // MARK: - Reserving

    /// RESERVE.
    mutating func reserve(
        _ identity: NexusIdentity,
        key: UInt64,
        type wanted: ReservationType
    ) throws(ReservationRefusal) {
        try check(identity, key)
        if let type {
            guard isHolder(identity), type == wanted else { throw .conflict }
            return
        }
        take(identity, wanted)
    }

    private mutating func take(_ identity: NexusIdentity, _ wanted: ReservationType) {
        type = wanted
        holder = wanted.isHeldByAll ? nil : identity
    }

    /// RELEASE.
    mutating func release(
        _ identity: NexusIdentity,
        key: UInt64,
        type said: ReservationType?
    ) throws(ReservationRefusal) -> ReservationEffects {
        var effects = ReservationEffects()
        try check(identity, key)
        guard let type, isHolder(identity) else { return effects }
        guard type == said else { throw .sense(SCSISense(.illegalRequest, .invalidRelease)) }
        release()
        if type.isForRegistrants { tellOthers(than: identity, .reservationsReleased, &effects) }
        return effects
    }

    /// CLEAR.
    mutating func clear(
        _ identity: NexusIdentity,
        key: UInt64
    ) throws(ReservationRefusal) -> ReservationEffects {
        var effects = ReservationEffects()
        try check(identity, key)
        tellOthers(than: identity, .reservationsPreempted, &effects)
        release()
        registrations = []
        generation &+= 1
        return effects
    }

    // MARK: - Preempting

    /// PREEMPT, and PREEMPT AND ABORT.
    mutating func preempt(
        _ identity: NexusIdentity,
        key: UInt64,
        victim: UInt64,
        type wanted: ReservationType
    ) throws(ReservationRefusal) -> ReservationEffects {
        try check(identity, key)
        let old = type
        let isTaken: Bool =
            if let old, old.isHeldByAll { victim == 0 } else { holder.flatMap(self.key) == victim }
        guard isTaken else { return try removeOnly(identity, victim: victim) }
        var effects = ReservationEffects()
        remove(&effects, by: identity) { registration in
            registration.identity != identity && (victim == 0 || registration.key == victim)
        }
        take(identity, wanted)
        if old != wanted { tellOthers(than: identity, .reservationsReleased, &effects) }
        generation &+= 1
        return effects
    }

    /// Removes registrations and leaves the reservation alone.
    ///
    /// Spec: SPC-4, 5.13.11.4.3.
    private mutating func removeOnly(
        _ identity: NexusIdentity,
        victim: UInt64
    ) throws(ReservationRefusal) -> ReservationEffects {
        guard victim != 0 else { throw .sense(.invalidField(parameters: 8)) }
        guard registrations.contains(where: { $0.key == victim }) else { throw .conflict }
        var effects = ReservationEffects()
        remove(&effects, by: identity) { $0.key == victim }
        if registrations.isEmpty { release() }
        generation &+= 1
        return effects
    }

    private mutating func remove(
        _ effects: inout ReservationEffects,
        by identity: NexusIdentity,
        where isVictim: (Registration) -> Bool
    ) {
        for registration in registrations where isVictim(registration) {
            guard registration.identity != identity else { continue }
            effects.removed.append(registration.identity)
            effects.told.append((registration.identity, .registrationsPreempted))
        }
        registrations.removeAll(where: isVictim)
    }

    // MARK: - Moving

    /// REGISTER AND MOVE.
    mutating func move(
        _ identity: NexusIdentity,
        key: UInt64,
        to target: NexusIdentity,
        newKey: UInt64,
        unregisters: Bool,
        persists: Bool
    ) throws(ReservationRefusal) -> ReservationEffects {
        try check(identity, key)
        guard let type, !type.isHeldByAll, holder == identity else { throw .conflict }
        guard newKey != 0 else { throw .sense(.invalidField(parameters: 8)) }
        guard target != identity else { throw .sense(.invalidField(parameters: 24)) }
        if unregisters { registrations.removeAll { $0.identity == identity } }
        try put(target, newKey)
        holder = target
        persistsThroughPowerLoss = persists
        generation &+= 1
        return ReservationEffects()
    }
}
