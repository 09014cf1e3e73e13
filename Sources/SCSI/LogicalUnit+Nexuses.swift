// Nexuses that come and go, resets, and what their initiators have to be told.

internal import BlockCore

/// What the unit knows of a nexus, at hand for every command.
struct NexusState: BitwiseCopyable, Sendable {
    var attentions = UnitAttentionSet()
    var isAttached = false
    /// What its path is good for.
    var access = AccessState.activeOptimized
    /// Whether the reservation in force lets it read.
    var mayRead = true
    /// Whether the reservation in force lets it write.
    var mayWrite = true
    /// Whether it wants the medium to stay in.
    var preventsRemoval = false
}

extension LogicalUnit {
    /// A nexus is there: its initiator logged in.
    ///
    /// It finds the registration that it made earlier, here or on another node. Its first command
    /// is told POWER ON, RESET, OR BUS DEVICE RESET OCCURRED.
    ///
    /// - Precondition: `nexus` is below ``nexusCountMax`` and is not attached.
    public func attach(_ nexus: NexusIndex, _ identity: NexusIdentity) {
        let index = Int(nexus.rawValue)
        precondition(index < Self.nexusCountMax, "more nexuses than a unit has room for")
        precondition(!nexuses[index].isAttached, "the nexus is attached already")
        nexuses[index] = NexusState()
        nexuses[index].isAttached = true
        nexuses[index].attentions.insert(.powerOnOrReset)
        identities[index] = identity
        refreshAccess()
    }

    /// A nexus is gone: its initiator logged out, or its session was lost.
    ///
    /// What it held of RESERVE and PREVENT ALLOW MEDIUM REMOVAL goes with it; its registration for
    /// persistent reservations stays. Spec: SAM-5, 6.3.4.
    public func detach(_ nexus: NexusIndex) {
        let index = Int(nexus.rawValue)
        precondition(nexuses[index].isAttached, "the nexus is not attached")
        nexuses[index] = NexusState()
        identities[index] = nil
        copies.forget(nexus)
        if legacyHolder == nexus { legacyHolder = nil }
    }

    /// The unit is reset: the caller has aborted all its commands.
    ///
    /// RESERVE's reservations, prevented removals, mode parameters and copies are gone; persistent
    /// reservations stay. Every nexus is told, except `cause`.
    ///
    /// - Parameters:
    ///   - reason: Which of the resets it is.
    ///   - cause: The nexus that asked for it, which knows; nil to tell all.
    public func reset(_ reason: ResetReason, cause: NexusIndex? = nil) {
        legacyHolder = nil
        modes = ModeParameters()
        copies = CopyRecords()
        isMediumPresent = true
        for index in 0..<Self.nexusCountMax { nexuses[index].preventsRemoval = false }
        let attention: UnitAttention =
            switch reason {
            case .logicalUnit: .deviceReset
            case .targetWarm: .busReset
            case .targetCold: .powerOn
            case .failover: .powerOnOrReset
            }
        raise(attention, except: cause)
    }

    /// Tells every attached nexus but one, with its next command.
    public func raise(_ attention: UnitAttention, except nexus: NexusIndex? = nil) {
        for index in 0..<Self.nexusCountMax
        where nexuses[index].isAttached && nexus.map({ Int($0.rawValue) }) != index {
            nexuses[index].attentions.insert(attention)
        }
    }

    /// Tells one nexus, with its next command.
    public func raise(_ attention: UnitAttention, for nexus: NexusIndex) {
        guard nexuses[Int(nexus.rawValue)].isAttached else { return }
        nexuses[Int(nexus.rawValue)].attentions.insert(attention)
    }

    /// The volume is another one in some respect: resized, read-only, its paths changed.
    ///
    /// Initiators are told what they have to ask for again.
    ///
    /// - Precondition: identity and block size are the same.
    public func update(_ changed: LogicalUnitDescription) {
        let old = description
        precondition(changed.identity == old.identity, "a volume keeps its identity")
        precondition(changed.blockByteCount == old.blockByteCount, "a volume keeps its blocks")
        description = changed
        geometry = Geometry(changed)
        commands = CommandTable(changed)
        refreshAccess()
        if changed.byteCount != old.byteCount { raise(.capacityChanged) }
        if changed.portGroups != old.portGroups { raise(.accessStateChanged) }
        if changed.caching != old.caching || changed.isReadOnly != old.isReadOnly {
            raise(.modeParametersChanged)
        }
        var rest = changed
        rest.byteCount = old.byteCount
        rest.portGroups = old.portGroups
        rest.caching = old.caching
        rest.isReadOnly = old.isReadOnly
        rest.handle = old.handle
        if rest != old { raise(.inquiryDataChanged) }
    }

    /// Computes again what every nexus may do: under the reservation in force, and by its path.
    func refreshAccess() {
        for index in 0..<Self.nexusCountMax {
            guard let identity = identities[index] else { continue }
            let access = reservations.access(of: identity)
            nexuses[index].mayRead = access.mayRead
            nexuses[index].mayWrite = access.mayWrite
            nexuses[index].access =
                description.portGroups.first { $0.targetPort == identity.targetPort }?.state
                ?? .activeOptimized
        }
    }
}

extension ReservationState {
    /// What a nexus may do.
    ///
    /// Spec: SPC-4, 5.13.1, table 65.
    func access(of identity: NexusIdentity) -> (mayRead: Bool, mayWrite: Bool) {
        guard let type, !isHolder(identity) else { return (true, true) }
        if type.isForRegistrants, index(of: identity) != nil { return (true, true) }
        return (!type.excludesReads, false)
    }
}
