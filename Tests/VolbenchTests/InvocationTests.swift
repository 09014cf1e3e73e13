import Testing
import volbench

@Suite("Command line")
struct InvocationTests {
    @Test("a command line of one job is understood")
    func parse_everyOption_isKept() throws {
        let line = try Invocation(parsing: [
            "nbd://host:1234/vol%20a", "--rw", "randrw", "--bs=16k", "--iodepth", "8",
            "--connections", "2", "--runtime", "1.5", "--ramp-time=0.5", "--size", "2G",
            "--time_based", "--rate_iops=100", "--server-pid", "1", "--server-pid", "2", "--json",
            "--simple-replies", "--count", "77", "--seed=9",
        ])
        let job = line.jobs[0]
        #expect(line.target?.target == .tcp(host: "host", port: 1234, export: "vol a"))
        #expect(job.mode.isMixed && job.blockSizes.read.least == 16384 && job.depth == 8)
        #expect(job.connectionCount == 2 && !job.usesStructuredReplies && job.seed == 9)
        #expect(job.runMicroseconds == 1_500_000 && job.rampMicroseconds == 500_000)
        #expect(job.operationCountMax == 77 && line.serverPIDs == [1, 2])
        #expect(line.format == .brief)
    }

    @Test("options before the first name hold for all jobs, those after for theirs")
    func parse_names_makeJobs() throws {
        let line = try Invocation(parsing: [
            "null:", "--bs=8k", "--size=1m", "--name=a", "--rw=write", "--name=b", "--rw=randread",
        ])
        #expect(line.jobs.map(\.name) == ["a", "b"])
        #expect(line.jobs.map(\.mode.text) == ["write", "randread"])
        #expect(line.jobs.allSatisfy { $0.blockSizes.read.least == 8192 })
    }

    @Test("a line without an amount measures for a time, one with an amount does that")
    func parse_amounts() throws {
        let plain = try Invocation(parsing: ["null:"]).jobs[0]
        #expect(plain.isTimeBased && plain.runMicroseconds == 5_000_000)
        let sized = try Invocation(parsing: ["null:", "--size=1m"]).jobs[0]
        #expect(!sized.isTimeBased && sized.runMicroseconds == nil)
    }

    @Test("targets to compare, and who serves them")
    func parse_compare() throws {
        let line = try Invocation(parsing: [
            "--compare", "a=null:", "b=/dev/x", "--rounds=3", "--server-pid=b=1", "--size=1m",
        ])
        #expect(line.compared.map(\.name) == ["a", "b"])
        #expect(line.compared[1].target == .file(path: "/dev/x"))
        #expect(line.compared[1].serverPIDs == [1] && line.roundCount == 3)
    }

    @Test(
        "wrong command lines are refused with the argument's name",
        arguments: [
            (["nbd://h/x", "--bs", "1000"], "bs=1000"), (["nbd://h/x", "--bs", "64M"], "bs=64M"),
            (["nbd://h/x", "--iodepth", "0"], "iodepth=0"), (["nbd://h/x", "--size"], "--size"),
            (["nbd://h/x", "--rw", "sideways"], "rw=sideways"),
            (["nbd://h/x", "--size", "99999999999T"], "size"), (["nbd://h/x", "--what"], "--what"),
            (["nbd://h/x", "--iodeth=4"], "did you mean 'iodepth'"),
            (["nbd://h/x", "--output-fromat=json"], "output_format"),
            (["nbd://h/x", "nbd://h/y"], "second"), ([], "target"), (["ftp://h/x"], "scheme"),
            (["iscsi://h/x"], "iSCSI"), (["nbd:///x"], "host"), (["nbd://h:0/x"], "port"),
            (["nbd://h:99999/x"], "port"), (["nbd+unix:///x"], "socket"), (["nbd://h/%zz"], "%"),
            (["nbd://[::1/x"], "bracket"), (["nbd://h/x", "--runtime", "-1"], "runtime"),
            (["nbd://h/x", "--iodepth", "4096", "--bs", "32M"], "memory"),
            (["nbd://h/x", "--compare", "a=null:", "b=null:"], "--compare"),
            (["--compare", "a=null:"], "two"), (["--compare", "a=null:", "a=null:"], "a is there"),
            (["null:", "--hook=1:kill:1"], "--hook"), (["null:", "--hook=1:shoot:99"], "kill"),
            (["null:", "--server-pid=a=1"], "a"), (["/nothere/x.fio"], "/nothere/x.fio"),
            (["null:", "--report=x.md"], "--report"), (["null:", "--eta=perhaps"], "never"),
        ]
    )
    func parse_wrongArguments_throws(_ arguments: [String], word: String) {
        let error = #expect(throws: BenchError.self) { try Invocation(parsing: arguments) }
        #expect(error?.message.contains(word) == true, "\(error?.message ?? "")")
    }

    @Test("targets of all kinds are told apart")
    func target_kinds() throws {
        #expect(try Target(parsing: "null:") == .null)
        #expect(try Target(parsing: "/dev/vdb") == .file(path: "/dev/vdb"))
        #expect(try Target(parsing: "nbd://h") == .tcp(host: "h", port: 10809, export: ""))
        #expect(try Target(parsing: "nbd://[::1]:5/v") == .tcp(host: "::1", port: 5, export: "v"))
        #expect(
            try Target(parsing: "nbd+unix:///a?socket=/tmp/x")
                == .unix(path: "/tmp/x", export: "a")
        )
    }

    @Test("the manual's page of options names every option of the table")
    func usage_namesAll() {
        for entry in OptionTable.entries { #expect(Invocation.usage.contains("--" + entry.name)) }
    }

    @Test("pids are found in a cluster's status")
    func status_pids() {
        let text = #"{"endpoint":"x","nodes":[{"name":"n","pid" : 12},{"pid":34},{"pid":null}]}"#
        #expect(Program.pids(inStatus: text) == [12, 34])
    }
}
