// The hardest life for the log's space: small segments, volumes so large and so thinly written
// that every block has a map page of its own, a device that is full most of the time, and
// crashes that come sooner than cleaning ends, in recoveries above all.

import LogStore

extension StoreScenario {
    /// Turns a drawn scenario into one that is short of room.
    ///
    /// - Parameter random: The seed's source, after everything else was drawn from it.
    mutating func crowd(_ random: inout SeededRandom) {
        segmentByteCount = random.pick([64 << 10, 64 << 10, 128 << 10, 512 << 10])
        deviceByteCount =
            1 << 20 + UInt64(segmentByteCount) * UInt64(random.pick([64, 96, 128]))
        operationCount = random.pick([1000, 2000, 3000])
        requestByteCountMax = random.pick([4 << 10, 4 << 10, 16 << 10])
        queueDepthMax = random.pick([1, 4, 16, 32])
        volumeCountMax = random.within(1...3)
        snapshotCountMax = random.within(1...3)
        crashInterval = random.pick([4, 10, 20, 60, 200])
        recrashPerMille = random.pick([200, 500, 800])
        thinkNanosecondsMax = random.pick([0, 50_000, 1_000_000])
        hugeVolumePerMille = 1000
        endsEmpty = true
        // Damage ends a run early: it has scenarios of its own.
        faults.damageCountMax = 0
        weights = Step.allCases.map { Self.crowdedWeights[$0] ?? 0 }
        isCrowded = true
    }

    private static let crowdedWeights: [Step: Int] = [
        .read: 20, .write: 800, .writeZeroes: 10, .trim: 30, .flush: 40, .createVolume: 20,
        .createSnapshot: 3, .deleteSnapshot: 6, .clone: 1, .deleteVolume: 1, .idle: 4,
        .restart: 4,
    ]

    /// Sizes at which a device of a few megabytes holds at most a block or two of each map page.
    static let crowdedVolumeByteCounts: [UInt64] = [1 << 30, 4 << 30]
}
