// What volctl does with the answers of the real service.

import ArgumentParser
import ChildProcesses
import ControlAPI
import ControlPlane
import Foundation
import Glibc
import ProgramMain
import TestSupport
import Testing
import volctl

@Suite struct ServiceTests {
    private func options(_ service: LiveService) throws -> ClusterOptions {
        try ClusterOptions.parse(["--endpoint", service.endpoint])
    }

    private func failure(
        _ service: LiveService,
        _ work: @escaping (ControlClient) async throws -> Void
    ) async throws -> CommandFailure? {
        let options = try options(service)
        return await #expect(throws: CommandFailure.self) { try await options.withClient(work) }
    }

    @Test("a name that does not exist is answered with those like it, and what lists them")
    func named_missing_suggests() async throws {
        let service = try await LiveService()
        let client = service.client
        for name in ["database", "vm1"] {
            _ = try await client.createVolume(VolumeCreation(name: name, byteCount: 4096))
        }
        _ = try await client.createSnapshot("monday", of: "vm1")
        let volume = try await failure(service) { _ = try await $0.existingVolume("databse") }
        #expect(volume?.code == "volume_not_found")
        #expect(volume?.line.contains("Did you mean 'database'?") == true)
        #expect(volume?.line.contains("volctl volume list") == true)
        let wanted = SnapshotReference(volume: "vm1", snapshot: "mondya")
        let snapshot = try await failure(service) { client in
            try await client.named(wanted) { () throws(ControlError) in
                try await client.deleteSnapshot(wanted.snapshot, of: wanted.volume)
            }
        }
        #expect(snapshot?.line.contains("Did you mean 'monday'?") == true)
        let node = try await failure(service) { client in
            try await client.named("nod1") { () throws(ControlError) in
                _ = try await client.node("nod1")
            }
        }
        #expect(node?.line.contains("Did you mean 'node1'?") == true)
    }

