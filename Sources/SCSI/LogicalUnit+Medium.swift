// START STOP UNIT and PREVENT ALLOW MEDIUM REMOVAL: a tray that opens for this unit alone.

internal import BlockCore

extension LogicalUnit {
    /// START STOP UNIT.
    ///
    /// A volume has no motor: stopping changes nothing, and power conditions neither. Loading and
    /// ejecting work where the unit says that its medium is removable. Spec: SBC-3, 5.25.
    func planStartStop(_ command: SCSICommand) -> SCSIPlan {
        let flags = command.block[4]
        // With a power condition LOEJ and START mean nothing.
        guard flags >> 4 == 0, flags & 0x02 != 0 else { return .reply(.good) }
        guard description.isRemovable else { return .fail(.invalidField(command: 4, bit: 1)) }
        let isPrevented = (0..<Self.nexusCountMax).contains { nexuses[$0].preventsRemoval }
        guard !isPrevented else { return .fail(.illegalRequest, .removalPrevented) }
        let isLoading = flags & 0x01 != 0
        if isLoading, !isMediumPresent {
            raise(.mediumMayHaveChanged, except: command.nexus)
        }
        isMediumPresent = isLoading
        return .reply(.good)
    }

    /// PREVENT ALLOW MEDIUM REMOVAL.
    ///
    /// Spec: SBC-3, 5.13.
    func planPreventAllow(_ command: SCSICommand) -> SCSIPlan {
        nexuses[Int(command.nexus.rawValue)].preventsRemoval = command.block[4] & 0x01 != 0
        return .reply(.good)
    }
}
