import BlockCore
import SCSI
import Testing

/// Unit attentions, resets, nexuses that come and go, and the medium's removal.
@Suite struct AttentionTests {
    private static let ready: [UInt8] = [0, 0, 0, 0, 0, 0]
    private static let start: [UInt8] = [0x1B, 0, 0, 0, 0x03, 0]
    private static let eject: [UInt8] = [0x1B, 1, 0, 0, 0x02, 0]

    private func prevent(_ value: UInt8) -> [UInt8] { [0x1E, 0, 0, 0, value, 0] }

    private func removable() -> TestUnit {
        var description = TestUnit.description()
        description.isRemovable = true
        return TestUnit(description)
    }

    @Test("A new nexus is told once that the unit was powered on")
    func attach_firstCommand_isTold() {
        let test = TestUnit(nexusCount: 0)
        test.unit.attach(NexusIndex(63), TestUnit.nexus(63))
        let plan = test.plan(Self.ready, nexus: 63)
        #expect(plan.code == .powerOnOrReset)
        #expect(plan.reply?.sense.key == .unitAttention)
        #expect(test.plan(Self.ready, nexus: 63).status == .good)
    }

    @Test("INQUIRY, REPORT LUNS and REQUEST SENSE are not stopped; REQUEST SENSE tells")
    func attention_exempt_passes() {
        let test = TestUnit()
        test.unit.raise(.capacityChanged)
        #expect(test.data([0x12, 0, 0, 0, 36, 0]).count == 36)
        #expect(test.data([0xA0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0]).count == 16)
        let sense = test.data([0x03, 0, 0, 0, 18, 0])
        #expect(sense[2] == 6)
        #expect(Array(sense[12...13]) == [0x2A, 0x09])
        #expect(test.plan(Self.ready).status == .good)
        #expect(test.data([0x03, 0, 0, 0, 18, 0])[2] == 0)
        #expect(test.data([0x03, 1, 0, 0, 255, 0]) == [0x72, 0, 0, 0, 0, 0, 0, 0])
        #expect(test.plan(Self.ready, nexus: 1).code == .capacityChanged)
    }

    @Test("Each attention is told once, the most severe first, also for unknown commands")
    func attention_several_areOrdered() {
        let test = TestUnit()
        for attention in UnitAttention.allCases.reversed() {
            test.unit.raise(attention, for: NexusIndex(0))
            test.unit.raise(attention, for: NexusIndex(0))
        }
        for attention in UnitAttention.allCases {
            #expect(test.plan([0xFF]).code == attention.code)
        }
        #expect(test.plan([0xFF]).code == .invalidOperationCode)
        #expect(test.plan(Self.ready, nexus: 1).status == .good)
        #expect(Set(UnitAttention.allCases.map(\.code)).count == UnitAttention.allCases.count)
    }

    @Test("Who asks for the units knows of them")
    func reportLUNs_pending_clearsIt() {
        let test = TestUnit()
        test.unit.raise(.reportedLUNsChanged)
        _ = test.data([0xA0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0])
        #expect(test.plan(Self.ready).status == .good)
        #expect(test.plan(Self.ready, nexus: 1).code == .reportedLUNsChanged)
    }

    @Test("A reset is told to all but who asked for it", arguments: ResetReason.allCases)
    func reset_all_areTold(_ reason: ResetReason) {
        let codes: [ResetReason: SenseCode] = [
            .logicalUnit: .deviceReset, .targetWarm: .busReset, .targetCold: .powerOn,
            .failover: .powerOnOrReset,
        ]
        let test = TestUnit()
        _ = test.run([0x16, 0, 0, 0, 0, 0], nexus: 1)
        test.unit.reset(reason, cause: NexusIndex(0))
        #expect(test.plan(Self.ready).status == .good)
        #expect(test.plan(Self.ready, nexus: 1).code == codes[reason])
        #expect(test.plan(Self.ready, nexus: 2).code == codes[reason])
        #expect(test.plan(Self.ready, nexus: 2).status == .good)
    }

