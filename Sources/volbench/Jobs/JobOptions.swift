/// A length or place on a target.
package enum Extent: Sendable, Equatable {
    /// So many bytes.
    case bytes(UInt64)
    /// So many hundredths of the target.
    case percent(Int)

    /// The extent in bytes, on a target of `targetByteCount`.
    package func byteCount(of targetByteCount: UInt64) -> UInt64 {
        switch self {
        case .bytes(let count): count
        case .percent(let percent):
            targetByteCount / 100 * UInt64(percent) + targetByteCount % 100 * UInt64(percent) / 100
        }
    }

    /// The same, where a percentage comes to whole blocks; bytes are taken at their word.
    package func whole(_ blockByteCount: UInt64, of targetByteCount: UInt64) -> UInt64 {
        let count = byteCount(of: targetByteCount)
        if case .percent = self { return count / blockByteCount * blockByteCount }
        return count
    }
}

/// A value each for reads, writes and trims.
package struct PerDirection<Value> {
    /// For reads.
    package var read: Value
    /// For writes.
    package var write: Value
    /// For trims.
    package var trim: Value

    /// The same value for all.
    package init(repeating value: Value) { (read, write, trim) = (value, value, value) }

    /// The value for operations of `kind`; a flush has that of writes.
    package subscript(kind: Operation.Kind) -> Value {
        switch kind {
        case .read: read
        case .write, .flush: write
        case .trim: trim
        }
    }
}

extension PerDirection: Sendable where Value: Sendable {}
extension PerDirection: Equatable where Value: Equatable {}

/// The sizes that operations of one kind have, and how often.
package struct BlockSizes: Sendable, Equatable {
    /// One size and its share.
    package struct Entry: Sendable, Equatable {
        /// Bytes.
        package var byteCount: Int
        /// Of a hundred operations, so many.
        package var percent: Int
    }

    /// All sizes; the shares come to 100.
    package var entries: [Entry]

    /// One size.
    package static func fixed(_ byteCount: Int) -> BlockSizes {
        BlockSizes(entries: [Entry(byteCount: byteCount, percent: 100)])
    }

    /// The smallest size.
    package var least: Int { entries.map(\.byteCount).min() ?? 0 }
    /// The largest size.
    package var greatest: Int { entries.map(\.byteCount).max() ?? 0 }
}

/// What a job does, and in which order.
package struct AccessMode: Sendable, Equatable {
    /// The mode as it was written, without what follows a colon.
    package var text: String
    /// Whether places are random.
    package var isRandom: Bool
    /// Whether there are reads.
    package var reads: Bool
    /// Whether there are writes.
    package var writes: Bool
    /// Whether there are trims; with writes, each write follows the trim of its block.
    package var trims: Bool
    /// Operations in a row from each random place.
    package var runLength = 1
    /// Bytes left out after each operation of a sequence.
    package var gapByteCount: UInt64 = 0

    /// Whether reads and writes are drawn by share.
    package var isMixed: Bool { reads && writes }

    /// Reads of everything in order.
    package static let read = AccessMode(
        text: "read",
        isRandom: false,
        reads: true,
        writes: false,
        trims: false
    )
}

/// In which places random operations fall.
package enum PlaceDistribution: Sendable, Equatable {
    /// Equally often everywhere.
    case uniform
    /// The n-th favourite place with a probability of n to the power of minus `theta`.
    case zipf(theta: Double)
    /// A share `h` of the operations in a share 1-`h` of the places, and so on within it.
    case pareto(h: Double)
}

/// How blocks that were written are known again.
package enum Verification: String, Sendable, Equatable {
    /// Not at all.
    case none
    /// A header with place, length and CRC-32C.
    case crc32c
    /// The bytes of `verify_pattern`, again and again.
    case pattern
}

/// What a failed operation does to its job.
package enum ErrorPolicy: Sendable, Equatable {
    /// Ends it.
    case stop
    /// Is counted.
    case proceed
}

/// The engine that a job runs on.
package enum EngineKind: String, Sendable, Equatable {
    /// The NBD client.
    case nbd
    /// io_uring on a file or block device.
    case uring = "io_uring"
    /// libaio on a file or block device.
    case aio = "libaio"
    /// Nothing at all.
    case null
}

/// One job: what fio calls a section.
package struct JobOptions: Sendable, Equatable {
    package var name = "volbench"
    package var description = ""
    /// Names of the options that were given, with their values: in `global` or by the job itself.
    package var given: [String: String] = [:]
    /// Those of them that are the job's own, for the output.
    package var own: [String] = []

    package var engine: EngineKind?
    package var uri: String?
    package var filename: String?

    package var mode = AccessMode.read
    package var readPercent = 50
    package var blockSizes = PerDirection(repeating: BlockSizes.fixed(4096))
    package var depth = 1
    package var connectionCount = 1
    package var cloneCount = 1
    package var offsetIncrement = Extent.bytes(0)
    package var usesStructuredReplies = true

    package var offset = Extent.bytes(0)
    package var size: Extent?
    package var ioSize: Extent?
    package var operationCountMax: UInt64?
    package var loopCount = 1

    package var runMicroseconds: UInt64?
    package var isTimeBased = false
    package var rampMicroseconds: UInt64 = 0
    package var startDelayMicroseconds: UInt64 = 0
    package var thinkMicroseconds: UInt64 = 0
    package var thinkOperationCount = 1

    package var byteRate: PerDirection<Int>?
    package var operationRate: PerDirection<Int>?
    package var hasPoissonArrivals = false

    package var flushInterval = 0
    package var flushesAtEnd = false
    package var forceUnitAccess = false

    package var repeatsPlaces = false
    package var distribution = PlaceDistribution.uniform
    package var seed: UInt64 = 1

    package var verification = Verification.none
    package var pattern: [UInt8] = []
    package var verifiesAfterwards = true
    package var isVerifyFailureFatal = false

    package var latencyTargetMicroseconds: UInt64 = 0
    package var latencyWindowMicroseconds: UInt64 = 0
    package var latencyPercentile = 100.0
    package var isLatencyRunEndless = false

    package var percentiles: [Double]?
    package var bandwidthLog: String?
    package var operationsLog: String?
    package var latencyLog: String?
    package var logMilliseconds: Int?
    package var isGroupReported = false
    package var beginsGroup = false
    package var waitsForJobsBefore = false
    package var errorPolicy = ErrorPolicy.stop

    /// Creates a job of defaults.
    package init() {}

    /// Whether an option was given.
    package func has(_ name: String) -> Bool { given[name] != nil }

    /// What fio prints without a `percentile_list`, and one more.
    package static let percentilesDefault: [Double] = [
        1, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 99, 99.5, 99.9, 99.95, 99.99, 99.999,
    ]

    /// The largest operation, in bytes.
    package var blockByteCountMax: Int {
        var sizes: [Int] = []
        if mode.reads || verification != .none { sizes.append(blockSizes.read.greatest) }
        if mode.writes { sizes.append(blockSizes.write.greatest) }
        if mode.trims { sizes.append(blockSizes.trim.greatest) }
        return sizes.max() ?? blockSizes.read.greatest
    }

    /// The unit in which places are counted: the smallest block.
    package var placeByteCount: Int {
        var sizes: [Int] = []
        if mode.reads { sizes.append(blockSizes.read.least) }
        if mode.writes { sizes.append(blockSizes.write.least) }
        if mode.trims { sizes.append(blockSizes.trim.least) }
        return sizes.min() ?? blockSizes.read.least
    }
}
