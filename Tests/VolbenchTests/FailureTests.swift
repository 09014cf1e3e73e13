// What goes wrong is told in one line, the status says so, and what was measured is kept.

import Foundation
import TestSupport
import Testing
import volbench

@Suite("Failures", .serialized, .background)
struct FailureTests {
    private static var hasServer: Bool { NBDKit.isInstalled }

    /// Runs the program; its JSON document, if it printed one.
    private func run(
        _ arguments: [String]
    ) throws -> (outcome: Programs.Outcome, jobs: [[String: Any]]) {
        let outcome = try Programs.run(Programs.volbench, arguments + ["--output-format=json"])
        let document = try? JSONSerialization.jsonObject(with: Data(outcome.output.utf8))
        return (outcome, ((document as? [String: Any])?["jobs"] as? [[String: Any]]) ?? [])
    }

    private func totals(_ job: [String: Any]?, _ kind: String) -> Int {
        ((job?[kind] as? [String: Any])?["total_ios"] as? Int) ?? 0
    }

    @Test("a wrong job file: one line with file and line, status 2, nothing runs")
    func jobFile_wrong() throws {
        let folder = try TestDirectory()
        let path = "\(folder.path)/x.fio"
        try "[a]\nrw=randread\niodpeth=3\n".write(toFile: path, atomically: false, encoding: .utf8)
        let outcome = try Programs.run(Programs.volbench, ["null:", path])
        #expect(outcome.status == 2 && outcome.output.isEmpty)
        #expect(outcome.errorLines.count == 1)
        #expect(outcome.errors.contains("x.fio:3") && outcome.errors.contains("'iodepth'"))
    }

    @Test("a server that is not there: one line, status 1")
    func server_absent() throws {
        let folder = try TestDirectory()
        let target = "nbd+unix:///?socket=\(folder.path)/none"
        let outcome = try Programs.run(Programs.volbench, [target, "--numjobs=3"])
        #expect(outcome.status == 1 && outcome.output.isEmpty)
        #expect(outcome.errorLines.count == 1, "\(outcome.errors)")
        #expect(outcome.errors.contains("\(folder.path)/none"))
    }

    @Test("an export that is not there: the server's own words")
    func export_absent() throws {
        guard Self.hasServer else { return }
        let server = try NBDKit(
            "--filter=exportname",
            "null",
            "1M",
            "exportname=a",
            "exportname-strict=true"
        )
        let target = server.uri.replacingOccurrences(of: "///?", with: "///nope?")
        let outcome = try Programs.run(Programs.volbench, [target])
        #expect(outcome.status == 1 && outcome.errorLines.count == 1)
        #expect(outcome.errors.contains("nope"), "\(outcome.errors)")
    }

    @Test(
        "a server that dies in the middle: one line, status 1, what it did is reported",
        .enabled(if: hasServer, "nbdkit is not installed")
    )
    func server_dies_keepsResults() throws {
        let server = try NBDKit("null", "64M")
        let (outcome, jobs) = try run([
            server.uri, "--rw=randread", "--iodepth=4", "--runtime=60",
            "--hook=0.3:kill:\(server.pid)", "--numjobs=2",
        ])
        #expect(outcome.status == 1)
        #expect(outcome.errorLines.count == 1, "\(outcome.errors)")
        #expect(jobs.count == 2 && jobs.allSatisfy { totals($0, "read") > 0 })
        #expect(jobs.allSatisfy { $0["error"] as? Int != 0 && $0["failure"] != nil })
    }

    @Test(
        "a full disk: one line with the system's words, status 1, what was written is reported",
        .enabled(if: hasServer, "nbdkit is not installed")
    )
    func disk_full_keepsResults() throws {
        // The first 2 MiB have room, what comes behind has none.
        let script = "cat > /dev/null; [ $4 -lt 2097152 ] || { echo ENOSPC full >&2; exit 1; }"
        let server = try NBDKit(
            "eval",
            "get_size=echo 64M",
            "pread=dd if=/dev/zero count=$3 iflag=count_bytes",
            "can_write=exit 0",
            "pwrite=\(script)"
        )
        let (outcome, jobs) = try run([server.uri, "--rw=write", "--bs=256k", "--size=4m"])
        #expect(outcome.status == 1 && outcome.errorLines.count == 1, "\(outcome.errors)")
        #expect(outcome.errors.contains("No space left on device"))
        #expect(totals(jobs.first, "write") == 8 && jobs.first?["error"] as? Int == 28)
    }

    @Test(
        "errors that are to be gone on with are counted",
        .enabled(if: hasServer, "nbdkit is not installed")
    )
    func errors_continue_areCounted() throws {
        let server = try NBDKit(
            "--filter=error",
            "null",
            "64M",
            "error-pread=EIO",
            "error-pread-rate=50%"
        )
        let (outcome, jobs) = try run([
            server.uri, "--rw=randread", "--number_ios=400", "--size=64m", "--continue_on_error=io",
        ])
        let failed = jobs.first?["total_err"] as? Int ?? 0
        #expect(outcome.status == 1 && outcome.errorLines.count == 1)
        #expect(failed > 0 && totals(jobs.first, "read") + failed == 400)
    }

    @Test("a log that cannot be written is told before anything runs")
    func log_unwritable() throws {
        let outcome = try Programs.run(
            Programs.volbench,
            ["null:", "--number_ios=10", "--write_bw_log=/nothere/x"]
        )
        #expect(outcome.status == 1 && outcome.errorLines.count == 1)
        #expect(outcome.errors.contains("/nothere/x_bw.1.log"))
    }

    @Test("results that cannot be written are told before anything runs")
    func output_unwritable() throws {
        for line in [
            ["null:", "--number_ios=1", "--output=/nothere/x"],
            ["--compare", "a=null:", "b=null:", "--number_ios=1", "--report=/nothere/x"],
        ] {
            let outcome = try Programs.run(Programs.volbench, line)
            #expect(outcome.status == 1 && outcome.errorLines.count == 1, "\(outcome.errors)")
            #expect(outcome.errors.contains("/nothere/x") && outcome.output.isEmpty)
        }
    }

    @Test(
        "what cannot be is refused, and nothing traps",
        arguments: [
            (["--rw=write", "--verify=crc32c", "--size=64k"], "verify"),
            (["--size=1m", "--offset_increment=8191p", "--numjobs=3"], "offset_increment"),
        ]
    )
    func options_impossible(options: [String], word: String) throws {
        let outcome = try Programs.run(Programs.volbench, ["null:"] + options)
        #expect(outcome.status == 1 && outcome.errorLines.count == 1, "\(outcome.errors)")
        #expect(outcome.errors.contains(word), "\(outcome.errors)")
    }

    @Test("a file that is not there, or no multiple of a block")
    func file_wrong() throws {
        let folder = try TestDirectory()
        try Data(count: 5000).write(to: URL(fileURLWithPath: "\(folder.path)/odd"))
        for (path, word) in [
            ("\(folder.path)/none", "no such file"), ("\(folder.path)/odd", "5000"),
        ] {
            let outcome = try Programs.run(Programs.volbench, [path])
            #expect(outcome.status == 1 && outcome.errorLines.count == 1)
            #expect(outcome.errors.contains(word), "\(outcome.errors)")
        }
    }
}
