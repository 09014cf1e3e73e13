// What a program can check about the sources without a quarrel: house style, section C3.

import Foundation
import TestSupport
import Testing

/// What each module below the line may import, beside the modules of C that carry it.
///
/// Source: design, section 2. A module that is not listed is above the line, a program or a test.
private let layers: [String: Set<String>] = [
    "CLinux": [],
    "COpenSSL": [],
    "CProcess": [],
    "ChildProcesses": ["CProcess"],
    "BlockCore": ["CLinux"],
    "LogFormat": ["BlockCore"],
    "NBDWire": ["BlockCore"],
    "StorageIO": ["BlockCore"],
    "LogStore": ["BlockCore", "LogFormat", "StorageIO"],
    "NBDSession": ["BlockCore", "NBDWire"],
    "Replication": ["BlockCore"],
    "SCSI": ["BlockCore"],
    "ISCSIWire": ["BlockCore"],
    "ISCSISession": ["BlockCore", "ISCSIWire"],
    "PeerWire": ["BlockCore", "Replication"],
    "Reactor": ["BlockCore", "StorageIO", "CLinux"],
    "Simulation": ["BlockCore", "StorageIO", "LogFormat", "LogStore", "Replication"],
    "StorageNode": [
        "BlockCore", "StorageIO", "LogFormat", "LogStore", "NBDSession", "NBDWire", "PeerWire",
        "Reactor", "Replication", "CLinux", "COpenSSL", "SCSI", "ISCSIWire", "ISCSISession",
    ],
]

/// Modules in which the same input must always give the same output.
private let pureModules: Set<String> = [
    "BlockCore", "LogFormat", "NBDWire", "StorageIO", "LogStore", "NBDSession", "Replication",
    "PeerWire", "SCSI", "ISCSIWire",
    "ISCSISession", "Simulation",
]

/// Modules of the toolchain that anything may import.
private let freeImports: Set<String> = ["Synchronization", "Glibc", "Swift"]

/// Tokens that break replay, or a rule that has no exceptions.
private let bannedTokens = [
    "print(", "Date(", ".random(", "try!", "as!", "ContinuousClock", "getenv(",
]

private let lineCountMax = 600

