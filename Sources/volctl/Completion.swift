// What the shell completes besides commands and options: names that exist in the cluster.

package import ArgumentParser
package import ControlAPI
import Foundation

/// Names for the shell, asked of the cluster that the line so far leads to.
///
/// A completion never complains: without a cluster, or when it does not answer at once, there is
/// nothing to propose.
package enum NameCompletion {
    /// How long a shell is kept waiting for an answer, in milliseconds.
    private static var answerMillisecondsMax: Int64 { 1_500 }

    /// Names of volumes.
    package static let volumes = kind { client, _ in
        try await client.volumes().map(\.name)
    }

    /// Snapshots, as `VOLUME@SNAPSHOT`, and before the `@` volumes to take one of.
    package static let snapshots = kind { client, prefix in
        try await references(client, prefix)
    }

    /// Names of nodes.
    package static let nodes = kind { client, _ in
        try await client.nodes().map(\.name)
    }

    /// Images, as `IMAGE:VERSION`.
    package static let images = kind { client, _ in
        try await client.images().map { "\($0.name):\($0.version)" }
    }

    /// What a clone may start as.
    package static let cloneSources = kind { client, prefix in
        let images = try await client.images().map { "\($0.name):\($0.version)" }
        return try await references(client, prefix) + images
    }

    /// What may be exported: volumes, and snapshots of the one that stands before an `@`.
    package static let exportSources = kind { client, prefix in
        try await exports(client, prefix)
    }

    /// Programs of the development cluster that the line so far leads to, running or not.
    package static let devPrograms = CompletionKind.custom { words, _, prefix in
        devNames(words: words, prefix: prefix)
    }

    /// The programs of a development cluster whose names begin with `prefix`.
    package static func devNames(
        words: [String],
        prefix: String,
        environment: [String: String] = ProcessInfo.processInfo.environment
    ) -> [String] {
        var options = DevOptions()
        options.data = value(of: "--data", in: words)
        let directory = options.directory(environment: environment)
        guard let file = try? ClusterFile.read(directory) else { return [] }
        let names = file.nodes.map(\.name) + [ClusterLayout.metaName]
        return names.filter { $0.hasPrefix(prefix) }
    }

    /// Volumes, or the snapshots of the one that stands before an `@`.
    package static func exports(
        _ client: ControlClient,
        _ prefix: String
    ) async throws(ControlError) -> [String] {
        guard prefix.contains("@") else { return try await client.volumes().map(\.name) }
        return try await references(client, prefix)
    }

    /// `VOLUME@` for each volume, or the snapshots of the one that stands before an `@`.
    package static func references(
        _ client: ControlClient,
        _ prefix: String
    ) async throws(ControlError) -> [String] {
        guard let end = prefix.firstIndex(of: "@") else {
            return try await client.volumes().map { "\($0.name)@" }
        }
        let volume = String(prefix[..<end])
        return try await client.snapshots(of: volume).map { "\(volume)@\($0.name)" }
    }

    private static func kind(
        _ names: @escaping @Sendable (ControlClient, String) async throws -> [String]
    ) -> CompletionKind {
        .custom { words, _, prefix in
            await proposals(words: words, prefix: prefix, names)
        }
    }

    /// The names that begin with `prefix`, in the cluster that `words` name.
    package static func proposals(
        words: [String],
        prefix: String,
        environment: [String: String] = ProcessInfo.processInfo.environment,
        within limitMilliseconds: Int64 = answerMillisecondsMax,
        _ names: @escaping @Sendable (ControlClient, String) async throws -> [String]
    ) async -> [String] {
        guard
            let choice = try? ClusterChoice(
                endpoint: value(of: "--endpoint", in: words),
                data: value(of: "--data", in: words),
                environment: environment
            ),
            let endpoints = try? choice.endpoints()
        else { return [] }
        let client = ControlClient(
            endpoints: endpoints,
            answerMillisecondsMax: limitMilliseconds
        )
        let found = (try? await names(client, prefix)) ?? []
        return found.filter { $0.hasPrefix(prefix) }.sorted()
    }

    /// The value of an option, as `--option value` or `--option=value`.
    private static func value(of option: String, in words: [String]) -> String? {
        for (index, word) in words.enumerated() {
            if word == option, index + 1 < words.count { return words[index + 1] }
            if word.hasPrefix(option + "=") { return String(word.dropFirst(option.count + 1)) }
        }
        return nil
    }
}
