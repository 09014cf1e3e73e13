import Testing
import volbench

@Suite("Job files")
struct JobFileTests {
    private func jobs(_ text: String, _ variables: [String: String] = [:]) throws -> [JobOptions] {
        let file = try JobFile(parsing: text, path: "x.fio") { variables[$0] }
        return try JobList.jobs(of: file)
    }

    @Test("global sections hold for the jobs that follow, comments and spaces do not count")
    func parse_sections_inherit() throws {
        let jobs = try jobs(
            """
            # a comment
            [global]
            bs = 8k   ; eight
            ioengine=nbd
            uri=${where}
            [a]
            rw=randwrite
            fsync=4
            [global]
            iodepth=7
            [b]
            rw=randread
            stonewall
            norandommap=1
            """,
            ["where": "nbd://h/v"]
        )
        #expect(jobs.map(\.name) == ["a", "b"])
        #expect(jobs.map(\.depth) == [1, 7])
        #expect(jobs.allSatisfy { $0.blockSizes.read.greatest == 8192 && $0.uri == "nbd://h/v" })
        #expect(jobs[0].flushInterval == 4 && !jobs[0].waitsForJobsBefore)
        #expect(jobs[1].waitsForJobsBefore && jobs[1].repeatsPlaces)
        #expect(jobs[0].own == ["rw", "fsync"])
    }

    @Test("every option reads its value")
    func parse_values_areKept() throws {
        let job = try jobs(
            """
            [j]
            rw=randrw:8
            rwmixread=30
            bs=4k,8k,16k
            size=50%
            offset=1m
            runtime=2m
            time_based
            ramp_time=500ms
            rate_iops=100,200
            rate_process=poisson
            random_distribution=zipf:1.1
            percentile_list=50:99.999
            thinktime=20
            thinktime_blocks=4
            randseed=9
            sync=dsync
            numjobs=3
            offset_increment=1g
            continue_on_error=io
            """
        )[0]
        #expect(job.mode.isMixed && job.mode.isRandom && job.mode.runLength == 8)
        #expect(job.readPercent == 30 && job.size == .percent(50) && job.offset == .bytes(1 << 20))
        #expect(
            [Operation.Kind.read, .write, .trim].map { job.blockSizes[$0].least } == [
                4096, 8192, 16384,
            ]
        )
        #expect(job.runMicroseconds == 120_000_000 && job.rampMicroseconds == 500_000)
        #expect(job.operationRate?.read == 100 && job.operationRate?.write == 200)
        #expect(job.hasPoissonArrivals && job.distribution == .zipf(theta: 1.1))
        #expect(job.percentiles == [50, 99.999] && job.seed == 9 && job.forceUnitAccess)
        #expect(job.thinkMicroseconds == 20 && job.thinkOperationCount == 4)
        #expect(job.cloneCount == 3 && job.offsetIncrement == .bytes(1 << 30))
        #expect(job.errorPolicy == .proceed)
    }

    @Test("shares that a bssplit leaves out divide the rest")
    func parse_blockSplit_fillsUp() throws {
        let sizes = try OptionText(name: "bssplit", value: "4k/10:64k/50:32k/:8k/").blockSplit()
        #expect(sizes.entries.map(\.percent) == [10, 50, 20, 20])
        #expect(sizes.least == 4096 && sizes.greatest == 65536)
    }

    @Test("patterns are hex, text or numbers")
    func parse_pattern() throws {
        #expect(try OptionText(name: "p", value: "0xcafe1").pattern() == [0x0c, 0xaf, 0xe1])
        #expect(try OptionText(name: "p", value: "\"ab\"").pattern() == [97, 98])
        #expect(try OptionText(name: "p", value: "258").pattern() == [1, 2])
    }

    @Test(
        "what is wrong is named with its file and line, or its job",
        arguments: [
            ("[a]\nrwmixreed=3", "x.fio:2", "rwmixread"), ("[a]\niodeph=3", "x.fio:2", "iodepth"),
            ("[a]\nbs=1000", "bs=1000", "multiple of 512"), ("[a]\nbs=4Ki", "bs=4Ki", "1000"),
            ("[a]\nrw=randreed", "x.fio:2", "randread"), ("bs=4k", "x.fio:1", "[global]"),
            ("[a\nrw=read", "x.fio:1", "brackets"), ("[global]\nbs=4k", "x.fio", "no job"),
            ("[a]\nuri=${nope}", "x.fio:2", "nope"), ("[a]\nbs=", "x.fio:2", "no value"),
            ("[a]\ncpus_allowed=1", "x.fio:2", "fio has this option"),
            ("[a]\nioengine=iscsi", "ioengine=iscsi", "NBD"),
            ("[a]\nioengine=psync", "ioengine=psync", "io_uring"),
            ("[a]\ntime_based", "[a]", "runtime"),
            ("[a]\nrate=1m\nrate_iops=5", "rate_iops", "rate"),
            ("[a]\nrw=rw\nrwmixread=30\nrwmixwrite=30", "rwmixread", "100"),
            ("[a]\nrw=read\nrwmixread=30", "[a]", "rwmixread"),
            ("[a]\nbs=4k\nbssplit=4k/100", "bs", "bssplit"),
            ("[a]\nbssplit=4k/50", "bssplit", "100"),
            ("[a]\nrw=read\nrandom_distribution=zipf:1.1", "random_distribution", "rw=read"),
            ("[a]\nverify=pattern", "verify_pattern", "verify=pattern"),
            ("[a]\nverify=md5", "verify=md5", "crc32c"), ("[a]\nsize=1k", "size", "block"),
            (
                "[a]\nrw=randwrite\nnorandommap\nbssplit=4k/50:8k/50\nverify=crc32c", "verify",
                "overlap"
            ),
            ("[a]\nioengine=nbd\nfilename=/x", "uri", "filename"),
            ("[a]\nfilename=/x\nconnections=2\niodepth=2", "connections", "NBD"),
            ("[a]\nconnections=8", "connections=8", "iodepth"),
            ("[a]\nlatency_target=100", "latency_target", "latency_window"),
            ("[a]\ndirect=0", "direct=0", "page cache"), ("[a]\niodepth=0", "iodepth=0", "1 to"),
            ("[a]\nfsync=1\nrw=read", "fsync", "write"),
            ("[a]\nbs=32m\niodepth=4096", "bs", "4 GiB"),
        ]
    )
    func parse_wrongFile_namesWhatIsWrong(_ text: String, _ place: String, _ word: String) {
        let error = #expect(throws: BenchError.self) { try jobs(text) }
        let message = error?.message ?? ""
        #expect(message.contains(place) && message.contains(word), "\(message)")
        #expect(!message.contains("\n"))
    }

    @Test("no text takes the parser down", arguments: 1...UInt64(200))
    func parse_noise_neverTraps(seed: UInt64) {
        var random = SplitMix64(seed: seed)
        let pieces = [
            "[", "]", "=", "\n", "${", "}", ";", "rw", "bs", "4k", "%", ":", "/", "é", "\"",
        ]
        var text = "[a]\n"
        for _ in 0..<40 { text += pieces[Int(random.next(below: UInt64(pieces.count)))] }
        _ = try? jobs(text)
    }
}
