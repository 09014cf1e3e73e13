import BlockCore
import CLinux
import Reactor
import StorageIO
import Testing

@Suite struct DeviceOperationTests {
    @Test("What is written is read back, at every size and depth", arguments: engines)
    func writeRead_sizes_roundTrip(_ engine: EngineChoice) throws {
        let harness = try Harness(engine)
        let device = try harness.device(byteCount: 32 << 20)
        let arena = MemoryArena(byteCount: 16 << 20)
        harness.reactor.registerBuffers([arena])
        let source = arena.allocate(byteCount: 8 << 20)
        let target = arena.allocate(byteCount: 8 << 20)
        fill(source, seed: 1)
        for byteCount in [4096, 8192, 12_288, 65_536, 1 << 20, 8 << 20] {
            let write = DeviceRequest(
                kind: .write,
                offset: 4096,
                region: source.slice(0, byteCount),
                token: 77
            )
            harness.reactor.submit(write, to: device, token: 5)
            let written = try harness.wait(token: 5)
            #expect(written.result == Int32(byteCount))
            #expect(written.requestToken == 77 && written.errno == 0 && written.isFinal)
            let read = DeviceRequest(
                kind: .read,
                offset: 4096,
                region: target.slice(0, byteCount),
                token: 78
            )
            harness.reactor.submit(read, to: device, token: 6)
            #expect(try harness.wait(token: 6).result == Int32(byteCount))
            #expect(target.slice(0, byteCount).equals(source.slice(0, byteCount)))
            target.zero()
        }
    }

    @Test("More operations than the submission queue holds all complete", arguments: engines)
    func writeRead_manyAtOnce_allComplete(_ engine: EngineChoice) throws {
        let harness = try Harness(engine)
        let device = try harness.device(byteCount: 4 << 20)
        let source = harness.region(byteCount: 4 << 20)
        let target = harness.region(byteCount: 4 << 20)
        fill(source, seed: 2)
        let count = 1024
        for kind in [DeviceRequest.Kind.write, .read] {
            for index in 0..<count {
                let region = (kind == .write ? source : target).slice(index * 4096, 4096)
                harness.reactor.submit(
                    DeviceRequest(
                        kind: kind,
                        offset: UInt64(index) * 4096,
                        region: region,
                        token: UInt64(index)
                    ),
                    to: device,
                    token: UInt64(index)
                )
            }
            #expect(harness.reactor.freeOperationCount == 0)
            let completions = try harness.wait(count)
            #expect(Set(completions.map(\.token)).count == count)
            #expect(completions.allSatisfy { $0.result == 4096 })
            #expect(harness.reactor.freeOperationCount == count)
        }
        #expect(target.equals(source))
    }

    @Test("Durable writes, flushes and discards complete", arguments: engines)
    func durableFlushDiscard_complete(_ engine: EngineChoice) throws {
        let harness = try Harness(engine)
        let device = try harness.device(byteCount: 1 << 20)
        let region = harness.region(byteCount: 65_536)
        fill(region, seed: 3)
        harness.reactor.submit(
            DeviceRequest(kind: .writeDurable, offset: 0, region: region, token: 0),
            to: device,
            token: 1
        )
        #expect(try harness.wait(token: 1).result == 65_536)
        harness.reactor.submit(.flush(token: 9), to: device, token: 2)
        let flushed = try harness.wait(token: 2)
        #expect(flushed.result == 0 && flushed.requestToken == 9)
        harness.reactor.submit(
            .discard(offset: 4096, byteCount: 32_768, token: 0),
            to: device,
            token: 3
        )
        #expect(try harness.wait(token: 3).result == 0)
        let target = harness.region(byteCount: 65_536)
        harness.reactor.submit(
            DeviceRequest(kind: .read, offset: 0, region: target, token: 0),
            to: device,
            token: 4
        )
        #expect(try harness.wait(token: 4).result == 65_536)
        // The rest is untouched; a file's hole reads as zeroes.
        #expect(target.slice(0, 4096).equals(region.slice(0, 4096)))
        #expect(target.slice(4096, 32_768).isZero)
        #expect(target.suffix(from: 36_864).equals(region.suffix(from: 36_864)))
    }

