/// What the command line asked for.
package struct Options: Sendable, Equatable {
    /// What is measured.
    package var target: Target = .null
    /// What is done to it.
    package var workload = Workload()
    /// How long and how hard.
    package var pace = Pace()
    /// Operations in flight per connection.
    package var depth = 1
    /// Connections to an NBD target; a file has one.
    package var connectionCount = 1
    /// Processes whose CPU use is reported.
    package var serverPIDs: [Int32] = []
    /// Whether to print one JSON document instead of text.
    package var isJSON = false
    /// Whether to ask the server for replies in chunks.
    package var usesStructuredReplies = true
    /// The size of the imaginary target of `null:`.
    package var nullByteCount: UInt64 = 1 << 30

    /// The most operations in flight per connection; the reply tables are sized by it.
    package static var depthMax: Int { 1024 }
    /// The most connections; beyond, one client thread measures itself.
    package static var connectionCountMax: Int { 256 }
    /// The largest operation, in bytes: NBD's own limit for a payload.
    package static var blockByteCountMax: Int { 32 << 20 }
    /// The most memory for payloads, in bytes.
    package static var memoryByteCountMax: Int { 4 << 30 }

    /// The text of `--help`.
    package static let usage = """
        usage: volbench TARGET [options]

        TARGET  nbd://HOST[:PORT]/EXPORT, nbd+unix:///EXPORT?socket=PATH, a file or block
                device (opened with O_DIRECT), or null: (the generator alone)

          --rw MODE            randread (default), randwrite, read, write, randrw:PERCENT,
                               rw:PERCENT  (PERCENT of reads, 50 when left out)
          --bs SIZE            bytes per operation (4k)
          --iodepth N          operations in flight per connection (1)
          --connections N      connections to an NBD target (1)
          --runtime SECONDS    how long to measure (5)
          --ramp SECONDS       how long to drive before measuring (0)
          --count N            end after N operations
          --offset SIZE        first byte used (0)
          --size SIZE          bytes used (all)
          --fua                every write durable when it completes
          --flush-every N      every lane flushes after N writes
          --rate N             begin N operations per second, whatever the target does;
                               latency counts from when an operation should have begun
          --simple-replies     do not ask for structured replies
          --seed N             seed of all choices (1)
          --server-pid PID     report the CPU per operation of this process and its children;
                               repeatable
          --json               one JSON document on standard output

        SIZE takes k, M, G, T (binary). WRITING MODES OVERWRITE THE TARGET.
        Exit status: 0 measured, 1 failed or operations ended in errors, 2 usage.
        """

    /// Creates the defaults.
    package init() {}

    /// Parses the arguments after the program's name.
    ///
    /// - Throws: ``BenchError`` that names the argument that is wrong.
    package init(parsing arguments: [String]) throws(BenchError) {
        var rest = arguments[...]
        var hasTarget = false
        while let argument = rest.popFirst() {
            guard argument.hasPrefix("--") else {
                guard !hasTarget else { throw BenchError("\(argument): a second target") }
                target = try Target(parsing: argument)
                hasTarget = true
                continue
            }
            let parts = argument.split(separator: "=", maxSplits: 1)
            let name = String(parts[0])
            switch name {
            case "--fua": workload.forceUnitAccess = true
            case "--simple-replies": usesStructuredReplies = false
            case "--json": isJSON = true
            default:
                guard Options.valued.contains(name) else {
                    throw BenchError("\(argument): no such option")
                }
                guard let value = parts.count == 2 ? String(parts[1]) : rest.popFirst() else {
                    throw BenchError("\(name) needs a value")
                }
                try apply(name, value)
            }
        }
        guard hasTarget else { throw BenchError("no target") }
        let laneByteCount = workload.blockByteCount + 4096
        guard depth * connectionCount * laneByteCount <= Options.memoryByteCountMax else {
            throw BenchError("--bs, --iodepth and --connections need more than 4 GiB of memory")
        }
    }

    private static let valued: Set<String> = [
        "--rw", "--bs", "--iodepth", "--connections", "--runtime", "--ramp", "--count", "--offset",
        "--size", "--flush-every", "--rate", "--seed", "--server-pid",
    ]

    private mutating func apply(_ name: String, _ value: String) throws(BenchError) {
        switch name {
        case "--rw": try applyMode(value)
        case "--bs":
            let count = try Options.size(name, value)
            guard count >= 512, count <= UInt64(Options.blockByteCountMax), count % 512 == 0 else {
                throw BenchError("--bs \(value): a multiple of 512 up to 32M")
            }
            workload.blockByteCount = Int(count)
        case "--iodepth": depth = try Options.count(name, value, 1...Options.depthMax)
        case "--connections":
            connectionCount = try Options.count(name, value, 1...Options.connectionCountMax)
        case "--runtime": pace.runSeconds = try Options.seconds(name, value)
        case "--ramp": pace.rampSeconds = try Options.seconds(name, value)
        case "--count": pace.operationCountMax = UInt64(try Options.count(name, value, 1...Int.max))
        case "--offset": workload.spanOffset = try Options.size(name, value)
        case "--size": workload.spanByteCount = try Options.size(name, value)
        case "--flush-every":
            workload.flushInterval = try Options.count(name, value, 1...1_000_000)
        case "--rate":
            pace.operationsPerSecond = Double(try Options.count(name, value, 1...100_000_000))
        case "--seed": workload.seed = UInt64(try Options.count(name, value, 0...Int.max))
        default: serverPIDs.append(Int32(try Options.count(name, value, 1...Int(Int32.max))))
        }
    }

    private mutating func applyMode(_ text: String) throws(BenchError) {
        let parts = text.split(separator: ":", maxSplits: 1)
        let mode = parts.first ?? ""
        let hasPercent = parts.count == 2
        workload.order = mode.hasPrefix("rand") ? .random : .sequential
        switch (mode, hasPercent) {
        case ("randread", false), ("read", false): workload.readPercent = 100
        case ("randwrite", false), ("write", false): workload.readPercent = 0
        case ("randrw", _), ("rw", _):
            workload.readPercent =
                hasPercent ? try Options.count("--rw \(mode):", String(parts[1]), 0...100) : 50
        default:
            throw BenchError("--rw \(text): randread, randwrite, read, write, randrw:N or rw:N")
        }
    }

    // MARK: - Values

    private static func count(
        _ name: String,
        _ text: String,
        _ range: ClosedRange<Int>
    ) throws(BenchError) -> Int {
        guard let number = Int(text), range.contains(number) else {
            throw BenchError(
                "\(name) \(text): a whole number from \(range.lowerBound) to \(range.upperBound)"
            )
        }
        return number
    }

    private static func seconds(_ name: String, _ text: String) throws(BenchError) -> Double {
        guard let number = Double(text), number >= 0, number <= 86_400 else {
            throw BenchError("\(name) \(text): seconds from 0 to 86400")
        }
        return number
    }

    /// Parses a size such as `4k`, `1M`, `10G` or plain bytes.
    package static func size(_ name: String, _ text: String) throws(BenchError) -> UInt64 {
        let shift: UInt64
        switch text.last {
        case "k", "K": shift = 10
        case "m", "M": shift = 20
        case "g", "G": shift = 30
        case "t", "T": shift = 40
        default: shift = 0
        }
        let digits = shift > 0 ? text.dropLast() : text[...]
        guard let number = UInt64(digits), number <= UInt64.max >> (shift + 1) else {
            throw BenchError("\(name) \(text): a size such as 4k, 1M or 10G")
        }
        return number << shift
    }
}
