// The rules of a node from a file.
//
// A line is a rule: the initiator's name or `*`, the volume's name or `*`, and `-` or the credentials
// `user:secret`, behind which the target's own `user:secret` may follow for initiators that ask it to
// prove itself. `#` begins a comment. Nobody but the file's owner may have access to it.

internal import Glibc
internal import ISCSISession
internal import ISCSIWire

/// Why the rules of a file cannot be used.
public enum ISCSIAccessError: Error, Sendable, Hashable {
    /// The file cannot be read.
    case unreadable(path: String, errno: Int32)
    /// Others than its owner may read or write it.
    case exposed(path: String, mode: UInt32)
    /// It is larger than ``ISCSIAccess/fileByteCountMax``.
    case tooLarge(path: String)
    /// A line is no rule; what is wrong with it.
    case malformed(path: String, line: Int, ISCSIRuleFault)
}

/// What is wrong with a line.
public enum ISCSIRuleFault: Sendable, Hashable {
    /// It has not three or four words.
    case wordCount
    /// The first word is no name of an initiator.
    case initiator
    /// A pair is not `user:secret`.
    case credentials
    /// A secret is shorter than ``ISCSIAccess/secretByteCountMin`` or longer than
    /// ``ISCSIAccess/secretByteCountMax``.
    case secretLength
    /// Both sides have the same secret: each could answer with what it heard.
    case sameSecret
}

extension ISCSIAccess {
    /// The largest file: ten thousand rules.
    public static var fileByteCountMax: Int { 4 << 20 }
    /// 96 bits: less can be guessed from one login that was overheard.
    ///
    /// Spec: RFC 7143, 12.1.3.
    public static var secretByteCountMin: Int { 12 }
    /// More no initiator takes.
    public static var secretByteCountMax: Int { 255 }

    /// Reads rules from a file.
    ///
    /// - Throws: ``ISCSIAccessError``, which never holds a secret.
    public init(path: String) throws(ISCSIAccessError) {
        let bytes = try Self.read(path)
        var rules: [ISCSIRule] = []
        for (index, line) in bytes.split(separator: 10, omittingEmptySubsequences: false)
            .enumerated()
        {
            let text = String(decoding: line.prefix { $0 != UInt8(ascii: "#") }, as: UTF8.self)
            let words = text.split(whereSeparator: \.isWhitespace).map(String.init)
            guard !words.isEmpty else { continue }
            do throws(RuleError) {
                rules.append(try Self.rule(words))
            } catch { throw .malformed(path: path, line: index + 1, error.fault) }
        }
        self.init(rules: rules)
    }

    private struct RuleError: Error { var fault: ISCSIRuleFault }

    private static func rule(_ words: [String]) throws(RuleError) -> ISCSIRule {
        guard words.count == 3 || words.count == 4 else { throw RuleError(fault: .wordCount) }
        let initiator = words[0] == "*" ? nil : words[0]
        if let initiator, !ISCSIName.isValid(initiator) { throw RuleError(fault: .initiator) }
        var rule = ISCSIRule(
            initiator: initiator,
            volume: words[1] == "*" ? nil : words[1],
            credentials: nil
        )
        guard words[2] != "-" else {
            guard words.count == 3 else { throw RuleError(fault: .credentials) }
            return rule
        }
        let theirs = try pair(words[2])
        var credentials = ISCSICredentials(user: theirs.user, secret: theirs.secret)
        if words.count == 4 {
            let ours = try pair(words[3])
            guard ours.secret != theirs.secret else { throw RuleError(fault: .sameSecret) }
            credentials.ownUser = ours.user
            credentials.ownSecret = ours.secret
        }
        rule.credentials = credentials
        return rule
    }

    private static func pair(_ word: String) throws(RuleError) -> (user: String, secret: [UInt8]) {
        guard let colon = word.firstIndex(of: ":"), colon > word.startIndex else {
            throw RuleError(fault: .credentials)
        }
        let secret = Array(word[word.index(after: colon)...].utf8)
        guard (secretByteCountMin...secretByteCountMax).contains(secret.count) else {
            throw RuleError(fault: .secretLength)
        }
        return (String(word[..<colon]), secret)
    }

    /// Reads a file that nobody but its owner may have access to.
    private static func read(_ path: String) throws(ISCSIAccessError) -> [UInt8] {
        // SAFETY: the path is borrowed for the call.
        let descriptor = unsafe open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)
        guard descriptor >= 0 else { throw .unreadable(path: path, errno: errno) }
        defer { close(descriptor) }
        var status = stat()
        // SAFETY: the struct is borrowed for the call. The file that was opened is the one looked at.
        guard unsafe fstat(descriptor, &status) == 0 else {
            throw .unreadable(path: path, errno: errno)
        }
        guard status.st_mode & S_IFMT == S_IFREG else {
            throw .unreadable(path: path, errno: EINVAL)
        }
        guard status.st_mode & 0o077 == 0 else {
            throw .exposed(path: path, mode: status.st_mode & 0o7777)
        }
        var bytes = [UInt8](repeating: 0, count: fileByteCountMax + 1)
        var count = 0
        while count < bytes.count {
            let start = count
            let part = unsafe bytes.withUnsafeMutableBytes { buffer in
                // SAFETY: the rest of the array, borrowed for the call.
                unsafe Glibc.read(
                    descriptor,
                    buffer.baseAddress.map { unsafe $0 + start },
                    buffer.count - start
                )
            }
            guard part >= 0 else { throw .unreadable(path: path, errno: errno) }
            guard part > 0 else { break }
            count += part
        }
        guard count <= fileByteCountMax else { throw .tooLarge(path: path) }
        return Array(bytes[..<count])
    }
}