    @Test("A read across the end of the device is an error", arguments: engines)
    func read_beyondEnd_fails(_ engine: EngineChoice) throws {
        let harness = try Harness(engine)
        let device = try harness.device(byteCount: 8192)
        let region = harness.region(byteCount: 16_384)
        for (token, offset) in [(UInt64(1), UInt64(0)), (2, 4096), (3, 1 << 30)] {
            harness.reactor.submit(
                DeviceRequest(kind: .read, offset: offset, region: region, token: 0),
                to: device,
                token: token
            )
            #expect(try harness.wait(token: token).result == -EIO)
        }
    }

    @Test("A transfer that the kernel cuts short is continued to its end", arguments: engines)
    func transfer_short_isContinued(_ engine: EngineChoice) throws {
        let faults = FaultPlan()
        faults.add(.shorten(byteCount: 4096), to: .write)
        faults.add(.shorten(byteCount: 8192), to: .read)
        faults.add(.shorten(byteCount: 4096), to: .writeDurable)
        let harness = try Harness(engine)
        let device = try harness.device(byteCount: 1 << 20, faults: faults)
        let source = harness.region(byteCount: 65_536)
        let target = harness.region(byteCount: 65_536)
        for (seed, kind) in [(UInt64(4), DeviceRequest.Kind.write), (5, .writeDurable)] {
            fill(source, seed: seed)
            harness.reactor.submit(
                DeviceRequest(kind: kind, offset: 4096, region: source, token: 0),
                to: device,
                token: 1
            )
            #expect(try harness.wait(token: 1).result == 65_536)
            harness.reactor.submit(
                DeviceRequest(kind: .read, offset: 4096, region: target, token: 0),
                to: device,
                token: 2
            )
            #expect(try harness.wait(token: 2).result == 65_536)
            #expect(target.equals(source))
        }
        #expect(harness.reactor.counters.shortTransferCount == 3)
        #expect(harness.reactor.counters.faultCount == 3)
    }

    @Test("The n-th operation of a kind fails as planned, and only that", arguments: engines)
    func fault_nth_failsOnce(_ engine: EngineChoice) throws {
        let faults = FaultPlan()
        faults.add(.fail(errno: ENOSPC), to: .write, after: 2, count: 2)
        faults.add(.fail(errno: EIO), to: .flush)
        let harness = try Harness(engine)
        let device = try harness.device(byteCount: 1 << 20, faults: faults)
        let region = harness.region(byteCount: 4096)
        var results: [Int32] = []
        for _ in 0..<6 {
            harness.reactor.submit(
                DeviceRequest(kind: .write, offset: 0, region: region, token: 0),
                to: device,
                token: 1
            )
            results.append(try harness.wait(token: 1).result)
        }
        #expect(results == [4096, 4096, -ENOSPC, -ENOSPC, 4096, 4096])
        harness.reactor.submit(.flush(token: 0), to: device, token: 2)
        #expect(try harness.wait(token: 2).errno == EIO)
        faults.removeAll()
        harness.reactor.submit(.flush(token: 0), to: device, token: 3)
        #expect(try harness.wait(token: 3).errno == 0)
    }

    @Test(
        "A transfer for which the kernel has no means is tried again, a flush never",
        arguments: engines
    )
    func fault_transient_isTriedAgain(_ engine: EngineChoice) throws {
        let faults = FaultPlan()
        let harness = try Harness(engine)
        let device = try harness.device(byteCount: 1 << 20, faults: faults)
        let region = harness.region(byteCount: 4096)
        for (index, errno) in [EAGAIN, ENOMEM].enumerated() {
            faults.add(.fail(errno: errno), to: .write)
            let write = DeviceRequest(kind: .write, offset: 0, region: region, token: 0)
            harness.reactor.submit(write, to: device, token: 1)
            #expect(try harness.wait(token: 1).result == 4096)
            #expect(harness.reactor.counters.retryCount == UInt64(index) + 1)
        }
        faults.add(.fail(errno: EAGAIN), to: .flush)
        harness.reactor.submit(.flush(token: 0), to: device, token: 2)
        #expect(try harness.wait(token: 2).errno == EAGAIN)
    }

