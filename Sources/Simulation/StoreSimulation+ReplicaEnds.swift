// Judging what came of requests on replicas' volumes, and what is left of them after a crash.

import BlockCore
import LogStore

extension StoreSimulation {
    // MARK: - Ends

    /// Takes the end of a request on a replica's volume.
    func endReplica(_ completion: StoreCompletion) {
        guard let request = replicas.requests.removeValue(forKey: completion.token) else {
            fail("a completion nobody asked for: token \(completion.token)")
            return
        }
        replicas.freeBuffers.append(request.buffer)
        replicas.lastStatus = completion.status
        replicas.lastByteCount = completion.byteCount
        trace.note(12, completion.token, UInt64(completion.status.rawValue)) {
            "\(driver.nowNanoseconds) replica \(request.volume.id) "
                + "[\(completion.token - Replicas.tokenBase)] \(completion.status)"
        }
        defer { fold(request.volume) }
        guard completion.status == .ok else {
            endBadly(request, completion.status)
            return
        }
        switch request.purpose {
        case .change: request.volume.end(isDurable: request.isForced)
        case .flush: request.volume.noteDurable(request.fromIndex)
        case .read, .gatherRead: endReplicaRead(request, completion)
        case .scan, .gatherScan: endReplicaScan(request, completion)
        }
    }

    private func endBadly(_ request: ReplicaRequest, _ status: StoreStatus) {
        let isDamaged = device.errorCount > 0 || device.damageCount > 0
        switch status {
        case .noSpace:
            guard case .change = request.purpose else {
                fail("a request on replica \(request.volume.id) ended with noSpace")
                return
            }
            _ = request.volume.withdraw()
        case .mediaError, .unavailable:
            if !isDamaged { fail("replica \(request.volume.id): \(status) on a good device") }
            // Where the store goes on, the change was refused before it was logged.
            if case .change = request.purpose, case .ready = driver.store.state {
                _ = request.volume.withdraw()
            }
        case .ok, .invalid, .readOnly:
            fail("a request on replica \(request.volume.id) ended with \(status)")
        }
    }

    /// What a block holds: the operation that wrote it, 0 for zeroes; nil when it is neither.
    private func operation(_ region: ByteRegion, _ index: Int, _ request: ReplicaRequest) -> UInt32?
    {
        guard !region.isEmpty else { return 0 }
        let block = request.blocks.lowerBound + UInt64(index)
        var found: UInt32?
        for sector in 0..<8 {
            let content = SectorStamp.identify(
                region,
                at: index * 4096 + sector * 512,
                sector: block * 8 + UInt64(sector),
                run: scenario.seed ^ request.volume.id
            )
            let operation: UInt32
            switch content {
            case .zero: operation = 0
            case .operation(let writer): operation = writer
            case .misplaced, .torn, .foreign:
                fail("replica \(request.volume.id) block \(block): \(content)")
                return nil
            }
            guard found == nil || found == operation else {
                fail("replica \(request.volume.id) block \(block) is of two writes")
                return nil
            }
            found = operation
        }
        return found
    }

    private func endReplicaRead(_ request: ReplicaRequest, _ completion: StoreCompletion) {
        var atLeast: UInt64 = 0
        var atMost: UInt64 = 0
        for index in 0..<request.blocks.count {
            let block = request.blocks.lowerBound + UInt64(index)
            guard let operation = operation(completion.region, index, request) else { return }
            if case .gatherRead = request.purpose {
                replicas.found.operations[block] = operation
                continue
            }
            let copies = request.volume.copies(block, from: request.fromIndex)
            let matching = copies.filter { $0?.operation ?? 0 == operation }
            guard let least = matching.map({ $0?.number ?? 0 }).min() else {
                fail(
                    "replica \(request.volume.id) block \(block) read as #\(operation), "
                        + "instead of \(copies.map { $0?.operation ?? 0 })"
                )
                return
            }
            atLeast = max(atLeast, least)
            atMost = max(atMost, copies.map { $0?.number ?? 0 }.max() ?? 0)
        }
        if case .gatherRead = request.purpose { return }
        guard completion.number >= atLeast, completion.number <= atMost else {
            fail(
                "a read of replica \(request.volume.id) blocks \(request.blocks) says number "
                    + "\(completion.number), instead of \(atLeast) to \(atMost)"
            )
            return
        }
    }

