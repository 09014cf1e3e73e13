// volbench: a load generator for NBD exports, files and devices, cheap enough that it is not the
// limit. One thread drives all connections; what it costs itself, `volbench null:` shows.

internal import Glibc

/// Prints one line on standard error.
func complain(_ line: String) {
    let bytes = Array("volbench: \(line)\n".utf8)
    // SAFETY: the array is borrowed for the call. A failure to complain is not worth a complaint.
    _ = unsafe bytes.withUnsafeBytes { unsafe write(2, $0.baseAddress, $0.count) }
}

func measure(_ options: Options) throws(BenchError) -> Measurement {
    let laneCount = options.depth * options.connectionCount
    switch options.target {
    case .null:
        let engine = NullEngine(laneCount: laneCount, targetByteCount: options.nullByteCount)
        return try drive(engine, options)
    case .tcp, .unix: return try drive(NBDEngine(options: options), options)
    case .file(let path): return try drive(DeviceEngine(path: path, options: options), options)
    }
}

func drive<Target: Engine>(
    _ engine: Target,
    _ options: Options
) throws(BenchError) -> Measurement {
    defer { engine.close() }
    let end = options.workload.spanOffset + UInt64(options.workload.blockByteCount)
    guard end <= engine.targetByteCount else {
        throw BenchError(
            "--offset and --bs reach beyond the target's \(engine.targetByteCount) bytes"
        )
    }
    let runner = Runner(
        engine: engine,
        workload: options.workload,
        pace: options.pace,
        serverPIDs: options.serverPIDs
    )
    return try runner.run()
}

let arguments = Array(CommandLine.arguments.dropFirst())
if arguments.contains("--help") || arguments.contains("-h") {
    print(Options.usage)
    exit(0)
}
let options: Options
do throws(BenchError) {
    options = try Options(parsing: arguments)
} catch {
    complain("\(error.message) (volbench --help shows the options)")
    exit(2)
}
do throws(BenchError) {
    let measurement = try measure(options)
    let report = Report(options: options, measurement: measurement)
    print(options.isJSON ? report.json() : report.text())
    exit(measurement.errorCount > 0 ? 1 : 0)
} catch {
    complain(error.message)
    exit(1)
}
