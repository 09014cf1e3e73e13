// From a command to its plan: what every command goes through, in this order.

public import BlockCore

extension LogicalUnit {
    /// Judges a command and says what is to be done.
    ///
    /// - Parameters:
    ///   - command: Over an attached nexus; its block may hold any bytes.
    ///   - dataIn: At least ``dataInByteCountMax`` bytes, for answers that the unit itself makes;
    ///     borrowed for the call. Block operations' data is not put there.
    /// - Returns: Exactly one plan, whatever the block holds.
    /// - Complexity: READ, WRITE and SYNCHRONIZE CACHE: O(1), no allocations.
    public func plan(_ command: SCSICommand, dataIn: ByteRegion) -> SCSIPlan {
        let nexus = Int(command.nexus.rawValue)
        precondition(nexuses[nexus].isAttached, "a command over a nexus that is not attached")
        let index = commands.index(of: command.block)
        let traits = index >= 0 ? commands[index].traits : []
        if !nexuses[nexus].attentions.isEmpty, !traits.contains(.passesAttentions) {
            if let first = nexuses[nexus].attentions.popFirst() {
                return .fail(.unitAttention, first.code)
            }
        }
        guard index >= 0 else { return unknown(index) }
        let entry = commands[index]
        if let refusal = refusal(of: command, entry) { return refusal }
        return dispatch(command, entry, dataIn)
    }

    /// Goes on with a command whose parameters are collected.
    ///
    /// - Parameters:
    ///   - command: The same as before.
    ///   - parameters: As many bytes as ``SCSIPlan/Step/collect(byteCount:)`` asked for; borrowed
    ///     for the call. For an operation with ranges or a pattern the caller keeps them until its
    ///     end.
    ///   - dataIn: As before.
    /// - Returns: A plan that collects nothing.
    public func plan(
        _ command: SCSICommand,
        parameters: ByteRegion,
        dataIn: ByteRegion
    ) -> SCSIPlan {
        let index = commands.index(of: command.block)
        // A change of the volume between the two can have taken the command away.
        guard index >= 0 else { return unknown(index) }
        let entry = commands[index]
        if entry.traits.contains(.changesMedium), isWriteProtected {
            return .fail(.dataProtect, .writeProtected)
        }
        return finish(command, entry, parameters)
    }

    /// Whether changes are refused: by the volume or by the control mode page's SWP.
    var isWriteProtected: Bool { geometry.isReadOnly || modes.isWriteProtected }

    private func unknown(_ index: Int) -> SCSIPlan {
        index == -1
            ? .fail(.illegalRequest, .invalidOperationCode)
            : .fail(.invalidField(command: 1, bit: 4))
    }

    /// What is refused before the command itself is looked at: reservations, reserved bits, the
    /// medium's absence, write protection.
    private func refusal(of command: SCSICommand, _ entry: CommandEntry) -> SCSIPlan? {
        let nexus = nexuses[Int(command.nexus.rawValue)]
        if let legacyHolder, legacyHolder != command.nexus,
            !entry.traits.contains(.passesLegacyReservation), !isHarmless(command.block, entry)
        {
            return .reply(SCSIReply(.reservationConflict))
        }
        let isAllowed: Bool =
            switch entry.access {
            case .free: true
            case .read: nexus.mayRead
            case .write: nexus.mayWrite
            }
        if !isAllowed, !isHarmless(command.block, entry) {
            return .reply(SCSIReply(.reservationConflict))
        }
        if let byte = command.block.firstByte(outside: entry) {
            return .fail(.invalidField(command: byte))
        }
        if entry.traits.contains(.needsMedium) {
            if let code = inaccessible(nexus.access) { return .fail(.notReady, code) }
            if !isMediumPresent { return .fail(.notReady, .mediumNotPresent) }
        }
        if entry.traits.contains(.changesMedium), isWriteProtected {
            return .fail(.dataProtect, .writeProtected)
        }
        return nil
    }

    /// Why a path in this state does not lead to the medium; nil when it does.
    private func inaccessible(_ state: AccessState) -> SenseCode? {
        switch state {
        case .activeOptimized, .activeNonOptimized: nil
        case .standby: .targetPortStandby
        case .unavailable: .targetPortUnavailable
        case .transitioning: .accessStateTransition
        }
    }

    /// Forms of otherwise conflicting commands that everyone may use: starting the unit, and
    /// allowing removal.
    ///
    /// Spec: SPC-4, table 66; SBC-3, table 13.
    private func isHarmless(_ block: SCSICommandBlock, _ entry: CommandEntry) -> Bool {
        switch entry.kind {
        case .preventAllow: block[4] & 0x03 == 0
        case .startStopUnit: block[4] & 0xF3 == 0x01
        default: false
        }
    }

