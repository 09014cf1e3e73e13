import BlockCore
import ISCSISession
import ISCSIWire
import Testing

@Suite struct ISCSIFullFeatureTests {
    // MARK: - Numbers

    @Test("The window is what is free, and never shrinks")
    func window_commands_followsTasks() {
        let initiator = ModelInitiator.loggedIn()
        for tag in 0..<UInt32(ISCSISession.taskCountMax) {
            initiator.send(initiator.command(read: 512, tag: tag))
        }
        #expect(initiator.readyTasks.count == ISCSISession.taskCountMax)
        // The window is closed: one more is not heard.
        let number = initiator.commandNumber
        initiator.send(initiator.command(read: 512, tag: 999))
        #expect(initiator.readyTasks.count == ISCSISession.taskCountMax)
        #expect(initiator.closeReason == nil)
        initiator.respond(initiator.readyTasks[0])
        #expect(initiator.last.header.word28 == number)
        #expect(initiator.last.header.long32 >> 32 == UInt64(number))
        initiator.commandNumber = number
        initiator.send(initiator.command(read: 512, tag: 999))
        #expect(initiator.readyTasks.count == ISCSISession.taskCountMax + 1)
    }

    @Test("A command outside of the window is dropped with its data; a hole ends the session")
    func window_outside_isDropped() {
        let initiator = ModelInitiator.loggedIn(["ImmediateData": "Yes"])
        for number in [99, 98, 100 + 128, 100 &- 1 << 31] as [UInt32] {
            var header = initiator.command(write: 512)
            header.word24 = number
            initiator.send(header, pattern(512))
        }
        #expect(initiator.commands.isEmpty)
        #expect(initiator.outputs.count == 1)
        initiator.commandNumber = 100
        initiator.send(initiator.command(read: 512))
        #expect(initiator.commands.count == 1)
        initiator.commandNumber = 103
        initiator.send(initiator.command(read: 512))
        #expect(initiator.closeReason == .commandNumber)
    }

    @Test("Immediate commands have places of their own and no number")
    func immediate_commands_doNotCount() {
        let initiator = ModelInitiator.loggedIn()
        for tag in 0..<UInt32(ISCSISession.immediateTaskCountMax) {
            var header = initiator.command(read: 512, tag: tag)
            header.isImmediate = true
            header.word24 = 100
            initiator.send(header)
        }
        #expect(initiator.readyTasks.count == ISCSISession.immediateTaskCountMax)
        var header = initiator.command(read: 512, tag: 77)
        header.isImmediate = true
        initiator.send(header)
        #expect(initiator.last.header.opcode == .reject)
        #expect(initiator.last.header.byte2 == ISCSIRejectReason.tooManyImmediate.rawValue)
        initiator.commandNumber = 100
        initiator.send(initiator.command(read: 512, tag: 78))
        #expect(initiator.readyTasks.count == ISCSISession.immediateTaskCountMax + 1)
    }

    // MARK: - Data-out

    @Test("Immediate data alone is enough", arguments: [1, 7, Int.max])
    func write_immediate_isReady(_ pieceByteCount: Int) {
        let initiator = ModelInitiator.loggedIn()
        initiator.pieceByteCount = pieceByteCount
        initiator.send(initiator.command(write: 1022), pattern(1022))
        #expect(initiator.readyTasks == [0])
        #expect(initiator.received[0] == pattern(1022))
        initiator.respond(0, dataOut: 1022)
        #expect(initiator.last.header.opcode == .response)
        #expect(initiator.last.header.flags == 0x80)
    }

