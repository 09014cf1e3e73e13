import SCSI
import TestSupport
import Testing

/// Who may do what under which reservation: SPC-4, table 66; SBC-3, table 13.
@Suite(.background) struct ReservationConflictTests {
    /// The table's classes: which of its columns say "Conflict".
    private enum Column {
        /// In none.
        case allowed
        /// Where reads are excluded.
        case reads
        /// In all.
        case writes
    }

    private static let table: [([UInt8], Column)] = [
        ([0x00, 0, 0, 0, 0, 0], .allowed),
        ([0x03, 0, 0, 0, 18, 0], .allowed),
        ([0x12, 0, 0, 0, 36, 0], .allowed),
        ([0xA0, 0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0], .allowed),
        ([0x25] + zeroes(9), .allowed),
        ([0x9E, 0x10] + zeroes(14), .allowed),
        ([0xA3, 0x0A, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0], .allowed),
        ([0x5E, 0, 0, 0, 0, 0, 0, 0, 16, 0], .allowed),
        ([0x5E, 1, 0, 0, 0, 0, 0, 0, 16, 0], .allowed),
        ([0x1E, 0, 0, 0, 0, 0], .allowed),
        ([0x1B, 0, 0, 0, 1, 0], .allowed),
        (Blocks.six(0x08, 0, 1), .reads), (Blocks.ten(0x28, 0, 1), .reads),
        (Blocks.twelve(0xA8, 0, 1), .reads), (Blocks.sixteen(0x88, 0, 1), .reads),
        (Blocks.ten(0x2F, 0, 1), .reads), (Blocks.twelve(0xAF, 0, 1), .reads),
        (Blocks.sixteen(0x8F, 0, 1), .reads), (Blocks.ten(0x34, 0, 1), .reads),
        (Blocks.sixteen(0x90, 0, 1), .reads),
        ([0x9E, 0x12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 24, 0, 0], .reads),
        ([0x1A, 0, 0x3F, 0, 255, 0], .reads),
        ([0x5A, 0, 0x3F, 0, 0, 0, 0, 0, 255, 0], .reads),
        ([0x37, 0, 0, 0, 0, 0, 0, 0, 8, 0], .reads),
        ([0xB7, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0], .reads),
        ([0xA3, 0x0C, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0], .reads),
        ([0xA3, 0x0D, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0], .reads),
        (Blocks.six(0x0A, 0, 1), .writes), (Blocks.ten(0x2A, 0, 1), .writes),
        (Blocks.twelve(0xAA, 0, 1), .writes), (Blocks.sixteen(0x8A, 0, 1), .writes),
        (Blocks.ten(0x2E, 0, 1), .writes), (Blocks.twelve(0xAE, 0, 1), .writes),
        (Blocks.sixteen(0x8E, 0, 1), .writes), (Blocks.sixteen(0x8B, 0, 1), .writes),
        (Blocks.any(0x9C, 0, 1), .writes), (Blocks.compareAndWrite(0, 1), .writes),
        (Blocks.ten(0x41, 0, 1), .writes), (Blocks.sixteen(0x93, 0, 1), .writes),
        ([0x42, 0, 0, 0, 0, 0, 0, 0, 8, 0], .writes),
        (Blocks.ten(0x35, 0, 1), .writes), (Blocks.sixteen(0x91, 0, 1), .writes),
        ([0x15, 0x10, 0, 0, 4, 0], .writes),
        ([0x55, 0x10, 0, 0, 0, 0, 0, 0, 8, 0], .writes),
        ([0x1B, 0, 0, 0, 0, 0], .writes), ([0x1B, 0, 0, 0, 3, 0], .writes),
        ([0x1B, 0, 0, 0, 0x11, 0], .writes),
        ([0x1E, 0, 0, 0, 1, 0], .writes),
        ([0x83] + zeroes(15), .writes),
        ([0x84, 0] + zeroes(14), .writes),
        ([0x84, 3] + zeroes(14), .writes),
    ]

    /// Nexus 0 holds, 1 is registered, 2 is not.
    private func reserved(_ type: ReservationType) -> TestUnit {
        let test = TestUnit()
        for (nexus, key) in [(0, 1), (1, 2)] as [(UInt8, UInt64)] {
            let list = bytes(0, 8) + bytes(key, 8) + bytes(0, 8)
            _ = test.run([0x5F, 6, 0, 0, 0, 0, 0, 0, 24, 0], nexus: nexus, parameters: list)
        }
        let list = bytes(1, 8) + bytes(0, 16)
        _ = test.run([0x5F, 1, type.rawValue, 0, 0, 0, 0, 0, 24, 0], parameters: list)
        return test
    }

    @Test("Every command of every nexus under every type", arguments: ReservationType.allCases)
    func conflict_typeByCommand_followsTheTable(_ type: ReservationType) {
        #expect(reserved(type).unit.reservations.type == type)
        for (block, column) in Self.table {
            for nexus in 0..<3 as Range<UInt8> {
                let hasAccess = nexus == 0 || nexus == 1 && type.isForRegistrants
                let conflicts: Bool =
                    switch column {
                    case .allowed: false
                    case .reads: !hasAccess && type.excludesReads
                    case .writes: !hasAccess
                    }
                let plan = reserved(type).plan(block, nexus: nexus, dataOut: 1024)
                #expect(
                    (plan.status == .reservationConflict) == conflicts,
                    "\(block) of nexus \(nexus)"
                )
            }
        }
    }

    @Test("The table has every command that is listed, but those that judge for themselves")
    func table_commands_areAll() {
        let data = TestUnit().data([0xA3, 0x0C, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0, 0])
        let judging: Set<UInt8> = [0x16, 0x17, 0x56, 0x57, 0x5E, 0x5F]
        for index in stride(from: 4, to: data.count, by: 8) where !judging.contains(data[index]) {
            let hasAction = data[index + 5] & 1 != 0
            #expect(
                Self.table.contains { block, _ in
                    block[0] == data[index] && (!hasAction || block[1] & 0x1F == data[index + 3])
                },
                "\(data[index])"
            )
        }
    }
}
