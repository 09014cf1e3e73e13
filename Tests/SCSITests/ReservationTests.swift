import BlockCore
import SCSI
import TestSupport
import Testing

/// The service actions of PERSISTENT RESERVE, and their ancestors.
@Suite(.background) struct ReservationTests {
    private static let ready: [UInt8] = [0, 0, 0, 0, 0, 0]

    /// PERSISTENT RESERVE OUT from `nexus`.
    @discardableResult
    private func out(
        _ test: TestUnit,
        _ action: UInt8,
        key: UInt64 = 0,
        new: UInt64 = 0,
        type: UInt8 = 0,
        flags: UInt8 = 0,
        nexus: UInt8 = 0,
        extra: [UInt8] = [],
        store: StoreOutcome = .stored
    ) -> SCSIPlan {
        let list = bytes(key, 8) + bytes(new, 8) + [0, 0, 0, 0, flags, 0, 0, 0] + extra
        return test.run(
            [0x5F, action, type, 0, 0] + bytes(UInt64(list.count), 4) + [0],
            nexus: nexus,
            parameters: list,
            store: store
        )
    }

    private func read(_ test: TestUnit, _ action: UInt8, nexus: UInt8 = 0) -> [UInt8] {
        test.data([0x5E, action, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0], nexus: nexus)
    }

    private func keys(_ test: TestUnit) -> [UInt64] {
        test.unit.reservations.registrations.map(\.key)
    }

    /// Three nexuses, registered under 1, 2 and 3.
    private func registered() -> TestUnit {
        let test = TestUnit()
        for nexus in 0..<3 as Range<UInt8> {
            out(test, 6, new: UInt64(nexus) + 1, nexus: nexus)
        }
        return test
    }

    // MARK: - Registering

    @Test("REGISTER wants the key that there is: 0 for none")
    func register_keys_areChecked() {
        let test = TestUnit()
        #expect(out(test, 0, key: 9, new: 1).status == .reservationConflict)
        #expect(out(test, 0, key: 0, new: 1).status == .good)
        #expect(out(test, 0, key: 2, new: 3).status == .reservationConflict)
        #expect(out(test, 0, key: 1, new: 3).status == .good)
        #expect(keys(test) == [3])
        #expect(test.unit.reservations.generation == 2)
        #expect(out(test, 0, key: 3, new: 0).status == .good)
        #expect(keys(test) == [])
        #expect(out(test, 0, key: 0, new: 0).status == .good)
        #expect(test.unit.reservations.generation == 3)
    }

    @Test("REGISTER AND IGNORE EXISTING KEY asks for none")
    func registerAndIgnore_keys_areNotChecked() {
        let test = TestUnit()
        #expect(out(test, 6, key: 77, new: 1).status == .good)
        #expect(out(test, 6, key: 78, new: 2).status == .good)
        #expect(keys(test) == [2])
    }

    @Test("Only the registered do anything else", arguments: 1...5 as ClosedRange<UInt8>)
    func action_unregistered_conflicts(_ action: UInt8) {
        let test = registered()
        test.unit.attach(NexusIndex(3), TestUnit.nexus(3))
        _ = test.run(Self.ready, nexus: 3)
        #expect(out(test, action, key: 0, new: 1, type: 1, nexus: 3).status == .reservationConflict)
        #expect(out(test, action, key: 9, new: 1, type: 1).status == .reservationConflict)
        #expect(keys(test) == [1, 2, 3])
    }

    @Test("A registration outlives its nexus; a new session with the same name finds it")
    func register_nexusLoss_remains() {
        let test = registered()
        out(test, 1, key: 1, type: 3)
        test.unit.detach(NexusIndex(0))
        test.unit.attach(NexusIndex(9), TestUnit.nexus(0))
        _ = test.run(Self.ready, nexus: 9)
        #expect(test.plan(Blocks.ten(0x2A, 0, 1), nexus: 9, dataOut: 512).operation != nil)
        #expect(out(test, 2, key: 1, type: 3, nexus: 9).status == .good)
    }

