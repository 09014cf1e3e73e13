import Foundation
import FuzzSupport

/// Runs `devtool fuzz nbd|peer|iscsi [--count N] [--seed N] [--start N]`, or with `nbd --corpus DIR`
/// writes the conversations that it starts from, for libFuzzer.
///
/// - Returns: The process's exit code: 0 nothing found, 1 a broken rule, 2 wrong usage.
func runFuzz(arguments: [String]) -> Int32 {
    if arguments.count == 3, arguments[0] == "nbd", arguments[1] == "--corpus" {
        return writeCorpus(folder: arguments[2])
    }
    guard let options = FuzzOptions(arguments) else {
        say("usage: devtool fuzz nbd|peer|iscsi [--count N] [--seed N] [--start N]")
        say("       devtool fuzz nbd --corpus DIR")
        return 2
    }
    switch options.name {
    case "peer": return fuzzPeer(options)
    case "iscsi": return fuzzISCSI(options)
    default: return fuzzNBD(options)
    }
}

private func fuzzISCSI(_ options: FuzzOptions) -> Int32 {
    var fuzzer = ISCSIFuzzer(seed: options.seed)
    var total = NBDFuzzer.Summary()
    return options.run { (range) throws(FuzzFailure) in
        let summary = try fuzzer.run(range)
        total.runCount += summary.runCount
        total.requestCount += summary.requestCount
        total.outputCount += summary.outputCount
        total.digest = (total.digest &* 31) ^ summary.digest
        return "\(total.runCount) connections, \(total.requestCount) commands accepted, "
            + "\(total.outputCount) outputs, digest \(String(total.digest, radix: 16))"
    }
}

private func fuzzNBD(_ options: FuzzOptions) -> Int32 {
    var fuzzer = NBDFuzzer(seed: options.seed)
    var total = NBDFuzzer.Summary()
    return options.run { (range) throws(FuzzFailure) in
        let summary = try fuzzer.run(range)
        total.runCount += summary.runCount
        total.requestCount += summary.requestCount
        total.outputCount += summary.outputCount
        total.digest = (total.digest &* 31) ^ summary.digest
        return "\(total.runCount) connections, \(total.requestCount) requests accepted, "
            + "\(total.outputCount) outputs, digest \(String(total.digest, radix: 16))"
    }
}

private func fuzzPeer(_ options: FuzzOptions) -> Int32 {
    var fuzzer = PeerFuzzer(seed: options.seed)
    var total = PeerFuzzer.Summary()
    return options.run { (range) throws(FuzzFailure) in
        let summary = try fuzzer.run(range)
        total.runCount += summary.runCount
        total.decodedCount += summary.decodedCount
        total.refusedBodyCount += summary.refusedBodyCount
        total.digest = (total.digest &* 31) ^ summary.digest
        return "\(total.runCount) frames, \(total.decodedCount) decoded, "
            + "\(total.refusedBodyCount) refused behind their checksum, "
            + "digest \(String(total.digest, radix: 16))"
    }
}

/// The options of `devtool fuzz`.
private struct FuzzOptions {
    var name: String
    var count: UInt64 = 1_000_000
    var seed: UInt64 = 1
    var start: UInt64 = 0

    init?(_ arguments: [String]) {
        var rest = arguments[...]
        guard let name = rest.popFirst(), ["nbd", "peer", "iscsi"].contains(name) else {
            return nil
        }
        self.name = name
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

    /// Runs all, batch by batch.
    ///
    /// - Parameter batch: Runs a part, and says what all parts until then came to.
    /// - Returns: The process's exit code.
    func run(_ batch: (Range<UInt64>) throws(FuzzFailure) -> String) -> Int32 {
        // Where a trap ends the process, the last line says which runs to repeat.
        let batchCount: UInt64 = 250_000
        say("fuzz \(name) seed=\(seed) start=\(start) count=\(count)")
        let clock = ContinuousClock()
        let begin = clock.now
        var text = "nothing was run"
        var index = start
        while index < start + count {
            let next = min(index + batchCount, start + count)
            say("devtool fuzz \(name) --seed \(seed) --start \(index) --count \(next - index)")
            do throws(FuzzFailure) {
                text = try batch(index..<next)
            } catch {
                say("run \(error.index): \(error.rule)")
                say("bytes: \(hexadecimal(error.bytes))")
                say("repeat: devtool fuzz \(name) --seed \(seed) --start \(error.index) --count 1")
                return 1
            }
            index = next
        }
        say("\(text), \(clock.now - begin): nothing found")
        return 0
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
