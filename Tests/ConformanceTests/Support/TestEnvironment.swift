import Foundation
import Testing

/// Where the programs under test and the tools beside them are.
enum TestEnvironment {
    /// The repository's root.
    static let root: URL = {
        var url = URL(fileURLWithPath: #filePath)
        for _ in 0..<4 { url.deleteLastPathComponent() }
        return url
    }()

    /// Where the build put the programs: beside the test bundle, unless `CAIRN_PROGRAMS` names
    /// another build.
    static let programs: URL = {
        if let path = ProcessInfo.processInfo.environment["CAIRN_PROGRAMS"] {
            return URL(fileURLWithPath: path)
        }
        return URL(fileURLWithPath: CommandLine.arguments[0])
            .standardizedFileURL.deletingLastPathComponent()
    }()

    /// The acceptance scripts, kept outside the repository; `CAIRN_SHARED` names their folder's
    /// parent when it is not beside the checkout.
    static let acceptance: URL = {
        if let path = ProcessInfo.processInfo.environment["CAIRN_SHARED"] {
            return URL(fileURLWithPath: path).appendingPathComponent("acceptance")
        }
        return root.deletingLastPathComponent().appendingPathComponent("shared/acceptance")
    }()

    /// The interpreter that Debian's python3-libnbd is for.
    static let python = "/usr/bin/python3"

    /// The path of one of our programs.
    static func program(_ name: String) -> String {
        programs.appendingPathComponent(name).path
    }

    /// The path of an acceptance script.
    static func script(_ name: String) -> String {
        acceptance.appendingPathComponent(name).path
    }

    /// Whether an acceptance script is there.
    static func hasScript(_ name: String) -> Bool {
        FileManager.default.isReadableFile(atPath: script(name))
    }

    /// The path of an installed tool, or nil.
    static func tool(_ name: String) -> String? {
        let path = ProcessInfo.processInfo.environment["PATH"] ?? ""
        let folders = path.split(separator: ":").map(String.init) + ["/usr/sbin", "/sbin"]
        return folders.map { "\($0)/\(name)" }
            .first { FileManager.default.isExecutableFile(atPath: $0) }
    }

    /// Whether the tests run as root, whom permissions do not stop.
    static var isRoot: Bool { getuid() == 0 }
}

extension Trait where Self == ConditionTrait {
    /// Runs the test only where the Debian tools are installed; says which package is missing.
    static func needs(_ tools: String...) -> Self {
        let missing = tools.filter { TestEnvironment.tool($0) == nil }
        return .enabled(
            if: missing.isEmpty,
            "not installed: \(missing.joined(separator: ", ")) (make setup installs it)"
        )
    }

    /// Runs the test only where the acceptance scripts are.
    static func needsScript(_ name: String) -> Self {
        .enabled(
            if: TestEnvironment.hasScript(name),
            "\(TestEnvironment.script(name)) is not there; CAIRN_SHARED names its folder's parent"
        )
    }
}
