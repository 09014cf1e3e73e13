// Metadata that is lost and made anew from what the nodes have.

import ControlAPI
import ControlPlane
import Foundation
import Metadata
import Testing

@Suite("Metadata made anew", .timeLimit(.minutes(3)))
struct RebuildTests {
    /// What the nodes of a cluster say.
    private func surveys(_ nodes: [MemoryNode]) async throws -> [NodeSurvey] {
        var surveys: [NodeSurvey] = []
        for (index, node) in nodes.enumerated() {
            let endpoint = try APIEndpoint("http://127.0.0.1:\(7000 + index)")
            surveys.append(try await NodeSurvey.ask(node, at: endpoint))
        }
        return surveys
    }

    private let now = Date(timeIntervalSince1970: 1_900_000_000)

    private func plan(
        _ nodes: [MemoryNode],
        without: Set<String> = []
    ) async throws -> RebuildPlan {
        try RebuildPlan(try await surveys(nodes), without: without, at: now)
    }

    private var event: EventRecord {
        EventRecord(time: now, kind: "metadata.rebuilt", subject: "metadata", message: "anew")
    }

    /// The same nodes with metadata that was made anew.
    private func rebuilt(_ old: ReplicatedCluster) async throws -> ReplicatedCluster {
        let plan = try await plan(old.cluster.nodes)
        let cluster = try await Cluster(nodes: old.cluster.nodes)
        _ = try await MetadataCopy.restore(plan.cluster, into: cluster.store, event: event)
        for node in cluster.nodes { node.shelf.session = nil }
        // As the program does: until all nodes are back nothing moves.
        return try await ReplicatedCluster(of: cluster, settleMilliseconds: 3_600_000)
    }

    /// Waits until the nodes keep who has a volume.
    private func isKept(
        _ text: String,
        by nodes: [String],
        _ cluster: ReplicatedCluster
    ) async throws -> Bool {
        let id = try await cluster.record().id
        return try await cluster.eventually {
            nodes.allSatisfy {
                cluster.node($0).held[id]?.creation.descriptor.contains(text) == true
            }
        }
    }

    @Test("Volumes, snapshots, clones, images and hosts come back as they were")
    func unreplicated_comesBack() async throws {
        let cluster = try await ReplicatedCluster()
        let plane = cluster.plane
        try await cluster.create(replicas: 1, node: "n2")
        for name in ["z", "a"] {
            _ = try await plane.createSnapshot(
                of: "v",
                SnapshotCreation(name: name),
                operation: "snapshot-\(name)"
            )
        }
        _ = try await plane.clone("v", snapshot: "z", CloneCreation(name: "c"), operation: "clone")
        let image = ImageCreation(
            name: "i",
            version: "1",
            volume: "v",
            snapshot: "a",
            description: "what it is",
            sha256: String(repeating: "0a", count: 32)
        )
        let made = try await plane.createImage(image, operation: "image")
        let attached = try await cluster.attach()
        #expect(try await isKept(#""h1""#, by: ["n2"], cluster))
        #expect(try await isKept("what it is", by: ["n2"], cluster))
        let before = try await cluster.cluster.metadata.allVolumes().map(\.value)
        await cluster.stop()

        let after = try await rebuilt(cluster)
        #expect(try await after.cluster.metadata.allVolumes().map(\.value) == before)
        #expect(try await after.plane.images() == [made])
        #expect(try await after.plane.snapshots(of: "v").map(\.name) == ["z", "a"])
        let current = try await after.plane.attachments(of: "v").filter { $0.state == .attached }
        #expect(current.map(\.host) == ["h1"] && current.map(\.epoch) == [attached.epoch])
        #expect(try await after.attach().nbdURI == attached.nbdURI)
        #expect(try await after.plane.volume("c").source?.volume == "v")
        for node in after.cluster.nodes { await after.plane.compareNow(node.name) }
        let volume = try #require(after.node("n2").held[before.first { $0.name == "v" }?.id ?? 0])
        #expect(volume.dropCount == 0 && volume.access == .readWrite)
        try await after.cluster.requireAgreement("a rebuild")
        await after.stop()
    }

    @Test("A replicated volume that is served goes on for its host, under a higher lease")
    func replicated_served_goesOn() async throws {
        let cluster = try await ReplicatedCluster()
        try await cluster.create()
        let attached = try await cluster.attach(via: "n2")
        let before = try await cluster.record()
        for node in cluster.cluster.nodes { node.setPromise(before.id, 7) }
        #expect(try await isKept(#""h1""#, by: ["n1", "n2", "n3"], cluster))
        await cluster.stop()
        // Its primary has the newest lease of all that are promised.
        let assignment = try #require(cluster.node("n2").shelf.assignments[before.id])
        cluster.node("n2").shelf.restart()
        var newer = assignment
        newer.leaseEpoch = 7
        newer.session = nil
        _ = try await cluster.node("n2").shelf.serve(newer)

        let after = try await rebuilt(cluster)
        let record = try await after.record()
        #expect(record.placements == before.placements && record.writeQuorum == 2)
        #expect(try await after.eventually { try await after.assignment()?.leaseEpoch ?? 0 > 7 })
        let again = try #require(try await after.assignment())
        #expect(again.leaseEpoch > 1000 && again.exportEpoch == attached.epoch)
        #expect(try await after.record().primary == "n2")
        #expect(try await after.attach().epoch == attached.epoch)
        await after.stop()
    }

