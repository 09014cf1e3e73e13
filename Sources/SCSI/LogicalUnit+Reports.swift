// What the unit tells of itself, its target and its commands.

public import BlockCore

extension LogicalUnit {
    // MARK: - Capacity

    /// READ CAPACITY (10).
    ///
    /// Spec: SBC-3, 5.15.
    func planReadCapacity10(_ command: SCSICommand, _ dataIn: ByteRegion) -> SCSIPlan {
        // Without PMI an address has no meaning.
        guard command.block[8] & 0x01 != 0 || command.block.field32(2) == 0 else {
            return .fail(.invalidField(command: 2))
        }
        var data = DataWriter(dataIn)
        data.append(UInt32(clamping: geometry.blockCount - 1))
        data.append(geometry.blockByteCount)
        return answer(data, allocation: data.count)
    }

    /// READ CAPACITY (16).
    ///
    /// Spec: SBC-3, 5.16.
    func planReadCapacity16(_ command: SCSICommand, _ dataIn: ByteRegion) -> SCSIPlan {
        guard command.block[14] & 0x01 != 0 || command.block.field64(2) == 0 else {
            return .fail(.invalidField(command: 2))
        }
        var data = DataWriter(dataIn)
        data.append(geometry.blockCount - 1)
        data.append(geometry.blockByteCount)
        data.skip(1)
        data.append(description.physicalBlockExponent & 0x0F)
        // LBPME and LBPRZ: thin, and what is unmapped reads as zeroes.
        data.append(UInt16(description.isThin ? 0xC000 : 0))
        data.pad(to: 32)
        return answer(data, allocation: Int(clamping: command.block.field32(10)))
    }

    /// READ DEFECT DATA: there are none.
    ///
    /// Spec: SBC-3, 5.17.
    func planReadDefects(_ command: SCSICommand, _ dataIn: ByteRegion) -> SCSIPlan {
        let isLong = command.block.operationCode == 0xB7
        var data = DataWriter(dataIn)
        data.skip(1)
        data.append(command.block[isLong ? 1 : 2] & 0x1F)
        data.pad(to: isLong ? 8 : 4)
        let allocation = isLong ? command.block.field32(6) : UInt32(command.block.field16(7))
        return answer(data, allocation: Int(clamping: allocation))
    }

    // MARK: - Sense

    /// REQUEST SENSE: what the next command would be told, which is then told.
    ///
    /// Spec: SPC-4, 6.39.
    func planRequestSense(_ command: SCSICommand, _ dataIn: ByteRegion) -> SCSIPlan {
        var sense = SCSISense.none
        if let first = nexuses[Int(command.nexus.rawValue)].attentions.popFirst() {
            sense = SCSISense(.unitAttention, first.code)
        } else if !isMediumPresent {
            sense = SCSISense(.notReady, .mediumNotPresent)
        }
        let isDescriptor = command.block[1] & 0x01 != 0
        let count = sense.encode(into: dataIn, isDescriptorFormat: isDescriptor)
        return .reply(
            SCSIReply(.good, dataInByteCount: UInt32(min(count, Int(command.block[4]))))
        )
    }

    // MARK: - Units

    func planReportLUNs(_ command: SCSICommand, _ dataIn: ByteRegion) -> SCSIPlan {
        nexuses[Int(command.nexus.rawValue)].attentions.remove(.reportedLUNsChanged)
        return Self.reportLUNs(command.block, lunInventory, dataIn)
    }

    /// Spec: SPC-4, 6.33: all units, or well-known ones, of which there are none.
    private static func reportLUNs(
        _ block: SCSICommandBlock,
        _ inventory: [UInt64],
        _ dataIn: ByteRegion
    ) -> SCSIPlan {
        guard block[2] <= 2 else { return .fail(.invalidField(command: 2)) }
        let allocation = block.field32(6)
        guard allocation >= 16 else { return .fail(.invalidField(command: 6)) }
        let units = block[2] == 1 ? [] : inventory
        var data = DataWriter(dataIn)
        data.append(UInt32(8 * units.count))
        data.skip(4)
        for unit in units { data.append(unit) }
        let count = min(data.count, Int(clamping: allocation), dataIn.byteCount)
        return .reply(SCSIReply(.good, dataInByteCount: UInt32(count)))
    }

