import Foundation
import FuzzSupport

/// Runs `devtool fuzz nbd [--count N] [--seed N] [--start N]`, or with `--corpus DIR` writes the
/// conversations that it starts from, for libFuzzer.
///
/// - Returns: The process's exit code: 0 nothing found, 1 a broken rule, 2 wrong usage.
func runFuzz(arguments: [String]) -> Int32 {
    if arguments.count == 3, arguments[0] == "nbd", arguments[1] == "--corpus" {
        return writeCorpus(folder: arguments[2])
    }
    guard let options = FuzzOptions(arguments) else {
        say("usage: devtool fuzz nbd [--count N] [--seed N] [--start N] | --corpus DIR")
        return 2
    }
    // Where a trap ends the process, the last line says which runs to repeat.
    let batchCount: UInt64 = 250_000
    say("fuzz nbd seed=\(options.seed) start=\(options.start) count=\(options.count)")
    var fuzzer = NBDFuzzer(seed: options.seed)
    var total = NBDFuzzer.Summary()
    var index = options.start
    let end = options.start + options.count
    let clock = ContinuousClock()
    let begin = clock.now
    while index < end {
        let next = min(index + batchCount, end)
        say("devtool fuzz nbd --seed \(options.seed) --start \(index) --count \(next - index)")
        do {
            let summary = try fuzzer.run(index..<next)
            total.runCount += summary.runCount
            total.requestCount += summary.requestCount
            total.outputCount += summary.outputCount
            total.digest = (total.digest &* 31) ^ summary.digest
        } catch {
            say("run \(error.index): \(error.rule)")
            say("client bytes: \(hexadecimal(error.bytes))")
            say(
                "repeat: devtool fuzz nbd --seed \(options.seed) --start \(error.index) --count 1"
            )
            return 1
        }
        index = next
    }
    say(
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

/// Writes each conversation into a file of its own, behind the byte that libFuzzer's entry point
/// takes its choices from.
private func writeCorpus(folder: String) -> Int32 {
    let url = URL(filePath: folder, directoryHint: .isDirectory)
    do {
        try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
        for (index, talk) in NBDConversation.all().enumerated() {
            try Data([0] + talk.bytes).write(to: url.appending(path: "nbd-\(index)"))
        }
        return 0
    } catch {
        say("cannot write the corpus: \(error.localizedDescription)")
        return 1
    }
}

private func hexadecimal(_ bytes: [UInt8]) -> String {
    bytes.map { byte in (byte < 16 ? "0" : "") + String(byte, radix: 16) }.joined()
}
