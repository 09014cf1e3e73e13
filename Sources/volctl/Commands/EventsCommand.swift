// volctl events

package import ArgumentParser
package import ControlAPI
import Foundation
import Glibc
import ProgramMain

/// `volctl events`.
package struct EventsCommand: ClusterCommand {
    package static let configuration = CommandConfiguration(
        commandName: "events",
        abstract: "Show what happened in the cluster, oldest first.",
        discussion: """
            With --follow it goes on until Ctrl-C; --json then prints one document per line.

            Examples:
              volctl events
              volctl events --follow --json | jq -r .kind
            """
    )

    @Flag(name: .shortAndLong, help: "Go on with events as they happen.")
    var follow = false
    @Option(help: ArgumentHelp("Only events after this revision.", valueName: "revision"))
    var after: UInt64 = 0
    @OptionGroup package var cluster: ClusterOptions

    package init() {}

    package func run() async throws {
        if follow {
            try await followAll()
            return
        }
        let list = try await cluster.withClient { client in
            // Pages, until one comes back empty.
            var list = try await client.events(after: after)
            var page = list
            while !page.events.isEmpty {
                page = try await client.events(after: page.nextAfter)
                list.events += page.events
                list.nextAfter = page.nextAfter
            }
            return list
        }
        if cluster.json {
            printDocument(list)
        } else {
            let lines = list.events.map(eventLine).joined(separator: "\n")
            printText(lines.isEmpty ? "No events." : lines)
        }
    }

    /// Follows the events; a stream that ends is taken up again after the last event seen.
    ///
    /// - Throws: ``ControlError`` when the service has not answered for
    ///   ``silenceSecondsMax``, or not at all.
    private func followAll() async throws {
        try await cluster.withClient { client in
            _ = try await client.health()
            var last = after
            var silentSince: ContinuousClock.Instant?
            while true {
                let before = last
                let error = await followOnce(client, &last, &silentSince)
                if let error {
                    guard error.mayPass else { throw error }
                    if silentSince == nil { noteSilence(error) }
                    let start = silentSince ?? .now
                    silentSince = start
                    let silence = ContinuousClock.now - start
                    guard silence < .seconds(Self.silenceSecondsMax) else { throw error }
                }
                if last == before { try await Task.sleep(for: .seconds(1)) }
            }
        }
    }

    /// Prints events until the stream ends.
    ///
    /// - Parameters:
    ///   - client: The service.
    ///   - last: The last revision seen.
    ///   - silentSince: When the service fell silent; nil once it answers.
    /// - Returns: What ended the stream, unless the service did.
    private func followOnce(
        _ client: ControlClient,
        _ last: inout UInt64,
        _ silentSince: inout ContinuousClock.Instant?
    ) async -> ControlError? {
        var newest = last
        defer { last = newest }
        do throws(ControlError) {
            if silentSince != nil { _ = try await client.health() }
            silentSince = nil
            try await client.followEvents(after: newest) { event in
                newest = event.revision
                if cluster.json { printLine(event) } else { printText(eventLine(event)) }
                return true
            }
            return nil
        } catch {
            return error
        }
    }

    /// How long the service may be away before following it is given up: longer than a restart.
    private static var silenceSecondsMax: Int { 120 }

    private func noteSilence(_ error: ControlError) {
        let plan = "Trying again for \(Self.silenceSecondsMax) seconds."
        writeText("volctl: \(error.detail.printable) \(plan)\n", to: STDERR_FILENO)
    }
}

extension ControlError {
    /// Whether a service that restarts gives such an error and is well afterwards.
    fileprivate var mayPass: Bool {
        [.unreachable, .outcomeUnknown, .unavailable].contains(code)
    }
}

/// One line about an event.
package func eventLine(_ event: ClusterEvent) -> String {
    func padded(_ text: String, _ width: Int) -> String {
        text.padding(toLength: max(width, text.count), withPad: " ", startingAt: 0)
    }
    let kind = padded(event.kind, 18)
    return "\(timeText(event.time))  \(kind)  \(padded(event.subject, 12))  \(event.message)"
        .printable
}
