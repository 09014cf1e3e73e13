// libFuzzer over NBD sessions, with AddressSanitizer:
//
//   swift run -c release devtool fuzz nbd --corpus corpus       # well-formed conversations
//   CAIRN_TARGETS=fuzz swift build -c release --product fuzz-nbd --scratch-path .build/fuzz
//   .build/fuzz/release/fuzz-nbd -max_total_time=600 corpus
//
// The first byte of an input says how the rest is cut into pieces and what the driver chooses.

import CFuzzer
import FuzzSupport

nonisolated(unsafe) let driver = NBDFuzzDriver()

func test(_ data: UnsafePointer<UInt8>?, _ byteCount: Int) -> Int32 {
    // SAFETY: libFuzzer's buffer is valid for the call.
    let bytes = unsafe Array(UnsafeBufferPointer(start: data, count: byteCount))
    guard let choice = bytes.first, bytes.count <= FuzzMutator.byteCountMax else { return 0 }
    do throws(FuzzViolation) {
        // SAFETY: libFuzzer calls on one thread.
        let outcome = try unsafe driver.run(
            Array(bytes.dropFirst()),
            tlsOffset: nil,
            chunking: FuzzChunking.allCases[Int(choice) % FuzzChunking.allCases.count],
            seed: UInt64(choice) / 3
        )
        // Without a use of the result the optimiser deletes the call.
        return outcome.digest == 1 ? 1 : 0
    } catch {
        fatalError("broken rule: \(error.rule)")
    }
}

var count = CommandLine.argc
var values: UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>? = unsafe CommandLine.unsafeArgv
// SAFETY: both outlive the driver, which returns only to exit.
_ = unsafe LLVMFuzzerRunDriver(&count, &values) { data, byteCount in
    // SAFETY: handed through.
    unsafe test(data, byteCount)
}
