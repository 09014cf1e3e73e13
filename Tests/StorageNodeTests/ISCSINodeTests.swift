// Volumes over iSCSI, through real sockets and stores.

import BlockCore
import ISCSISession
import ISCSIWire
import LogStore
import StorageNode
import TestSupport
import Testing

extension NodeConfiguration {
    /// Has the node listen for initiators beside its clients.
    mutating func servesISCSI() {
        guard case .unix(let path)? = listeners.first else { return }
        iscsiListeners = [.unix(path: path + "-iscsi")]
    }
}

extension TestNode {
    var iscsiPath: String { socketPath + "-iscsi" }

    /// A session that has heard that it is new.
    func initiator(_ volume: String, isid: UInt64 = 1) throws -> TestInitiator {
        let initiator = try TestInitiator(iscsiPath, isid: isid)
        let status = try initiator.login(volume)
        guard status == 0 else { throw ClientError("login: \(status)") }
        try initiator.settle()
        return initiator
    }
}

@Suite("Volumes over iSCSI", .serialized) struct ISCSINodeTests {
    @Test("What is written is read, here and over NBD, in every size")
    func write_isReadBack() async throws {
        let node = try await TestNode { $0.servesISCSI() }
        try await node.makeVolume("disk", id: 1)
        let initiator = try node.initiator("disk")
        let client = try node.client("disk")
        var address: UInt64 = 0
        for blockCount in [1, 3, 8, 16, 17, 128, 513, 2048] {
            let data = pattern(byteCount: blockCount * 512, seed: UInt64(blockCount))
            #expect(try initiator.write(address, data).status == 0)
            let result = try initiator.read(address, blockCount)
            #expect(result.status == 0)
            #expect(result.data == data, "\(blockCount) blocks")
            #expect(try client.read(address * 512, data.count) == data)
            address += UInt64(blockCount)
        }
        // What was never written reads as zeroes.
        let hole = try initiator.read(100_000, 2048)
        #expect(hole.data == [UInt8](repeating: 0, count: 1 << 20))
        #expect(try initiator.read(131_071, 2).sense == 0x05_2100)
        #expect(try initiator.run([0x35] + [UInt8](repeating: 0, count: 9)).status == 0)
        await node.stop()
    }

    @Test("COMPARE AND WRITE of many sessions at once loses nothing")
    func compareAndWrite_concurrent_isAtomic() async throws {
        let node = try await TestNode { $0.servesISCSI() }
        try await node.makeVolume("disk", id: 1)
        let sessions = try (1...4).map { try node.initiator("disk", isid: $0) }
        // Each adds one to the same block, as often as it takes until it has done so.
        var block = [UInt8](repeating: 0, count: 512)
        #expect(try sessions[0].write(7, block).status == 0)
        let compare: [UInt8] = [0x89, 0] + [UInt8](repeating: 0, count: 7) + [7, 0, 0, 0, 1, 0, 0]
        var successCount = 0
        for _ in 0..<20 {
            var next = block
            next[0] += 1
            // All at the same time, from the same value: one of them succeeds.
            for session in sessions {
                try session.send(session.commandHeader(compare, write: 1024), block + next)
            }
            var winners = 0
            for session in sessions {
                let result = try session.finish(block + next)
                if result.status == 0 { winners += 1 } else { #expect(result.sense == 0x0E_1D00) }
            }
            #expect(winners == 1)
            successCount += winners
            block = next
        }
        #expect(try sessions[0].read(7, 1).data[0] == UInt8(successCount))
        await node.stop()
    }

    @Test("UNMAP, WRITE SAME and copies leave what they should")
    func provisioning_leavesZeroesAndCopies() async throws {
        let node = try await TestNode { $0.servesISCSI() }
        try await node.makeVolume("disk", id: 1)
        let initiator = try node.initiator("disk")
        let data = pattern(byteCount: 64 * 512, seed: 1)
        #expect(try initiator.write(0, data).status == 0)
        // As many ranges as there may be, each a part of a block.
        var list: [UInt8] = [0x10, 0x06, 0x10, 0x00, 0, 0, 0, 0]
        for index in 0..<256 {
            list += [0, 0, 0, 0, 0, 0, UInt8(index * 2 >> 8), UInt8(index * 2 & 0xFF)]
            list += [0, 0, 0, 1, 0, 0, 0, 0]
        }
        let unmap: [UInt8] = [0x42, 0, 0, 0, 0, 0, 0, 0x10, 0x08, 0]
        #expect(try initiator.run(unmap, write: list).status == 0)
        var expected = data
        for block in stride(from: 0, to: 64, by: 2) {
            expected.replaceSubrange(
                block * 512..<(block + 1) * 512,
                with: [UInt8](repeating: 0, count: 512)
            )
        }
        #expect(try initiator.read(0, 64).data == expected)
        let same = pattern(byteCount: 512, seed: 9)
        #expect(
            try initiator.run(TestInitiator.block(0x41, 1000, 3000), write: same).status == 0
        )
        let filled = try initiator.read(1000, 2048).data + initiator.read(3048, 952).data
        #expect(filled == (0..<3000).flatMap { _ in same })
        await node.stop()
    }