    @Test("What is missing is asked for, burst by burst")
    func write_solicited_comesInBursts() {
        let initiator = ModelInitiator.loggedIn([
            "InitialR2T": "Yes", "ImmediateData": "No", "MaxBurstLength": "4096",
        ])
        initiator.send(initiator.command(write: 10_000))
        var sent: UInt32 = 0
        for sequence in 0..<3 as Range<UInt32> {
            let ask = initiator.last
            #expect(ask.header.opcode == .readyToTransfer)
            #expect(ask.header.long32 & 0xFFFF_FFFF == UInt64(sequence))
            #expect(ask.header.long40 >> 32 == UInt64(sent))
            let byteCount = UInt32(truncatingIfNeeded: ask.header.long40)
            #expect(byteCount == min(4096, 10_000 - sent))
            let half = byteCount / 2
            let bytes = Array(pattern(10_000)[Int(sent)..<Int(sent + byteCount)])
            initiator.send(
                initiator.data(ask, number: 0, offset: sent, isFinal: false),
                Array(bytes[..<Int(half)])
            )
            initiator.send(
                initiator.data(ask, number: 1, offset: sent + half, isFinal: true),
                Array(bytes[Int(half)...])
            )
            sent += byteCount
        }
        #expect(initiator.readyTasks == [0])
        #expect(initiator.received[0] == pattern(10_000))
        #expect(initiator.session.damage(of: 0) == .none)
    }

    @Test("Unsolicited data goes before what is asked for")
    func write_unsolicited_thenSolicited() {
        let initiator = ModelInitiator.loggedIn(["InitialR2T": "No", "FirstBurstLength": "2048"])
        let bytes = pattern(4096)
        initiator.send(initiator.command(write: 4096, isFinal: false), Array(bytes[..<1024]))
        #expect(initiator.readyTasks.isEmpty)
        let ask = ModelPDU(header: initiator.command(write: 1), data: [])
        initiator.commandNumber -= 1
        initiator.send(
            initiator.data(ask, number: 0, offset: 1024, isFinal: true),
            Array(bytes[1024..<2048])
        )
        let solicited = initiator.last
        #expect(solicited.header.opcode == .readyToTransfer)
        #expect(solicited.header.long40 == 2048 << 32 | 2048)
        initiator.send(
            initiator.data(solicited, number: 0, offset: 2048, isFinal: true),
            Array(bytes[2048...])
        )
        #expect(initiator.readyTasks == [0])
        #expect(initiator.received[0] == bytes)
    }

    @Test("Data that nobody wants is thrown away, and the command is ready when it has come")
    func write_unwanted_isThrownAway() {
        let initiator = ModelInitiator.loggedIn()
        initiator.wantedByteCount = 100
        initiator.send(initiator.command(write: 4096), pattern(512))
        #expect(initiator.readyTasks == [0])
        #expect(initiator.received[0] == pattern(100))
        initiator.forget()
        initiator.wantedByteCount = 0
        initiator.send(initiator.command(write: 4096, tag: 11))
        #expect(initiator.readyTasks.count == 1)
        #expect(initiator.outputs.isEmpty)
    }

    /// What a Data-Out can have wrong.
    enum Fault: CaseIterable {
        case number, offset, tooLong, short
    }

    @Test("Data that does not fit ends the task with a reason", arguments: Fault.allCases)
    func write_misplaced_isDamaged(_ fault: Fault) {
        let initiator = ModelInitiator.loggedIn(["ImmediateData": "No"])
        initiator.send(initiator.command(write: 1024))
        let ask = initiator.last
        var header = initiator.data(ask, number: 0, offset: 0, isFinal: true)
        var byteCount = 1024
        switch fault {
        case .number: header.long32 = 1
        case .offset: header.long40 = 4 << 32
        case .tooLong: byteCount = 1028
        case .short: byteCount = 512
        }
        initiator.send(header, pattern(byteCount))
        #expect(initiator.readyTasks == [0])
        #expect(initiator.session.damage(of: 0) == .missingData)
        // The stream is in step, and what is late belongs to nobody.
        initiator.send(initiator.data(ask, number: 1, offset: 0, isFinal: true), pattern(64))
        #expect(initiator.closeReason == nil)
        #expect(initiator.readyTasks == [0])
        initiator.respond(0, status: 2)
        initiator.send(initiator.command(read: 512, tag: 12))
        #expect(initiator.readyTasks == [0, 0])
    }

