import Testing
import volbench

@Suite("Operations of a job")
struct SourceTests {
    private let block: UInt64 = 4096

    @Test(
        "without repetition each block is visited once, then each once more",
        arguments: [
            1, 2, 3, 63, 64, 65, 1000, 4097,
        ]
    )
    func random_visitsOnce(blockCount: UInt64) throws {
        let plan = try Runs.plan([
            "rw": "randread", "size": "\(blockCount * block)", "offset": "8k", "loops": "2",
        ])
        let offsets = Runs.operations(plan).map(\.offset)
        let all = (0..<blockCount).map { 8192 + $0 * block }
        #expect(offsets.prefix(Int(blockCount)).sorted() == all)
        #expect(offsets.suffix(Int(blockCount)).sorted() == all)
        #expect(offsets.count == 2 * Int(blockCount))
    }

    @Test(
        "with sizes by share, nothing is visited twice and nothing is left out",
        arguments: [
            1, 2, 3,
        ]
    )
    func split_coversWithoutOverlap(seed: Int) throws {
        let plan = try Runs.plan([
            "rw": "randwrite", "bssplit": "4k/30:8k/40:64k/30", "size": "4m", "randseed": "\(seed)",
        ])
        let operations = Runs.operations(plan).sorted { $0.offset < $1.offset }
        var next: UInt64 = 0
        for operation in operations {
            #expect(operation.offset == next)
            next = operation.offset + UInt64(operation.byteCount)
        }
        #expect(next == 4 << 20)
    }

    @Test("sequences go through in order and around; reads and writes each have their own")
    func sequential_coversInOrder() throws {
        let plan = try Runs.plan(["rw": "rw", "size": "64k", "io_size": "512k", "offset": "4k"])
        for kind in [Operation.Kind.read, .write] {
            let offsets = Runs.operations(plan).filter { $0.kind == kind }.map(\.offset)
            let expected = offsets.indices.map { 4096 + UInt64($0 % 16) * block }
            #expect(offsets == expected)
        }
        #expect(Runs.operations(plan).count == 128)
    }

    @Test("shares of reads, of sizes")
    func draws_keepShares() throws {
        let plan = try Runs.plan([
            "rw": "randrw", "rwmixread": "70", "bssplit": "4k/25:8k/75", "norandommap": "1",
            "number_ios": "20000", "size": "1g",
        ])
        let operations = Runs.operations(plan)
        let reads = operations.filter { $0.kind == .read }.count
        let small = operations.filter { $0.byteCount == 4096 }.count
        #expect(operations.count == 20_000)
        #expect(abs(reads - 14_000) < 350 && abs(small - 5000) < 320)
        #expect(operations.allSatisfy { $0.offset + UInt64($0.byteCount) <= 1 << 30 })
    }

    @Test("a flush follows so many writes; one at the end, for whoever has waited for the last one")
    func flushes_followWrites() throws {
        let plan = try Runs.plan([
            "rw": "write", "fsync": "3", "end_fsync": "1", "number_ios": "10", "size": "1m",
        ])
        let source = OperationSource(plan: plan)
        var kinds: [Operation.Kind] = []
        while let operation = source.next() { kinds.append(operation.kind) }
        let three: [Operation.Kind] = [.write, .write, .write, .flush]
        #expect(kinds == three + three + three + [.write])
        #expect(source.finalFlush()?.kind == .flush && source.finalFlush() == nil)
    }

    @Test("a trimwrite writes each block that it trimmed, and moves both amounts")
    func trimWrite_pairs() throws {
        let plan = try Runs.plan(["rw": "randtrimwrite", "size": "256k"])
        let operations = Runs.operations(plan)
        #expect(operations.count == 128)
        for index in stride(from: 0, to: operations.count, by: 2) {
            #expect(operations[index].kind == .trim && operations[index + 1].kind == .write)
            #expect(operations[index].offset == operations[index + 1].offset)
        }
    }

    @Test("the same seed draws the same operations, another draws others, and so do clones")
    func seeds_decide() throws {
        func offsets(_ seed: Int, clone: Int = 0) throws -> [UInt64] {
            let plan = try Runs.plan(
                ["rw": "randread", "randseed": "\(seed)", "norandommap": "1"],
                clone: clone
            )
            return Runs.operations(plan, count: 100).map(\.offset)
        }
        #expect(try offsets(1) == offsets(1))
        #expect(try offsets(1) != offsets(2))
        #expect(try offsets(1) != offsets(1, clone: 1))
    }

    @Test("zipf visits its favourites as often as the law says")
    func zipf_followsTheLaw() throws {
        let plan = try Runs.plan([
            "rw": "randread", "random_distribution": "zipf:1.2", "size": "4m", "io_size": "400m",
        ])
        var counts: [UInt64: Int] = [:]
        for operation in Runs.operations(plan) { counts[operation.offset, default: 0] += 1 }
        let sorted = counts.values.sorted(by: >)
        let zeta = (1...1024).reduce(0.0) { $0 + 1 / power(Double($1), 1.2) }
        let drawn = 102_400.0
        #expect(abs(Double(sorted[0]) - drawn / zeta) < 0.03 * drawn / zeta)
        #expect(sorted[0] > sorted[9] * 8)
        #expect(counts.keys.allSatisfy { $0 < 4 << 20 })
    }

    @Test("pareto:h puts 1-h of the visits into h of the places")
    func pareto_followsTheLaw() throws {
        let plan = try Runs.plan([
            "rw": "randread", "random_distribution": "pareto:0.2", "size": "40m",
            "io_size": "400m",
        ])
        var counts: [UInt64: Int] = [:]
        for operation in Runs.operations(plan) { counts[operation.offset, default: 0] += 1 }
        let sorted = counts.values.sorted(by: >)
        let favourite = sorted.prefix(2048).reduce(0, +)
        #expect(abs(Double(favourite) / 102_400 - 0.8) < 0.02)
    }

    /// `base` to the power of `exponent`, by exp and log of the standard library's own.
    private func power(_ base: Double, _ exponent: Double) -> Double {
        // 1.2 = 6/5: the fifth root by Newton's method, then the sixth power.
        var root = 1.0
        for _ in 0..<200 {
            root -= (root * root * root * root * root - base) / (5 * root * root * root * root)
        }
        return exponent == 1.2 ? root * root * root * root * root * root : .nan
    }

    @Test(
        "a job that does not fit its target says so",
        arguments: [
            ["offset": "2g"], ["size": "2g"], ["offset": "1023m", "size": "2m"],
            ["bs": "8k", "offset": "1048572k"],
        ] as [[String: String]]
    )
    func plan_tooLarge_throws(_ options: [String: String]) {
        let error = #expect(throws: BenchError.self) { try Runs.plan(options) }
        #expect(error?.message.contains("1073741824") == true, "\(error?.message ?? "")")
    }
}