    /// The plan for a command to a LUN that the target does not have, or not for this initiator.
    ///
    /// INQUIRY says that nothing is there, REPORT LUNS and REQUEST SENSE are answered, all else is
    /// refused with LOGICAL UNIT NOT SUPPORTED. Spec: SAM-5, 5.11; SPC-4, 6.6.2.
    ///
    /// - Parameters:
    ///   - command: The command; its nexus is not looked at.
    ///   - lunInventory: What the target has for this initiator.
    ///   - dataIn: At least ``dataInByteCountMax`` bytes.
    /// - Returns: An answer, always.
    public static func planForAbsentUnit(
        _ command: SCSICommand,
        lunInventory: [UInt64],
        dataIn: ByteRegion
    ) -> SCSIPlan {
        let block = command.block
        let absent = SCSISense(.illegalRequest, .unitNotSupported)
        switch block.operationCode {
        case 0x12:
            guard block[1] == 0, block[2] == 0 else { return .fail(.invalidField(command: 1)) }
            var data = DataWriter(dataIn)
            // Peripheral qualifier 011b, device type 1Fh.
            data.append([0x7F, 0, 6, 2, 31] as [UInt8])
            data.pad(to: 36)
            let count = min(data.count, Int(block.field16(3)))
            return .reply(SCSIReply(.good, dataInByteCount: UInt32(count)))
        case 0xA0: return reportLUNs(block, lunInventory, dataIn)
        case 0x03:
            let count = absent.encode(into: dataIn, isDescriptorFormat: block[1] & 1 != 0)
            return .reply(SCSIReply(.good, dataInByteCount: UInt32(min(count, Int(block[4])))))
        default: return .fail(absent)
        }
    }

    // MARK: - Commands

    /// REPORT SUPPORTED OPERATION CODES.
    ///
    /// Spec: SPC-4, 6.35.
    func planReportOpcodes(_ command: SCSICommand, _ dataIn: ByteRegion) -> SCSIPlan {
        let block = command.block
        let hasTimeouts = block[2] & 0x80 != 0
        let code = block[3]
        let serviceAction = block.field16(4)
        let allocation = Int(clamping: block.field32(6))
        let isKnownWithActions = commands.hasServiceActions(code)
        var found: Int?
        switch block[2] & 0x07 {
        case 0: return answer(allCommands(hasTimeouts, dataIn), allocation: allocation)
        case 1:
            guard isKnownWithActions != true else { return .fail(.invalidField(command: 4)) }
            found = commands.index(code: code, serviceAction: 0)
        case 2:
            guard isKnownWithActions != false else { return .fail(.invalidField(command: 4)) }
            found = commands.index(code: code, serviceAction: serviceAction)
        case 3:
            // A service action of a command that has none is not served.
            let isServed = isKnownWithActions == true || serviceAction == 0
            found = isServed ? commands.index(code: code, serviceAction: serviceAction) : nil
        default: return .fail(.invalidField(command: 2, bit: 2))
        }
        let data = oneCommand(found.map { commands[$0] }, hasTimeouts, dataIn)
        return answer(data, allocation: allocation)
    }

    private func allCommands(_ hasTimeouts: Bool, _ dataIn: ByteRegion) -> DataWriter {
        var data = DataWriter(dataIn)
        data.skip(4)
        for index in 0..<commands.count {
            let entry = commands[index]
            data.append(entry.operationCode)
            data.skip(1)
            data.append(UInt16(max(entry.serviceAction, 0)))
            data.skip(1)
            data.append(UInt8(entry.serviceAction < 0 ? 0 : 1) | UInt8(hasTimeouts ? 2 : 0))
            data.append(UInt16(entry.byteCount))
            if hasTimeouts { writeTimeouts(&data) }
        }
        data.patch(UInt32(data.count - 4), at: 0)
        return data
    }