    @Test(
        "an export that does not hear of its snapshot removes it, or says which it is",
        arguments: [1, 2]
    )
    func export_snapshotAnswerLost_leavesNone(lostCount: Int) async throws {
        let service = try await LiveService()
        let client = service.client
        _ = try await client.createVolume(VolumeCreation(name: "v", byteCount: 4096))
        let source = try ExportSource(parsing: "v")
        service.node.loseSnapshotAnswers(lostCount)
        // The second loss is that of the service, which has to end the first one.
        let error = await #expect(throws: (any Error).self) {
            try await source.withSnapshot(of: "v", client) { _ in _ = Issue.record("none") }
        }
        if lostCount == 1 {
            #expect((error as? ControlError)?.code == .outcomeUnknown)
            #expect(try await client.snapshots(of: "v").isEmpty)
        } else {
            let remedy = (error as? CommandFailure)?.remedy
            #expect(remedy?.contains("volctl snapshot delete v@export-") == true)
        }
    }

    @Test("a command whose answer is lost asks again by itself")
    func change_answerLost_isAskedAgain() async throws {
        let service = try await LiveService()
        _ = try await service.client.createVolume(VolumeCreation(name: "v", byteCount: 4096))
        service.node.loseSnapshotAnswers(2)
        let snapshot = try await options(service).withClient { client in
            try await client.createSnapshot("s", of: "v")
        }
        #expect(snapshot.name == "s")
    }

    @Test("an export does not replace a file that was made while it worked")
    func renameUnlessTaken_keepsWhatIsThere() throws {
        let directory = try TestDirectory()
        let (unfinished, path) = ("\(directory.path)/f.unfinished", "\(directory.path)/f")
        try Data("new".utf8).write(to: URL(filePath: unfinished))
        try Data("theirs".utf8).write(to: URL(filePath: path))
        #expect(!Path.renameUnlessTaken(unfinished, to: path))
        #expect(errno == EEXIST)
        #expect(try Data(contentsOf: URL(filePath: path)) == Data("theirs".utf8))
        Path.remove(path)
        #expect(Path.renameUnlessTaken(unfinished, to: path))
        #expect(try Data(contentsOf: URL(filePath: path)) == Data("new".utf8))
        #expect(!Path.exists(unfinished))
    }

    @Test("the shell is given the names that exist, and nothing where nothing answers")
    func proposals_existingNames_areGiven() async throws {
        let service = try await LiveService()
        for name in ["database", "vm1", "vm2"] {
            _ = try await service.client.createVolume(VolumeCreation(name: name, byteCount: 4096))
        }
        _ = try await service.client.createSnapshot("monday", of: "vm1")
        func proposals(_ prefix: String, endpoint: String) async -> [String] {
            await NameCompletion.proposals(
                words: ["volctl", "clone", prefix, "--endpoint", endpoint],
                prefix: prefix,
                environment: [:],
                within: 60_000,
                { try await NameCompletion.references($0, $1) }
            )
        }
        #expect(await proposals("vm", endpoint: service.endpoint) == ["vm1@", "vm2@"])
        #expect(await proposals("vm1@", endpoint: service.endpoint) == ["vm1@monday"])
        #expect(await proposals("vm2@", endpoint: service.endpoint) == [])
        #expect(await proposals("none@", endpoint: service.endpoint) == [])
        #expect(await proposals("vm", endpoint: "unix:/nowhere.sock") == [])
        #expect(await proposals("vm", endpoint: "no endpoint") == [])
    }

    @Test("the shell is given what can be exported, and the programs of the cluster here")
    func proposals_exportsAndPrograms_areGiven() async throws {
        let service = try await LiveService()
        _ = try await service.client.createVolume(VolumeCreation(name: "vm1", byteCount: 4096))
        _ = try await service.client.createSnapshot("monday", of: "vm1")
        #expect(try await NameCompletion.exports(service.client, "v") == ["vm1"])
        #expect(try await NameCompletion.exports(service.client, "vm1@") == ["vm1@monday"])
        let nodes = (0..<2).map { index in
            ClusterFile.Node(name: ClusterFile.nodeName(index), nbdPort: 1, adminPort: 2)
        }
        let directory = service.directory.path
        try DocumentFile.write(
            ClusterFile(metaPort: 1, nodes: nodes),
            to: ClusterLayout(directory: directory).clusterFile
        )
        func programs(_ prefix: String, in directory: String) -> [String] {
            let words = ["volctl", "dev", "kill", prefix, "--data", directory]
            return NameCompletion.devNames(words: words, prefix: prefix, environment: [:])
        }
        #expect(programs("", in: directory) == ["node1", "node2", "volmeta"])
        #expect(programs("node2", in: directory) == ["node2"])
        #expect(programs("", in: "/nowhere") == [])
    }

    @Test("a service that is not there is answered with how to start one")
    func withClient_deadEndpoint_saysHow() async throws {
        let directory = try TestDirectory()
        for endpoint in ["http://127.0.0.1:1", "unix:\(directory.path)/none.sock"] {
            let options = try ClusterOptions.parse(["--endpoint", endpoint])
            let failure = await #expect(throws: CommandFailure.self) {
                try await options.withClient { _ = try await $0.volumes() }
            }
            #expect(failure?.code == "unreachable")
            #expect(failure?.line.contains("volctl dev up") == true)
        }
        try DocumentFile.write(
            ClusterFile(metaPort: 1, nodes: []),
            to: ClusterLayout(directory: directory.path).clusterFile
        )
        let options = try ClusterOptions.parse(["--data", directory.path])
        let failure = await #expect(throws: CommandFailure.self) {
            try await options.withClient { _ = try await $0.volumes() }
        }
        #expect(failure?.line.contains("volctl dev up --data \(directory.path)") == true)
    }

    @Test("something that is no service is told from one that is down")
    func withClient_otherServer_saysSo() async throws {
        let server = try CannedServer(answer: "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
        let options = try ClusterOptions.parse(["--endpoint", "http://127.0.0.1:\(server.port)"])
        let failure = await #expect(throws: CommandFailure.self) {
            try await options.withClient { _ = try await $0.volumes() }
        }
        #expect(failure?.code == "bad_response")
    }
}