@Suite("Tidiness", .background) struct TidyTests {
    @Test("Imports go downward only")
    func imports_belowTheLine_goDownward() {
        for file in SourceTree.files(under: "Sources", ["swift"]) {
            guard let allowed = layers[file.module] else { continue }
            for line in SourceTree.code(file) {
                let words = line.split(separator: " ")
                guard let index = words.firstIndex(of: "import"), index <= 1,
                    let name = words.dropFirst(index + 1).first
                else { continue }
                let module = String(name.prefix { $0 != "." })
                #expect(
                    allowed.contains(module) || freeImports.contains(module),
                    "\(file.path) imports \(module)"
                )
            }
        }
    }

    @Test("Pure layers hold nothing that breaks replay")
    func tokens_inPureLayers_areNotBanned() {
        for file in SourceTree.files(under: "Sources", ["swift"])
        where pureModules.contains(file.module) {
            for (number, line) in SourceTree.code(file).enumerated() {
                for token in bannedTokens where line.contains(token) {
                    Issue.record("\(file.path):\(number + 1) has \(token)")
                }
            }
        }
    }

    @Test("Programs are not started with Foundation's Process: Docs/WORKAROUNDS.md says why")
    func programs_areStartedSafely() {
        let call = ["Process", "()"].joined()
        for folder in ["Sources", "Tests"] {
            for file in SourceTree.files(under: folder, ["swift"]) {
                for (number, line) in SourceTree.code(file).enumerated()
                where line.split(separator: " ").contains(where: { $0.hasPrefix(call) }) {
                    Issue.record("\(file.path):\(number + 1) has \(call)")
                }
            }
        }
    }

    @Test("No test looks behind the interface")
    func imports_ofTests_areNotTestable() {
        for file in SourceTree.files(under: "Tests", ["swift"]) {
            for (number, line) in SourceTree.code(file).enumerated()
            where line.contains("@testable") {
                Issue.record("\(file.path):\(number + 1) has @testable")
            }
        }
    }

    @Test("Unsafe expressions say why they are safe")
    func unsafe_everywhere_saysWhy() {
        for file in SourceTree.files(under: "Sources", ["swift"]) {
            let missing = unexplained(file)
            #expect(missing.isEmpty, "\(file.path): no SAFETY above lines \(missing)")
        }
    }

    /// Lines with an `unsafe` expression that no `SAFETY:` comment precedes: above it in the
    /// same block, or in the documentation of the declaration around it.
    private func unexplained(_ file: SourceFile) -> [Int] {
        let code = SourceTree.code(file)
        let lines = file.lines
        var result: [Int] = []
        for (index, line) in code.enumerated() where hasUnsafe(line) {
            let from = max(0, index - TidyTests.explanationDistanceMax)
            let isExplained = lines[from...index].contains { $0.contains("SAFETY") }
            if !isExplained { result.append(index + 1) }
        }
        return result
    }

    /// Lines between an explanation and what it explains; one comment may cover a function.
    private static var explanationDistanceMax: Int { 40 }

    private func hasUnsafe(_ line: String) -> Bool {
        let marks: Set<Character> = ["@", "(", ".", "_"]
        for range in line.ranges(of: "unsafe ") {
            guard range.lowerBound > line.startIndex else { return true }
            let before = line[line.index(before: range.lowerBound)]
            if before == "(" { return !line.contains("nonisolated(unsafe") }
            if !marks.contains(before), !before.isLetter { return true }
        }
        return false
    }

    @Test("Every fixture is read by something")
    func fixtures_all_areRead() {
        var readers = SourceTree.files(under: "Tests", ["swift", "py", "sh"])
        readers += SourceTree.files(under: "Sources", ["swift"])
        readers += SourceTree.files(under: ".ci")
        let text = readers.map(\.text).joined(separator: "\n")
        for file in SourceTree.files(under: "Fixtures") {
            let parts = file.path.split(separator: "/").map(String.init)
            let name = parts[parts.count - 1]
            let folder = parts.dropLast().joined(separator: "/")
            let stem = (name as NSString).deletingPathExtension
            let isNamed = text.contains(name) || text.contains("\"\(stem)\"")
            let isListed =
                text.contains(folder) || text.contains("\"\(parts[parts.count - 2])\"")
            #expect(isNamed || isListed, "\(file.path) is read by nothing")
        }
    }

    @Test("The top level holds what belongs there")
    func topLevel_holdsWhatBelongs() throws {
        // `Package.resolved` is made by the build and ignored by git.
        let known: Set<String> = [
            "Package.swift", "Package.resolved", "Sources", "Tests", "Fixtures", "Bench", "Docs",
            "README.md", "Makefile", "LICENSE",
        ]
        let path = SourceTree.root.path
        for name in try FileManager.default.contentsOfDirectory(atPath: path) {
            #expect(known.contains(name) || name.hasPrefix("."), "\(name) does not belong there")
        }
    }

    @Test("No file is too long to read")
    func files_all_areShort() {
        let files =
            SourceTree.files(under: "Sources", ["swift", "h", "c"])
            + SourceTree.files(under: "Tests", ["swift"])
        for file in files {
            let count = file.lines.count
            #expect(count <= lineCountMax, "\(file.path) has \(count) lines")
        }
    }

    @Test("Relative links of documents lead somewhere")
    func links_ofDocuments_resolve() {
        var documents = SourceTree.files(under: "Docs", ["md"])
        let readme = SourceTree.text("README.md")
        if !readme.isEmpty { documents.append(SourceFile(path: "README.md", text: readme)) }
        for document in documents {
            for link in links(document.text) {
                let base = SourceTree.root.appendingPathComponent(document.path)
                    .deletingLastPathComponent()
                let target = base.appendingPathComponent(link).standardizedFileURL
                #expect(
                    FileManager.default.fileExists(atPath: target.path),
                    "\(document.path) links to \(link)"
                )
            }
        }
    }

    /// The relative targets of Markdown links, without their anchors; fenced code left out.
    private func links(_ text: String) -> [String] {
        var isFenced = false
        var result: [String] = []
        for line in text.split(separator: "\n") {
            if line.hasPrefix("```") { isFenced.toggle() }
            if isFenced { continue }
            for piece in line.components(separatedBy: "](").dropFirst() {
                let target = piece.prefix { $0 != ")" && $0 != " " && $0 != "#" }
                if target.isEmpty || target.contains(":") { continue }
                result.append(String(target))
            }
        }
        return result
    }
}
