import Foundation
import Testing

extension Conformance {
    /// The clients that people have: QEMU's tools, libnbd's tools, fio.
    @Suite("Client tools")
    struct ClientToolTests {
        @Test("qemu-img converts in and out, and both sides agree", .needs("qemu-img"))
        func qemuImage_roundTrip_isIdentical() async throws {
            let server = try await NodeServer.start()
            let image = try server.scratch.patternFile("source.img", byteCount: 64 << 20)
            for format in ["raw", "qcow2"] {
                let copy = server.scratch.file("source.\(format)")
                try await succeed("/usr/bin/qemu-img", ["convert", "-O", format, image, copy])
                try await succeed(
                    "/usr/bin/qemu-img",
                    ["convert", "-n", "-f", format, "-O", "raw", copy, server.unixURI()]
                )
                let back = server.scratch.file("back.\(format)")
                try await succeed(
                    "/usr/bin/qemu-img",
                    ["convert", "-f", "raw", "-O", format, server.tcpURI(), back]
                )
                // The volume is larger than the image; what lies beyond reads as zero.
                try await succeed(
                    "/usr/bin/qemu-img",
                    ["compare", "-f", "raw", "-F", format, image, back]
                )
            }
            await server.stop()
        }

        @Test("qemu-io reads what it wrote, zeroed and discarded", .needs("qemu-io"))
        func qemuIO_patterns_readBack() async throws {
            let server = try await NodeServer.start()
            let commands = [
                "write -P 0xa5 0 1M", "write -f -P 0x5a 1M 64k", "write -z 512k 128k",
                "write -z -u 768k 64k", "discard 960k 64k", "flush", "read -P 0xa5 0 512k",
                "read -P 0 512k 128k", "read -P 0xa5 640k 128k", "read -P 0 768k 64k",
                "read -P 0x5a 1M 64k", "write -P 0x11 4608 512", "read -P 0x11 4608 512",
                "read -P 0xa5 4096 512", "read -P 0xa5 5120 3072",
            ]
            var arguments = ["-f", "raw"]
            for command in commands { arguments += ["-c", command] }
            let result = try await succeed("/usr/bin/qemu-io", arguments + [server.unixURI()])
            #expect(!result.output.contains("Pattern verification failed"), "\(result.report)")
            #expect(!result.output.contains("failed"), "\(result.report)")
            await server.stop()
        }

        @Test("nbdinfo shows size, flags and holes", .needs("nbdinfo"))
        func nbdinfo_export_isDescribed() async throws {
            var options = NodeServer.Options()
            options.volumes = ["vol=256MiB", "other=64MiB"]
            let server = try await NodeServer.start(options)
            let info = try await succeed("/usr/bin/nbdinfo", ["--json", server.unixURI()])
            let exports = try #require(info.json?["exports"] as? [[String: Any]])
            let export = try #require(exports.first)
            #expect((export["export-size"] as? NSNumber)?.intValue == 256 << 20)
            for flag in ["can_fua", "can_flush", "can_trim", "can_zero", "can_multi_conn"] {
                #expect(export[flag] as? Bool == true, "\(flag): \(info.report)")
            }
            #expect(export["is_read_only"] as? Bool == false)
            let list = try await succeed(
                "/usr/bin/nbdinfo",
                ["--list", "--json", "nbd://127.0.0.1:\(server.tcpPort)"]
            )
            let names = (list.json?["exports"] as? [[String: Any]])?
                .compactMap { $0["export-name"] as? String }
            #expect(names?.sorted() == ["other", "vol"], "\(list.report)")
            try await succeed(
                "/usr/bin/qemu-io",
                ["-f", "raw", "-c", "write -P 1 64k 64k", server.unixURI()]
            )
            let map = try await succeed("/usr/bin/nbdinfo", ["--map", server.unixURI()])
            let lines = map.output.split(separator: "\n").map { line in
                line.split(separator: " ", omittingEmptySubsequences: true).prefix(3).joined(
                    separator: " "
                )
            }
            #expect(lines == ["0 65536 3", "65536 65536 0", "131072 268304384 3"], "\(map.report)")
            await server.stop()
        }

        @Test("nbdcopy copies between exports over several connections", .needs("nbdcopy"))
        func nbdcopy_betweenExports_isIdentical() async throws {
            var options = NodeServer.Options()
            options.volumes = ["vol=128MiB", "other=128MiB"]
            let server = try await NodeServer.start(options)
            let image = try server.scratch.patternFile("source.img", byteCount: 128 << 20)
            try await succeed("/usr/bin/nbdcopy", [image, server.unixURI()])
            try await succeed(
                "/usr/bin/nbdcopy",
                ["--connections=4", server.unixURI(), server.tcpURI("other")]
            )
            let back = server.scratch.file("back.img")
            try await succeed("/usr/bin/nbdcopy", [server.tcpURI("other"), back])
            try await succeed("/usr/bin/cmp", [image, back])
            await server.stop()
        }

