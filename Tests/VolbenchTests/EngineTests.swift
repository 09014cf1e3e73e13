// The engines against real files and servers: what is written is there, what is wrong is found.

import Foundation
import TestSupport
import Testing
import volbench

@Suite("Engines", .serialized, .background)
struct EngineTests {
    private static var hasServer: Bool { NBDKit.isInstalled }

    private func makeFile(_ folder: TestDirectory, byteCount: Int) throws -> String {
        let path = "\(folder.path)/disk"
        try Data(count: byteCount).write(to: URL(fileURLWithPath: path))
        return path
    }

    @Test("files through both engines hold what was written", arguments: ["uring", "aio"])
    func file_write_isThere(_ engine: String) throws {
        let folder = try TestDirectory()
        let path = try makeFile(folder, byteCount: 2 << 20)
        let written = try Runs.one(
            path,
            "--ioengine=\(engine)",
            "--rw=randwrite",
            "--bs=8k",
            "--iodepth=8",
            "--size=1m",
            "--offset=512k",
            "--verify=pattern",
            "--verify_pattern=0xa5",
            "--sync=1",
            "--fsync=16"
        )
        #expect(written.failure == nil, "\(written.failure ?? "")")
        // Written, and read back.
        #expect(written[.write].clat.count == 128 && written[.read].clat.count == 128)
        let data = try Data(contentsOf: URL(fileURLWithPath: path))
        #expect(data[(512 << 10)..<(1536 << 10)].allSatisfy { $0 == 0xa5 })
        #expect(data[..<(512 << 10)].allSatisfy { $0 == 0 })
        #expect(data[(1536 << 10)...].allSatisfy { $0 == 0 })
    }

    @Test("several jobs share one file", arguments: ["uring", "aio"])
    func file_severalJobs(_ engine: String) throws {
        let folder = try TestDirectory()
        let path = try makeFile(folder, byteCount: 1 << 20)
        let results = try Runs.run([
            path, "--ioengine=\(engine)", "--rw=randrw", "--numjobs=3", "--size=1m",
        ])
        #expect(results.count == 3)
        for result in results {
            #expect(result.failure == nil, "\(result.failure ?? "")")
            #expect(result.transferCount == 256)
        }
    }

    @Test("trims make holes in files")
    func file_trim_isAHole() throws {
        let folder = try TestDirectory()
        let path = "\(folder.path)/disk"
        try Data(repeating: 7, count: 1 << 20).write(to: URL(fileURLWithPath: path))
        let result = try Runs.one(path, "--rw=randtrim", "--bs=64k", "--size=512k")
        #expect(result.failure == nil && result[.trim].clat.count == 8)
        let data = try Data(contentsOf: URL(fileURLWithPath: path))
        #expect(data.count == 1 << 20 && data[(512 << 10)...].allSatisfy { $0 == 7 })
    }

    @Test(
        "blocks of a file that do not suit it are refused",
        arguments: [
            ["--bs=512"], ["--offset=512", "--size=4k"],
        ]
    )
    func file_misaligned_isRefused(_ options: [String]) throws {
        let folder = try TestDirectory()
        let path = try makeFile(folder, byteCount: 1 << 20)
        let results = try Runs.run([path] + options)
        #expect(results[0].failure?.contains("multiple of 4096") == true)
    }

    @Test(
        "every byte that several connections wrote comes back",
        .enabled(if: hasServer, "nbdkit is not installed"),
        arguments: [[], ["--simple_replies"]] as [[String]]
    )
    func nbd_connections_verify(_ options: [String]) throws {
        let server = try NBDKit("--filter=log", "memory", "64M", "logfile=LOG")
        let result = try Runs.run(
            [
                server.uri, "--rw=randwrite", "--bssplit=4k/50:20k/30:256k/20", "--size=32m",
                "--iodepth=16", "--connections=4", "--verify=crc32c",
            ] + options
        )[0]
        #expect(result.failure == nil, "\(result.failure ?? "")")
        #expect(result[.read].byteCount == 32 << 20 && result[.write].byteCount == 32 << 20)
        let log = try server.takeLog()
        let connections = Set(
            log.split(separator: "\n").filter { $0.contains(" Write ") }
                .compactMap { $0.split(separator: " ").first { $0.hasPrefix("connection=") } }
        )
        #expect(connections.count == 4)
    }

