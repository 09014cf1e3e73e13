// What a run of the replication's simulation is: drawn from its seed.

internal import Replication

/// What to do otherwise than the seed says.
public struct ReplicationOptions: Sendable, Hashable {
    /// Requests of clients in all; nil for what the seed draws.
    public var operationCount: Int?
    /// No faults at all.
    public var isCalm = false
    /// The name of a planted bug.
    public var canary: String?

    /// Creates the defaults.
    public init() {}

    /// The names of all planted bugs.
    public static var canaries: [String] { ReplicationDefect.allCases.map(\.rawValue) }

    /// The options as arguments.
    public var arguments: [String] {
        var result: [String] = []
        if let operationCount { result += ["--ops", "\(operationCount)"] }
        if isCalm { result.append("--calm") }
        if let canary { result += ["--canary", canary] }
        return result
    }

    /// Takes an option without a value.
    ///
    /// - Parameter name: The argument.
    /// - Returns: Whether there is such an option.
    public mutating func takeFlag(_ name: String) -> Bool {
        guard name == "--calm" else { return false }
        isCalm = true
        return true
    }

    /// Takes an option with a value.
    ///
    /// - Parameters:
    ///   - name: The argument.
    ///   - value: What follows it.
    /// - Returns: Whether there is such an option and the value makes sense.
    public mutating func take(_ name: String, _ value: String) -> Bool {
        switch name {
        case "--ops":
            operationCount = Int(value)
            return operationCount != nil
        case "--canary":
            canary = value
            return ReplicationOptions.canaries.contains(value)
        default: return false
        }
    }
}

/// One run: drawn from its seed, each part on or off by chance, so that no fault hides another.
struct ReplicationScenario {
    /// What may go wrong.
    enum Fault: Int, CaseIterable {
        case crash, freeze, powerLoss, cutOneWay, cutBothWays, isolate, breakLink, takeover
        case metadataDown, replace, slowDisk, crashPrimary, isolatePrimary, stallDisk, damage
        case deleteSnapshot
    }

    private(set) var policy: ReplicationPolicy
    /// Processes that can be primary and hold no replica.
    let frontCount: Int
    let hotBlockCount: Int
    let wideBlockCount: Int
    let requestBlockCountMax: Int
    let inflightMax: Int
    let operationCount: Int
    let thinkNanosecondsMax: UInt64
    let readPerMille: Int
    let flushPerMille: Int
    let forcedPerMille: Int
    let hotPerMille: Int
    let snapshotPerMille: Int
    let delayNanosecondsMax: UInt64
    let flushNanosecondsMax: UInt64
    /// Nanoseconds between faults on average; 0 for none.
    let faultIntervalNanoseconds: UInt64
    let faultNanosecondsMax: UInt64
    let weights: [Int]
    /// Whether memory is lost by one replica at a time, and made good before the next, and
    /// takeovers wait for ever for those who remember: then nothing acknowledged is ever lost,
    /// whatever links, pauses and takeovers do meanwhile.
    let isForgettingOnce: Bool
    let scanCountMax: Int
    /// Blocks that a process may have on their way for resyncs, and while clients want something.
    let resyncCountMax: Int
    let busyResyncCountMax: Int
    /// Nanoseconds between stores being filled by others, on average; 0 for never.
    let fillIntervalNanoseconds: UInt64
    /// Nanoseconds between replicas being moved, on average; 0 for never.
    let moveIntervalNanoseconds: UInt64
    /// Whether clients meet full stores when everything else is over.
    let hasRoomTrial: Bool

