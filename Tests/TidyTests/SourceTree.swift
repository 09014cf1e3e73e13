import Foundation

/// A file of the repository, as text.
struct SourceFile {
    /// Its path from the root.
    let path: String
    let text: String

    var lines: [Substring] { text.split(separator: "\n", omittingEmptySubsequences: false) }

    /// The second part of the path: the module of `Sources/Module/File.swift`.
    var module: String {
        let parts = path.split(separator: "/")
        return parts.count > 2 ? String(parts[1]) : ""
    }
}

/// The repository that these tests are part of.
enum SourceTree {
    static var root: URL {
        URL(fileURLWithPath: #filePath).deletingLastPathComponent()
            .deletingLastPathComponent().deletingLastPathComponent()
    }

    /// All files below a folder whose names end in one of `extensions`; all text when empty.
    static func files(under folder: String, _ extensions: [String] = []) -> [SourceFile] {
        let base = root.appendingPathComponent(folder)
        guard let names = FileManager.default.enumerator(atPath: base.path) else { return [] }
        var result: [SourceFile] = []
        for case let name as String in names {
            if !extensions.isEmpty, !extensions.contains((name as NSString).pathExtension) {
                continue
            }
            let url = base.appendingPathComponent(name)
            let values = try? url.resourceValues(forKeys: [.isDirectoryKey])
            guard values?.isDirectory == false else { continue }
            // A file that is no text counts as read, with no lines.
            let text = (try? String(contentsOf: url, encoding: .utf8)) ?? ""
            result.append(SourceFile(path: "\(folder)/\(name)", text: text))
        }
        return result.sorted { $0.path < $1.path }
    }

    static func text(_ path: String) -> String {
        let url = root.appendingPathComponent(path)
        return (try? String(contentsOf: url, encoding: .utf8)) ?? ""
    }

    /// Code without its comments and string literals, line by line, so that a rule about code
    /// does not trip over prose.
    static func code(_ file: SourceFile) -> [String] {
        var isInText = false
        return file.lines.map { line in
            let isFence = line.contains("\"\"\"")
            defer { if isFence { isInText.toggle() } }
            if isInText || isFence { return "" }
            return withoutCommentAndStrings(line)
        }
    }

    private static func withoutCommentAndStrings(_ line: Substring) -> String {
        var result = ""
        var isInString = false
        var last: Character = " "
        for character in line {
            if character == "\"", last != "\\" {
                isInString.toggle()
            } else if !isInString {
                if character == "/", last == "/" {
                    result.removeLast()
                    break
                }
                result.append(character)
            }
            last = character
        }
        return result
    }
}
