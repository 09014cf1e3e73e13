import BlockCore
import LogStore
import Replication
import StorageNode
import TestSupport
import Testing

extension ReplicatedCluster {
    static var clone: VolumeID { VolumeID(8) }
    /// Replicas of the clone by node.
    static func cloneInstance(_ node: Int) -> UInt64 { UInt64(node) + 500 }

    func snapshot(_ id: UInt64, on node: Int) async throws -> WriteNumber {
        try await nodes[node].node.takeSnapshot(
            of: Self.volume,
            id: id,
            leaseEpoch: Epoch(epoch)
        )
    }

    /// Makes a replica of the clone out of the replica on a node.
    func clone(_ id: UInt64, _ number: WriteNumber, on node: Int) async throws {
        guard let slot = homes.firstIndex(of: node) else { throw ClientError("no replica there") }
        try await nodes[node].node.cloneReplica(
            of: Self.volume,
            instance: ReplicaInstance(instances[slot]),
            id: id,
            number: number,
            specification: VolumeSpecification(id: Self.clone, name: "clone", byteCount: byteCount),
            newInstance: ReplicaInstance(Self.cloneInstance(node))
        )
    }

    /// Has a node serve the clone, with replicas on these nodes.
    func serveClone(
        on node: Int,
        of number: WriteNumber,
        replicas: [Int]
    ) async throws -> TestClient {
        let assignment = assignment(
            Self.clone,
            "clone",
            leaseEpoch: number.epoch.rawValue + 1,
            replicas.map { (Self.cloneInstance($0), $0) }
        )
        _ = try await nodes[node].node.serve(assignment)
        return try nodes[node].client("clone")
    }
}

/// Docs/replication.md, "Snapshots", over real sockets and stores.
@Suite("Snapshots of replicated volumes", .serialized) struct ReplicatedSnapshotTests {
    private let before = pattern(byteCount: 1 << 20, seed: 20)
    private let after = pattern(byteCount: 1 << 20, seed: 21)

    private func isWhole(_ status: ServiceStatus) -> Bool {
        status.peers.allSatisfy { $0.isComplete && $0.behindCount == 0 }
    }

    @Test("A clone has what was written before its snapshot and nothing that came after")
    func clone_hasTheSnapshot() async throws {
        let cluster = try await ReplicatedCluster()
        try await cluster.serve(on: 0)
        let client = try cluster.client(0)
        try client.write(8192, before)
        let number = try await cluster.snapshot(11, on: 0)
        try client.write(8192, after)
        // Asked again it is the same one.
        #expect(try await cluster.snapshot(11, on: 0) == number)
        try await cluster.wait(0, until: isWhole)
        for node in 0..<3 {
            try await cluster.clone(11, number, on: node)
            try await cluster.clone(11, number, on: node)
        }
        let clone = try await cluster.serveClone(on: 1, of: number, replicas: [0, 1, 2])
        #expect(try clone.read(8192, 1 << 20) == before)
        #expect(try client.read(8192, 1 << 20) == after)
        try clone.write(0, after)
        #expect(try clone.read(0, 1 << 20) == after)
        #expect(try client.read(8192, 1 << 20) == after)
        await cluster.stopAll()
    }