    @Test("One that nobody serves has no host, and no name that an earlier host was given")
    func replicated_unserved_isDetached() async throws {
        let cluster = try await ReplicatedCluster()
        try await cluster.create()
        var given: [UInt64] = []
        for number in 0..<4 {
            given.append(try await cluster.attach("h\(number)", force: number > 1).epoch)
            if number == 0 {
                try await cluster.plane.detach("v", from: "h0", operation: "detach")
            }
        }
        let before = try await cluster.record()
        for node in cluster.cluster.nodes {
            node.setPromise(before.id, try #require(before.leaseEpoch))
            node.shelf.restart()
        }
        await cluster.stop()
        let after = try await rebuilt(cluster)
        #expect(try await after.record().served == nil)
        #expect(try await after.plane.attachments(of: "v").isEmpty)
        let epoch = try await after.attach("h9").epoch
        #expect(given.allSatisfy { $0 < epoch })
        #expect(try await after.record().leaseEpoch ?? 0 > before.leaseEpoch ?? 0)
        await after.stop()
    }

    @Test("A replica that was replaced does not count, though it is found")
    func replaced_isLeftAlone() async throws {
        let cluster = try await ReplicatedCluster(nodeCount: 4, replaceSeconds: 0.001)
        try await cluster.create(node: "n1")
        try await cluster.attach()
        let first = try await cluster.record()
        let lost = try #require(first.placements?.last { $0.node != "n1" })
        cluster.node("n1").shelf.setReplicas(unlinked: [lost.node])
        try await cluster.heartbeat("n1")
        try await cluster.kill(lost.node)
        #expect(
            try await cluster.eventually {
                try await cluster.plane.repair()
                let placements = try await cluster.record().placements ?? []
                return !placements.contains(lost) && placements.allSatisfy { $0.isUnmade == nil }
            }
        )
        let before = try await cluster.record()
        await cluster.stop()
        // Its node is back, and has not been told that nobody needs what it has.
        #expect(cluster.node(lost.node).held[before.id] != nil)
        let plan = try await plan(cluster.cluster.nodes)
        let volume = try #require(plan.cluster.volumes.first)
        #expect(volume.record.placements == before.placements)
        #expect(volume.record.placementGeneration == 1)
        // As far as the node goes that was not told of the new list, in time or at all.
        let kept = cluster.cluster.nodes.filter { node in
            first.holders.contains(node.name) && node.name != "n1"
        }
        await #expect(throws: ControlError.self, "a node that counts was not asked") {
            _ = try await self.plan(kept)
        }
    }

    @Test(
        "A node that was not asked is named; done without, its volumes come back while enough is there"
    )
    func missingNode_isNamed() async throws {
        let cluster = try await ReplicatedCluster()
        try await cluster.create()
        let before = try await cluster.record()
        await cluster.stop()
        let two = cluster.cluster.nodes.filter { $0.name != "n3" }
        do {
            _ = try await plan(two)
            Issue.record("a rebuild without a node")
        } catch let error as ControlError {
            #expect(error.code == .invalidArgument && error.detail.contains("'n3'"))
            #expect(error.help?.contains("--without n3") == true)
        }
        let without = try await plan(two, without: ["n3"])
        #expect(without.cluster.volumes.map(\.record.placements) == [before.placements])
        #expect(without.findings == ["v: 2 of its 3 replicas found"])
        let alone = try await plan([cluster.node("n1")], without: ["n2", "n3"])
        #expect(alone.cluster.volumes.isEmpty)
        #expect(alone.findings.first?.contains("1 of its 3 replicas found") == true)
        await #expect(throws: ControlError.self) {
            _ = try await plan(cluster.cluster.nodes, without: ["n3"])
        }
        await #expect(throws: ControlError.self) {
            _ = try await plan(cluster.cluster.nodes + [cluster.node("n1")])
        }
    }

    @Test(
        "What nodes kept and cannot be read does no harm",
        arguments: [
            "", "{}", "[]", "null", #"{"format":9,"created_at":"2026-01-01T00:00:00Z"}"#,
            #"{"format":1,"created_at":"2026-01-01T00:00:00Z"}"#,
            #"{"format":2,"created_at":"2026-01-01T00:00:00Z","replicas":[]}"#,
            #"{"format":2,"created_at":"2026-01-01T00:00:00Z","replicas":["n1/0"]}"#,
            #"{"format":2,"created_at":"2026-01-01T00:00:00Z","replicas":["n1"]}"#,
            #"{"format":2,"created_at":"2026-01-01T00:00:00Z","replicas":["../7/7"]}"#,
            #"{"format":2,"created_at":"2026-01-01T00:00:00Z","replicas":["n1/7","n1/8"]}"#,
            #"{"format":2,"created_at":"2026-01-01T00:00:00Z","replicas":["n1/-7"]}"#,
        ]
    )
    func descriptor_unreadable_isLeftOut(_ text: String) async throws {
        let node = MemoryNode(name: "n1")
        var replica = NodeVolumeCreation.small(7, name: "r", descriptor: text)
        replica.replica = NodeReplicaCreation(instance: 7, isReplacement: false)
        node.plant(replica)
        node.plant(.small(8, name: "u", descriptor: text))
        node.setAccess(8, .readOnly, epoch: 5)
        let plan = try await plan([node])
        #expect(plan.cluster.volumes.map(\.record.name) == ["u"])
        #expect(plan.findings.contains { $0.hasPrefix("r: its replicas do not say") })
        let current = plan.cluster.volumes[0].attachments?.current
        #expect(current?.map(\.host) == ["unknown-host"] && current?.map(\.readOnly) == [true])
        #expect(plan.cluster.volumes[0].record.epoch == 5)
    }

    @Test("A description that is too long is left out first, then images; never where replicas are")
    func descriptor_long_isShortened() async throws {
        let cluster = try await ReplicatedCluster()
        try await cluster.create(replicas: 1, node: "n1")
        _ = try await cluster.plane.createSnapshot(
            of: "v",
            SnapshotCreation(name: "s"),
            operation: "s"
        )
        for number in 0..<30 {
            let image = ImageCreation(
                name: "image-\(number)",
                version: "1",
                volume: "v",
                snapshot: "s",
                description: String(repeating: "x", count: 1000)
            )
            _ = try await cluster.plane.createImage(image, operation: "image-\(number)")
        }
        let id = try await cluster.record().id
        for node in cluster.cluster.nodes { await cluster.plane.compareNow(node.name) }
        await cluster.stop()
        let kept = try #require(cluster.node("n1").held[id]).creation.descriptor
        #expect(kept.utf8.count <= APILimits.descriptorByteCountMax)
        let images = try #require(try await plan(cluster.cluster.nodes).cluster.volumes.first)
            .images
        #expect(images.count > 5 && images.count < 30)
        #expect(images.allSatisfy { $0.description.isEmpty && $0.snapshot == "s" })
    }

    @Test("Of two volumes with one name the one that was made last comes back")
    func sameName_newest() async throws {
        let nodes = [MemoryNode(name: "n1"), MemoryNode(name: "n2", index: 1)]
        nodes[0].plant(
            .small(7, name: "v", descriptor: #"{"format":2,"created_at":"2026-03-01T00:00:00Z"}"#)
        )
        nodes[1].plant(
            .small(8, name: "v", descriptor: #"{"format":2,"created_at":"2026-02-01T00:00:00Z"}"#)
        )
        let plan = try await plan(nodes)
        #expect(plan.cluster.volumes.map(\.record.id) == [7])
        #expect(plan.findings.count == 1 && plan.findings[0].contains("id 8, on n2"))
    }

    @Test("Only an empty store is written to, and one that is not complete is not served from")
    func restore_notEmpty_isRefused() async throws {
        let node = MemoryNode(name: "n1")
        node.plant(.small(7, name: "v"))
        let plan = try await plan([node])
        let full = try await Cluster.serving()
        await #expect(throws: MetadataError.targetNotEmpty) {
            try await MetadataCopy.restore(plan.cluster, into: full.cluster.store, event: event)
        }
        let cluster = try await Cluster(nodes: [node])
        try await cluster.metadata.requireComplete()
        let mark = MetaOperation.put("/cairn-copy", Data(), lease: nil)
        let half = MetaOperation.put("/cairn/default/v/old", Data(), lease: nil)
        _ = try await cluster.store.transact(MetaTransaction(success: [mark, half]))
        await #expect(throws: MetadataError.copyIncomplete) {
            try await cluster.metadata.requireComplete()
        }
        _ = try await MetadataCopy.restore(plan.cluster, into: cluster.store, event: event)
        try await cluster.metadata.requireComplete()
        #expect(try await cluster.metadata.allVolumes().map(\.value.name) == ["v"])
        // A volume that is made now begins above all that the lost metadata gave.
        let plane = cluster.plane()
        try await cluster.register(with: plane)
        let creation = VolumeCreation(name: "new", byteCount: 4096)
        _ = try await plane.createVolume(creation, operation: "new")
        let made = try #require(try await cluster.metadata.volume(named: "new"))
        #expect(made.value.epoch > UInt64(now.timeIntervalSince1970 * 1000))
        #expect(
            try await plane.events(after: 0, countMax: 9).events.first?.kind == "metadata.rebuilt"
        )
    }
}