    init(seed: UInt64, options: ReplicationOptions) {
        var random = SeededRandom(seed: seed)
        let shapes = [(1, 1), (2, 2), (3, 2), (3, 2), (3, 2), (3, 3), (5, 3), (5, 3), (5, 4)]
        let shape = random.pick(shapes)
        guard
            var policy = ReplicationPolicy(replicaCount: shape.0, writeQuorum: shape.1)
        else { preconditionFailure("a shape that is not allowed") }
        policy.isWritethrough = random.chance(perMille: 250)
        policy.grantNanoseconds = random.pick([20_000_000, 100_000_000, 600_000_000])
        policy.amnesiaNanoseconds = random.pick([300_000_000, 1_000_000_000, 3_000_000_000])
        policy.stuckNanoseconds = random.pick([200_000_000, 1_000_000_000])
        policy.windowCountMax = random.pick([8, 32, 256])
        policy.windowByteCountMax = random.pick([64 << 10, 1 << 20])
        // Not drawn: the other choices of a seed stay what they were.
        policy.gatheredBlockCount = [0, 8, 0, 2][Int(seed % 4)]
        policy.roomPatienceNanoseconds = [20_000_000, 200_000_000][Int(seed % 2)]
        policy.roomRetryNanoseconds = 2 * policy.roomPatienceNanoseconds
        policy.requestCountMax = 64
        policy.fetchCountMax = random.pick([1, 4, 16])
        policy.scanCountMax = random.pick([2, 8, 64])
        policy.defect = options.canary.flatMap { ReplicationDefect(rawValue: $0) }
        scanCountMax = policy.scanCountMax
        isForgettingOnce = policy.replicaCount > 1 && random.chance(perMille: 400)
        if isForgettingOnce { policy.amnesiaNanoseconds = 1 << 50 }
        frontCount = random.within(1...2)
        hotBlockCount = random.within(1...4)
        wideBlockCount = random.pick([4, 16, 64])
        requestBlockCountMax = random.within(1...4)
        inflightMax = random.pick([1, 2, 4, 16])
        operationCount = options.operationCount ?? random.pick([200, 400, 800])
        thinkNanosecondsMax = random.pick([100_000, 2_000_000, 20_000_000])
        readPerMille = random.pick([100, 400, 700])
        flushPerMille = random.pick([0, 20, 100])
        forcedPerMille = random.pick([0, 0, 100, 500])
        hotPerMille = random.pick([300, 800, 1000])
        // A grant has to outlive a round trip by far.
        delayNanosecondsMax = min(
            random.pick([200_000, 2_000_000, 20_000_000]),
            policy.grantNanoseconds / 10
        )
        flushNanosecondsMax = random.pick([500_000, 5_000_000, 50_000_000])
        let interval = policy.grantNanoseconds * random.pick([1, 2, 5])
        faultIntervalNanoseconds = options.isCalm || random.chance(perMille: 50) ? 0 : interval
        faultNanosecondsMax = interval * random.pick([1, 2, 4])
        weights = ReplicationScenario.drawWeights(&random, isForgettingOnce: isForgettingOnce)
        policy.hedgeNanoseconds = random.pick([2_000_000, 20_000_000])
        snapshotPerMille = random.pick([0, 0, 5, 20, 50])
        self.policy = policy
        fillIntervalNanoseconds =
            options.isCalm || seed / 3 % 3 != 0 ? 0 : interval * [1, 3][Int(seed % 2)]
        moveIntervalNanoseconds =
            options.isCalm || seed / 7 % 3 != 0 ? 0 : interval * [1, 4][Int(seed % 2)]
        hasRoomTrial = seed / 2 % 4 == 0
        busyResyncCountMax = [1, 4, 2, 64, 3][Int(seed % 5)]
        resyncCountMax = max(busyResyncCountMax, [2, 64][Int(seed % 2)])
        // Many snapshots that one block after the other is fetched for would be all that the run does.
        if fillIntervalNanoseconds > 0 { self.policy.fetchCountMax = max(policy.fetchCountMax, 4) }
    }

    func newResyncBudget() -> ResyncBudget {
        ResyncBudget(countMax: resyncCountMax, busyCountMax: busyResyncCountMax)
    }

    private static func drawWeights(
        _ random: inout SeededRandom,
        isForgettingOnce: Bool
    ) -> [Int] {
        var weights = Fault.allCases.map { fault in
            let usual =
                switch fault {
                case .powerLoss, .metadataDown: 3
                case .replace: 5
                case .damage: 20
                default: 10
                }
            return random.chance(perMille: 350) ? 0 : usual
        }
        if isForgettingOnce { weights[Fault.powerLoss.rawValue] = 0 }
        // Whoever waits for a disk that hangs, reads without a grant, or repairs what is not
        // damaged, is seen best when nothing else goes wrong.
        let alone: Fault? =
            switch random.below(20) {
            case 0, 1: .stallDisk
            case 2, 3: .isolatePrimary
            case 4: .damage
            default: nil
            }
        if let alone {
            weights = weights.map { _ in 0 }
            weights[alone.rawValue] = 1
        }
        if weights.allSatisfy({ $0 == 0 }) { weights[Fault.crash.rawValue] = 1 }
        return weights
    }

    /// What the run is, in one line.
    var summary: String {
        "N=\(policy.replicaCount) W=\(policy.writeQuorum) "
            + "\(policy.isWritethrough ? "writethrough" : "writeback") fronts=\(frontCount) "
            + "grant=\(policy.grantNanoseconds / 1_000_000)ms window=\(policy.windowCountMax) "
            + "blocks=\(hotBlockCount)+\(wideBlockCount) depth=\(inflightMax) "
            + "ops=\(operationCount) faults every \(faultIntervalNanoseconds / 1_000_000)ms"
            + (moveIntervalNanoseconds > 0 ? " moves" : "")
            + (isForgettingOnce ? " forgetting once" : "")
    }
}
