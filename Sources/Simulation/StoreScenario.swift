// What one seed means: geometry, limits, workload and faults of a run.

import BlockCore
import LogStore

/// What a caller wants of a run beyond its seed.
public struct SimulationOptions: Sendable, Hashable {
    /// Requests and commands of the workload; nil lets the seed choose.
    public var operationCount: Int?
    /// The device request at which the store crashes, instead of where the seed says.
    public var crashAt: UInt64?
    /// The device request that fails with an I/O error.
    public var errorAt: UInt64?
    /// A bug to plant.
    public var canary: Canary?
    /// Whether the seed's own crashes and faults are left out.
    public var isCalm = false
    /// Whether the store is small, full and thinly written, whatever the seed says.
    public var isCrowded = false
    /// Whether there are volumes with numbered changes; nil lets the seed choose.
    public var hasReplicas: Bool?

    /// Creates the defaults.
    public init() {}
}

/// The parameters of one run, all drawn from its seed.
///
/// Swarm testing: most runs have most faults and most kinds of requests switched off, because a
/// run that does everything does nothing often enough.
/// Source: Groce et al., "Swarm testing", 2012.
struct StoreScenario {
    /// Kinds of step, in the order of ``weights``.
    enum Step: Int, CaseIterable {
        case read
        case write
        case writeZeroes
        case trim
        case flush
        case blockStatus
        case cache
        case createVolume
        case createSnapshot
        case clone
        case rollback
        case deleteSnapshot
        case deleteVolume
        case resize
        case update
        case idle
        case reopenHandle
        case restart
        case wrongRequest
        case wrongCommand
        case compareListing
        case fill
    }

    let seed: UInt64
    var deviceByteCount: UInt64
    var segmentByteCount: UInt32
    var configuration = LogStoreConfiguration()
    var faults = DeviceFaults()
    var weights: [Int]
    var operationCount: Int
    var queueDepthMax: Int
    var volumeCountMax: Int
    var snapshotCountMax: Int
    /// Bytes of address space that get most of the requests.
    var spanByteCount: UInt64
    var requestByteCountMax: Int
    var forcedPerMille: Int
    var writethroughPerMille: Int
    var largeBlockPerMille: Int
    var hugeVolumePerMille: Int
    var hotPerMille: Int
    /// Device requests between crashes, on average; 0 for no crashes.
    var crashInterval: Int
    var crashKinds: [CrashKind]
    /// Crashes during the recovery from a crash, per mille.
    var recrashPerMille: Int
    /// Nanoseconds between submissions at most.
    var thinkNanosecondsMax: UInt64
    /// Whether the run ends with deleting everything and asking for the room.
    var endsEmpty: Bool
    /// Whether volumes are written everywhere, a block here and a block there.
    var isCrowded = false
    /// Whether there are volumes whose changes are numbered from outside.
    var hasReplicas: Bool

    init(seed: UInt64, options: SimulationOptions) {
        var random = SeededRandom(seed: seed)
        self.seed = seed
        // A source of its own: seeds from before there were replicas mean what they meant.
        var replicaRandom = SeededRandom(seed: seed ^ 0x5E_7A11_CA)
        hasReplicas = options.hasReplicas ?? replicaRandom.chance(perMille: 350)
        // Small devices have small segments (StoreFormat), and more of them.
        segmentByteCount = random.pick([
            64 << 10, 128 << 10, 256 << 10, 512 << 10, 1 << 20, 1 << 20,
        ])
        let segmentCount = random.pick(
            segmentByteCount < 256 << 10 ? [64, 96, 128, 192] : [24, 32, 48, 64, 96]
        )
        deviceByteCount = min(
            1 << 20 + UInt64(segmentByteCount) * UInt64(segmentCount),
            UInt64(SimulationMemory.deviceByteCountMax)
        )
        operationCount = options.operationCount ?? random.pick([100, 200, 300, 400])
        queueDepthMax = random.pick([1, 2, 4, 8, 16, 32])
        volumeCountMax = random.within(1...6)
        snapshotCountMax = random.within(1...8)
        spanByteCount = UInt64(random.pick([64 << 10, 256 << 10, 1 << 20, 4 << 20, 16 << 20]))
        requestByteCountMax = random.pick([4 << 10, 16 << 10, 64 << 10, 64 << 10, 1 << 20])
        forcedPerMille = random.pick([0, 0, 50, 300, 1000])
        writethroughPerMille = random.pick([0, 0, 300, 1000])
        largeBlockPerMille = random.pick([0, 500, 1000])
        hugeVolumePerMille = random.pick([0, 0, 300, 1000])
        hotPerMille = random.pick([0, 300, 800])
        crashInterval = random.pick([0, 0, 10, 20, 60, 200])
        crashKinds = random.pick([
            [.process],
            [.power(keptPerMille: 0)],
            [.power(keptPerMille: 500)],
            [.tornPower(keptPerMille: 500)],
            [
                .process, .power(keptPerMille: 500), .power(keptPerMille: 950),
                .tornPower(keptPerMille: 500), .power(keptPerMille: 50),
            ],
        ])
        recrashPerMille = random.pick([0, 200, 500])
        thinkNanosecondsMax = UInt64(random.pick([0, 50_000, 1_000_000]))
        endsEmpty = random.chance(perMille: 250)
        weights = StoreScenario.drawWeights(&random)
        drawLimits(&random)
        drawFaults(&random)
        if options.isCrowded { crowd(&random) }
        operationCount = options.operationCount ?? operationCount
        if options.canary?.isOfReplicas ?? false { hasReplicas = true }
        if options.isCalm || options.crashAt != nil || options.errorAt != nil {
            crashInterval = 0
            let latency = faults
            faults = DeviceFaults()
            faults.latencyNanosecondsMin = latency.latencyNanosecondsMin
            faults.latencyNanosecondsMax = latency.latencyNanosecondsMax
        }
    }