    @Test("Data that was not agreed on is refused")
    func write_notAgreed_isDamaged() {
        let late = ModelInitiator.loggedIn(["ImmediateData": "No"])
        late.send(late.command(write: 512), pattern(512))
        let first = ModelInitiator.loggedIn(["InitialR2T": "Yes"])
        first.send(first.command(write: 512, isFinal: false))
        let long = ModelInitiator.loggedIn(["FirstBurstLength": "512"])
        long.send(long.command(write: 4096), pattern(516))
        let more = ModelInitiator.loggedIn()
        more.send(more.command(write: 512), pattern(516))
        let read = ModelInitiator.loggedIn()
        read.send(read.command(read: 512), pattern(4))
        for initiator in [late, first, long, more, read] {
            #expect(initiator.readyTasks == [0])
            #expect(initiator.session.damage(of: 0) == .unexpectedData)
            #expect(initiator.received.isEmpty)
            #expect(initiator.closeReason == nil)
        }
    }

    @Test("Data of a task that has ended belongs to nobody, also when its place is taken again")
    func write_afterFinish_isThrownAway() {
        let initiator = ModelInitiator.loggedIn(["ImmediateData": "No"])
        initiator.send(initiator.command(write: 1024))
        let ask = initiator.last
        initiator.session.finish(0)
        initiator.send(initiator.data(ask, number: 0, offset: 0, isFinal: true), pattern(1024))
        #expect(initiator.readyTasks.isEmpty)
        initiator.send(initiator.command(write: 1024))
        initiator.send(initiator.data(ask, number: 0, offset: 0, isFinal: true), pattern(1024))
        #expect(initiator.readyTasks.isEmpty)
        #expect(initiator.received.isEmpty)
        let again = initiator.last
        initiator.send(initiator.data(again, number: 0, offset: 0, isFinal: true), pattern(1024))
        #expect(initiator.readyTasks == [0])
    }

    // MARK: - Digests

    @Test("Digests are checked and made", arguments: [1, 5, Int.max])
    func digests_right_pass(_ pieceByteCount: Int) {
        let initiator = ModelInitiator.loggedIn(["HeaderDigest": "CRC32C", "DataDigest": "CRC32C"])
        initiator.pieceByteCount = pieceByteCount
        initiator.send(initiator.command(write: 1023), pattern(1023))
        #expect(initiator.received[0] == pattern(1023))
        initiator.respond(0, status: 2)
        var echo = ISCSIHeader(.nopOut)
        echo.isImmediate = true
        echo.taskTag = 4
        initiator.send(echo, pattern(5))
        #expect(initiator.last.data == pattern(5))
    }

    @Test("A wrong data digest costs the task, a wrong header digest the connection")
    func digests_wrong_areFound() {
        let keys = ["HeaderDigest": "CRC32C", "DataDigest": "CRC32C"]
        let data = ModelInitiator.loggedIn(keys)
        var bytes = data.bytes(data.command(write: 512), pattern(512))
        bytes[60] ^= 1
        data.feed(bytes)
        #expect(data.last.header.opcode == .reject)
        #expect(data.last.header.byte2 == ISCSIRejectReason.dataDigest.rawValue)
        #expect(data.readyTasks == [0])
        #expect(data.session.damage(of: 0) == .digest)
        let header = ModelInitiator.loggedIn(keys)
        bytes = header.bytes(header.command(write: 512), pattern(512))
        bytes[20] ^= 1
        header.feed(bytes)
        #expect(header.closeReason == .headerDigest)
        #expect(header.commands.isEmpty)
    }

    // MARK: - Data-in and responses