// One after the other: each keeps a thread of the few waiting for a tool, which in turn waits for
// what another thread does.
@Suite(.serialized, .background, .enabled(if: areInstalled("qemu-img", "qemu-nbd", "nbdcopy")))
struct ImageImportTests {
    private func work(_ service: LiveService, overwrites: Bool = false) throws -> ImageImport {
        let path = try service.directory.file("a.img", [UInt8](repeating: 1, count: 1 << 20))
        return ImageImport(
            image: try DiskImage(inspecting: path, format: nil),
            volume: "vm1",
            size: nil,
            canOverwrite: overwrites,
            isVerified: true,
            node: nil,
            durability: nil
        )
    }

    private func failure(_ work: ImageImport, _ service: LiveService) async -> CommandFailure? {
        let progress = ProgressDisplay(
            .none,
            isJSON: false,
            terminal: Terminal(columnCount: nil, hasColor: false)
        )
        do {
            _ = try await work.run(service.client, progress: progress)
            return nil
        } catch let error as CommandFailure {
            return error
        } catch let error as ControlError {
            return CommandFailure(error)
        } catch {
            return nil
        }
    }

    @Test("an import that fails half-way leaves no volume and no attachment behind")
    func run_copyFails_removesVolume() async throws {
        let service = try await LiveService()
        let failure = await failure(try work(service), service)
        #expect(failure?.code == "convert_failed")
        #expect(try await service.client.volumes().isEmpty)
        #expect(try await service.node.volumes().isEmpty)
    }

    @Test("a failed import into a volume that was there keeps it, detached, and says so")
    func run_copyFailsIntoExisting_keepsVolume() async throws {
        let service = try await LiveService()
        let creation = VolumeCreation(name: "vm1", byteCount: 2 << 20)
        _ = try await service.client.createVolume(creation)
        let failure = await failure(try work(service), service)
        #expect(failure?.code == "convert_failed")
        #expect(failure?.remedy?.contains("may hold part of the image") == true)
        let volume = try await service.client.volume("vm1")
        #expect(volume.attachments.filter { $0.state == .attached }.isEmpty)
    }

    @Test("a volume that holds data, is too small or belongs to a host is not touched")
    func run_unsuitableVolume_isRefused() async throws {
        let service = try await LiveService()
        let client = service.client
        _ = try await client.createVolume(VolumeCreation(name: "vm1", byteCount: 2 << 20))
        service.node.setWritten(4096)
        let full = await failure(try work(service), service)
        #expect(full?.code == "already_exists")
        #expect(full?.remedy?.contains("--overwrite") == true)
        _ = try await client.attach("vm1", AttachmentCreation(host: "hv1"))
        let held = await failure(try work(service, overwrites: true), service)
        #expect(held?.code == "volume_attached")
        #expect(held?.problem.contains("hv1") == true)
        #expect(held?.remedy?.contains("volctl detach vm1 --host hv1") == true)
        #expect(held?.line.contains("--force") == false, "an import has no such option")
        try await client.detach("vm1", from: "hv1")
        _ = try await client.updateVolume(
            "vm1",
            VolumeUpdate(byteCount: 512 << 10, allowShrink: true)
        )
        let small = await failure(try work(service, overwrites: true), service)
        #expect(small?.code == "image_too_large")
        #expect(small?.remedy?.contains("volctl volume resize vm1 1MiB") == true)
    }

