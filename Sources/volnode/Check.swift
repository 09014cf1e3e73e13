// volnode check: offline verification of a store.

import ArgumentParser
import BlockCore
import Foundation
import LogStore
import ProgramMain
import Reactor
import StorageNode

/// `volnode check`.
struct Check: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Verifies a store that no node serves: every checksum, map against log, leaks.",
        discussion: """
            Nothing is written. What the log holds behind the last checkpoint is replayed in
            memory first. Exit code 0 when all is well, 1 when something is wrong.
            """
    )

    @Argument(help: "The store's file or device.")
    var path: String

    @Flag(help: "Print one JSON document.")
    var json = false

    @Flag(help: "Go through the page cache where the file system refuses direct I/O.")
    var buffered = false

    func run() throws {
        // A store replays the log, with the memory that it has by default.
        try AddressSpaceLimit.require(
            reserving: UInt64(StoreConfiguration(path: path).memoryByteCount)
        )
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
        let overlay = StoreOverlay(geometry: device.geometry) { offset, region in
            reader.read(offset, into: region)
        }
        do throws(StoreError) {
            try overlay.settle()
        } catch .notAStore {
            throw Failure(path: path, .notAStore)
        } catch {
            // The check below says more precisely what is wrong, and where.
        }
        var check = StoreCheck(read: { overlay.readThrough($0, $1) })
        let report = check.run()
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
        for problem in report.problems { print("\(path): \(problem.text)") }
        let unlisted = report.problemCount - report.problems.count
        if unlisted > 0 { print("\(path): and \(unlisted) more") }
        let verdict = report.problemCount == 0 ? "no problems" : "\(report.problemCount) problems"
        print(
            """
            \(path): \(verdict); \(report.volumeCount) volumes, \(report.layerCount) layers, \
            \(report.pageCount) map pages, \(report.blockCount) blocks verified
            """
        )
    }

    private func printJSON(_ report: StoreCheckReport) throws {
        try printDocument(
            CheckDocument(
                path: path,
                identity: report.identity?.hexText,
                problemCount: report.problemCount,
                problems: report.problems.map(\.text),
                volumeCount: report.volumeCount,
                layerCount: report.layerCount,
                mapPageCount: report.pageCount,
                blockCount: report.blockCount
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
    var volumeCount: Int
    var layerCount: Int
    var mapPageCount: UInt64
    var blockCount: UInt64
}

extension StoreProblem {
    /// What is wrong where, in one line.
    fileprivate var text: String {
        switch self {
        case .unusable(let error): "no superblock can be used (\(error))"
        case .superblockDamaged(let offset): "a copy of the superblock at byte \(offset) is damaged"
        case .unreadable(let offset, let errno):
            "byte \(offset) cannot be read: \(errorText(errno))"
        case .manifestDamaged(let offset): "the manifest at byte \(offset) does not verify"
        case .danglingLayer(let id): "layer \(id) is named but does not exist"
        case .pageDamaged(let layer, let level, let index, let offset):
            "map page \(index) of level \(level), layer \(layer), at byte \(offset) does not verify"
        case .badLocation(let layer, let block, let location):
            "block \(block) of layer \(layer) is mapped outside the store, to \(location)"
        case .blockDamaged(let layer, let block, let offset):
            "block \(block) of layer \(layer) at byte \(offset) does not have its checksum"
        case .claimedTwice(let layer, let block, let offset):
            "block \(block) of layer \(layer) at byte \(offset) is claimed by another too"
        case .usageWrong(let segment, let recorded, let found):
            "segment \(segment) is recorded with \(recorded) live blocks, but has \(found)"
        case .layerCountWrong(let layer, let recorded, let found):
            "layer \(layer) is recorded with \(recorded) blocks, but has \(found)"
        }
    }
}
