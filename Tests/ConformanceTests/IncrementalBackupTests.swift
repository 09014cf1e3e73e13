import Foundation
import Testing

extension Conformance {
    /// Backups of what changed, by the meta contexts that backup programs use.
    @Suite("Incremental backup", .needs("nbdsh"))
    struct IncrementalBackupTests {
        /// Copies what a context calls dirty from the export into the old backup, and compares.
        static let program = """
            import sys, nbd
            uri, old, new, context = sys.argv[1:5]
            h = nbd.NBD()
            h.add_meta_context(context)
            h.connect_uri(uri)
            assert h.can_meta_context(context), context
            size, offset, dirty = h.get_size(), 0, 0
            image = open(old, "r+b")
            while offset < size:
                extents = []
                def note(metacontext, start, entries, error):
                    if metacontext == context:
                        extents.extend(zip(entries[0::2], entries[1::2]))
                h.block_status(min(size - offset, 1 << 30), offset, note)
                assert extents
                for length, flags in extents:
                    length = min(length, size - offset)
                    end = offset + length
                    while flags & 1 and offset < end:
                        step = min(end - offset, 1 << 20)
                        image.seek(offset)
                        image.write(h.pread(step, offset))
                        dirty += step
                        offset += step
                    offset = end
            image.truncate(size)
            image.close()
            print(dirty)
            """

        @Test(
            "what changed since a snapshot, and nothing else, is dirty",
            arguments: ["cairn:changed-since:base", "qemu:dirty-bitmap:base"]
        )
        func changedSince_snapshot_makesAnIncrement(_ context: String) async throws {
            let server = try await NodeServer.start()
            func io(_ commands: [String]) async throws {
                var arguments = ["-f", "raw"]
                for command in commands { arguments += ["-c", command] }
                try await succeed("/usr/bin/qemu-io", arguments + [server.unixURI()])
            }
            try await io(["write -P 1 0 32M", "write -P 2 100M 1M"])
            _ = try await server.snapshot("vol", "base")
            let backup = server.scratch.file("backup.img")
            try await succeed("/usr/bin/nbdcopy", [server.unixURI("vol@base"), backup])
            // Overwrites, first writes, zeroes and trims all count as changes.
            try await io([
                "write -P 3 1M 64k", "write -P 4 200M 128k", "write -z 2M 64k",
                "discard 3M 64k", "write -P 5 255M 4k",
            ])
            let result = try await succeed(
                TestEnvironment.python,
                [
                    "-c", IncrementalBackupTests.program, server.unixURI(), backup,
                    backup, context,
                ]
            )
            let dirty = Int(result.output.trimmingCharacters(in: .whitespacesAndNewlines))
            #expect(dirty == (64 + 128 + 64 + 64 + 4) << 10, "\(result.report)")
            let full = server.scratch.file("full.img")
            try await succeed("/usr/bin/nbdcopy", [server.unixURI(), full])
            try await succeed("/usr/bin/cmp", [backup, full])
            await server.stop()
        }

        /// QEMU's own way: its NBD client takes the bitmap in the place of the allocation, so that
        /// what is dirty is mapped as having no data.
        @Test("QEMU finds what changed since a snapshot", .needs("qemu-img", "qemu-io"))
        func dirtyBitmap_qemu_mapsWhatChanged() async throws {
            struct Extent: Decodable {
                var start: Int
                var length: Int
                var data: Bool
            }
            let server = try await NodeServer.start()
            let uri = server.unixURI()
            try await succeed(
                "/usr/bin/qemu-io",
                ["-f", "raw", "-c", "write -P 1 0 8M", uri]
            )
            _ = try await server.snapshot("vol", "base")
            try await succeed(
                "/usr/bin/qemu-io",
                ["-f", "raw", "-c", "write -P 2 1M 64k", "-c", "write -P 3 5M 128k", uri]
            )
            let map = try await succeed(
                "/usr/bin/qemu-img",
                [
                    "map", "--output=json", "--image-opts",
                    "driver=nbd,export=vol,server.type=unix,server.path=\(server.socketPath),"
                        + "x-dirty-bitmap=qemu:dirty-bitmap:base",
                ]
            )
            let extents = try JSONDecoder().decode([Extent].self, from: Data(map.output.utf8))
            let dirty = extents.filter { !$0.data }.map { [$0.start, $0.length] }
            #expect(dirty == [[1 << 20, 64 << 10], [5 << 20, 128 << 10]], "\(map.report)")
            await server.stop()
        }
    }
}