    private func endReplicaScan(_ request: ReplicaRequest, _ completion: StoreCompletion) {
        let place = "a scan of replica \(request.volume.id) blocks \(request.blocks)"
        let coveredCount = completion.byteCount >> 12
        guard coveredCount > 0, coveredCount <= UInt64(request.blocks.count) else {
            fail("\(place) covers \(coveredCount) blocks")
            return
        }
        let covered = request.blocks.lowerBound..<request.blocks.lowerBound + coveredCount
        var numbers: [UInt64: UInt64] = [:]
        var last: UInt64?
        for index in 0..<Int(completion.extentCount) {
            let block = request.region.load(index * 16, as: UInt64.self)
            let number = request.region.load(index * 16 + 8, as: UInt64.self)
            guard covered.contains(block), last ?? 0 <= block, number > request.above else {
                fail("\(place) reports block \(block), number \(number)")
                return
            }
            last = block + 1
            numbers[block] = number
        }
        if case .gatherScan = request.purpose {
            replicas.found.numbers.merge(numbers) { _, new in new }
            return
        }
        let known = request.volume.knownBlocks.filter { covered.contains($0) }
        for block in known.union(numbers.keys).sorted() {
            let copies = request.volume.copies(block, from: request.fromIndex)
            let legal = copies.contains { copy in
                let number = copy?.number ?? 0
                return number > request.above ? numbers[block] == number : numbers[block] == nil
            }
            guard legal else {
                fail(
                    "\(place) above \(request.above) says \(numbers[block] ?? 0) of block "
                        + "\(block), instead of \(copies.map { $0?.number ?? 0 })"
                )
                return
            }
        }
    }

    // MARK: - Crash and restart

    func crashReplicas() {
        replicas.requests = [:]
        replicas.commands = [:]
        replicas.freeBuffers = Array(0..<Replicas.bufferCount)
        for volume in replicas.volumes { volume.crash() }
    }

    func closeReplicas() {
        for volume in replicas.volumes {
            if let handle = volume.handle { driver.store.closeVolume(handle) }
            volume.handle = nil
        }
    }

    /// Closed in order means: as if everything had been flushed.
    func noteReplicasDurable() {
        for volume in replicas.volumes { volume.noteDurable(volume.submittedIndex) }
    }

    /// Takes from a start what became of commands, then reads the volumes and finds the prefix of
    /// its log that each is.
    ///
    /// - Returns: false when a crash came in between.
    func resolveReplicas() -> Bool {
        for volume in replicas.volumes {
            let isThere = driver.store.specification(of: volume.specification.id) != nil
            switch volume.phase {
            case .creating, .deleting: volume.phase = isThere ? .ready : .gone
            case .ready:
                if !isThere { fail("replica \(volume.id) is gone") }
            case .gone, .unknown: break
            }
        }
        return verifyReplicas(isWhole: false)
    }

    /// Reads all replicas' volumes and holds them against the model.
    func verifyReplicas(isWhole: Bool) -> Bool {
        for volume in replicas.volumes where volume.phase == .ready {
            guard failure == nil else { return true }
            guard volume.handle != nil || openReplica(volume) else { return true }
            replicas.found = ReplicaFound()
            let id = volume.specification.id
            replicas.found.position = driver.store.streamPosition(of: id)
            replicas.found.record = driver.store.specification(of: id)?.replica ?? []
            guard gather(volume) else { return false }
            guard volume.phase == .ready, failure == nil else { continue }
            if let problem = volume.settle(replicas.found, isWhole: isWhole) { fail(problem) }
        }
        return true
    }

    /// Scans and reads a volume.
    ///
    /// - Returns: false when a crash came in between; what cannot be read makes the volume unknown.
    private func gather(_ volume: ReplicaVolume) -> Bool {
        let end = volume.specification.byteCount >> 12
        var block: UInt64 = 0
        while block < end {
            guard transfer(volume, .gatherScan, block..<end) else { return false }
            guard volume.phase == .ready, failure == nil else { return true }
            block += replicas.lastByteCount >> 12
        }
        let blocks = volume.knownBlocks.union(replicas.found.numbers.keys).sorted()
        var next = 0
        while next < blocks.count {
            var count = 1
            while next + count < blocks.count, count < 64,
                blocks[next + count] == blocks[next] + UInt64(count)
            {
                count += 1
            }
            let first = blocks[next]
            guard transfer(volume, .gatherRead, first..<first + UInt64(count)) else { return false }
            guard volume.phase == .ready, failure == nil else { return true }
            next += count
        }
        return true
    }

    /// Carries a request out while nothing else is under way; an error is tried again.
    private func transfer(
        _ volume: ReplicaVolume,
        _ purpose: ReplicaRequest.Purpose,
        _ blocks: Range<UInt64>
    ) -> Bool {
        for _ in 0..<4 {
            query(volume, purpose, blocks)
            guard turns({ self.replicas.requests.isEmpty }) else { return false }
            if failure != nil || replicas.lastStatus == .ok { return true }
        }
        volume.phase = .unknown
        return true
    }

    /// Deletes what is left.
    func deleteReplicas() {
        for _ in 0..<3 {
            for volume in replicas.volumes {
                guard volume.phase == .ready || volume.phase == .unknown else { continue }
                delete(volume)
                settle()
            }
            replicas.volumes.removeAll { $0.phase == .gone }
        }
        guard failure == nil, !endedByDamage, device.damageCount == 0 else { return }
        guard replicas.volumes.isEmpty || device.errorCount > 0 else {
            fail("replicas cannot be deleted: \(driver.store.progressDescription)")
            return
        }
    }
}