    @Test(
        "what a killed import left is told, with the commands that free it",
        arguments: [false, true]
    )
    func run_heldByImport_saysHow(overwrites: Bool) async throws {
        let service = try await LiveService()
        let client = service.client
        _ = try await client.createVolume(VolumeCreation(name: "vm1", byteCount: 2 << 20))
        _ = try await client.attach("vm1", AttachmentCreation(host: "import-17-c0ffee"))
        service.node.setWritten(4096)
        let held = await failure(try work(service, overwrites: overwrites), service)
        #expect(held?.code == "volume_attached")
        #expect(held?.problem.contains("another import, 'import-17-c0ffee'") == true)
        #expect(held?.remedy?.contains("If it runs nowhere, free what it left: ") == true)
        let detach = "volctl detach vm1 --host import-17-c0ffee"
        #expect(held?.remedy?.contains(detach) == true)
        #expect(held?.remedy?.contains("volctl volume delete vm1") == true)
        #expect(held?.line.contains("--force") == false, "an import has no such option")
        // Said before a download, too.
        let early = await #expect(throws: CommandFailure.self) {
            try await ImageImport.requireNoImport(into: "vm1", client)
        }
        #expect(early == held)
        try await ImageImport.requireNoImport(into: "none", client)
        // What it says helps.
        try await client.detach("vm1", from: "import-17-c0ffee")
        let freed = await failure(try work(service, overwrites: overwrites), service)
        #expect(freed?.code == (overwrites ? "convert_failed" : "already_exists"))
    }

    @Test("an import that runs here is told as one, with its process, and not to be freed")
    func run_heldByRunningImport_saysWait() async throws {
        let service = try await LiveService()
        let client = service.client
        _ = try await client.createVolume(VolumeCreation(name: "vm1", byteCount: 2 << 20))
        // A program that looks like one.
        let directory = try TestDirectory()
        let program = "\(directory.path)/volctl"
        try FileManager.default.createSymbolicLink(
            atPath: program,
            withDestinationPath: "/bin/sh"
        )
        let null = try Descriptor.open("/dev/null", O_WRONLY)
        let input = try Descriptor.pipe()
        defer { for file in [null, input.read, input.write] { file.close() } }
        let pid = try ChildSpecification(
            program,
            ["-c", "read line; :", "image", "import", "a.img", "vm1"],
            input: input.read.number,
            output: null.number,
            error: null.number
        ).start()
        defer {
            kill(pid, SIGKILL)
            _ = ChildEnd.wait(for: pid)
        }
        let host = "import-\(pid)-c0ffee"
        _ = try await client.attach("vm1", AttachmentCreation(host: host))
        let held = await failure(try work(service), service)
        #expect(held?.problem.contains("being filled by another import, '\(host)'") == true)
        #expect(held?.remedy?.contains("It runs here as process \(pid): wait") == true)
        #expect(held?.line.contains("detach") == false)
        #expect(VolumeAccess.runningImport(of: host, into: "vm2") == nil, "it fills another")
        #expect(VolumeAccess.runningImport(of: "hv1", into: "vm1") == nil)
        #expect(VolumeAccess.runningImport(of: "import-x-y", into: "vm1") == nil)
    }

    @Test("a size smaller than the image is refused before a volume is made")
    func run_smallSize_makesNothing() async throws {
        let service = try await LiveService()
        var work = try work(service)
        work.size = ByteSize(byteCount: 4096)
        let failure = await failure(work, service)
        #expect(failure?.code == "image_too_large")
        #expect(try await service.client.volumes().isEmpty)
    }

    /// An import whose copy begins, fails, and finds that `work` was done meanwhile.
    private func interrupted(
        _ service: LiveService,
        _ work: @escaping @Sendable (ControlClient) async throws -> Void
    ) async throws -> CommandFailure? {
        let server = try CannedServer(answer: "") { [client = service.client] in
            do { try await work(client) } catch { Issue.record(error) }
        }
        defer { withExtendedLifetime(server) {} }
        try await service.serveNBD(port: server.port)
        return await failure(try self.work(service), service)
    }

    @Test("a volume that somebody took from the import is left to them, detached or not")
    func run_taken_isLeft() async throws {
        for isDetached in [false, true] {
            let service = try await LiveService()
            let failure = try await interrupted(service) { client in
                let creation = AttachmentCreation(host: "hv1", force: true)
                _ = try await client.attach("vm1", creation)
                guard isDetached else { return }
                _ = try await client.createSnapshot("kept", of: "vm1")
                try await client.detach("vm1", from: "hv1")
            }
            #expect(failure?.code == "volume_taken")
            #expect(failure?.problem.contains("'hv1'") == !isDetached)
            #expect(try await service.client.volume("vm1").snapshotCount == (isDetached ? 1 : 0))
        }
    }

    @Test("a volume taken from an import that did not make it is said to be, too")
    func run_existingTaken_saysSo() async throws {
        let service = try await LiveService()
        _ = try await service.client.createVolume(VolumeCreation(name: "vm1", byteCount: 2 << 20))
        let failure = try await interrupted(service) { client in
            _ = try await client.attach("vm1", AttachmentCreation(host: "hv1", force: true))
        }
        #expect(failure?.code == "volume_taken")
        let volume = try await service.client.volume("vm1")
        #expect(volume.attachments.first?.host == "hv1")
    }

    @Test("a volume that somebody deleted and made anew is not deleted again")
    func run_madeAnew_isLeft() async throws {
        let service = try await LiveService()
        let failure = try await interrupted(service) { client in
            try await client.deleteVolume("vm1", heldBy: VolumeAccess.ownHost)
            _ = try await client.createVolume(VolumeCreation(name: "vm1", byteCount: 4096))
        }
        #expect(failure?.code == "volume_taken")
        #expect(try await service.client.volume("vm1").byteCount == 4096)
    }

    @Test("an import that made the volume but lost it to another host leaves it alone")
    func run_attachmentLost_isLeft() async throws {
        let service = try await LiveService()
        let plane = service.plane
        service.node.whenCreating {
            // It waits for the creation, and is there before the import can ask.
            Task { try await plane.attach("vm1", AttachmentCreation(host: "hv1"), operation: "k") }
            for _ in 0..<1000 { await Task.yield() }
        }
        let failure = await failure(try work(service), service)
        #expect(failure?.code == "volume_attached")
        #expect(failure?.line.contains("'hv1'") == true)
        #expect(failure?.line.contains("delete") == false)
        #expect(try await service.client.volume("vm1").attachments.first?.host == "hv1")
    }

    @Test("when the cluster fails under the import, what it advises works")
    func run_clusterFails_advises() async throws {
        let service = try await LiveService()
        service.node.setDeletionDown(true)
        let failure = await failure(try work(service), service)
        #expect(failure?.code == "convert_failed")
        let host = VolumeAccess.ownHost
        #expect(host.hasPrefix("import-"))
        let advice = "volctl detach vm1 --host \(host) && volctl volume delete vm1"
        #expect(failure?.remedy?.contains(advice) == true, "\(failure?.line ?? "")")
        service.node.setDeletionDown(false)
        try await service.client.detach("vm1", from: host)
        try await service.client.deleteVolume("vm1")
    }

    @Test("another size than the volume's is refused with a command that makes it so")
    func run_otherSize_namesCommand() async throws {
        let service = try await LiveService()
        _ = try await service.client.createVolume(VolumeCreation(name: "vm1", byteCount: 3 << 20))
        var work = try work(service)
        for (size, remedy) in [
            (2 << 20, "volctl volume resize vm1 2MiB --shrink"),
            (4 << 20, "volctl volume resize vm1 4MiB"), (4096, "Leave --size away."),
        ] as [(UInt64, String)] {
            work.size = ByteSize(byteCount: size)
            let failure = await failure(work, service)
            #expect(failure?.remedy?.hasSuffix(remedy) == true, "\(failure?.line ?? "")")
        }
    }

    @Test("a name in the catalogue is asked for before anything is made")
    func catalogue_taken_isRefused() async throws {
        let service = try await LiveService()
        let client = service.client
        _ = try await client.createVolume(VolumeCreation(name: "base", byteCount: 4096))
        let entry = CatalogueEntry(image: try ImageReference(parsing: "debian:12"), description: "")
        try await entry.requireFree(for: "base", client)
        try await entry.requireFree(for: "vm1", client)
        _ = try await client.createSnapshot("12", of: "base")
        let snapshot = await #expect(throws: CommandFailure.self) {
            try await entry.requireFree(for: "base", client)
        }
        #expect(snapshot?.remedy?.contains("volctl snapshot delete base@12") == true)
        let creation = ImageCreation(name: "debian", version: "12", volume: "base", snapshot: "12")
        _ = try await client.createImage(creation)
        let image = await #expect(throws: CommandFailure.self) {
            try await entry.requireFree(for: "vm1", client)
        }
        #expect(image?.code == "already_exists")
        #expect(image?.remedy?.contains("volctl image delete debian:12") == true)

        _ = try await client.createVolume(VolumeCreation(name: "vm1", byteCount: 4096))
        await #expect(throws: ControlError.self) {
            try await entry.enter("vm1", sha256: nil, client)
        }
        #expect(try await client.snapshots(of: "vm1").isEmpty)
    }
}