    @Test("Data-In is cut to PDUs and sequences, and status rides in the last")
    func read_dataIn_isCut() {
        let initiator = ModelInitiator.loggedIn([
            "MaxRecvDataSegmentLength": "1024", "MaxBurstLength": "1536",
        ])
        initiator.send(initiator.command(read: 4000))
        let session = initiator.session
        var offset: UInt32 = 0
        while offset < 4000 {
            let byteCount = session.dataInByteCount(0, restByteCount: 4000 - offset)
            let end = session.writeDataIn(
                0,
                offset: offset,
                byteCount: byteCount,
                isLast: offset + byteCount == 4000,
                totalByteCount: 4096,
                into: initiator.out
            )
            let data = initiator.out.slice(end, Int(byteCount))
            data.copy(from: pattern(Int(byteCount)))
            let tail = session.writeTail(
                of: data,
                into: initiator.out.suffix(from: end + data.byteCount)
            )
            initiator.takeOutput(initiator.out.slice(0, end + data.byteCount + tail))
            offset += byteCount
        }
        session.finish(0)
        let pdus = initiator.outputs.dropFirst()
        #expect(pdus.map(\.header.dataByteCount) == [1024, 512, 1024, 512, 928])
        #expect(pdus.map(\.header.flags) == [0, 0x80, 0, 0x80, 0x85])
        #expect(pdus.map { $0.header.long32 & 0xFFFF_FFFF } == [0, 1, 2, 3, 4])
        #expect(pdus.map { $0.header.long40 >> 32 } == [0, 1024, 1536, 2560, 3072])
        #expect(initiator.last.header.long40 & 0xFFFF_FFFF == 96, "residual")
        #expect(initiator.last.header.word24 == 51, "StatSN")
    }

    @Test("Residual counts say what was expected and is not there, or the other way round")
    func response_residuals() {
        let cases: [(ISCSIHeader, UInt32, UInt32, UInt8, UInt64)] = {
            let model = ModelInitiator()
            return [
                (model.command(read: 512), 0, 512, 0x80, 0),
                (model.command(read: 512), 0, 100, 0x82, 412),
                (model.command(read: 512), 0, 1024, 0x84, 512),
                (model.command(write: 512), 512, 0, 0x80, 0),
                (model.command(write: 512), 256, 0, 0x82, 256),
                (model.command(write: 512), 1024, 0, 0x84, 512),
                (model.command(), 512, 0, 0x84, 512),
            ]
        }()
        for (header, dataOut, dataIn, flags, residual) in cases {
            let initiator = ModelInitiator.loggedIn()
            var header = header
            header.word24 = 100
            initiator.wantedByteCount = 0
            initiator.send(header)
            initiator.respond(0, dataOut: dataOut, dataIn: dataIn)
            #expect(initiator.last.header.flags == flags)
            #expect(initiator.last.header.long40 == residual)
        }
    }

    // MARK: - Everything else

    @Test("Echoes come back, as much as there is room for")
    func nop_echo() {
        let initiator = ModelInitiator.loggedIn()
        var echo = ISCSIHeader(.nopOut)
        echo.isImmediate = true
        echo.taskTag = 4
        for byteCount in [0, 3, 4096, 100_000] {
            initiator.send(echo, pattern(byteCount))
            #expect(initiator.last.header.opcode == .nopIn)
            #expect(initiator.last.header.taskTag == 4)
            #expect(initiator.last.header.word20 == .max)
            #expect(initiator.last.data == pattern(min(byteCount, 4096)))
        }
        // The answer to a ping of ours is not answered.
        let count = initiator.outputs.count
        echo.taskTag = .max
        initiator.send(echo)
        #expect(initiator.outputs.count == count)
    }

    @Test("Discovery tells what may be seen, over as many PDUs as it takes")
    func text_sendTargets_all() {
        let initiator = ModelInitiator.loggedIn(discovery: true)
        initiator.targets.entries = (0..<200).map {
            ISCSITargetEntry(name: "iqn.2026-01.cairn:vm\($0)", addresses: ["127.0.0.1:3260,1"])
        }
        var text = ISCSIHeader(.text)
        text.flags = 0x80
        text.taskTag = 3
        text.word20 = .max
        text.word24 = 100
        initiator.forget()
        initiator.send(text, ISCSIText.bytes([ISCSITextPair("SendTargets", "All")]))
        var bytes = initiator.last.data
        for _ in 0..<10 where initiator.last.header.flags & 0x80 == 0 {
            text.word20 = initiator.last.header.word20
            text.word24 += 1
            initiator.send(text)
            bytes += initiator.last.data
        }
        let pairs = bytes.split(separator: 0).map { String(decoding: $0, as: UTF8.self) }
        #expect(pairs.count == 400)
        #expect(pairs.first == "TargetName=iqn.2026-01.cairn:vm0")
        #expect(pairs.last == "TargetAddress=127.0.0.1:3260,1")
        // Commands are not for discovery.
        initiator.commandNumber = text.word24 + 1
        initiator.send(initiator.command(read: 512))
        #expect(initiator.last.header.opcode == .reject)
    }

