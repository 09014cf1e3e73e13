// volnode check: offline verification of a store.

import ArgumentParser
import BlockCore
import ControlAPI
import Foundation
import LogStore
import ProgramMain
import Reactor
import StorageNode

/// `volnode check`.
struct Check: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Verifies a store that no node serves, and says what is wrong where.",
        discussion: """
            Looks at the superblocks and the manifest; opens the store in memory, as a node does, \
            which replays the log behind the last checkpoint; reads every map page and every block \
            that a map names, and verifies its checksum; compares the maps with what the headers in \
            the log say of each of these places; and counts the blocks of segments and layers, of \
            which too many are a leak. A store that cannot be opened is checked as it was at its \
            last checkpoint. Nothing is written.

            Not found: the loss of what was written last, when the log's end is damaged, which \
            looks like a crash; and damage where nothing lies that a map names.

            Exit code 0 when all is well, 1 when something is wrong. A note is not a problem.
            """
    )

    @Argument(help: "The store's file or device.")
    var path: String

    @Flag(help: "Print one JSON document.")
    var json = false

    @Option(help: "How to show progress: auto, bar, json or none.")
    var progress: ProgressStyle = .auto

    @Flag(help: "Go through the page cache where the file system refuses direct I/O.")
    var buffered = false

    @Option(
        help: ArgumentHelp("Memory for maps, at least what the node had.", valueName: "size"),
        transform: ByteSize.argument
    )
    var mapMemory = ByteSize(byteCount: 256 << 20)

    func validate() throws { try mapMemory.requireMapMemory() }

    func run() throws {
        var store = StoreConfiguration(path: path)
        store.log.mapMemoryByteCount = Int(mapMemory.byteCount)
        try AddressSpaceLimit.require(reserving: UInt64(store.memoryByteCount))
        var options = DeviceOptions()
        options.isReadOnly = true
        options.allowsBuffered = buffered
        let device: Device
        let reader: DeviceReader
        do throws(DeviceError) {
            device = try openReleased(options)
        } catch { throw Failure(path: path, error) }
        do throws(DeviceFormatError) {
            reader = try DeviceReader(device)
        } catch { throw Failure(path: path, error) }
        let display = ProgressDisplay(progress, isJSON: json)
        var phase: StoreCheckPhase?
        var check = StoreCheck(
            geometry: device.geometry,
            configuration: store.log,
            read: { reader.read($0, into: $1) },
            progress: { current, done, total in
                if phase != current { display.begin(current.rawValue) }
                phase = current
                if total > 0 { display.update(done: done, of: total) }
            }
        )
        let report = check.run()
        display.finishLine()
        if report.problems == [.unusable(.notAStore)] { throw Failure(path: path, .notAStore) }
        if json { try printJSON(report) } else { printText(report) }
        if report.problemCount > 0 { throw ExitCode(1) }
    }

    /// Tries at a locked device: the kernel lets go of what a killed process held some time
    /// after it is gone.
    private static let openCountMax = 60
    private static let openPollSeconds = 0.05

    private func openReleased(_ options: DeviceOptions) throws(DeviceError) -> Device {
        for _ in 1..<Self.openCountMax {
            do throws(DeviceError) {
                return try Device.open(path: path, options: options)
            } catch {
                guard case .locked = error else { throw error }
            }
            Thread.sleep(forTimeInterval: Self.openPollSeconds)
        }
        return try Device.open(path: path, options: options)
    }

    private func printText(_ report: StoreCheckReport) {
        for problem in report.problems { print("\(path): \(problem.text(report))") }
        let unlisted = report.problemCount - report.problems.count
        if unlisted > 0 { print("\(path): and \(unlisted) more") }
        for note in report.notes { print("\(path): note: \(note.text)") }
        let verdict =
            report.problemCount == 0 ? "no problems" : counted(report.problemCount, "problem")
        let verified = [
            counted(report.volumeCount, "volume"), counted(report.layerCount, "layer"),
            counted(Int(clamping: report.pageCount), "map page"),
            counted(Int(clamping: report.blockCount), "block"),
        ]
        print(
            """
            \(path): \(verdict); \(verified.joined(separator: ", ")), \(report.headerCount) \
            headers of the log verified
            """
        )
    }

    private func printJSON(_ report: StoreCheckReport) throws {
        try printDocument(
            CheckDocument(
                path: path,
                identity: report.identity?.hexText,
                problemCount: report.problemCount,
                problems: report.problems.map { $0.text(report) },
                notes: report.notes.map(\.text),
                volumeCount: report.volumeCount,
                layerCount: report.layerCount,
                mapPageCount: report.pageCount,
                blockCount: report.blockCount,
                headerCount: report.headerCount
            )
        )
    }
}

/// The JSON of `volnode check --json`.
private struct CheckDocument: Encodable {
    var path: String
    var identity: String?
    var problemCount: Int
    var problems: [String]
    var notes: [String]
    var volumeCount: Int
    var layerCount: Int
    var mapPageCount: UInt64
    var blockCount: UInt64
    var headerCount: UInt64
}