    @Test(
        "A write that finds no space waits for some until it is told not to, a flush never",
        arguments: engines
    )
    func fault_noSpace_waits(_ engine: EngineChoice) throws {
        let faults = FaultPlan()
        let harness = try Harness(engine)
        let device = try harness.device(byteCount: 1 << 20, faults: faults, waitsForSpace: true)
        let region = harness.region(byteCount: 4096)
        func submit(_ kind: DeviceRequest.Kind) {
            let request = DeviceRequest(kind: kind, offset: 0, region: region, token: 0)
            harness.reactor.submit(request, to: device, token: 1)
        }
        for (index, errno) in [ENOSPC, EDQUOT].enumerated() {
            faults.add(.fail(errno: errno), to: .writeDurable)
            submit(.writeDurable)
            #expect(try harness.wait(token: 1).result == 4096)
            #expect(harness.reactor.spaceWaitCount(device) == UInt64(index) + 1)
        }
        faults.add(.fail(errno: ENOSPC), to: .flush)
        harness.reactor.submit(.flush(token: 0), to: device, token: 2)
        #expect(try harness.wait(token: 2).errno == ENOSPC)
        // For as long as that lasts.
        faults.add(.fail(errno: ENOSPC), to: .writeDurable, count: 3)
        submit(.writeDurable)
        #expect(try harness.wait(token: 1).result == 4096)
        #expect(harness.reactor.spaceWaitCount(device) == 5)
        faults.add(.fail(errno: ENOSPC), to: .write, count: .max)
        submit(.write)
        #expect(harness.reactor.spaceWaitCount(device) == 6)
        harness.reactor.stopWaitingForSpace(device)
        #expect(try harness.wait(token: 1).errno == ENOSPC)
        submit(.write)
        #expect(try harness.wait(token: 1).errno == ENOSPC)
        #expect(harness.reactor.spaceWaitCount(device) == 6)
    }

    @Test(
        "A delayed operation is overtaken, comes when it is due or told to, and can be cancelled",
        arguments: engines
    )
    func fault_delay_isOvertaken(_ engine: EngineChoice) throws {
        let faults = FaultPlan()
        faults.add(.delay(nanoseconds: 20_000_000), to: .write)
        let harness = try Harness(engine)
        let device = try harness.device(byteCount: 1 << 20, faults: faults)
        let region = harness.region(byteCount: 4096)
        let write = DeviceRequest(kind: .write, offset: 0, region: region, token: 0)
        let submitted = MonotonicClock.now()
        harness.reactor.submit(write, to: device, token: 1)
        harness.reactor.submit(write, to: device, token: 2)
        #expect(try harness.wait(2).map(\.token) == [2, 1])
        #expect(submitted.advanced(byNanoseconds: 20_000_000) <= harness.reactor.now)
        faults.removeAll()
        for (token, isCancelled) in [(3, true), (4, false)] as [(UInt64, Bool)] {
            faults.add(.delay(nanoseconds: 3_600_000_000_000), to: .write)
            harness.reactor.submit(write, to: device, token: token)
            if isCancelled { harness.reactor.cancel(token: token) } else { faults.removeAll() }
            let result = try harness.wait(token: token).result
            #expect(result == (isCancelled ? -ECANCELED : 4096))
            faults.removeAll()
        }
    }

    @Test("A detached device is closed and its place used again", arguments: engines)
    func detach_then_attach(_ engine: EngineChoice) throws {
        let harness = try Harness(engine)
        let path = harness.path()
        try Device.create(path: path, byteCount: 1 << 20)
        var options = DeviceOptions()
        options.allowsBuffered = true
        let region = harness.region(byteCount: 4096)
        for round in 0..<40 {
            // Fails as locked if the last round left the device open.
            let device = harness.reactor.attach(try Device.open(path: path, options: options))
            harness.reactor.submit(
                DeviceRequest(kind: .read, offset: 0, region: region, token: 0),
                to: device,
                token: UInt64(round)
            )
            #expect(try harness.wait(token: UInt64(round)).result == 4096)
            harness.reactor.detach(device)
        }
    }
}
