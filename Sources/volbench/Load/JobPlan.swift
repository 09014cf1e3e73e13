/// A job on its target: every size in bytes, every clone a plan of its own.
package struct JobPlan: Sendable {
    /// What was asked for.
    package let options: JobOptions
    /// The clone, counted from 0.
    package let cloneIndex: Int
    /// The first byte used.
    package let offset: UInt64
    /// Bytes used, whole blocks.
    package let byteCount: UInt64
    /// Bytes to move in all; nil without end.
    package let budget: UInt64?
    /// The seed of all choices of this clone.
    package let seed: UInt64

    /// Lays a clone of a job out over a target.
    ///
    /// - Throws: ``BenchError`` when the target is too small for it.
    package init(
        _ options: JobOptions,
        cloneIndex: Int,
        targetByteCount: UInt64
    ) throws(BenchError) {
        self.options = options
        self.cloneIndex = cloneIndex
        let place = UInt64(options.placeByteCount)
        let increment = options.offsetIncrement.whole(place, of: targetByteCount)
        let step = increment.multipliedReportingOverflow(by: UInt64(cloneIndex))
        let wanted = options.offset.whole(place, of: targetByteCount)
            .addingReportingOverflow(step.partialValue)
        guard !step.overflow, !wanted.overflow, wanted.partialValue < targetByteCount else {
            throw BenchError(
                "\(options.name): offset lies beyond the target's \(targetByteCount) bytes"
            )
        }
        offset = wanted.partialValue
        let available = targetByteCount - offset
        let size = options.size?.byteCount(of: targetByteCount) ?? available
        guard size <= available else {
            throw BenchError(
                "\(options.name): offset and size reach beyond the target's "
                    + "\(targetByteCount) bytes"
            )
        }
        byteCount = size / place * place
        guard byteCount >= UInt64(options.blockByteCountMax) else {
            throw BenchError(
                "\(options.name): a block of \(options.blockByteCountMax) bytes does not fit "
                    + "into the \(size) bytes used of the target's \(targetByteCount)"
            )
        }
        let once = options.ioSize?.byteCount(of: targetByteCount) ?? byteCount
        let all = once.multipliedReportingOverflow(by: UInt64(options.loopCount))
        // Each block of a trimwrite is trimmed and written: both count.
        let shares: UInt64 = options.mode.trims && options.mode.writes ? 2 : 1
        let total = all.partialValue.multipliedReportingOverflow(by: shares)
        let isEndless = options.isTimeBased || all.overflow || total.overflow
        budget = isEndless ? nil : total.partialValue
        seed = SplitMix64.mix(options.seed &+ UInt64(cloneIndex) << 32)
        try checkMaps()
    }

    /// Whether every operation has the same size, so that a permutation can order them.
    package var isEven: Bool {
        let sizes = options.blockSizes
        let all = [
            options.mode.reads ? sizes.read : nil, options.mode.writes ? sizes.write : nil,
            options.mode.trims ? sizes.trim : nil,
        ].compactMap(\.self)
        return all.allSatisfy { $0.entries.count == 1 && $0.least == options.placeByteCount }
    }

    /// Whether places are visited once before any is visited again.
    package var visitsOnce: Bool {
        options.mode.isRandom && !options.repeatsPlaces && options.distribution == .uniform
    }

    /// Places of the smallest block.
    package var placeCount: UInt64 { byteCount / UInt64(options.placeByteCount) }

    /// Whether written blocks are read back.
    package var verifiesWrites: Bool {
        options.verification != .none && options.mode.writes && options.verifiesAfterwards
    }

    private func checkMaps() throws(BenchError) {
        let needsMap = visitsOnce && (!isEven || options.mode.runLength > 1)
        guard !needsMap && !verifiesWrites || placeCount <= JobLimits.mapBlockCountMax else {
            throw BenchError(
                "\(options.name): \(placeCount) blocks are more than volbench remembers; "
                    + "use a smaller size, norandommap or do_verify=0"
            )
        }
    }
}
