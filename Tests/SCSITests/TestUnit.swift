import BlockCore
import SCSI

/// A logical unit with nexuses that have heard what happened before them, and room for answers.
final class TestUnit {
    static let identity: (high: UInt64, low: UInt64) = (
        0x0123_4567_89AB_CDEF, 0xFEDC_BA98_7654_3210
    )

    let unit: LogicalUnit
    private let arena = MemoryArena(byteCount: 64 << 10, usesHugePages: false)
    let dataIn: ByteRegion
    private let scratch: ByteRegion

    init(_ description: LogicalUnitDescription = TestUnit.description(), nexusCount: UInt8 = 3) {
        unit = LogicalUnit(description)
        dataIn = arena.allocate(byteCount: LogicalUnit.dataInByteCountMax)
        scratch = arena.allocate(byteCount: LogicalUnit.parameterByteCountMax)
        for index in 0..<nexusCount {
            unit.attach(NexusIndex(index), TestUnit.nexus(index))
            _ = run([0, 0, 0, 0, 0, 0], nexus: index)
        }
    }

    static func description(
        byteCount: UInt64 = 1000 * 512,
        blockByteCount: UInt32 = 512
    ) -> LogicalUnitDescription {
        LogicalUnitDescription(
            handle: 7,
            byteCount: byteCount,
            blockByteCount: blockByteCount,
            physicalBlockExponent: blockByteCount == 512 ? 3 : 0,
            identity: identity,
            name: "vm01",
            limits: TransferLimits(
                transferByteCountMax: 256 * blockByteCount,
                compareByteCountMax: 16 * blockByteCount,
                writeSameByteCountMax: UInt64(800 * blockByteCount),
                unmapRangeCountMax: 8,
                atomicByteCountMax: 64 * blockByteCount
            ),
            targetName: "iqn.2026-01.cairn:vm01"
        )
    }

    static func nexus(_ index: UInt8, targetPort: UInt16 = 1) -> NexusIdentity {
        NexusIdentity(
            initiator: InitiatorPort(
                name: "iqn.2026-01.host:a",
                isid: 0x8000_0000_0000 + UInt64(index)
            ),
            targetPort: targetPort
        )
    }

    /// Plans a command; without counts the initiator expects whatever the command may want.
    func plan(
        _ bytes: [UInt8],
        nexus: UInt8 = 0,
        dataOut: UInt32 = 0,
        room: UInt32 = .max
    ) -> SCSIPlan {
        unit.plan(
            SCSICommand(
                block: SCSICommandBlock(bytes),
                nexus: NexusIndex(nexus),
                dataOutByteCount: dataOut,
                dataInByteCount: room
            ),
            dataIn: dataIn
        )
    }

    /// Plans a command, gives it its parameters, and stores reservations: what remains is the end.
    func run(
        _ bytes: [UInt8],
        nexus: UInt8 = 0,
        parameters: [UInt8] = [],
        store: StoreOutcome = .stored
    ) -> SCSIPlan {
        let command = SCSICommand(
            block: SCSICommandBlock(bytes),
            nexus: NexusIndex(nexus),
            dataOutByteCount: UInt32(parameters.count),
            dataInByteCount: .max
        )
        var plan = unit.plan(command, dataIn: dataIn)
        if case .collect(let byteCount) = plan.step {
            plan = unit.plan(
                command,
                parameters: region(parameters, Int(byteCount)),
                dataIn: dataIn
            )
        }
        if case .storeReservations = plan.step {
            return .reply(unit.reservationsStored(store).reply)
        }
        return plan
    }

    /// A region with the first `byteCount` of `bytes`.
    func region(_ bytes: [UInt8], _ byteCount: Int? = nil) -> ByteRegion {
        let region = scratch.slice(0, byteCount ?? bytes.count)
        region.copy(from: Array(bytes.prefix(region.byteCount)))
        return region
    }

    /// The data that a command is answered with; empty when it is not GOOD.
    func data(_ bytes: [UInt8], nexus: UInt8 = 0) -> [UInt8] {
        guard case .reply(let reply) = plan(bytes, nexus: nexus).step, reply.status == .good else {
            return []
        }
        return dataIn.slice(0, Int(reply.dataInByteCount)).array()
    }
}

extension SCSIPlan {
    /// The reply; nil when there is more to do.
    var reply: SCSIReply? {
        guard case .reply(let reply) = step else { return nil }
        return reply
    }

    /// The status; nil when there is more to do.
    var status: SCSIStatus? { reply?.status }

    /// The sense code of a CHECK CONDITION.
    var code: SenseCode? { status == .checkCondition ? reply?.sense.code : nil }

    /// The block operation.
    var operation: BlockOperation? {
        guard case .perform(let operation) = step else { return nil }
        return operation
    }
}

/// SplitMix64: one seed, one sequence.
struct TestRandom: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }
}

/// `count` zero bytes.
func zeroes(_ count: Int) -> [UInt8] { [UInt8](repeating: 0, count: count) }

/// `value` in `byteCount` bytes, big-endian.
func bytes(_ value: UInt64, _ byteCount: Int) -> [UInt8] {
    (0..<byteCount).map { UInt8(truncatingIfNeeded: value >> UInt64(8 * (byteCount - 1 - $0))) }
}

/// Command blocks by form, for tables.
enum Blocks {
    static func six(_ code: UInt8, _ address: UInt64, _ count: UInt8) -> [UInt8] {
        [code] + bytes(address, 3) + [count, 0]
    }

    static func ten(
        _ code: UInt8,
        _ address: UInt64,
        _ count: UInt64,
        _ flags: UInt8 = 0
    ) -> [UInt8] {
        [code, flags] + bytes(address, 4) + [0] + bytes(count, 2) + [0]
    }

    static func twelve(
        _ code: UInt8,
        _ address: UInt64,
        _ count: UInt64,
        _ flags: UInt8 = 0
    )
        -> [UInt8]
    {
        [code, flags] + bytes(address, 4) + bytes(count, 4) + [0, 0]
    }

    static func sixteen(
        _ code: UInt8,
        _ address: UInt64,
        _ count: UInt64,
        _ flags: UInt8 = 0
    )
        -> [UInt8]
    {
        [code, flags] + bytes(address, 8) + bytes(count, 4) + [0, 0]
    }

    static func compareAndWrite(_ address: UInt64, _ count: UInt8, _ flags: UInt8 = 0) -> [UInt8] {
        [0x89, flags] + bytes(address, 8) + [0, 0, 0, count, 0, 0]
    }

    /// A command of any of the forms with an address and a length.
    static func any(
        _ code: UInt8,
        _ address: UInt64,
        _ count: UInt64,
        _ flags: UInt8 = 0
    ) -> [UInt8] {
        switch code {
        case 0x89: compareAndWrite(address, UInt8(count), flags)
        case 0x9C: [code, flags] + bytes(address, 8) + [0, 0] + bytes(count, 2) + [0, 0]
        default:
            switch code >> 5 {
            case 0: six(code, address, UInt8(truncatingIfNeeded: count))
            case 1, 2: ten(code, address, count, flags)
            case 5: twelve(code, address, count, flags)
            default: sixteen(code, address, count, flags)
            }
        }
    }
}
