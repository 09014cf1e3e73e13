internal import BlockCore

/// What a command does; the dispatcher's switch and the table agree on it.
enum CommandKind: UInt8, BitwiseCopyable, Sendable {
    case testUnitReady, requestSense, inquiry, modeSelect, modeSense, reserve, release
    case startStopUnit, preventAllow, readCapacity10, readCapacity16, read, write, writeAtomic
    case writeAndVerify, verify, prefetch, synchronizeCache, unmap, writeSame, compareAndWrite
    case orWrite, blockStatus, readDefects, reportLUNs, reportOpcodes, reportTaskManagement
    case reportPortGroups, extendedCopy, copyStatus, copyParameters
    case persistentIn, persistentOut
}

/// What a persistent reservation does to a command of a nexus that does not hold it.
///
/// Spec: SPC-4, table 66; SBC-3, table 13.
enum ReservationClass: UInt8, BitwiseCopyable, Sendable {
    /// Always allowed, or judged by the command itself.
    case free
    /// Conflicts where even reads are excluded.
    case read
    /// Conflicts with every reservation.
    case write
}

/// Properties of a command beside its reservation class.
struct CommandTraits: OptionSet, BitwiseCopyable, Sendable {
    let rawValue: UInt8

    /// Executed with unit attentions pending, which stay.
    ///
    /// Spec: SAM-5, 5.14.
    static var passesAttentions: Self { Self(rawValue: 1 << 0) }
    /// Allowed while another nexus holds a reservation of RESERVE.
    ///
    /// Spec: SPC-2, table 10.
    static var passesLegacyReservation: Self { Self(rawValue: 1 << 1) }
    /// Needs the medium in its place, and started.
    static var needsMedium: Self { Self(rawValue: 1 << 2) }
    /// Changes the medium: refused where it is write-protected.
    static var changesMedium: Self { Self(rawValue: 1 << 3) }
}

/// A command that the unit knows.
struct CommandEntry: BitwiseCopyable, Sendable {
    /// The bits of the command block that are looked at, as ``SCSICommandBlock``'s words; without
    /// operation code and service action.
    let usageHigh: UInt64
    let usageLow: UInt64
    let operationCode: UInt8
    /// -1 for commands without service actions.
    let serviceAction: Int16
    /// Bytes in the command block.
    let byteCount: UInt8
    let kind: CommandKind
    let access: ReservationClass
    let traits: CommandTraits

    static var none: CommandEntry {
        CommandEntry(
            usageHigh: 0,
            usageLow: 0,
            operationCode: 0,
            serviceAction: -1,
            byteCount: 0,
            kind: .testUnitReady,
            access: .free,
            traits: []
        )
    }
}

/// All commands of a unit: what the dispatcher looks into, and what REPORT SUPPORTED OPERATION
/// CODES tells.
struct CommandTable: ~Copyable {
    private let entries: FixedArray<CommandEntry>
    /// For each operation code the index of its first entry plus 1; 0 for none.
    private let firsts: FixedArray<UInt8>

    init(_ description: LogicalUnitDescription) {
        let known = CommandTable.rows.filter { row in
            switch row.kind {
            case .writeAtomic: description.limits.atomicByteCountMax > 0
            case .unmap: description.isThin
            default: true
            }
        }
        entries = FixedArray(repeating: .none, count: known.count)
        firsts = FixedArray(repeating: 0, count: 256)
        for (index, row) in known.enumerated() {
            entries[index] = row.entry
            if firsts[Int(row.code)] == 0 { firsts[Int(row.code)] = UInt8(index + 1) }
        }
    }

    var count: Int { entries.count }

    subscript(index: Int) -> CommandEntry { entries[index] }

    /// The index of `block`'s entry: -1 when its operation code is unknown, -2 when its service
    /// action is.
    func index(of block: SCSICommandBlock) -> Int {
        let first = Int(firsts[Int(block.operationCode)]) - 1
        guard first >= 0, entries[first].serviceAction >= 0 else { return first }
        return index(
            code: block.operationCode,
            serviceAction: UInt16(block[1] & 0x1F)
        ) ?? -2
    }

    /// The index of the entry for an operation code, and a service action where it has some.
    func index(code: UInt8, serviceAction: UInt16) -> Int? {
        let first = Int(firsts[Int(code)]) - 1
        guard first >= 0 else { return nil }
        for index in first..<count where entries[index].operationCode == code {
            if entries[index].serviceAction < 0 { return index }
            if UInt16(entries[index].serviceAction) == serviceAction { return index }
        }
        return nil
    }

    /// Whether an operation code's commands are told apart by a service action; nil for none.
    func hasServiceActions(_ code: UInt8) -> Bool? {
        let first = Int(firsts[Int(code)]) - 1
        return first < 0 ? nil : entries[first].serviceAction >= 0
    }
}

/// A line of the table, as it is written down in ``CommandTable/rows``.
struct CommandRow: Sendable {
    let code: UInt8
    let serviceAction: Int16
    let kind: CommandKind
    let access: ReservationClass
    let traits: CommandTraits
    /// The bits looked at, byte 1 and on, in hexadecimal; a service action's bits are not in it.
    let usage: String

    init(
        _ code: UInt8,
        _ serviceAction: Int16,
        _ kind: CommandKind,
        _ access: ReservationClass,
        _ usage: String,
        _ traits: CommandTraits = []
    ) {
        self.code = code
        self.serviceAction = serviceAction
        self.kind = kind
        self.access = access
        self.usage = usage
        self.traits = traits
    }

    init(
        _ code: UInt8,
        _ kind: CommandKind,
        _ access: ReservationClass,
        _ usage: String,
        _ traits: CommandTraits = []
    ) {
        self.init(code, -1, kind, access, usage, traits)
    }

    var entry: CommandEntry {
        var mask = SCSICommandBlock(high: 0, low: 0)
        let digits = usage.utf8.filter { $0 != UInt8(ascii: " ") }.map(Self.value)
        for index in 0..<digits.count / 2 {
            mask.set(digits[2 * index] << 4 | digits[2 * index + 1], at: index + 1)
        }
        return CommandEntry(
            usageHigh: mask.high,
            usageLow: mask.low,
            operationCode: code,
            serviceAction: serviceAction,
            byteCount: UInt8(digits.count / 2 + 1),
            kind: kind,
            access: access,
            traits: traits
        )
    }

    private static func value(_ digit: UInt8) -> UInt8 {
        digit < UInt8(ascii: "A") ? digit - UInt8(ascii: "0") : digit - UInt8(ascii: "A") + 10
    }
}