    @Test("In a normal session only its own target can be asked for")
    func text_sendTargets_own() {
        let answers = ["": 1, ModelTargets.name: 1, "All": 0, "iqn.2026-01.cairn:other": 0]
        for (value, count) in answers {
            let initiator = ModelInitiator.loggedIn()
            var text = ISCSIHeader(.text)
            text.flags = 0x80
            text.word20 = .max
            text.word24 = 100
            initiator.send(text, ISCSIText.bytes([ISCSITextPair("SendTargets", value)]))
            #expect((initiator.last.pairs["TargetName"] != nil) == (count == 1))
            #expect((initiator.last.pairs["SendTargets"] == "Reject") == (count == 0))
        }
    }

    @Test("Requests about tasks are handed over; unknown ones are answered")
    func management_requests() {
        let initiator = ModelInitiator.loggedIn()
        for function in 0...9 as ClosedRange<UInt8> {
            var header = ISCSIHeader(.taskManagement)
            header.isImmediate = true
            header.flags = 0x80 | function
            header.taskTag = UInt32(function)
            header.word20 = 10
            initiator.send(header)
        }
        #expect(initiator.management.map(\.function.rawValue) == [1, 2, 3, 4, 5, 6, 7, 8])
        #expect(initiator.management.allSatisfy { $0.referencedTag == 10 })
        #expect(initiator.outputs.dropFirst().map(\.header.byte2) == [5, 5])
        initiator.send(initiator.command(read: 512, tag: 10))
        #expect(initiator.session.task(withTag: 10) == 0)
        #expect(initiator.session.task(withTag: 11) == nil)
    }

    @Test("Logout is answered, then the session ends")
    func logout_reasons() {
        for (reason, response) in [(0, 0), (1, 0), (2, 2), (3, 2)] as [(UInt8, UInt8)] {
            let initiator = ModelInitiator.loggedIn()
            var header = ISCSIHeader(.logout)
            header.isImmediate = true
            header.flags = 0x80 | reason
            initiator.send(header)
            #expect(initiator.last.header.opcode == .logoutResponse)
            #expect(initiator.last.header.byte2 == response)
            #expect(initiator.closeReason == (response == 0 ? .orderly : nil))
        }
    }

    @Test("What is not known or not allowed is rejected with its header")
    func reject_reasons() {
        let initiator = ModelInitiator.loggedIn()
        let reasons: [(UInt8, ISCSIRejectReason)] = [
            (0x10, .snack), (0x03, .protocolError), (0x07, .notSupported), (0x1C, .notSupported),
            (0x20, .notSupported), (0x3F, .notSupported),
        ]
        for (code, reason) in reasons {
            var header = ISCSIHeader(.nopOut)
            header.code = code
            header.isImmediate = true
            header.taskTag = 0x0102_0304
            initiator.send(header, pattern(12))
            #expect(initiator.last.header.opcode == .reject)
            #expect(initiator.last.header.byte2 == reason.rawValue)
            #expect(initiator.last.data.count == 48)
            #expect(Array(initiator.last.data[16..<20]) == [1, 2, 3, 4])
        }
        #expect(initiator.closeReason == nil)
        var header = ISCSIHeader(.nopOut)
        header.dataByteCount = ISCSISession.segmentByteCountMax + 1
        header.encode(into: initiator.out)
        initiator.feed(initiator.out.slice(0, 48).array())
        #expect(initiator.closeReason == .tooLarge)
    }
}