    @Test(
        "holes that a server sends as such read as zeroes",
        .enabled(if: hasServer, "nbdkit is not installed")
    )
    func nbd_holes_areZero() throws {
        let server = try NBDKit("memory", "64M")
        let zeroes = try Runs.one(
            server.uri,
            "--rw=read",
            "--bs=64k",
            "--size=1m",
            "--verify=pattern",
            "--verify_pattern=0x00"
        )
        #expect(zeroes.failure == nil && zeroes[.read].clat.count == 16)
    }

    @Test(
        "a block that is not what was written is found",
        .enabled(if: hasServer, "nbdkit is not installed")
    )
    func nbd_wrongBlock_isFound() throws {
        let server = try NBDKit("memory", "64M")
        let common = [server.uri, "--bs=4k", "--size=1m", "--verify=crc32c", "--do_verify=0"]
        #expect(try Runs.run(common + ["--rw=write"])[0].failure == nil)
        #expect(try Runs.run(common + ["--rw=randread"])[0].failure == nil)
        // One block is overwritten by somebody else.
        _ = try Runs.one(server.uri, "--rw=write", "--offset=64k", "--size=4k")
        let all = try Runs.run(common + ["--rw=randread", "--continue_on_error=io"])[0]
        #expect(all.errorCount == 1 && all.failure?.contains("65536") == true)
        let first = try Runs.run(common + ["--rw=randread"])[0]
        #expect(first.failure?.contains("65536") == true && first.firstErrno == 84)
    }

    @Test(
        "fio reads what volbench wrote, and the other way round",
        .enabled(if: FioEquivalenceTests.canRun, "fio and nbdkit are not installed")
    )
    func verify_acrossPrograms() throws {
        let server = try NBDKit("memory", "64M")
        let fio = try #require(Programs.installed("fio"))
        func options(_ mode: String, _ pattern: String) -> [String] {
            [
                "--rw=\(mode)", "--bs=4k", "--size=1m", "--verify=pattern", "--do_verify=0",
                "--verify_pattern=\(pattern)",
            ]
        }
        let theirs = ["--name=x", "--ioengine=nbd", "--uri=\(server.uri)", "--iodepth=4"]
        #expect(try Runs.run([server.uri] + options("write", "0x123456"))[0].failure == nil)
        #expect(try Programs.run(fio, theirs + options("read", "0x123456")).status == 0)
        #expect(try Programs.run(fio, theirs + options("read", "0x123457")).status != 0)
        #expect(try Programs.run(fio, theirs + options("write", "0xfeed")).status == 0)
        #expect(try Runs.run([server.uri] + options("read", "0xfeed"))[0].failure == nil)
        #expect(try Runs.run([server.uri] + options("read", "0xfeee"))[0].failure != nil)
    }

    @Test(
        "what a server does not offer is told before anything runs",
        .enabled(if: hasServer, "nbdkit is not installed")
    )
    func nbd_missingFeatures() throws {
        let readOnly = try NBDKit("--readonly", "null", "64M")
        let plain = try NBDKit("--filter=multi-conn", "null", "64M", "multi-conn-mode=disable")
        for (server, options, word) in [
            (readOnly, ["--rw=write"], "read-only"),
            (plain, ["--rw=randwrite", "--connections=2", "--iodepth=2"], "connections"),
        ] {
            let result = try Runs.run([server.uri] + options)[0]
            #expect(result.failure?.contains(word) == true, "\(result.failure ?? "")")
        }
    }
}