    private static func drawWeights(_ random: inout SeededRandom) -> [Int] {
        let usual: [Step: Int] = [
            .read: 200, .write: 400, .writeZeroes: 40, .trim: 60, .flush: 60, .blockStatus: 40,
            .cache: 10, .createVolume: 25, .createSnapshot: 40, .clone: 15, .rollback: 10,
            .deleteSnapshot: 25, .deleteVolume: 8, .resize: 10, .update: 5, .idle: 25,
            .reopenHandle: 10, .restart: 4, .wrongRequest: 10, .wrongCommand: 10,
            .compareListing: 10, .fill: 2,
        ]
        return Step.allCases.map { step in
            let weight = usual[step] ?? 0
            if step == .write { return weight }
            if step == .createVolume { return weight }
            switch random.below(4) {
            case 0: return 0
            case 1: return weight * 4
            default: return weight
            }
        }
    }

    private mutating func drawLimits(_ random: inout SeededRandom) {
        configuration.mapMemoryByteCount = random.pick([512 << 10, 512 << 10, 1 << 20, 4 << 20])
        configuration.cacheMemoryByteCount = random.pick([0, 64 << 10, 1 << 20])
        configuration.requestCountMax = 64
        configuration.checkpointByteCount = UInt64(
            random.pick([256 << 10, 1 << 20, 1 << 20, 4 << 20, 64 << 20])
        )
        configuration.writebackNanoseconds = UInt64(random.pick([0, 100_000, 2_000_000]))
    }

    private mutating func drawFaults(_ random: inout SeededRandom) {
        faults.latencyNanosecondsMin = 20_000
        faults.latencyNanosecondsMax = UInt64(random.pick([20_000, 200_000, 2_000_000]))
        if random.chance(perMille: 200) { faults.slowPerMillion = 10_000 }
        if random.chance(perMille: 150) {
            faults.readErrorPerMillion = random.pick([1000, 20_000])
        }
        if random.chance(perMille: 100) { faults.writeErrorPerMillion = random.pick([500, 5000]) }
        if random.chance(perMille: 100) {
            faults.flushErrorPerMillion = random.pick([2000, 20_000])
        }
        guard random.chance(perMille: 250) else { return }
        faults.damageCountMax = random.within(1...6)
        switch random.below(4) {
        case 0: faults.lostWritePerMillion = 10_000
        case 1: faults.misdirectedWritePerMillion = 10_000
        case 2: faults.rotPerMillion = 10_000
        default: faults.unreadablePerMillion = 10_000
        }
        faults.mayDamageSuperblock = random.chance(perMille: 300)
        // Damage together with crashes leaves little to check: mostly one or the other.
        if random.chance(perMille: 700) { crashInterval = 0 }
    }

    /// What the run is, in one line.
    var summary: String {
        "device \(deviceByteCount >> 20) MiB segment \(segmentByteCount >> 10) KiB "
            + "map \(configuration.mapMemoryByteCount >> 10) KiB "
            + "cache \(configuration.cacheMemoryByteCount >> 10) KiB "
            + "checkpoint \(configuration.checkpointByteCount >> 10) KiB "
            + "writeback \(configuration.writebackNanoseconds / 1000) us "
            + "ops \(operationCount) depth \(queueDepthMax) volumes \(volumeCountMax) "
            + "snapshots \(snapshotCountMax) span \(spanByteCount >> 10) KiB "
            + "replicas \(hasReplicas) crash every \(crashInterval) damage \(faults.damageCountMax)"
    }
}