        @Test(
            "encrypted clients read what they wrote",
            .needs("qemu-img", "nbdsh"),
            arguments: [true, false]
        )
        func tls_clients_work(isUnix: Bool) async throws {
            let scratch = try ScratchDirectory()
            let credentials = try await Credentials.make(in: scratch)
            var options = NodeServer.Options()
            options.arguments = [
                "--tls", "require", "--tls-certificates", credentials.serverDirectory,
                "--tls-psk", credentials.presharedKeysPath,
            ]
            let server = try await NodeServer.start(options, scratch: scratch)
            let transport = isUnix ? "nbds+unix" : "nbds"
            let place =
                isUnix
                ? "/vol?socket=\(server.socketPath)&" : "localhost:\(server.tcpPort)/vol?"
            let x509 = "\(transport)://\(place)tls-certificates=\(credentials.serverDirectory)"
            let user = Credentials.presharedKeyUser
            let psk = "\(transport)://\(user)@\(place)tls-psk-file=\(credentials.presharedKeysPath)"
            let program = """
                import sys, nbd
                h = nbd.NBD()
                h.set_uri_allow_local_file(True)
                h.connect_uri(sys.argv[1])
                assert h.get_tls_negotiated()
                data = bytes(range(256)) * 1024
                h.pwrite(data, 65536, nbd.CMD_FLAG_FUA)
                assert h.pread(len(data), 65536) == data
                h.shutdown()
                """
            for uri in [x509, psk] {
                try await succeed(TestEnvironment.python, ["-c", program, uri])
            }
            // QEMU's own TLS client, through GnuTLS and its credentials objects.
            let socket =
                isUnix
                ? "server.type=unix,server.path=\(server.socketPath),tls-hostname=localhost"
                : "server.type=inet,server.host=127.0.0.1,server.port=\(server.tcpPort)"
            try await succeed(
                "/usr/bin/qemu-io",
                [
                    "--object",
                    "tls-creds-x509,id=t,endpoint=client,dir=\(credentials.serverDirectory)",
                    "--image-opts", "driver=nbd,export=vol,tls-creds=t,\(socket)",
                    "-c", "write -P 0x77 0 1M", "-c", "read -P 0x77 0 1M",
                ]
            )
            // Nothing works in the clear.
            let plain = try await run("/usr/bin/nbdinfo", [server.unixURI()])
            #expect(plain.exitCode != 0, "\(plain.report)")
            await server.stop()
        }

        @Test("fio's verify job finds every block it wrote", .needs("fio"))
        func fio_verify_succeeds() async throws {
            let server = try await NodeServer.start()
            let job = """
                [global]
                ioengine=nbd
                uri=\(server.unixURI())
                size=128M
                bsrange=4k-64k
                rw=randwrite
                iodepth=32
                verify=crc32c
                verify_fatal=1
                do_verify=1
                [job]
                """
            let path = try server.scratch.write("verify.fio", job)
            let result = try await run(
                "/usr/bin/fio",
                [path],
                directory: server.scratch.path,
                within: 120
            )
            #expect(result.exitCode == 0, "\(result.report)")
            await server.stop()
        }
    }
}

extension ScratchDirectory {
    /// A sparse file: stretches of numbered blocks between holes.
    func patternFile(_ name: String, byteCount: Int) throws -> String {
        let path = file(name)
        try #require(FileManager.default.createFile(atPath: path, contents: nil))
        let handle = try #require(FileHandle(forWritingAtPath: path))
        defer { try? handle.close() }
        try handle.truncate(atOffset: UInt64(byteCount))
        var offset = 0
        var stretch = 1
        while offset + (256 << 10) < byteCount {
            var data = Data(capacity: 256 << 10)
            var number = UInt64(offset)
            while data.count < 256 << 10 {
                number = number &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
                for shift in stride(from: UInt64(0), to: 64, by: 8) {
                    data.append(UInt8(truncatingIfNeeded: number >> shift))
                }
            }
            try handle.seek(toOffset: UInt64(offset))
            try handle.write(contentsOf: data)
            // Holes grow, so that both dense and sparse places are met.
            offset += (256 << 10) + stretch * (128 << 10)
            stretch = stretch % 7 + 1
        }
        return path
    }
}