    @Test("Volumes of all reactors can be reached through one address")
    func login_otherReactor_isHandedOver() async throws {
        let node = try await TestNode(storeCount: 3) {
            $0.servesISCSI()
            $0.reactorCount = 3
        }
        for store in 0..<3 {
            try await node.makeVolume("disk\(store)", id: UInt64(store + 1), store: store)
        }
        let sessions = try (0..<3).map { try node.initiator("disk\($0)") }
        for (index, session) in sessions.enumerated() {
            let data = pattern(byteCount: 65_536, seed: UInt64(index))
            #expect(try session.write(0, data).status == 0)
            #expect(try session.read(0, 128).data == data)
            #expect(try node.client("disk\(index)").read(0, 65_536) == data)
        }
        await node.stop()
    }

    @Test("Who is not granted a volume cannot tell it from one that is not there")
    func login_notGranted_isNotFound() async throws {
        let node = try await TestNode {
            $0.servesISCSI()
            $0.iscsiAccess = ISCSIAccess(rules: [
                ISCSIRule(initiator: TestInitiator.name, volume: "mine", credentials: nil),
                ISCSIRule(initiator: "iqn.2026-01.example:other", volume: nil, credentials: nil),
            ])
        }
        try await node.makeVolume("mine", id: 1)
        try await node.makeVolume("theirs", id: 2)
        try await node.makeVolume("hidden", id: 3, access: .none)
        for name in ["theirs", "hidden", "absent", ""] {
            #expect(try TestInitiator(node.iscsiPath).login(name) == 0x0203, "\(name)")
        }
        let discovery = try TestInitiator(node.iscsiPath)
        #expect(try discovery.login(nil) == 0)
        #expect(try discovery.sendTargets() == ["iqn.2026-01.cairn:mine"])
        #expect(try node.initiator("mine").read(0, 1).status == 0)
        await node.stop()
    }

    @Test("Both sides prove themselves, and nobody gets in without")
    func login_chap_isDemanded() async throws {
        let credentials = ISCSICredentials(
            user: "host",
            secret: Array("a secret of the host".utf8),
            ownUser: "cairn",
            ownSecret: Array("a secret of the node".utf8)
        )
        let node = try await TestNode {
            $0.servesISCSI()
            $0.iscsiAccess = ISCSIAccess(rules: [
                ISCSIRule(initiator: nil, volume: nil, credentials: credentials)
            ])
        }
        try await node.makeVolume("disk", id: 1)
        func login(_ user: String, _ secret: String) throws -> (UInt16, String?, TestInitiator) {
            let initiator = try TestInitiator(node.iscsiPath)
            let (status, proof) = try initiator.login(
                "disk",
                user: user,
                secret: secret,
                challenge: [7, 8, 9]
            )
            return (status, proof, initiator)
        }
        let (status, proof, initiator) = try login("host", "a secret of the host")
        #expect(status == 0)
        let expected = CHAPAlgorithm.sha256.response(
            identifier: 5,
            secret: credentials.ownSecret,
            challenge: [7, 8, 9]
        )
        #expect(proof == ISCSIText.hexText(expected))
        try initiator.settle()
        #expect(try initiator.read(0, 1).status == 0)
        #expect(try login("host", "another secret").0 == 0x0201)
        #expect(try login("guest", "a secret of the host").0 == 0x0201)
        #expect(try TestInitiator(node.iscsiPath).login("disk") == 0x0201)
        #expect(try TestInitiator(node.iscsiPath).login(nil) == 0x0201)
        await node.stop()
    }

    @Test("A second login of the same port ends the first; other ports share the volume")
    func login_again_replacesTheSession() async throws {
        let node = try await TestNode { $0.servesISCSI() }
        try await node.makeVolume("disk", id: 1)
        let first = try node.initiator("disk", isid: 1)
        let other = try node.initiator("disk", isid: 2)
        let again = try node.initiator("disk", isid: 1)
        #expect(first.client.isClosed())
        #expect(try other.read(0, 1).status == 0)
        #expect(try again.read(0, 1).status == 0)
        await node.stop()
    }

    @Test("A volume that is taken away takes its sessions along; one that grows says so")
    func volume_changes_areTold() async throws {
        let node = try await TestNode { $0.servesISCSI() }
        try await node.makeVolume("disk", id: 1)
        try await node.makeVolume("gone", id: 2)
        let initiator = try node.initiator("disk")
        let gone = try node.initiator("gone")
        _ = try await node.node.perform(.resizeVolume(VolumeID(1), byteCount: 128 << 20))
        #expect(try initiator.read(0, 1).sense == 0x06_2A09)
        #expect(try initiator.read(250_000, 1).status == 0)
        _ = try await node.node.perform(.deleteVolume(VolumeID(2)))
        #expect(gone.client.isClosed())
        #expect(try TestInitiator(node.iscsiPath).login("gone") == 0x0203)
        await node.stop()
    }