    @Test("A changed volume says what is to be asked for again")
    func update_changes_areTold() {
        let test = TestUnit()
        var changed = TestUnit.description()
        func update() -> SenseCode? {
            test.unit.update(changed)
            return test.plan(Self.ready).code
        }
        #expect(update() == nil)
        changed.byteCount = 2000 * 512
        #expect(update() == .capacityChanged)
        #expect(test.plan(Blocks.ten(0x28, 1999, 1)).operation != nil)
        changed.isReadOnly = true
        #expect(update() == .modeParametersChanged)
        #expect(test.plan(Blocks.ten(0x2A, 0, 1), dataOut: 512).code == .writeProtected)
        changed.portGroups[0].state = .activeNonOptimized
        #expect(update() == .accessStateChanged)
        changed.name = "other"
        #expect(update() == .inquiryDataChanged)
        changed.handle = 99
        #expect(update() == nil)
        changed.isThin = false
        #expect(update() == .inquiryDataChanged)
        #expect(test.plan([0x42] + zeroes(9)).code == .invalidOperationCode)
    }

    // MARK: - The medium

    @Test("A medium that is ejected is missed by every command that needs it")
    func eject_medium_isMissed() {
        let test = removable()
        #expect(test.plan(Self.eject).status == .good)
        var blocks: [[UInt8]] = [Self.ready]
        for code in [0x28, 0xA8, 0x88, 0x2A, 0xAA, 0x8A, 0x2E, 0xAE, 0x8E, 0x2F, 0xAF, 0x8F]
            as [UInt8]
        {
            blocks.append(Blocks.any(code, 0, 1))
        }
        for code in [0x34, 0x90, 0x35, 0x91, 0x8B, 0x89, 0x41, 0x93] as [UInt8] {
            blocks.append(Blocks.any(code, 0, 1))
        }
        blocks.append([0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0])
        blocks.append([0x25] + zeroes(9))
        blocks.append([0x9E, 0x10] + zeroes(14))
        blocks.append([0x9E, 0x12] + zeroes(14))
        for block in blocks {
            let plan = test.plan(block, dataOut: 4096)
            #expect(plan.code == .mediumNotPresent, "\(block)")
            #expect(plan.reply?.sense.key == .notReady)
        }
        #expect(!test.data([0x12, 0, 0, 0, 255, 0]).isEmpty)
        #expect(test.data([0x03, 0, 0, 0, 18, 0])[2] == 2)
        #expect(test.plan(Self.start).status == .good)
        #expect(test.plan(Self.ready).status == .good)
        #expect(test.plan(Self.ready, nexus: 1).code == .mediumMayHaveChanged)
    }

    @Test("Without LOEJ, and with a power condition, nothing moves")
    func startStop_noEject_isGood() {
        let test = removable()
        for byte in [0x00, 0x01, 0x04, 0x05] as [UInt8] {
            #expect(test.plan([0x1B, 0, 0, 0, byte, 0]).status == .good)
            #expect(test.plan(Self.ready).status == .good)
        }
        for condition in 1...15 as ClosedRange<UInt8> {
            #expect(test.plan([0x1B, 1, 0, 0, condition << 4 | 2, 0]).status == .good)
            #expect(test.plan(Self.ready).status == .good)
        }
    }

    @Test("A medium that is not removable is not ejected")
    func eject_fixed_isRefused() {
        #expect(TestUnit().plan(Self.eject).code == .invalidFieldInCDB)
    }

    @Test("While one nexus prevents it, nobody removes the medium, or puts it back")
    func prevent_anyNexus_prevents() {
        let test = removable()
        #expect(test.plan(prevent(1)).status == .good)
        for nexus in 0...1 as ClosedRange<UInt8> {
            let plan = test.plan(Self.eject, nexus: nexus)
            #expect(plan.code == .removalPrevented)
            #expect(plan.reply?.sense.key == .illegalRequest)
        }
        #expect(test.plan(prevent(0), nexus: 1).status == .good)
        #expect(test.plan(Self.eject).code == .removalPrevented)
        #expect(test.plan(prevent(0)).status == .good)
        #expect(test.plan(Self.eject).status == .good)
        #expect(test.plan(prevent(1)).status == .good)
        #expect(test.plan(Self.start).code == .removalPrevented)
    }

    @Test("What prevents removal goes with a reset")
    func prevent_reset_isGone() {
        let test = removable()
        _ = test.plan(prevent(1))
        test.unit.reset(.logicalUnit, cause: NexusIndex(0))
        #expect(test.plan(Self.eject).status == .good)
    }

    @Test("What prevents removal goes with its nexus")
    func prevent_nexusLoss_isGone() {
        let test = removable()
        _ = test.plan(prevent(1), nexus: 2)
        test.unit.detach(NexusIndex(2))
        #expect(test.plan(Self.eject).status == .good)
    }
}
