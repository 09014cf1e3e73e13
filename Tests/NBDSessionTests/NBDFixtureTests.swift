import BlockCore
import Foundation
import NBDSession
import Testing

/// A recorded conversation in annotated hex.
///
/// One field a line: `C` from the client, `S` from the server, `X` where the server closes.
/// Everything behind `#` is a comment.
struct Fixture: CustomTestStringConvertible {
    enum Turn: Equatable {
        case client([UInt8])
        case server([UInt8])
        case close
    }

    let name: String
    let turns: [Turn]
    var testDescription: String { name }

    static let folder = URL(filePath: #filePath)
        .deletingLastPathComponent()
        .appending(path: "../../Fixtures/nbd")
        .standardized

    /// Every fixture there is, by name: one that cannot be read fails its tests.
    static let all: [Fixture] = {
        let files = (try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []
        return files.sorted().map { file in
            let text = try? String(contentsOf: folder.appending(path: file), encoding: .utf8)
            return Fixture(name: file, turns: text.flatMap(parse) ?? [])
        }
    }()

    static func parse(_ text: String) -> [Turn]? {
        var turns: [Turn] = []
        for line in text.split(separator: "\n") {
            let fields = line.prefix { $0 != "#" }.split(separator: " ")
            guard let direction = fields.first else { continue }
            var bytes: [UInt8] = []
            for digits in fields.dropFirst() {
                guard digits.count % 2 == 0 else { return nil }
                var rest = digits
                while !rest.isEmpty {
                    guard let byte = UInt8(rest.prefix(2), radix: 16) else { return nil }
                    bytes.append(byte)
                    rest = rest.dropFirst(2)
                }
            }
            switch (direction, turns.last) {
            case ("C", .client(let before)): turns[turns.count - 1] = .client(before + bytes)
            case ("C", _): turns.append(.client(bytes))
            case ("S", .server(let before)): turns[turns.count - 1] = .server(before + bytes)
            case ("S", _): turns.append(.server(bytes))
            case ("X", _): turns.append(.close)
            default: return nil
            }
        }
        return turns
    }
}

@Suite struct NBDFixtureTests {
    /// Each is read by the tests below, because they run over the folder.
    @Test func folder_holdsWhatWeExpect() {
        #expect(Fixture.all.count >= 14)
        #expect(Fixture.all.allSatisfy { $0.name.hasSuffix(".hex") })
    }

    @Test(arguments: Fixture.all)
    func conversation_isAnsweredToTheByte(_ fixture: Fixture) {
        #expect(!fixture.turns.isEmpty, "\(fixture.name) cannot be read")
        let connection = ModelConnection()
        for (index, turn) in fixture.turns.enumerated() {
            switch turn {
            case .client(let bytes): connection.feed(bytes)
            case .server(let bytes):
                #expect(connection.takeSent() == bytes, "\(fixture.name) turn \(index)")
            case .close:
                #expect(connection.closeReason != nil, "\(fixture.name) goes on")
            }
        }
        #expect(connection.takeSent().isEmpty)
        #expect((connection.closeReason != nil) == (fixture.turns.last == .close))
    }

    @Test(arguments: Fixture.all)
    func conversation_byteByByte_isAnsweredTheSame(_ fixture: Fixture) {
        let connection = ModelConnection()
        for case let turn in fixture.turns {
            switch turn {
            case .client(let bytes): for byte in bytes { connection.feed([byte]) }
            case .server(let bytes): #expect(connection.takeSent() == bytes)
            case .close: #expect(connection.closeReason != nil)
            }
        }
    }

    /// Everything the client says in one piece: nothing waits for what it needs not wait for.
    @Test(arguments: Fixture.all)
    func conversation_pipelined_isAnsweredTheSame(_ fixture: Fixture) {
        var said: [UInt8] = []
        var answered: [UInt8] = []
        for turn in fixture.turns {
            if case .client(let bytes) = turn { said += bytes }
            if case .server(let bytes) = turn { answered += bytes }
        }
        let connection = ModelConnection()
        connection.feed(said)
        #expect(connection.takeSent() == answered)
    }
}