    @Test("Logging out, going silently and stopping leave nothing behind")
    func connections_ended_leaveNothing() async throws {
        let node = try await TestNode { $0.servesISCSI() }
        try await node.makeVolume("disk", id: 1)
        let polite = try node.initiator("disk", isid: 1)
        #expect(try polite.write(0, pattern(byteCount: 1 << 20, seed: 1)).status == 0)
        var header = ISCSIHeader(.logout)
        header.isImmediate = true
        header.flags = 0x80
        try polite.send(header)
        #expect(try polite.receive().header.opcode == .logoutResponse)
        #expect(polite.client.isClosed())
        do {
            // Gone in the middle of a command whose data was asked for, and of answers.
            let rude = try node.initiator("disk", isid: 2)
            let write = TestInitiator.block(0x2A, 0, 2048)
            try rude.send(rude.commandHeader(write, write: 1 << 20))
            #expect(try rude.receive().header.opcode == .readyToTransfer)
            let read = TestInitiator.block(0x28, 0, 2048)
            for _ in 0..<16 { try rude.send(rude.commandHeader(read, read: 1 << 20)) }
        }
        let isEmpty = try await isEventually { await node.node.counters().connectionCountNow == 0 }
        #expect(isEmpty)
        let isWhole = try await isEventually { await node.node.isPoolWhole(connectionCount: 0) }
        #expect(isWhole)
        #expect(await node.node.counters().requestCountNow == 0)
        // A volume that nobody uses any more can be deleted.
        _ = try await node.node.perform(.deleteVolume(VolumeID(1)))
        await node.stop()
    }

    @Test("A reset ends what is under way everywhere, and everybody is told")
    func reset_abortsTasks() async throws {
        let node = try await TestNode { $0.servesISCSI() }
        try await node.makeVolume("disk", id: 1)
        let first = try node.initiator("disk", isid: 1)
        let second = try node.initiator("disk", isid: 2)
        let write = TestInitiator.block(0x2A, 0, 64)
        try first.send(first.commandHeader(write, write: 32_768, tag: 77))
        let ask = try first.receive()
        #expect(ask.header.opcode == .readyToTransfer)
        var reset = ISCSIHeader(.taskManagement)
        reset.isImmediate = true
        reset.flags = 0x80 | ISCSITaskFunction.unitReset.rawValue
        reset.word24 = second.commandNumber
        reset.taskTag = 99
        try second.send(reset)
        let answer = try second.receive()
        #expect(answer.header.opcode == .taskManagementResponse)
        #expect(answer.header.byte2 == ISCSITaskOutcome.complete.rawValue)
        // Data that was asked for before belongs to nobody.
        var data = ISCSIHeader(.dataOut)
        data.flags = 0x80
        data.taskTag = 77
        data.word20 = ask.header.word20
        try first.send(data, pattern(byteCount: 32_768, seed: 1))
        #expect(try first.read(0, 1).sense == 0x06_2903)
        #expect(try second.read(0, 1).sense == 0x06_2903)
        #expect(try first.read(0, 64).data == [UInt8](repeating: 0, count: 32_768))
        // ABORT TASK of what is not there, and of what waits for its data.
        try first.send(first.commandHeader(write, write: 32_768, tag: 78))
        #expect(try first.receive().header.opcode == .readyToTransfer)
        for (tag, outcome) in [(5, 1), (78, 0)] as [(UInt32, UInt8)] {
            var abort = ISCSIHeader(.taskManagement)
            abort.isImmediate = true
            abort.flags = 0x80 | ISCSITaskFunction.abortTask.rawValue
            abort.word24 = first.commandNumber
            abort.word20 = tag
            try first.send(abort)
            #expect(try first.receive().header.byte2 == outcome)
        }
        #expect(try first.read(0, 1).status == 0)
        await node.stop()
    }

    @Test("A replicated volume is served like any other, and outlives a replica")
    func replicated_isServed() async throws {
        let cluster = try await ReplicatedCluster { $0.servesISCSI() }
        try await cluster.serve(on: 0)
        let initiator = try cluster.nodes[0].initiator(ReplicatedCluster.name)
        let data = pattern(byteCount: 1 << 20, seed: 3)
        #expect(try initiator.write(0, data).status == 0)
        await cluster.stop(2)
        #expect(try initiator.write(4096, data).status == 0)
        #expect(try initiator.read(4096, 2048).data == data)
        #expect(try initiator.run([0x35] + [UInt8](repeating: 0, count: 9)).status == 0)
        await cluster.stopAll()
    }
}