    @Test("A replica that was away for a snapshot is given it, and what was trimmed before it")
    func replicaAway_getsTheSnapshot() async throws {
        let cluster = try await ReplicatedCluster()
        try await cluster.serve(on: 0)
        let client = try cluster.client(0)
        try client.write(0, after)
        try client.write(8 << 20, after)
        await cluster.stop(2)
        try client.write(0, before)
        #expect(try client.call(4, 8 << 20, 65_536).error == 0)
        let first = try await cluster.snapshot(11, on: 0)
        try client.write(0, after)
        let second = try await cluster.snapshot(12, on: 0)
        try client.write(4 << 20, before)
        #expect(second > first)
        try await cluster.restart(2)
        await #expect(throws: ReplicaSnapshotError.self) {
            try await cluster.clone(11, first, on: 2)
        }
        try await cluster.tell(0)
        try await cluster.wait(0, until: isWhole)
        // Its own copy and one other make a quorum: what it has is read.
        try await cluster.clone(11, first, on: 2)
        try await cluster.clone(11, first, on: 1)
        let clone = try await cluster.serveClone(on: 2, of: first, replicas: [2, 1, 0])
        #expect(try clone.read(0, 1 << 20) == before)
        #expect(try clone.read(8 << 20, 65_536) == [UInt8](repeating: 0, count: 65_536))
        #expect(try clone.read(4 << 20, 4096) == [UInt8](repeating: 0, count: 4096))
        #expect(try client.read(4 << 20, 1 << 20) == before)
        await cluster.stopAll()
    }

    @Test("A replica in a lost one's place is given all snapshots")
    func replacement_getsSnapshots() async throws {
        let cluster = try await ReplicatedCluster(nodeCount: 4)
        try await cluster.serve(on: 0)
        let client = try cluster.client(0)
        try client.write(0, before)
        let number = try await cluster.snapshot(11, on: 0)
        try client.write(0, after)
        await cluster.stop(2)
        try await cluster.replace(2, on: 3)
        try await cluster.tell(0)
        try await cluster.wait(0, until: isWhole)
        for node in [3, 1] { try await cluster.clone(11, number, on: node) }
        let clone = try await cluster.serveClone(on: 3, of: number, replicas: [3, 1, 0])
        #expect(try clone.read(0, 1 << 20) == before)
        await cluster.stopAll()
    }

    @Test("A deleted snapshot is gone, and what it alone had is still in the volume")
    func delete_keepsTheVolume() async throws {
        let cluster = try await ReplicatedCluster()
        try await cluster.serve(on: 0)
        let client = try cluster.client(0)
        try client.write(0, before)
        let number = try await cluster.snapshot(11, on: 0)
        try client.write(512 << 10, after)
        try await cluster.wait(0, until: isWhole)
        for node in 0..<3 {
            for _ in 0..<2 {
                try await cluster.nodes[node].node.deleteReplicaSnapshot(
                    of: ReplicatedCluster.volume,
                    id: 11
                )
            }
        }
        await #expect(throws: ReplicaSnapshotError.notFound) {
            try await cluster.clone(11, number, on: 1)
        }
        #expect(try client.read(0, 512 << 10) == Array(before.prefix(512 << 10)))
        #expect(try client.read(512 << 10, 1 << 20) == after)
        // Whoever was away does not miss it.
        await cluster.stop(2)
        try client.write(0, after)
        try await cluster.restart(2)
        try await cluster.tell(0)
        try await cluster.wait(0, until: isWhole)
        await cluster.stopAll()
    }

    @Test("Rolled back, a volume reads as its snapshot did, through any node")
    func rollback_isTheSnapshot() async throws {
        let cluster = try await ReplicatedCluster()
        try await cluster.serve(on: 0)
        try cluster.client(0).write(0, before)
        let number = try await cluster.snapshot(11, on: 0)
        try cluster.client(0).write(0, after)
        try cluster.client(0).write(4 << 20, after)
        try await cluster.wait(0, until: isWhole)
        await cluster.nodes[0].node.stopServing(ReplicatedCluster.volume, leaseEpoch: Epoch(1))
        cluster.epoch += 1
        for node in 0..<3 {
            for _ in 0..<2 {
                try await cluster.nodes[node].node.rollBackReplica(
                    of: ReplicatedCluster.volume,
                    instance: ReplicaInstance(UInt64(100 + node)),
                    id: 11,
                    number: number,
                    epoch: Epoch(cluster.epoch),
                    newInstance: ReplicaInstance(UInt64(200 + node))
                )
            }
            cluster.instances[node] = UInt64(200 + node)
        }
        for node in [0, 2] {
            try await cluster.serve(on: node)
            let client = try cluster.client(node)
            #expect(try client.read(0, 1 << 20) == before)
            #expect(try client.read(4 << 20, 4096) == [UInt8](repeating: 0, count: 4096))
        }
        await cluster.stopAll()
    }

    @Test("A rollback that a crash cut short goes on where it was")
    func rollback_cutShort_goesOn() async throws {
        let cluster = try await ReplicatedCluster()
        try await cluster.serve(on: 0)
        try cluster.client(0).write(0, before)
        let number = try await cluster.snapshot(11, on: 0)
        try cluster.client(0).write(0, after)
        try await cluster.wait(0, until: isWhole)
        await cluster.nodes[0].node.stopServing(ReplicatedCluster.volume, leaseEpoch: Epoch(1))
        cluster.epoch += 1
        for node in 0..<3 {
            let goal = ReplicaInstance(UInt64(200 + node))
            // What the first step leaves: another replica, which knows nothing.
            await cluster.stop(node)
            try await cluster.restart(node)
            _ = try await cluster.nodes[node].node.perform(
                .setReplica(
                    volume: ReplicatedCluster.volume,
                    record: ReplicaRecord.replacing(goal).encoded()
                )
            )
            try await cluster.nodes[node].node.rollBackReplica(
                of: ReplicatedCluster.volume,
                instance: ReplicaInstance(UInt64(100 + node)),
                id: 11,
                number: number,
                epoch: Epoch(cluster.epoch),
                newInstance: goal
            )
            cluster.instances[node] = goal.rawValue
        }
        try await cluster.serve(on: 1)
        #expect(try cluster.client(1).read(0, 1 << 20) == before)
        await cluster.stopAll()
    }

    @Test("A snapshot asked for while nothing can be committed is one, for all who ask")
    func snapshot_withoutQuorum_isOne() async throws {
        let cluster = try await ReplicatedCluster()
        try await cluster.serve(on: 0)
        try cluster.client(0).write(0, before)
        await cluster.stop(1)
        await cluster.stop(2)
        try await cluster.wait(0) { $0.state == .suspended }
        let epoch = cluster.epoch
        let node = cluster.nodes[0].node
        let asked = (0..<5).map { _ in
            Task {
                try await node.takeSnapshot(
                    of: ReplicatedCluster.volume,
                    id: 11,
                    leaseEpoch: Epoch(epoch)
                )
            }
        }
        try await cluster.restart(1)
        try await cluster.tell(0)
        var numbers: Set<WriteNumber> = []
        for task in asked { numbers.insert(try await task.value) }
        #expect(numbers.count == 1)
        await cluster.stopAll()
    }

    @Test("Numbers and epochs that cannot be are refused, and nothing is changed")
    func absurd_isRefused() async throws {
        let cluster = try await ReplicatedCluster()
        try await cluster.serve(on: 0)
        try cluster.client(0).write(0, before)
        let number = try await cluster.snapshot(11, on: 0)
        try await cluster.wait(0, until: isWhole)
        await cluster.nodes[0].node.stopServing(ReplicatedCluster.volume, leaseEpoch: Epoch(1))
        let last = WriteNumber(epoch: WriteNumber.epochMax, counter: 1)
        for (id, wrong) in [(0, number), (11, WriteNumber.zero), (11, last)] {
            await #expect(throws: ReplicaSnapshotError.refused(.invalid)) {
                try await cluster.clone(UInt64(id), wrong, on: 0)
            }
        }
        for epoch in [number.epoch, WriteNumber.epochMax, Epoch(.max)] {
            await #expect(throws: ReplicaSnapshotError.refused(.invalid)) {
                try await cluster.nodes[0].node.rollBackReplica(
                    of: ReplicatedCluster.volume,
                    instance: ReplicaInstance(100),
                    id: 11,
                    number: number,
                    epoch: epoch,
                    newInstance: ReplicaInstance(200)
                )
            }
        }
        // The instance it had, and the snapshot.
        try await cluster.clone(11, number, on: 0)
        await cluster.stopAll()
    }

    @Test("Who does not serve the volume, or not under the epoch, takes no snapshot of it")
    func snapshot_elsewhere_isRefused() async throws {
        let cluster = try await ReplicatedCluster()
        try await cluster.serve(on: 0)
        await #expect(throws: ServiceError.notServing) { _ = try await cluster.snapshot(11, on: 1) }
        cluster.epoch += 1
        await #expect(throws: ServiceError.notServing) { _ = try await cluster.snapshot(11, on: 0) }
        cluster.epoch -= 1
        await #expect(throws: ServiceError.self) { _ = try await cluster.snapshot(0, on: 0) }
        await cluster.stopAll()
    }
}