    private func dispatch(
        _ command: SCSICommand,
        _ entry: CommandEntry,
        _ dataIn: ByteRegion
    ) -> SCSIPlan {
        switch entry.kind {
        case .read: planRead(command)
        case .write: planWrite(command, .write)
        case .synchronizeCache: planSynchronize(command)
        case .writeAndVerify: planWriteAndVerify(command)
        case .verify: planVerify(command)
        case .compareAndWrite: planCompareAndWrite(command)
        case .orWrite: planWrite(command, .orWrite)
        case .writeAtomic: planWriteAtomic(command)
        case .prefetch: planPrefetch(command)
        case .unmap: planUnmap(command)
        case .writeSame: planWriteSame(command)
        case .blockStatus: planBlockStatus(command)
        case .testUnitReady: .reply(.good)
        case .requestSense: planRequestSense(command, dataIn)
        case .inquiry: planInquiry(command, dataIn)
        case .modeSense: planModeSense(command, dataIn)
        case .modeSelect: planModeSelect(command)
        case .reserve: planReserve(command)
        case .release: planRelease(command)
        case .startStopUnit: planStartStop(command)
        case .preventAllow: planPreventAllow(command)
        case .readCapacity10: planReadCapacity10(command, dataIn)
        case .readCapacity16: planReadCapacity16(command, dataIn)
        case .readDefects: planReadDefects(command, dataIn)
        case .reportLUNs: planReportLUNs(command, dataIn)
        case .reportOpcodes: planReportOpcodes(command, dataIn)
        case .reportTaskManagement: planReportTaskManagement(command, dataIn)
        case .reportPortGroups: planReportPortGroups(command, dataIn)
        case .extendedCopy: planExtendedCopy(command)
        case .copyStatus: planCopyStatus(command, dataIn)
        case .copyParameters: planCopyParameters(command, dataIn)
        case .persistentIn: planPersistentIn(command, dataIn)
        case .persistentOut: planPersistentOut(command)
        }
    }

    private func finish(
        _ command: SCSICommand,
        _ entry: CommandEntry,
        _ parameters: ByteRegion
    ) -> SCSIPlan {
        switch entry.kind {
        case .unmap: finishUnmap(command, parameters)
        case .writeSame: finishWriteSame(command, parameters)
        case .modeSelect: finishModeSelect(command, parameters)
        case .extendedCopy: finishExtendedCopy(command, parameters)
        case .persistentOut: finishPersistentOut(command, parameters)
        default: .fail(.hardwareError, .internalFailure)
        }
    }

    // MARK: - What planners share

    /// Answers with `data`, cut to the allocation length.
    func answer(_ data: DataWriter, allocation: Int) -> SCSIPlan {
        .reply(SCSIReply(.good, dataInByteCount: UInt32(min(data.storedCount, allocation))))
    }

    /// Asks for a parameter list, or refuses one that the initiator will not send whole.
    ///
    /// `byteCount` is what the command block says, not 0; with `isExact` the initiator must not mean
    /// to send more, either.
    func collect(_ command: SCSICommand, byteCount: Int, isExact: Bool = false) -> SCSIPlan {
        guard byteCount <= Self.parameterByteCountMax,
            Int(command.dataOutByteCount) >= byteCount,
            !isExact || Int(command.dataOutByteCount) == byteCount
        else { return .fail(.illegalRequest, .parameterListLength) }
        return SCSIPlan(
            .collect(byteCount: UInt32(byteCount)),
            dataOutByteCount: UInt32(byteCount)
        )
    }
}

extension SCSICommandBlock {
    /// The first byte with a bit that the command does not have; nil when there is none.
    func firstByte(outside entry: CommandEntry) -> Int? {
        // The operation code, and the five bits of a service action, are known to fit.
        let known: UInt64 = entry.serviceAction < 0 ? 0xFF << 56 : 0xFF1F << 48
        let count = Int(entry.byteCount)
        // Bytes after the command's own are no part of it.
        let ownHigh = count < 8 ? UInt64.max << UInt64(8 * (8 - count)) : UInt64.max
        let strayHigh = high & ~(entry.usageHigh | known) & ownHigh
        if strayHigh != 0 { return strayHigh.leadingZeroBitCount / 8 }
        guard count > 8 else { return nil }
        let strayLow = low & ~entry.usageLow & (UInt64.max << UInt64(8 * (16 - count)))
        return strayLow == 0 ? nil : 8 + strayLow.leadingZeroBitCount / 8
    }
}
