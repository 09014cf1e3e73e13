import Foundation
import TestSupport
import Testing
import volbench

@Suite("Output", .serialized, .background)
struct OutputTests {
    private func json(_ text: String) throws -> [String: Any] {
        try #require(try JSONSerialization.jsonObject(with: Data(text.utf8)) as? [String: Any])
    }

    @Test("json+ has the bins, and they come to the count")
    func jsonPlus_bins() throws {
        let results = [try Runs.one("null:", "--rw=randread", "--number_ios=5000", "--size=64m")]
        let document = FioJSON(results: results, hasBins: true, machine: MachineReport()).document
        let job = try #require((try json(document.laidOut())["jobs"] as? [[String: Any]])?.first)
        let clat = (job["read"] as? [String: Any])?["clat_ns"] as? [String: Any]
        let bins = clat?["bins"] as? [String: Int]
        #expect(bins?.values.reduce(0, +) == 5000)
        let points = clat?["percentile"] as? [String: Int]
        #expect(points?["99.999000"] != nil && points?["50.000000"] != nil)
    }

    @Test("a percentile_list is what is printed")
    func percentiles_areChosen() throws {
        let result = try Runs.one(
            "null:",
            "--number_ios=100",
            "--size=1m",
            "--percentile_list=50:99.9"
        )
        let document = FioJSON(results: [result], hasBins: false, machine: MachineReport())
        let text = document.document.text
        #expect(text.contains("\"50.000000\"") && text.contains("\"99.900000\""))
        #expect(!text.contains("\"95.000000\""))
    }

    @Test("text in JSON is quoted", arguments: ["a\"b", "c\\d", "e\nf", "g\u{1}h", "é😀"])
    func json_quotes(_ text: String) throws {
        let whole = JSONValue.object([(text, .string(text))])
        for document in [whole.text, whole.laidOut()] {
            #expect(try json(document)[text] as? String == text)
        }
    }

    @Test(
        "a terse line has as many fields as fio's",
        .enabled(if: Programs.installed("fio") != nil, "fio is not installed")
    )
    func terse_fieldCount() throws {
        let options = ["--name=x", "--rw=randrw", "--size=1m", "--number_ios=100"]
        let fio = try #require(Programs.installed("fio"))
        let theirs = try Programs.run(
            fio,
            options + ["--ioengine=null", "--output-format=terse"]
        ).output.split(separator: ";", omittingEmptySubsequences: false)
        let ours = TerseOutput.text(try Runs.run(["null:"] + options))
            .split(separator: ";", omittingEmptySubsequences: false)
        #expect(ours.count == theirs.count)
        #expect(ours.prefix(3) == theirs.prefix(3))
        // Both moved 100 blocks.
        #expect(Int(ours[5])! + Int(ours[46])! == 400 && Int(theirs[5])! + Int(theirs[46])! == 400)
    }

    @Test("the brief document is one for all jobs")
    func brief_sums() throws {
        let results = try Runs.run(["null:", "--numjobs=2", "--number_ios=50", "--size=1m"])
        let document = try json(BriefOutput.text(results))
        #expect(document["operationCount"] as? Int == 100 && document["jobCount"] as? Int == 2)
        let read = (document["latencyNanoseconds"] as? [String: Any])?["read"] as? [String: Any]
        #expect(read?["count"] as? Int == 100)
    }

    @Test("people are told of the rate, the latencies and what went wrong")
    func normal_says() throws {
        let result = try Runs.one("null:", "--name=j", "--number_ios=50", "--size=1m")
        result.failure = "the sky fell"
        let text = NormalOutput.text([result])
        for word in ["j: (groupid=0", "read: IOPS=", "99.999th=", "longest gap", "the sky fell"] {
            #expect(text.contains(word), "\(word)")
        }
    }

    @Test("the live line")
    func live_line() {
        let line = LiveLine.text(
            fraction: 0.25,
            rate: 101_000,
            bytesPerSecond: 413_696_000,
            p99Nanoseconds: 412_000,
            elapsedSeconds: 2
        )
        #expect(line == "[25%] 101,000 IOPS, 394.5 MiB/s, p99 412 µs, 6 s to go")
    }

    @Test("logs have a line per interval and direction, and what they say adds up")
    func logs_addUp() throws {
        let folder = try TestDirectory()
        let result = try Runs.one(
            "null:",
            "--rw=randrw",
            "--rate_iops=2000",
            "--number_ios=1000",
            "--size=64m",
            "--log_avg_msec=50",
            "--write_iops_log=\(folder.path)/x",
            "--write_lat_log=\(folder.path)/x",
            "--write_bw_log=\(folder.path)/x"
        )
        #expect(result.transferCount == 1000)
        for kind in ["iops", "bw", "clat"] {
            let path = "\(folder.path)/x_\(kind).1.log"
            let lines = try String(contentsOfFile: path, encoding: .utf8).split(separator: "\n")
            #expect(lines.count >= 4)
            for line in lines {
                let fields = line.split(separator: ",").map { Int($0.drop { $0 == " " }) }
                #expect(fields.count == 5 && !fields.contains(nil), "\(line)")
                #expect((0...1).contains(fields[2] ?? 9))
            }
        }
    }

    @Test("without an average every latency has a line")
    func logs_each() throws {
        let folder = try TestDirectory()
        _ = try Runs.one(
            "null:",
            "--number_ios=40000",
            "--norandommap",
            "--rw=randread",
            "--time_based",
            "--runtime=60",
            "--write_lat_log=\(folder.path)/x"
        )
        let path = "\(folder.path)/x_clat.1.log"
        let text = try String(contentsOfFile: path, encoding: .utf8)
        #expect(text.split(separator: "\n").count == 40_000)
    }

    @Test(
        "fio-plot draws it",
        .enabled(if: Programs.installed("fio-plot") != nil, "fio-plot (PyPI) is not installed")
    )
    func fioPlot_draws() throws {
        let folder = try TestDirectory()
        for depth in [1, 4] {
            let name = "randread-iodepth-\(depth)-numjobs-1"
            let outcome = try Programs.run(
                Programs.volbench,
                [
                    "null:", "--name=\(name)", "--rw=randread", "--iodepth=\(depth)", "--size=4m",
                    "--output-format=json", "--output=\(folder.path)/\(name).json",
                ]
            )
            #expect(outcome.status == 0)
        }
        let fioPlot = try #require(Programs.installed("fio-plot"))
        let outcome = try Programs.run(
            fioPlot,
            [
                "-i", folder.path, "-T", "volbench", "-l", "-r", "randread", "-n", "1", "-o",
                "\(folder.path)/plot.png",
            ]
        )
        #expect(outcome.status == 0, "\(outcome.errors)")
        let data = try Data(contentsOf: URL(fileURLWithPath: "\(folder.path)/plot.png"))
        #expect(data.starts(with: [0x89, 0x50, 0x4e, 0x47]))
    }
}