    private func oneCommand(
        _ entry: CommandEntry?,
        _ hasTimeouts: Bool,
        _ dataIn: ByteRegion
    ) -> DataWriter {
        var data = DataWriter(dataIn)
        data.skip(1)
        guard let entry else {
            // Not supported.
            data.append(UInt8(1))
            data.skip(2)
            return data
        }
        data.append(UInt8(hasTimeouts ? 0x83 : 0x03))
        data.append(UInt16(entry.byteCount))
        let usage = entry.usage
        for index in 0..<Int(entry.byteCount) { data.append(usage[index]) }
        if hasTimeouts { writeTimeouts(&data) }
        return data
    }

    /// A timeouts descriptor that says nothing.
    ///
    /// Spec: SPC-4, table 310.
    private func writeTimeouts(_ data: inout DataWriter) {
        data.append(UInt16(0x0A))
        data.skip(10)
    }

    /// REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS.
    ///
    /// Spec: SPC-4, 6.36.
    func planReportTaskManagement(_ command: SCSICommand, _ dataIn: ByteRegion) -> SCSIPlan {
        let allocation = command.block.field32(6)
        guard allocation >= 4 else { return .fail(.invalidField(command: 6)) }
        var data = DataWriter(dataIn)
        // ABORT TASK, ABORT TASK SET, CLEAR TASK SET, LOGICAL UNIT RESET.
        data.append(UInt8(0xD8))
        data.skip(2)
        if command.block[2] & 0x80 != 0 {
            data.append(UInt8(12))
            data.skip(12)
        } else {
            data.skip(1)
        }
        return answer(data, allocation: Int(clamping: allocation))
    }

    /// REPORT TARGET PORT GROUPS.
    ///
    /// Spec: SPC-4, 6.37.
    func planReportPortGroups(_ command: SCSICommand, _ dataIn: ByteRegion) -> SCSIPlan {
        let format = command.block[1] >> 5
        guard format <= 1 else { return .fail(.invalidField(command: 1, bit: 7)) }
        var data = DataWriter(dataIn)
        data.skip(4)
        if format == 1 {
            data.append(UInt8(0x10))
            data.skip(3)
        }
        var groups: [TargetPortGroup] = []
        for port in description.portGroups where !groups.contains(where: { $0.group == port.group })
        {
            groups.append(port)
        }
        for group in groups { writeGroup(group, &data) }
        data.patch(UInt32(data.count - 4), at: 0)
        return answer(data, allocation: Int(clamping: command.block.field32(6)))
    }

    private func writeGroup(_ group: TargetPortGroup, _ data: inout DataWriter) {
        let ports = description.portGroups.filter { $0.group == group.group }
        let isPreferred = group.state == .activeOptimized
        data.append(group.state.rawValue | (isPreferred ? 0x80 : 0))
        // T_SUP, U_SUP, S_SUP, AN_SUP, AO_SUP.
        data.append(UInt8(0x8F))
        data.append(group.group)
        data.skip(1)
        // Status code: changed by implicit behaviour.
        data.append(UInt8(2))
        data.skip(1)
        data.append(UInt8(clamping: ports.count))
        for port in ports.prefix(255) {
            data.skip(2)
            data.append(port.targetPort)
        }
    }
}

extension CommandEntry {
    /// The command block with operation code, service action and every bit that is looked at.
    ///
    /// Spec: SPC-4, 6.35.3, CDB USAGE DATA.
    var usage: SCSICommandBlock {
        var block = SCSICommandBlock(high: usageHigh, low: usageLow)
        block.set(operationCode, at: 0)
        if serviceAction >= 0 { block.set(block[1] & 0xE0 | UInt8(serviceAction), at: 1) }
        return block
    }
}
