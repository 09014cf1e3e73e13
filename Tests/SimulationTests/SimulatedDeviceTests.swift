import BlockCore
import Simulation
import StorageIO
import TestSupport
import Testing

/// A device with memory for requests.
private struct Bench {
    let device: SimulatedDevice
    let arena = MemoryArena(byteCount: 64 << 10)

    init(seed: UInt64 = 1, faults: DeviceFaults = DeviceFaults()) {
        device = SimulatedDevice(
            byteCount: 1 << 20,
            superblockOffsets: [0, 4096],
            faults: faults,
            seed: seed,
            memory: SimulationMemory(),
            trace: SimulationTrace()
        )
    }

    /// Carries a request out and returns its errno.
    @discardableResult
    func carryOut(_ request: DeviceRequest) -> Int32 {
        device.submit(request, nowNanoseconds: 0)
        return device.takeEnd(nowNanoseconds: .max)?.errno ?? -1
    }

    @discardableResult
    func write(
        _ value: UInt8,
        page: UInt64,
        kind: DeviceRequest.Kind = .write
    ) -> Int32 {
        let region = arena.region.slice(0, 4096)
        region.copy(from: [UInt8](repeating: value, count: 4096))
        return carryOut(
            DeviceRequest(kind: kind, offset: page * 4096, region: region, token: 1)
        )
    }

    func flush() { carryOut(.flush(token: 2)) }

    func read(page: UInt64) -> [UInt8] {
        let region = arena.region.slice(4096, 4096)
        carryOut(DeviceRequest(kind: .read, offset: page * 4096, region: region, token: 3))
        return region.array()
    }
}

@Suite("Simulated device", .background) struct SimulatedDeviceTests {
    private let ones = [UInt8](repeating: 1, count: 4096)
    private let twos = [UInt8](repeating: 2, count: 4096)
    private let zeroes = [UInt8](repeating: 0, count: 4096)

    @Test func read_afterWrite_returnsIt() {
        let bench = Bench()
        bench.write(1, page: 7)
        #expect(bench.read(page: 7) == ones)
    }

    @Test func powerLoss_unflushedWrite_isLost() {
        let bench = Bench()
        bench.write(1, page: 7)
        bench.device.crash(.power(keptPerMille: 0))
        #expect(bench.read(page: 7) == zeroes)
    }

    @Test func powerLoss_flushedWrite_isKept() {
        let bench = Bench()
        bench.write(1, page: 7)
        bench.flush()
        bench.write(2, page: 7)
        bench.device.crash(.power(keptPerMille: 0))
        #expect(bench.read(page: 7) == ones)
    }

    @Test func powerLoss_durableWrite_isKeptAndSaysNothingOfOthers() {
        let bench = Bench()
        bench.write(1, page: 6)
        bench.write(2, page: 7, kind: .writeDurable)
        bench.device.crash(.power(keptPerMille: 0))
        #expect(bench.read(page: 6) == zeroes)
        #expect(bench.read(page: 7) == twos)
    }

    @Test func processDeath_completedWrite_isKept() {
        let bench = Bench()
        bench.write(1, page: 7)
        bench.device.crash(.process)
        #expect(bench.read(page: 7) == ones)
    }

    @Test("A flush covers what ended before it was submitted, no more")
    func flush_writeEndingLater_isNotCovered() {
        let bench = Bench()
        bench.device.submit(.flush(token: 9), nowNanoseconds: 0)
        bench.write(1, page: 7)
        while bench.device.takeEnd(nowNanoseconds: .max) != nil {}
        bench.device.crash(.power(keptPerMille: 0))
        // The write may have ended first, but the flush was submitted before that.
        #expect(bench.read(page: 7) == zeroes)
    }

    @Test(
        "Torn power loss mixes sectors, never bytes of a sector",
        arguments: 1...20 as ClosedRange<UInt64>
    )
    func tornPowerLoss_unflushedWrite_mixesSectors(seed: UInt64) {
        let bench = Bench(seed: seed)
        bench.write(1, page: 7)
        bench.flush()
        bench.write(2, page: 7)
        bench.device.crash(.tornPower(keptPerMille: 500))
        let page = bench.read(page: 7)
        for sector in stride(from: 0, to: 4096, by: 512) {
            let values = Set(page[sector..<sector + 512])
            #expect(values == [1] || values == [2])
        }
    }

    @Test func damage_neverMoreThanAllowed_neverBothCopies() {
        var faults = DeviceFaults()
        faults.damageCountMax = 3
        faults.rotPerMillion = 500_000
        faults.mayDamageSuperblock = true
        for seed in 1...20 as ClosedRange<UInt64> {
            let bench = Bench(seed: seed, faults: faults)
            for _ in 0..<20 {
                bench.write(1, page: 0)
                bench.write(1, page: 1)
            }
            #expect(bench.device.damageCount <= 3)
            bench.write(1, page: 5)
            #expect(bench.device.superblockDamageCount <= bench.device.damageCount)
        }
    }

    @Test func failingRequest_named_failsOnce() {
        let bench = Bench()
        bench.device.failingRequest = 2
        #expect(bench.write(1, page: 1) == 0)
        #expect(bench.write(1, page: 2) != 0)
        #expect(bench.write(1, page: 2) == 0)
    }

    @Test func request_unaligned_isMisuse() {
        let bench = Bench()
        let region = bench.arena.region.slice(0, 4096)
        bench.device.submit(
            DeviceRequest(kind: .write, offset: 512, region: region, token: 1),
            nowNanoseconds: 0
        )
        #expect(bench.device.misuse != nil)
    }

    @Test func request_beyondTheEnd_isMisuse() {
        let bench = Bench()
        let region = bench.arena.region.slice(0, 4096)
        bench.device.submit(
            DeviceRequest(kind: .read, offset: 1 << 20, region: region, token: 1),
            nowNanoseconds: 0
        )
        #expect(bench.device.misuse != nil)
    }

    @Test func write_memoryChangedUnderWay_isMisuse() {
        let bench = Bench()
        let region = bench.arena.region.slice(0, 4096)
        bench.device.submit(
            DeviceRequest(kind: .write, offset: 0, region: region, token: 1),
            nowNanoseconds: 0
        )
        region.store(UInt8(5), at: 9)
        _ = bench.device.takeEnd(nowNanoseconds: .max)
        #expect(bench.device.misuse != nil)
    }
}
