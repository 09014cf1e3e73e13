import Foundation
import Testing

/// One wrong use of the system: what someone does, how it must end, what they are told.
///
/// The messages themselves live in Docs/bad-input.md, one row per wrong use; the test holds the
/// programs to them. `mentions` says what a message must speak of whatever its words are, so
/// that a bad message cannot be written down as the right one.
struct BadInput: Sendable, CustomTestStringConvertible {
    /// What kind of use it is; a chapter of the document.
    enum Area: String, Sendable, CaseIterable {
        case format = "Making a store"
        case store = "Opening a store"
        case node = "Starting a node"
        case metadata = "Starting the metadata service"
        case volume = "Volumes"
        case snapshot = "Snapshots and clones"
        case attachment = "Attachments"
        case image = "Images"
        case cluster = "Clusters and endpoints"
        case client = "NBD clients"
    }

    /// What is wrong, in a few words; unique.
    var name: String
    var area: Area
    /// The command, behind `NAME=VALUE` for its environment, with placeholders: `DIR` the case's
    /// directory, `PORT` a free port, `TAKEN` a port in use, `URI` and `SNAPSHOT` exports of a
    /// running node, `STOREID` and `OTHERID` the identities of two stores, `DATA` the cluster's
    /// data.
    var command: [String]
    /// How it must end: 1 refused, 2 wrong usage; foreign clients have codes of their own.
    var exitCode: Int32 = 1
    /// What the message must speak of.
    var mentions: [String]
    /// Whether the store is opened before the command fails: then it may have been written to,
    /// and must pass the offline check instead of being unchanged.
    var opensStore = false
    /// Whether the program must not read what file modes forbid, though the tests run as root.
    var obeysModes = false
    /// What to arrange first.
    var prepare: @Sendable (BadInputCase) async throws -> Void = { _ in }

    var testDescription: String { name }

    /// All of them, in the document's order.
    static let all: [BadInput] = Area.allCases.flatMap { area in
        (storeCases + nodeCases + volumeCases + clusterCases + clientCases)
            .filter { $0.area == area }
    }
}

/// One wrong use as it runs: its own directory beside what all share.
struct BadInputCase: Sendable {
    let fixture: BadInputFixture
    let scratch: ScratchDirectory
    let freePort: UInt16

    init(fixture: BadInputFixture) throws {
        self.fixture = fixture
        scratch = try ScratchDirectory()
        freePort = try FreePort.next()
    }

    /// Puts a copy of the fixture's store, with a volume in it, at `DIR/store.img`.
    func copyStore() async throws {
        try await succeed(
            "/usr/bin/cp",
            ["--sparse=always", fixture.storePath, scratch.file("store.img")]
        )
    }

    /// Puts a copy of the fixture's other store, an empty one, at `DIR/other.img`.
    func copyOtherStore() async throws {
        try await succeed(
            "/usr/bin/cp",
            ["--sparse=always", fixture.otherPath, scratch.file("other.img")]
        )
    }

    /// Replaces bytes of a file.
    func overwrite(_ name: String, at offset: UInt64, with bytes: Data) throws {
        let handle = try #require(FileHandle(forWritingAtPath: scratch.file(name)))
        defer { try? handle.close() }
        try handle.seek(toOffset: offset)
        try handle.write(contentsOf: bytes)
    }

    /// Cuts a file off, or makes one of this length.
    func resize(_ name: String, to byteCount: UInt64) throws {
        let path = scratch.file(name)
        if !FileManager.default.fileExists(atPath: path) {
            try #require(FileManager.default.createFile(atPath: path, contents: nil))
        }
        let handle = try #require(FileHandle(forWritingAtPath: path))
        defer { try? handle.close() }
        try handle.truncate(atOffset: byteCount)
    }

    /// Runs the command of `input`, as root's opposite where permissions are the point.
    func perform(_ input: BadInput) async throws -> CommandResult {
        var words = input.command.map(substitute)
        var environment = fixture.environment(endpoint: input.area != .cluster)
        // As a shell reads `NAME=VALUE COMMAND`.
        while let assignment = words[0].wholeMatch(of: /([A-Z_]+)=(.*)/) {
            environment[String(assignment.1)] = String(assignment.2)
            words.removeFirst()
        }
        // nbdsh runs whatever python3 comes first; libnbd's module is Debian's.
        if words[0] == "nbdsh" { words.replaceSubrange(0..<1, with: ["python3", "-m", "nbd"]) }
        let program = words[0]
        let path =
            ["volnode", "volmeta", "volctl"].contains(program)
            ? TestEnvironment.program(program)
            : program == "python3"
                ? TestEnvironment.python
                : try #require(TestEnvironment.tool(program), "\(program) is not installed")
        var arguments = Array(words.dropFirst())
        let dropsPrivilege = input.obeysModes && geteuid() == 0
        if dropsPrivilege {
            arguments = ["--bounding-set=-dac_override,-dac_read_search", path] + arguments
        }
        return try await run(
            dropsPrivilege ? "/usr/bin/setpriv" : path,
            arguments,
            environment: environment,
            directory: scratch.path,
            within: 40
        )
    }

