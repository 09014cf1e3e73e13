import FuzzSupport

/// Runs `devtool fuzz nbd [--count N] [--seed N] [--start N]`.
///
/// - Returns: The process's exit code: 0 nothing found, 1 a broken rule, 2 wrong usage.
func runFuzz(arguments: [String]) -> Int32 {
    guard let options = FuzzOptions(arguments) else {
        print("usage: devtool fuzz nbd [--count N] [--seed N] [--start N]")
        return 2
    }
    // Where a trap ends the process, the last line says which runs to repeat.
    let batchCount: UInt64 = 250_000
    print("fuzz nbd seed=\(options.seed) start=\(options.start) count=\(options.count)")
    var fuzzer = NBDFuzzer(seed: options.seed)
    var total = NBDFuzzer.Summary()
    var index = options.start
    let end = options.start + options.count
    let clock = ContinuousClock()
    let begin = clock.now
    while index < end {
        let next = min(index + batchCount, end)
        print("devtool fuzz nbd --seed \(options.seed) --start \(index) --count \(next - index)")
        do {
            let summary = try fuzzer.run(index..<next)
            total.runCount += summary.runCount
            total.requestCount += summary.requestCount
            total.outputCount += summary.outputCount
            total.digest = (total.digest &* 31) ^ summary.digest
        } catch {
            print("run \(error.index): \(error.rule)")
            print("client bytes: \(hexadecimal(error.bytes))")
            print(
                "repeat: devtool fuzz nbd --seed \(options.seed) --start \(error.index) --count 1"
            )
            return 1
        }
        index = next
    }
    print(
        "\(total.runCount) connections, \(total.requestCount) requests accepted, "
            + "\(total.outputCount) outputs, digest \(String(total.digest, radix: 16)), "
            + "\(clock.now - begin): nothing found"
    )
    return 0
}

/// The options of `devtool fuzz`.
private struct FuzzOptions {
    var count: UInt64 = 1_000_000
    var seed: UInt64 = 1
    var start: UInt64 = 0

    init?(_ arguments: [String]) {
        var rest = arguments[...]
        guard rest.popFirst() == "nbd" else { return nil }
        while let name = rest.popFirst() {
            guard let text = rest.popFirst(), let value = UInt64(text) else { return nil }
            switch name {
            case "--count": count = value
            case "--seed": seed = value
            case "--start": start = value
            default: return nil
            }
        }
        guard !start.addingReportingOverflow(count).overflow else { return nil }
    }
}

private func hexadecimal(_ bytes: [UInt8]) -> String {
    bytes.map { byte in (byte < 16 ? "0" : "") + String(byte, radix: 16) }.joined()
}
