import Testing
import volbench

@Suite("Options")
struct OptionsTests {
    @Test("a full command line is understood")
    func parse_everyOption_isKept() throws {
        let options = try Options(parsing: [
            "nbd://host:1234/vol%20a", "--rw", "randrw:70", "--bs=16k", "--iodepth", "8",
            "--connections", "2", "--runtime", "1.5", "--ramp=0.5", "--offset", "1M", "--size",
            "2G",
            "--fua", "--flush-every", "3", "--rate", "100", "--seed", "9", "--server-pid", "1",
            "--server-pid", "2", "--json", "--simple-replies", "--count", "77",
        ])
        #expect(options.target == .tcp(host: "host", port: 1234, export: "vol a"))
        #expect(options.workload.readPercent == 70 && options.workload.order == .random)
        #expect(options.workload.blockByteCount == 16384)
        #expect(options.depth == 8 && options.connectionCount == 2)
        #expect(options.pace.runSeconds == 1.5 && options.pace.rampSeconds == 0.5)
        #expect(options.workload.spanOffset == 1 << 20 && options.workload.spanByteCount == 2 << 30)
        #expect(options.workload.forceUnitAccess && options.workload.flushInterval == 3)
        #expect(options.pace.operationsPerSecond == 100 && options.pace.operationCountMax == 77)
        #expect(options.workload.seed == 9 && options.serverPIDs == [1, 2])
        #expect(options.isJSON && !options.usesStructuredReplies)
    }

    @Test(
        "wrong command lines are refused with the argument's name",
        arguments: [
            (["nbd://h/x", "--bs", "1000"], "--bs"), (["nbd://h/x", "--bs", "64M"], "--bs"),
            (["nbd://h/x", "--iodepth", "0"], "--iodepth"),
            (["nbd://h/x", "--rw", "sideways"], "--rw"),
            (["nbd://h/x", "--rw", "randrw:101"], "randrw"), (["nbd://h/x", "--size"], "--size"),
            (["nbd://h/x", "--size", "99999999999T"], "--size"),
            (["nbd://h/x", "--what"], "--what"),
            (["nbd://h/x", "nbd://h/y"], "second"), ([], "target"), (["ftp://h/x"], "scheme"),
            (["nbd:///x"], "host"), (["nbd://h:0/x"], "port"), (["nbd://h:99999/x"], "port"),
            (["nbd+unix:///x"], "socket"), (["nbd://h/%zz"], "%"),
            (["nbd://[::1/x"], "bracket"), (["nbd://h/x", "--runtime", "-1"], "--runtime"),
            (["nbd://h/x", "--iodepth", "1024", "--connections", "256", "--bs", "32M"], "memory"),
        ]
    )
    func parse_wrongArguments_throws(_ arguments: [String], word: String) {
        let error = #expect(throws: BenchError.self) { try Options(parsing: arguments) }
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
}