    @Test("There is room for so many registrations and no more")
    func register_tooMany_isRefused() {
        let test = TestUnit(nexusCount: 0)
        for index in 0..<64 as Range<UInt8> {
            test.unit.attach(NexusIndex(index), TestUnit.nexus(index))
            _ = test.run(Self.ready, nexus: index)
            #expect(out(test, 6, new: 5, nexus: index).status == .good)
        }
        test.unit.detach(NexusIndex(0))
        test.unit.attach(NexusIndex(0), TestUnit.nexus(100))
        _ = test.run(Self.ready)
        #expect(out(test, 6, new: 5).code == .insufficientRegistrations)
        let status = read(test, 3, nexus: 1)
        #expect(status.count <= LogicalUnit.dataInByteCountMax)
        #expect(Array(status[4..<8]) == bytes(UInt64(status.count - 8), 4))
    }

    @Test("SPEC_I_PT registers listed ports, ALL_TG_PT all target ports")
    func register_others_areRegistered() {
        var description = TestUnit.description()
        description.portGroups.append(TargetPortGroup(group: 2, targetPort: 2, state: .standby))
        let test = TestUnit(description)
        let port: [UInt8] = Array("iqn.2026-01.host:b,i,0x00000000002a".utf8) + [0]
        let list = bytes(40, 4) + [0x45, 0, 0, 36] + port
        #expect(out(test, 6, new: 1, flags: 0x08, extra: list).code == .invalidFieldInParameters)
        #expect(out(test, 0, new: 1, flags: 0x0C, extra: list).status == .good)
        let there = test.unit.reservations.registrations.map(\.identity)
        #expect(there.count == 4)
        #expect(Set(there.map(\.targetPort)) == [1, 2])
        #expect(
            there.contains { $0.initiator == InitiatorPort(name: "iqn.2026-01.host:b", isid: 42) }
        )
        #expect(
            out(test, 0, key: 1, new: 2, flags: 0x08, extra: list).code == .invalidFieldInParameters
        )
        #expect(out(test, 0, new: 1, nexus: 1, extra: list).code == .parameterListLength)
    }

    @Test("Transport identifiers that are none are refused")
    func register_wrongPorts_areRefused() {
        let name = Array("iqn.2026-01.host:b,i,0x00000000002a".utf8) + [0]
        let wrong: [[UInt8]] = [
            [0x45, 0, 0, 36] + name.dropLast(), [0x05, 0, 0, 36] + name, [0x45, 0, 0, 37] + name,
            [0x45, 0, 0, 36] + name.dropLast() + [1], [0x45, 0, 0, 36] + name + [0],
            [0x45, 0, 0, 20] + Array("iqn,i,0x0000000000".utf8) + [0, 0],
            [0x45, 0, 0, 20] + Array(",i,0x00000000002a".utf8) + [0, 0, 0],
        ]
        for port in wrong {
            let test = TestUnit()
            let plan = out(test, 0, new: 1, flags: 8, extra: bytes(UInt64(port.count), 4) + port)
            #expect(plan.code == .invalidFieldInParameters, "\(port)")
            #expect(keys(test) == [])
        }
        let plan = out(TestUnit(), 0, new: 1, flags: 8, extra: bytes(36, 4))
        #expect(plan.code == .parameterListLength)
    }

    // MARK: - Reserving

    @Test("RESERVE and RELEASE, in every type", arguments: ReservationType.allCases)
    func reserve_everyType_isToldAndReleased(_ type: ReservationType) {
        let test = registered()
        #expect(out(test, 1, key: 1, type: type.rawValue).status == .good)
        #expect(out(test, 1, key: 1, type: type.rawValue).status == .good)
        let key: UInt64 = type.isHeldByAll ? 0 : 1
        #expect(
            read(test, 1)
                == bytes(3, 4) + bytes(16, 4) + bytes(key, 8) + [
                    0, 0, 0, 0, 0, type.rawValue, 0, 0,
                ]
        )
        let again = out(test, 1, key: 2, type: type.rawValue, nexus: 1)
        #expect(again.status == (type.isHeldByAll ? .good : .reservationConflict))
        let other: UInt8 = type == .writeExclusive ? 3 : 1
        #expect(out(test, 1, key: 1, type: other).status == .reservationConflict)
        #expect(out(test, 2, key: 1, type: other).code == .invalidRelease)
        #expect(out(test, 2, key: 1, type: type.rawValue).status == .good)
        #expect(read(test, 1) == bytes(3, 4) + bytes(0, 4))
        #expect(out(test, 2, key: 1, type: type.rawValue).status == .good)
        // Who is registered hears of it where it had access by that.
        let told = test.plan(Self.ready, nexus: 1)
        #expect(told.code == (type.isForRegistrants ? .reservationsReleased : nil))
        #expect(test.plan(Self.ready).status == .good)
    }

    @Test("RELEASE by another than the holder has no effect")
    func release_notHolder_isGood() {
        let test = registered()
        out(test, 1, key: 1, type: 1)
        #expect(out(test, 2, key: 2, type: 1, nexus: 1).status == .good)
        #expect(test.unit.reservations.type == .writeExclusive)
    }

    @Test("The holder's unregistering releases", arguments: ReservationType.allCases)
    func unregister_holder_releases(_ type: ReservationType) {
        let test = registered()
        out(test, 1, key: 1, type: type.rawValue)
        #expect(out(test, 0, key: 1, new: 0).status == .good)
        #expect((test.unit.reservations.type == nil) == !type.isHeldByAll)
        #expect(test.plan(Self.ready).status == .good)
        let hears = type.isForRegistrants && !type.isHeldByAll
        #expect(test.plan(Self.ready, nexus: 1).code == (hears ? .reservationsReleased : nil))
        out(test, 0, key: 2, new: 0, nexus: 1)
        out(test, 0, key: 3, new: 0, nexus: 2)
        #expect(test.unit.reservations.type == nil)
        #expect(test.unit.reservations.isValid)
    }

    @Test("CLEAR removes everything and tells the others")
    func clear_simple_removesAll() {
        let test = registered()
        out(test, 1, key: 1, type: 3)
        #expect(out(test, 3, key: 2, nexus: 1).status == .good)
        #expect(test.unit.reservations.generation == 4)
        #expect(keys(test) == [])
        #expect(test.unit.reservations.type == nil)
        #expect(test.plan(Self.ready).code == .reservationsPreempted)
        #expect(test.plan(Self.ready, nexus: 1).status == .good)
        #expect(test.plan(Self.ready, nexus: 2).code == .reservationsPreempted)
    }

    // MARK: - Preempting

    @Test("PREEMPT without a reservation removes registrations")
    func preempt_noReservation_removes() {
        let test = registered()
        #expect(out(test, 4, key: 2, new: 1, type: 3, nexus: 1).status == .good)
        #expect(keys(test) == [2, 3])
        #expect(test.unit.reservations.type == nil)
        #expect(test.unit.reservations.generation == 4)
        #expect(test.plan(Self.ready).code == .registrationsPreempted)
        #expect(test.plan(Self.ready, nexus: 2).status == .good)
        #expect(out(test, 4, key: 2, new: 99, type: 3, nexus: 1).status == .reservationConflict)
        #expect(out(test, 4, key: 2, new: 0, type: 3, nexus: 1).code == .invalidFieldInParameters)
    }

    @Test("PREEMPT of the holder takes the reservation", arguments: [1, 3, 5, 6] as [UInt8])
    func preempt_holder_takes(_ type: UInt8) {
        let test = registered()
        out(test, 1, key: 1, type: type)
        #expect(out(test, 4, key: 2, new: 1, type: 6, nexus: 1).status == .good)
        #expect(keys(test) == [2, 3])
        #expect(test.unit.reservations.type == .exclusiveAccessRegistrantsOnly)
        #expect(test.unit.reservations.isHolder(TestUnit.nexus(1)))
        #expect(test.plan(Self.ready).code == .registrationsPreempted)
        let told = test.plan(Self.ready, nexus: 2).code
        #expect(told == (type == 6 ? nil : .reservationsReleased))
    }

    @Test("PREEMPT of another than the holder leaves the reservation")
    func preempt_other_leaves() {
        let test = registered()
        out(test, 1, key: 1, type: 3)
        #expect(out(test, 4, key: 2, new: 3, type: 1, nexus: 1).status == .good)
        #expect(keys(test) == [1, 2])
        #expect(test.unit.reservations.type == .exclusiveAccess)
        #expect(test.unit.reservations.isHolder(TestUnit.nexus(0)))
    }

    @Test("PREEMPT where all hold it: a key removes, no key takes", arguments: [7, 8] as [UInt8])
    func preempt_allRegistrants_dependsOnKey(_ type: UInt8) {
        let test = registered()
        out(test, 1, key: 1, type: type)
        #expect(out(test, 4, key: 2, new: 1, type: 1, nexus: 1).status == .good)
        #expect(keys(test) == [2, 3])
        #expect(test.unit.reservations.type?.rawValue == type)
        #expect(out(test, 4, key: 2, new: 0, type: 1, nexus: 1).status == .good)
        #expect(keys(test) == [2])
        #expect(test.unit.reservations.type == .writeExclusive)
        #expect(test.unit.reservations.isHolder(TestUnit.nexus(1)))
    }

    @Test("The holder changes its type by preempting itself")
    func preempt_self_changesType() {
        let test = registered()
        out(test, 1, key: 1, type: 1)
        #expect(out(test, 4, key: 1, new: 1, type: 3).status == .good)
        #expect(keys(test) == [1, 2, 3])
        #expect(test.unit.reservations.type == .exclusiveAccess)
        #expect(test.unit.reservations.isValid)
    }

    @Test("PREEMPT AND ABORT says whose commands to abort")
    func preemptAndAbort_removed_areAborted() {
        let test = registered()
        out(test, 1, key: 1, type: 3)
        let list = bytes(2, 8) + bytes(1, 8) + bytes(0, 8)
        let command = SCSICommand(
            block: SCSICommandBlock([0x5F, 5, 3, 0, 0, 0, 0, 0, 24, 0]),
            nexus: NexusIndex(1),
            dataOutByteCount: 24,
            dataInByteCount: 0
        )
        let plan = test.unit.plan(command, parameters: test.region(list), dataIn: test.dataIn)
        #expect(plan.step == .storeReservations)
        #expect(test.unit.pendingReservations?.registrations.count == 2)
        #expect(test.unit.reservations.registrations.count == 3)
        let outcome = test.unit.reservationsStored(.stored)
        #expect(outcome.reply.status == .good)
        #expect(outcome.aborted == NexusSet(rawValue: 1))
    }

    // MARK: - Moving

    private func move(
        _ test: TestUnit,
        key: UInt64 = 1,
        new: UInt64 = 9,
        flags: UInt8 = 0,
        name: String = "iqn.2026-01.host:a,i,0x800000000001",
        port: UInt8 = 1,
        nexus: UInt8 = 0
    ) -> SCSIPlan {
        let id: [UInt8] = [0x45, 0, 0, 36] + Array(name.utf8) + [0]
        let list = bytes(key, 8) + bytes(new, 8) + [0, flags, 0, port] + bytes(40, 4) + id
        let block: [UInt8] = [0x5F, 7, 0, 0, 0, 0, 0, 0, UInt8(list.count), 0]
        return test.run(block, nexus: nexus, parameters: list)
    }

    @Test("REGISTER AND MOVE gives the reservation away, and with UNREG the registration up")
    func move_holder_moves() {
        let test = registered()
        #expect(move(test).status == .reservationConflict)
        out(test, 1, key: 1, type: 3)
        #expect(move(test, key: 2, nexus: 1).status == .reservationConflict)
        #expect(move(test, new: 0).code == .invalidFieldInParameters)
        #expect(move(test, port: 7).code == .invalidFieldInParameters)
        let own = "iqn.2026-01.host:a,i,0x800000000000"
        #expect(move(test, name: own).code == .invalidFieldInParameters)
        #expect(move(test).status == .good)
        #expect(keys(test) == [1, 9, 3])
        #expect(test.unit.reservations.isHolder(TestUnit.nexus(1)))
        #expect(test.plan(Blocks.ten(0x28, 0, 1)).status == .reservationConflict)
        let stranger = "iqn.2026-01.host:z,i,0x000000000001"
        #expect(move(test, key: 9, new: 8, flags: 3, name: stranger, nexus: 1).status == .good)
        #expect(keys(test) == [1, 3, 8])
        #expect(test.unit.reservations.persistsThroughPowerLoss)
        #expect(test.unit.reservations.isValid)
    }

    // MARK: - Parameters

    @Test("Wrong lists, scopes, types and service actions are refused")
    func out_wrong_isRefused() {
        let test = registered()
        let short: [UInt8] = [0x5F, 1, 1, 0, 0, 0, 0, 0, 23, 0]
        #expect(test.plan(short, dataOut: 23).code == .parameterListLength)
        let unsent: [UInt8] = [0x5F, 1, 1, 0, 0, 0, 0, 0, 24, 0]
        #expect(test.plan(unsent, dataOut: 23).code == .parameterListLength)
        #expect(out(test, 1, key: 1, type: 1, extra: [0]).code == .parameterListLength)
        for type in [0, 2, 4, 9, 15, 0x11, 0xF1] as [UInt8] {
            #expect(out(test, 1, key: 1, type: type).code == .invalidFieldInCDB)
            #expect(out(test, 4, key: 1, new: 2, type: type).code == .invalidFieldInCDB)
        }
        for action in 8..<32 as Range<UInt8> {
            #expect(out(test, action, key: 1).code == .invalidFieldInCDB)
        }
        for action in 4..<32 as Range<UInt8> {
            let block: [UInt8] = [0x5E, action, 0, 0, 0, 0, 0, 0, 255, 0]
            #expect(test.plan(block).code == .invalidFieldInCDB)
        }
    }

    @Test("READ KEYS, REPORT CAPABILITIES and READ FULL STATUS")
    func in_everyAction_everyByte() {
        let test = TestUnit()
        out(test, 6, new: 1, flags: 1)
        out(test, 6, new: 2, nexus: 1)
        out(test, 1, key: 2, type: 5, nexus: 1)
        #expect(read(test, 0) == bytes(2, 4) + bytes(16, 4) + bytes(1, 8) + bytes(2, 8))
        #expect(test.data([0x5E, 0, 0, 0, 0, 0, 0, 0, 8, 0]) == bytes(2, 4) + bytes(16, 4))
        #expect(read(test, 2) == [0, 8, 0x1D, 0x80, 0xEA, 0x01, 0, 0])
        out(test, 6, new: 1, flags: 1)
        #expect(read(test, 2)[3] == 0x81)
        func status(_ key: UInt64, _ holder: UInt8, _ type: UInt8, _ isid: String) -> [UInt8] {
            bytes(key, 8) + [0, 0, 0, 0, holder, type, 0, 0, 0, 0, 0, 1] + bytes(40, 4)
                + [0x45, 0, 0, 36] + Array("iqn.2026-01.host:a,i,0x\(isid)".utf8) + [0]
        }
        let list = status(1, 0, 0, "800000000000") + status(2, 1, 5, "800000000001")
        #expect(read(test, 3) == bytes(3, 4) + bytes(UInt64(list.count), 4) + list)
    }

    // MARK: - Storing

    @Test("What cannot be stored is not in force, and the initiator tries again")
    func store_failed_changesNothing() {
        let test = registered()
        #expect(out(test, 1, key: 1, type: 3, store: .failed).status == .busy)
        #expect(test.unit.reservations.type == nil)
        #expect(test.unit.pendingReservations == nil)
        #expect(out(test, 1, key: 1, type: 3).status == .good)
    }

    @Test("While reservations are being stored, further changes are busy")
    func store_pending_isBusy() {
        let test = registered()
        let list = bytes(1, 8) + bytes(0, 16)
        let command = SCSICommand(
            block: SCSICommandBlock([0x5F, 1, 3, 0, 0, 0, 0, 0, 24, 0]),
            nexus: NexusIndex(0),
            dataOutByteCount: 24,
            dataInByteCount: 0
        )
        _ = test.unit.plan(command, parameters: test.region(list), dataIn: test.dataIn)
        let second = test.unit.plan(command, parameters: test.region(list), dataIn: test.dataIn)
        #expect(second.status == .busy)
        #expect(test.plan(Blocks.ten(0x28, 0, 1), nexus: 1).operation != nil)
        _ = test.unit.reservationsStored(.stored)
        #expect(test.plan(Blocks.ten(0x28, 0, 1), nexus: 1).status == .reservationConflict)
    }

    @Test("Stored reservations come back; after a power loss only those with APTPL")
    func coding_roundTrip_isEqual() throws {
        let test = registered()
        for type in ReservationType.allCases {
            out(test, 1, key: 1, type: type.rawValue)
            let state = test.unit.reservations
            #expect(try ReservationState(decoding: state.encoded()) == state)
            #expect(state.afterPowerLoss == ReservationState())
            out(test, 2, key: 1, type: type.rawValue)
        }
        out(test, 6, new: 1, flags: 1)
        out(test, 1, key: 1, type: 3)
        let state = test.unit.reservations
        #expect(state.afterPowerLoss == state)
        let next = LogicalUnit(
            TestUnit.description(),
            reservations: try ReservationState(decoding: state.encoded())
        )
        next.attach(NexusIndex(1), TestUnit.nexus(1))
        let command = SCSICommand(
            block: SCSICommandBlock(Blocks.ten(0x28, 0, 1)),
            nexus: NexusIndex(1),
            dataOutByteCount: 0,
            dataInByteCount: 512
        )
        _ = next.plan(command, dataIn: test.dataIn)
        #expect(next.plan(command, dataIn: test.dataIn).status == .reservationConflict)
    }

    @Test("Damaged stores are refused, or hold every invariant")
    func coding_damaged_isRefused() throws {
        let test = registered()
        out(test, 1, key: 1, type: 3)
        let encoded = test.unit.reservations.encoded()
        for count in 0..<encoded.count {
            #expect(throws: ReservationCodingError.self) {
                try ReservationState(decoding: Array(encoded.prefix(count)))
            }
        }
        #expect(throws: ReservationCodingError.wrongLength) {
            try ReservationState(decoding: encoded + [0])
        }
        #expect(throws: ReservationCodingError.unknownVersion(2)) {
            try ReservationState(decoding: [2] + encoded.dropFirst())
        }
        for bit in 0..<(8 * encoded.count) {
            var damaged = encoded
            damaged[bit / 8] ^= 1 << UInt8(bit % 8)
            if let state = try? ReservationState(decoding: damaged) { #expect(state.isValid) }
        }
    }

    @Test("Names of the longest kind are told and restored")
    func coding_longNames_fit() throws {
        let test = TestUnit(nexusCount: 0)
        let name = String(repeating: "x", count: InitiatorPort.nameByteCountMax)
        for index in 0..<64 as Range<UInt8> {
            let port = InitiatorPort(name: name, isid: UInt64(index))
            test.unit.attach(NexusIndex(index), NexusIdentity(initiator: port, targetPort: 1))
            _ = test.run(Self.ready, nexus: index)
            out(test, 6, new: 5, nexus: index)
        }
        let state = test.unit.reservations
        #expect(state.registrations.count == 64)
        #expect(try ReservationState(decoding: state.encoded()) == state)
        let status = read(test, 3)
        #expect(status.count == 8 + 64 * 272)
        #expect(Array(status[4..<8]) == bytes(UInt64(status.count - 8), 4))
    }

    // MARK: - RESERVE and RELEASE

    @Test("RESERVE keeps others out until RELEASE", arguments: [(0x16, 0x17), (0x56, 0x57)])
    func legacy_reserve_excludes(_ reserve: Int, _ release: Int) {
        let test = TestUnit()
        let take = [UInt8(reserve)] + zeroes(9)
        let give = [UInt8(release)] + zeroes(9)
        #expect(test.run(take).status == .good)
        #expect(test.run(take).status == .good)
        #expect(test.run(take, nexus: 1).status == .reservationConflict)
        #expect(test.run(give, nexus: 1).status == .good)
        for block in [Self.ready, [0x1A, 0, 0x3F, 0, 255, 0], Blocks.ten(0x28, 0, 1)] {
            #expect(test.plan(block, nexus: 1).status == .reservationConflict)
            #expect(test.plan(block).status != .reservationConflict)
        }
        #expect(out(test, 6, new: 1, nexus: 1).status == .reservationConflict)
        #expect(!test.data([0x12, 0, 0, 0, 36, 0], nexus: 1).isEmpty)
        #expect(test.plan([0x1E, 0, 0, 0, 0, 0], nexus: 1).status == .good)
        #expect(test.run(give).status == .good)
        #expect(test.run(take, nexus: 1).status == .good)
    }

    @Test("RESERVE goes with its nexus, and with a reset")
    func legacy_nexusLoss_isGone() {
        let test = TestUnit()
        _ = test.run([0x16, 0, 0, 0, 0, 0], nexus: 2)
        test.unit.detach(NexusIndex(2))
        #expect(test.run([0x16, 0, 0, 0, 0, 0], nexus: 1).status == .good)
        test.unit.reset(.logicalUnit, cause: NexusIndex(0))
        #expect(test.run([0x16, 0, 0, 0, 0, 0]).status == .good)
    }

    @Test("Beside registrations RESERVE is without effect for the registered, refused to others")
    func legacy_registrations_areCompatible() {
        let test = TestUnit()
        out(test, 6, new: 1)
        #expect(test.run([0x16, 0, 0, 0, 0, 0]).status == .good)
        #expect(test.run([0x17, 0, 0, 0, 0, 0]).status == .good)
        #expect(test.run([0x16, 0, 0, 0, 0, 0], nexus: 1).status == .reservationConflict)
        #expect(test.plan(Blocks.ten(0x28, 0, 1), nexus: 1).operation != nil)
    }
}