    /// Replaces placeholders by what they stand for.
    private func substitute(_ word: String) -> String {
        var word = word
        for (placeholder, value) in substitutions {
            word = word.replacingOccurrences(of: placeholder, with: value)
        }
        return word
    }

    /// Replaces what changes from run to run by placeholders.
    func normalise(_ message: String) -> String {
        var message = message
        for (placeholder, value) in substitutions {
            // A port may stand in a number by chance.
            let isNumber = value.allSatisfy(\.isNumber)
            message = message.replacingOccurrences(
                of: isNumber ? #"\b\#(value)\b"# : value,
                with: placeholder,
                options: isNumber ? .regularExpression : []
            )
        }
        let patterns = [
            (#"\b[0-9a-f]{32}\b"#, "IDENTITY"), (#"\bpid \d+\b"#, "pid PID"),
            (#"\b[0-9a-f]{8}-[0-9a-f-]{27}\b"#, "IDENTITY"),
            (#"^\d{4}-\d\d-\d\dT[^ ]+ "#, ""),
        ]
        for (pattern, replacement) in patterns {
            message = message.replacingOccurrences(
                of: pattern,
                with: replacement,
                options: .regularExpression
            )
        }
        return message
    }

    private var substitutions: [(String, String)] {
        [
            ("SNAPSHOT", fixture.server.unixURI("vol@before")),
            ("BLOCKY", fixture.server.unixURI("blocky")),
            ("URI", fixture.server.unixURI()), ("SOCKET", fixture.server.socketPath),
            ("LIVE", fixture.server.storePath),
            ("STOREID", fixture.storeIdentity), ("OTHERID", fixture.otherIdentity),
            ("DATA", fixture.cluster.dataPath), ("TAKEN", "\(fixture.server.tcpPort)"),
            ("DIR", scratch.path), ("PORT", "\(freePort)"),
        ]
    }
}

extension BadInputCase {
    /// Leaves the store of a node that was killed with more map pages changed than 512 KiB hold.
    func killNodeWithScatteredWrites() async throws {
        var options = NodeServer.Options()
        options.storeByteCount = 256 << 20
        options.volumes = ["vol=512MiB"]
        let server = try await NodeServer.start(options)
        let writes = "[h.pwrite(b'x' * 4096, i << 20) for i in range(256)]"
        try await succeed(
            TestEnvironment.python,
            ["-m", "nbd", "-u", server.unixURI(), "-c", writes, "-c", "h.flush()"]
        )
        try await keepStore(of: server, as: "store.img")
    }

    /// Leaves `store.img` and `other.img`, each with a volume that a node of its own made.
    func makeStores(withVolumes first: String, _ second: String) async throws {
        for (name, volume) in [("store.img", first), ("other.img", second)] {
            var options = NodeServer.Options()
            options.storeByteCount = 64 << 20
            options.volumes = [volume]
            try await keepStore(of: try await NodeServer.start(options), as: name)
        }
    }

    /// Kills a node and keeps its store.
    private func keepStore(of server: NodeServer, as name: String) async throws {
        server.process.signal(SIGKILL)
        _ = await server.process.exit(within: 20)
        try await succeed(
            "/usr/bin/cp",
            ["--sparse=always", server.storePath, scratch.file(name)]
        )
    }

    /// Makes the copied store look as a later format version would: every superblock slot says
    /// so, with a right checksum.
    func makeStoreOfVersion(_ version: UInt32) throws {
        let path = scratch.file("store.img")
        for offset in [UInt64(0), 32_768, 65_536, 98_304] {
            let handle = try #require(FileHandle(forReadingAtPath: path))
            try handle.seek(toOffset: offset)
            var block = [UInt8](try #require(try handle.read(upToCount: 4096)))
            try handle.close()
            block.replaceSubrange(12..<16, with: littleEndian(version))
            block.replaceSubrange(8..<12, with: littleEndian(0))
            block.replaceSubrange(8..<12, with: littleEndian(crc32c(block)))
            try overwrite("store.img", at: offset, with: Data(block))
        }
    }

    private func littleEndian(_ value: UInt32) -> [UInt8] {
        [0, 8, 16, 24].map { UInt8(truncatingIfNeeded: value >> $0) }
    }

    /// CRC-32C, bit by bit: a second opinion that shares no code with the store.
    private func crc32c(_ bytes: [UInt8]) -> UInt32 {
        var register: UInt32 = 0xffff_ffff
        for byte in bytes {
            register ^= UInt32(byte)
            for _ in 0..<8 { register = register >> 1 ^ (register & 1 == 0 ? 0 : 0x82f6_3b78) }
        }
        return ~register
    }
}
