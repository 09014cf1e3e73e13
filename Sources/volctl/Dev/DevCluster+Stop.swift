// Stopping the programs of a development cluster: politely first, and only our own.

import Foundation
import Glibc
package import ProgramMain

extension DevCluster {
    /// Stops every program that has a process record below `layout`, whoever started it and
    /// whatever ``ClusterFile`` says.
    ///
    /// - Returns: The names of the programs that were stopped.
    package static func stopRecorded(
        of layout: ClusterLayout,
        secondsMax: Int,
        progress: ProgressDisplay
    ) async throws -> [String] {
        guard Path.exists(layout.directory) else {
            throw CommandFailure.noCluster(in: layout.directory)
        }
        let lock = try await takeLock(layout, progress)
        defer { lock.release() }
        let files =
            (try? FileManager.default.contentsOfDirectory(atPath: layout.runDirectory)) ?? []
        let names = files.filter { $0.hasSuffix(".json") }.map { String($0.dropLast(5)) }.sorted()
        return try await stop(names, of: layout, secondsMax: secondsMax, progress: progress)
    }

    /// Stops the programs called `names`: SIGTERM to the nodes at once, and SIGKILL to what is
    /// left after `secondsMax`; then the metadata service the same way.
    static func stop(
        _ names: [String],
        of layout: ClusterLayout,
        secondsMax: Int,
        progress: ProgressDisplay
    ) async throws -> [String] {
        let isMeta = { (name: String) in name == ClusterLayout.metaName }
        var stopped: [String] = []
        // The nodes first: they say good-bye to the metadata service.
        for group in [names.filter { !isMeta($0) }, names.filter(isMeta)] {
            var waiting: [(name: String, process: ProcessRecord)] = []
            for name in group {
                guard let process = ProgramRecord(layout, name).process, process.send(SIGTERM)
                else {
                    Path.remove(layout.processFile(name))
                    continue
                }
                // One that is stopped (SIGSTOP) gets it only when it goes on.
                process.send(SIGCONT)
                progress.note("stopping \(name)")
                waiting.append((name, process))
            }
            let deadline = ContinuousClock.now + .seconds(secondsMax)
            for (name, process) in waiting {
                if try await !process.waitForEnd(until: deadline) {
                    progress.note("\(name) did not stop within \(secondsMax) seconds; killing it")
                    process.send(SIGKILL)
                    guard try await process.waitForEnd(until: .now + .seconds(10)) else {
                        throw CommandFailure(
                            "stop_failed",
                            "\(name) (process \(process.pid)) does not end even when killed.",
                            remedy: "Its disk may hang: see 'dmesg'."
                        )
                    }
                }
                Path.remove(layout.processFile(name))
                stopped.append(name)
            }
        }
        return stopped
    }

    /// Ends the program `name` without warning, as a power cut would.
    ///
    /// - Returns: Whether it ran.
    package func kill(_ name: String) async throws -> Bool {
        guard let process = ProgramRecord(layout, name).process, process.send(SIGKILL) else {
            return false
        }
        guard try await process.waitForEnd(until: .now + .seconds(10)) else {
            throw CommandFailure(
                "stop_failed",
                "\(name) (process \(process.pid)) does not end even when killed.",
                remedy: "Its disk may hang: see 'dmesg'."
            )
        }
        Path.remove(layout.processFile(name))
        return true
    }
}
