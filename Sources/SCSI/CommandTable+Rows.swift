extension CommandTable {
    private static let medium: CommandTraits = [.needsMedium]
    private static let change: CommandTraits = [.needsMedium, .changesMedium]
    private static let always: CommandTraits = [.passesAttentions, .passesLegacyReservation]
    private static let shared: CommandTraits = [.passesLegacyReservation]

    /// Every command, operation codes in ascending order, service actions of one together.
    ///
    /// A command with a bit outside its usage is refused with INVALID FIELD IN CDB. Bits that are
    /// obsolete and harmless (SYNC_NV, FUA_NV) are in the usage: old initiators set them.
    ///
    /// Spec: SPC-4, section 6; SBC-3, section 5.
    static let rows: [CommandRow] = shortRows + serviceActionRows + longRows

    private static let shortRows: [CommandRow] = [
        CommandRow(0x00, .testUnitReady, .free, "00 0000 00 00", medium),
        CommandRow(0x03, .requestSense, .free, "01 0000 FF 00", always),
        CommandRow(0x08, .read, .read, "1F FFFF FF 00", medium),
        CommandRow(0x0A, .write, .write, "1F FFFF FF 00", change),
        CommandRow(0x12, .inquiry, .free, "01 FF FFFF 00", always),
        CommandRow(0x15, .modeSelect, .write, "11 0000 FF 00"),
        CommandRow(0x16, .reserve, .free, "00 0000 00 00"),
        CommandRow(0x17, .release, .free, "00 0000 00 00", shared),
        CommandRow(0x1A, .modeSense, .read, "08 FF FF FF 00"),
        CommandRow(0x1B, .startStopUnit, .write, "01 00 0F F7 00"),
        CommandRow(0x1E, .preventAllow, .write, "00 0000 03 00"),
        CommandRow(0x25, .readCapacity10, .free, "00 FFFFFFFF 0000 01 00", medium),
        CommandRow(0x28, .read, .read, "1A FFFFFFFF 1F FFFF 00", medium),
        CommandRow(0x2A, .write, .write, "1A FFFFFFFF 1F FFFF 00", change),
        CommandRow(0x2E, .writeAndVerify, .write, "16 FFFFFFFF 1F FFFF 00", change),
        CommandRow(0x2F, .verify, .read, "16 FFFFFFFF 1F FFFF 00", medium),
        CommandRow(0x34, .prefetch, .read, "02 FFFFFFFF 1F FFFF 00", medium),
        CommandRow(0x35, .synchronizeCache, .write, "06 FFFFFFFF 1F FFFF 00", medium),
        CommandRow(0x37, .readDefects, .read, "00 1F 00000000 FFFF 00", medium),
        CommandRow(0x41, .writeSame, .write, "08 FFFFFFFF 1F FFFF 00", change),
        CommandRow(0x42, .unmap, .write, "00 00000000 1F FFFF 00", change),
        CommandRow(0x55, .modeSelect, .write, "11 0000000000 FFFF 00"),
        CommandRow(0x56, .reserve, .free, "00 0000000000 0000 00"),
        CommandRow(0x57, .release, .free, "00 0000000000 0000 00", shared),
        CommandRow(0x5A, .modeSense, .read, "18 FF FF 000000 FFFF 00"),
    ]

    private static let serviceActionRows: [CommandRow] =
        (0x00...0x03).map {
            CommandRow(0x5E, Int16($0), .persistentIn, .free, "00 0000000000 FFFF 00")
        }
        + (0x00...0x07).map {
            CommandRow(0x5F, Int16($0), .persistentOut, .free, "00 FF 0000 FFFFFFFF 00")
        }
        + [
            CommandRow(
                0x83,
                0x00,
                .extendedCopy,
                .write,
                "00 0000000000000000 FFFFFFFF 00 00",
                change
            ),
            CommandRow(
                0x84,
                0x00,
                .copyStatus,
                .write,
                "00 FF 00000000000000 FFFFFFFF 00 00"
            ),
            CommandRow(
                0x84,
                0x03,
                .copyParameters,
                .write,
                "00 FF 00000000000000 FFFFFFFF 00 00"
            ),
        ]

    /// Commands of 16 bytes, then of 12.
    private static let longRows: [CommandRow] = [
        CommandRow(0x88, .read, .read, "1A FFFFFFFFFFFFFFFF FFFFFFFF 3F 00", medium),
        CommandRow(0x89, .compareAndWrite, .write, "1A FFFFFFFFFFFFFFFF 000000 FF 3F 00", change),
        CommandRow(0x8A, .write, .write, "1A FFFFFFFFFFFFFFFF FFFFFFFF 3F 00", change),
        CommandRow(0x8B, .orWrite, .write, "1A FFFFFFFFFFFFFFFF FFFFFFFF 3F 00", change),
        CommandRow(0x8E, .writeAndVerify, .write, "16 FFFFFFFFFFFFFFFF FFFFFFFF 3F 00", change),
        CommandRow(0x8F, .verify, .read, "16 FFFFFFFFFFFFFFFF FFFFFFFF 3F 00", medium),
        CommandRow(0x90, .prefetch, .read, "02 FFFFFFFFFFFFFFFF FFFFFFFF 3F 00", medium),
        CommandRow(0x91, .synchronizeCache, .write, "06 FFFFFFFFFFFFFFFF FFFFFFFF 3F 00", medium),
        CommandRow(0x93, .writeSame, .write, "09 FFFFFFFFFFFFFFFF FFFFFFFF 3F 00", change),
        CommandRow(0x9C, .writeAtomic, .write, "18 FFFFFFFFFFFFFFFF 0000 FFFF 3F 00", change),
        CommandRow(
            0x9E,
            0x10,
            .readCapacity16,
            .free,
            "00 FFFFFFFFFFFFFFFF FFFFFFFF 01 00",
            medium
        ),
        CommandRow(
            0x9E,
            0x12,
            .blockStatus,
            .read,
            "00 FFFFFFFFFFFFFFFF FFFFFFFF 00 00",
            medium
        ),
        CommandRow(0xA0, .reportLUNs, .free, "00 FF 000000 FFFFFFFF 00 00", always),
        CommandRow(0xA3, 0x0A, .reportPortGroups, .free, "E0 00000000 FFFFFFFF 00 00"),
        CommandRow(0xA3, 0x0C, .reportOpcodes, .read, "00 87 FF FFFF FFFFFFFF 00 00"),
        CommandRow(0xA3, 0x0D, .reportTaskManagement, .read, "00 80 000000 FFFFFFFF 00 00"),
        CommandRow(0xA8, .read, .read, "1A FFFFFFFF FFFFFFFF 1F 00", medium),
        CommandRow(0xAA, .write, .write, "1A FFFFFFFF FFFFFFFF 1F 00", change),
        CommandRow(0xAE, .writeAndVerify, .write, "16 FFFFFFFF FFFFFFFF 1F 00", change),
        CommandRow(0xAF, .verify, .read, "16 FFFFFFFF FFFFFFFF 1F 00", medium),
        CommandRow(0xB7, .readDefects, .read, "1F 00000000 FFFFFFFF 00 00", medium),
    ]
}
