import Foundation
import Testing

extension Conformance {
    /// Stores on whole disks, as hosts have them: formatted, served, killed, opened again, checked.
    @Suite(
        "Block devices",
        .needs("nbdcopy", "qemu-io"),
        .enabled("needs root and loop devices (losetup --find)") {
            try await LoopDevice.arePossible()
        }
    )
    struct BlockDeviceTests {
        private static let volnode = TestEnvironment.program("volnode")

        /// Puts a store on a device that is blank.
        private func format(_ device: LoopDevice) async throws -> String {
            let result = try await succeed(Self.volnode, ["format", device.path, "--json"])
            #expect(result.json?["path"] as? String == device.path)
            return try #require(result.json?["identity"] as? String, "\(result.report)")
        }

        @Test("what was flushed is on the disk after kill -9, and the check finds it whole")
        func store_killed_isWhole() async throws {
            let scratch = try ScratchDirectory()
            try await withLoopDevices(1, byteCount: 512 << 20, in: scratch) { devices in
                let device = devices[0]
                var options = NodeServer.Options()
                options.storePath = device.path
                options.volumes = ["vol=64MiB"]
                options.arguments = ["--identity", try await format(device)]
                let again = try await run(Self.volnode, ["format", device.path])
                #expect(again.exitCode == 1 && again.errorOutput.contains("holds the store"))
                let content = try scratch.patternFile("content.img", byteCount: 64 << 20)
                var server = try await NodeServer.reopen(options, scratch: scratch)
                try await succeed("/usr/bin/nbdcopy", ["--flush", content, server.unixURI()])
                // Each life of the node loses what was not flushed, at most, and nothing before.
                for round in 1...3 {
                    try await succeed(
                        "/usr/bin/qemu-io",
                        [
                            "-f", "raw", "-c", "write -P \(round) \(round)M 1M", "-c", "flush",
                            "-c", "discard \(round + 8)M 1M", "-c", "flush", server.unixURI(),
                        ]
                    )
                    server.process.signal(SIGKILL)
                    _ = await server.process.exit(within: 20)
                    try await succeed(Self.volnode, ["check", device.path])
                    server = try await NodeServer.reopen(options, scratch: scratch)
                }
                var reads = ["-f", "raw"]
                for round in 1...3 {
                    reads += ["-c", "read -P \(round) \(round)M 1M"]
                    reads += ["-c", "read -P 0 \(round + 8)M 1M"]
                }
                let read = try await succeed("/usr/bin/qemu-io", reads + [server.unixURI()])
                #expect(!read.output.contains("failed"), "\(read.report)")
                // Everything else is what it was.
                let copy = scratch.file("copy.img")
                try await succeed("/usr/bin/nbdcopy", [server.unixURI(), copy])
                for (start, end) in [(0, 1), (4, 9), (12, 64)] {
                    try await succeed(
                        "/usr/bin/cmp",
                        [
                            "--ignore-initial=\(start << 20)", "--bytes=\((end - start) << 20)",
                            content, copy,
                        ]
                    )
                }
                await server.stop()
                try await succeed(Self.volnode, ["check", device.path])
            }
        }

        @Test("a disk that has come under another's name is refused, and left as it is")
        func store_namesChangedPlaces_isRefused() async throws {
            let scratch = try ScratchDirectory()
            try await withLoopDevices(2, byteCount: 256 << 20, in: scratch) { devices in
                let identities = [try await format(devices[0]), try await format(devices[1])]
                #expect(identities[0] != identities[1])
                var options = NodeServer.Options()
                options.volumes = ["vol=16MiB"]
                // Each has something to replay, which whoever opens it writes down.
                for (device, identity) in zip(devices, identities) {
                    options.storePath = device.path
                    options.arguments = ["--identity", identity]
                    let server = try await NodeServer.reopen(options, scratch: scratch)
                    try await succeed(
                        "/usr/bin/qemu-io",
                        ["-f", "raw", "-c", "write -P 7 0 1M", "-c", "flush", server.unixURI()]
                    )
                    server.process.signal(SIGKILL)
                    _ = await server.process.exit(within: 20)
                }
                let before = try await digests(of: devices)
                for (device, identity) in zip(devices, identities.reversed()) {
                    let found = try #require(identities.first { $0 != identity })
                    let result = try await run(
                        Self.volnode,
                        [
                            "run", "--store", device.path, "--identity", identity,
                            "--listen-nbd-unix", scratch.file("swapped.sock"),
                        ]
                    )
                    #expect(result.exitCode == 1, "\(result.report)")
                    let message = "\(device.path) holds the store \(found)"
                    #expect(result.errorOutput.contains(message), "\(result.report)")
                }
                #expect(try await digests(of: devices) == before)
                options.storePath = devices[1].path
                let server = try await NodeServer.reopen(options, scratch: scratch)
                let read = try await succeed(
                    "/usr/bin/qemu-io",
                    ["-f", "raw", "-c", "read -P 7 0 1M", server.unixURI()]
                )
                #expect(!read.output.contains("failed"), "\(read.report)")
                await server.stop()
            }
        }

        /// A checksum of each device's bytes.
        private func digests(of devices: [LoopDevice]) async throws -> [String] {
            var result: [String] = []
            for device in devices {
                result.append(try await succeed("/usr/bin/cksum", [device.path]).output)
            }
            return result
        }
    }
}
