// The reactor: one thread, one ring, a fixed table of operations.
//
// Invariants
//   operations in flight + completions not yet taken ≤ operationCountMax
//   memory that the kernel may touch belongs to an operation until its last completion
//   a descriptor is closed only when no operation on it is in flight
// Faults: the kernel may cut transfers short, refuse memory, deliver a completion after a
// cancellation. The peer may do anything; only what the owner does wrong traps.
// Not verified here: that the owner keeps arenas and devices' peers honest; see ByteRegion.

public import BlockCore
internal import CLinux

/// Executes the I/O of one thread: devices, sockets, deadlines and messages.
///
/// Pull-based: the owner submits operations, each with a token, then calls ``turn(deadline:)``
/// and takes completions. Nothing is called back, locked or, after start, allocated.
///
/// It may be created and set up on any thread; from the first turn on it belongs to the thread
/// that made that turn.
public final class Reactor {
    /// Regions of one send, at most.
    public static var sendRegionCountMax: Int { 64 }
    /// Bytes of one transfer, receive or send, at most (1 GiB).
    public static var transferByteCountMax: Int { 1 << 30 }

    /// Wakes this reactor from other threads; give it to its mailboxes.
    public let waker: Waker
    /// What was found and decided at start.
    public internal(set) var report: EngineReport
    /// The monotonic clock, sampled at the end of every turn.
    public private(set) var now: Instant
    /// Counts since start.
    public internal(set) var counters = ReactorCounters()

    let uring: UringEngine?
    let aio: AioEngine?
    let table: OperationTable
    let descriptors: FixedArray<DescriptorEntry>
    let attached: FixedArray<AttachedDevice>
    var devices: [Device?]
    private var arenas: [MemoryArena] = []
    private var hasRegisteredArenas = false

    private struct ReadyCompletion: BitwiseCopyable {
        var completion: Completion
        var parkedSlot: Int32
        var parkedGeneration: UInt32
    }

    private let ready: FixedRing<ReadyCompletion>
    private var takeableCount = 0
    private let operationCountMax: Int
    let delayedSlots: FixedArray<Int32>
    var delayedCount = 0
    private var isEventArmed = false
    private let spinNanoseconds: UInt64
    private var spinCredit = Reactor.spinCreditMax
    /// Operations of all devices, queued or in flight.
    var deviceOperationCount = 0
    /// A device operation was queued since the kernel was last given what is queued.
    private var hasQueuedDeviceOperation = false
    /// How many misses in a row a run of hits pays for.
    private static var spinCreditMax: Int { 16 }
    /// So rare that the tries cost little: 20 us in 256 turns of 5 to 10 us each is about 1 %.
    private static var spinProbeTurnCount: UInt64 { 256 }

    // MARK: - Start and end

    /// Probes the kernel and sets an engine up.
    ///
    /// - Throws: ``ReactorError`` when the engine asked for, or both, cannot be had.
    public init(options: ReactorOptions = ReactorOptions()) throws(ReactorError) {
        precondition(
            options.operationCountMax <= ReactorOptions.operationCountLimit,
            "operationCountMax: 32,768 at most"
        )
        let event = cbl_event_create(options.engine == .aio)
        guard event >= 0 else { throw .aioUnavailable(errno: 0 - event) }
        waker = Waker(eventDescriptor: event)
        var refusal: ReactorError?
        var ring: UringEngine?
        if options.engine != .aio {
            do throws(ReactorError) {
                ring = try UringEngine.make(options: options)
            } catch {
                guard options.engine == .auto else { throw error }
                refusal = error
            }
        }
        uring = ring
        aio = ring == nil ? try AioEngine.make(options: options, wakeDescriptor: event) : nil
        report = Self.report(options: options, refusal: refusal, uring: uring, aio: aio)
        operationCountMax = options.operationCountMax
        table = OperationTable(count: options.operationCountMax)
        descriptors = FixedArray(
            repeating: DescriptorEntry(),
            count: options.descriptorCountMax
        )
        attached = FixedArray(repeating: AttachedDevice(), count: options.deviceCountMax)
        devices = [Device?](repeating: nil, count: options.deviceCountMax)
        // Twice, because a close and the last of an accept complete beyond the operations.
        ready = FixedRing(capacityMin: options.operationCountMax * 2)
        delayedSlots = FixedArray(repeating: -1, count: options.operationCountMax)
        spinNanoseconds = options.spinNanoseconds
        now = MonotonicClock.now()
    }

    deinit {
        // The kernel must not write into memory that somebody else has by now.
        if table.inFlightCount > 0 { shutDown() }
    }

    private static func report(
        options: ReactorOptions,
        refusal: ReactorError?,
        uring: UringEngine?,
        aio: AioEngine?
    ) -> EngineReport {
        if let uring {
            let reason = options.engine == .uring ? "asked for" : "the probe found it whole"
            return EngineReport(engine: .uring, reason: reason, features: uring.features)
        }
        var reason = "asked for"
        if case .uringUnavailable(let errno) = refusal {
            reason = "io_uring is not usable here (\(errorText(errno)))"
        }
        return EngineReport(engine: .aio, reason: reason, features: aio?.features ?? [])
    }

    /// Registers memory with the kernel, so that transfers to and from it need not pin it.
    ///
    /// Once, at start. Where the kernel refuses (RLIMIT_MEMLOCK, whose soft limit is raised to
    /// the hard one first), the reactor works without and says so in ``report``.
    public func registerBuffers(_ arenas: [MemoryArena]) {
        precondition(!hasRegisteredArenas, "buffers are registered once")
        hasRegisteredArenas = true
        self.arenas = arenas
        guard let uring else {
            report.limitations.append("registered buffers (libaio has none)")
            return
        }
        let byteCount = arenas.reduce(0) { $0 + $1.region.byteCount }
        let limit = cbl_raise_locked_memory_limit()
        let errno = uring.registerBuffers(arenas)
        if errno == 0 {
            report.features.append("registered buffers")
        } else {
            let allowed = limit == .max ? "no limit" : "limit \(limit >> 20) MiB"
            report.limitations.append(
                "registered buffers (\(byteCount >> 20) MiB: \(errorText(errno)); "
                    + "RLIMIT_MEMLOCK: \(allowed))"
            )
        }
    }

    /// Nanoseconds that the kernel has to give back what was cancelled.
    private static var shutDownNanoseconds: UInt64 { 5_000_000_000 }

    /// Cancels everything and waits until nothing is in flight, for at most five seconds.
    ///
    /// For the end of a loop: afterwards the reactor can go. Sockets stay open; what was not
    /// taken of the completions is lost.
    public func shutDown() {
        let limit = MonotonicClock.now().advanced(byNanoseconds: Self.shutDownNanoseconds)
        while table.inFlightCount > 0 && MonotonicClock.now() < limit {
            for slot in 0..<operationCountMax
            where table.slots[slot].kind != .free && !table.slots[slot].isCancelled {
                cancelSlot(slot)
            }
            _ = turn(deadline: MonotonicClock.now().advanced(byNanoseconds: 10_000_000))
            while nextCompletion() != nil {}
        }
    }

    // MARK: - Operations

    /// How many operations can still be submitted before completions are taken.
    public var freeOperationCount: Int {
        max(0, operationCountMax - table.inFlightCount - ready.count)
    }

    /// Checks that there is room for one more operation.
    func admit() {
        precondition(freeOperationCount > 0, "too many operations: raise operationCountMax")
    }

    /// Queues a completion for the owner.
    func complete(_ completion: Completion, parkedSlot: Int32 = -1, generation: UInt32 = 0) {
        ready.append(
            ReadyCompletion(
                completion: completion,
                parkedSlot: parkedSlot,
                parkedGeneration: generation
            )
        )
    }

    /// Completes an operation for good and frees its slot.
    func finish(_ slot: Int, _ result: Int32) {
        let operation = table.slots[slot]
        complete(
            Completion(
                token: operation.token,
                requestToken: operation.requestToken,
                result: result
            )
        )
        if operation.device >= 0 {
            attached[Int(operation.device)].operationCount -= 1
            deviceOperationCount -= 1
            table.free(slot)
        } else {
            unlink(slot)
            table.free(slot)
            closeIfIdle(operation.descriptor)
        }
    }

    /// Ends operations with this token early where that is possible.
    ///
    /// Each still completes, with `-ECANCELED` or with what it came to; device transfers that
    /// the kernel has begun run to their end.
    ///
    /// - Complexity: O(operationCountMax): for the rare case, not for every request.
    public func cancel(token: UInt64) {
        for slot in 0..<operationCountMax
        where table.slots[slot].kind != .free && table.slots[slot].token == token {
            cancelSlot(slot)
        }
    }

    func cancelSlot(_ slot: Int) {
        let operation = table.slots[slot]
        guard !operation.isCancelled else { return }
        table.slots[slot].isCancelled = true
        switch operation.state {
        case .parked: finish(slot, -ECANCELED)
        case .delayed:
            removeDelayed(slot)
            finish(slot, -ECANCELED)
        case .inFlight:
            if let uring {
                uring.cancel(table.userData(slot))
            } else if operation.device < 0 {
                finish(slot, -ECANCELED)
            }
        }
    }

    // MARK: - The loop

    /// Submits, waits and gathers completions.
    ///
    /// Returns at once when completions are at hand or somebody called ``Waker/wake()``;
    /// otherwise when the first of these happens, or the deadline has come. It may return early
    /// with nothing. Look into the mailboxes after every turn.
    ///
    /// - Parameter deadline: nil waits for ever; the past does not wait.
    /// - Returns: How many completions ``nextCompletion()`` now yields.
    public func turn(deadline: Instant?) -> Int {
        counters.turnCount &+= 1
        hasQueuedDeviceOperation = false
        if delayedCount > 0 { startDelayed() }
        let wait = ready.isEmpty && !waker.isNotified ? waitNanoseconds(deadline) : 0
        if let uring {
            turnUring(uring, wait: wait)
        } else if let aio {
            turnAio(aio, wait: wait)
        }
        waker.stayAwake()
        now = MonotonicClock.now()
        takeableCount = ready.count
        return takeableCount
    }

    /// Hands queued device operations to the kernel now rather than at the next turn: worth a
    /// system call when the owner has something long to do before that.
    ///
    /// Does nothing when only sockets have something queued: no device would work the sooner.
    public func submitDeviceOperations() {
        guard hasQueuedDeviceOperation else { return }
        hasQueuedDeviceOperation = false
        counters.earlySubmitCount &+= 1
        uring?.submitQueued()
        if let aio { submitAio(aio) }
    }

    /// Takes the next completion of this turn; nil when all are taken.
    ///
    /// What completes while the owner handles these (a send that goes out at once) comes in the
    /// next turn, so a turn always ends.
    public func nextCompletion() -> Completion? {
        guard takeableCount > 0, let next = ready.popFirst() else { return nil }
        takeableCount -= 1
        counters.completionCount &+= 1
        if next.parkedSlot >= 0 { resumeAccept(Int(next.parkedSlot), next.parkedGeneration) }
        return next.completion
    }

    /// -1 for ever, 0 not at all.
    private func waitNanoseconds(_ deadline: Instant?) -> Int64 {
        var due = deadline
        for index in 0..<delayedCount {
            let delayed = table.slots[Int(delayedSlots[index])].dueNanoseconds
            if delayed < due?.nanoseconds ?? .max { due = Instant(nanoseconds: delayed) }
        }
        guard let due else { return -1 }
        let now = MonotonicClock.now()
        guard now < due else { return 0 }
        return Int64(clamping: due.nanoseconds - now.nanoseconds)
    }

    private func turnUring(_ uring: UringEngine, wait: Int64) {
        if !isEventArmed {
            uring.armEvent(waker.eventDescriptor)
            isEventArmed = true
        }
        if wait != 0 && !uring.hasCompletion && !(spinNanoseconds > 0 && spin(uring, wait)) {
            if waker.trySleep() {
                counters.sleepCount &+= 1
                uring.submitAndWait(nanoseconds: wait)
            } else {
                uring.submitAndGetEvents()
            }
        } else if uring.needsEnter {
            uring.submitAndGetEvents()
        }
        while let (userData, result) = uring.pop() {
            deliver(userData: userData.rawValue, result: result)
        }
    }

    /// Looks for completions for a while before the thread sleeps.
    ///
    /// Only while nothing but clients is waited for, and while it pays: a hit earns two more
    /// tries, a miss costs one, and without credit it tries once in ``spinProbeTurnCount`` turns.
    /// A device's answer seldom comes so soon, and under a deep queue more of them gather while
    /// the thread sleeps; on one core, where the peer cannot run meanwhile, it switches itself
    /// off. Measured: Docs/decisions/0001-io-engines.md.
    ///
    /// - Returns: Whether there is something to do.
    private func spin(_ uring: UringEngine, _ wait: Int64) -> Bool {
        guard deviceOperationCount == 0 else { return false }
        if spinCredit == 0 && counters.turnCount % Self.spinProbeTurnCount != 0 { return false }
        uring.submitAndGetEvents()
        let limit = wait < 0 ? spinNanoseconds : min(spinNanoseconds, UInt64(wait))
        let end = MonotonicClock.now().advanced(byNanoseconds: limit)
        repeat {
            if uring.hasCompletion || uring.needsEnter || waker.isNotified {
                uring.submitAndGetEvents()
                counters.spinHitCount &+= 1
                spinCredit = min(spinCredit + 2, Self.spinCreditMax)
                return true
            }
            for _ in 0..<16 { cbl_cpu_relax() }
        } while MonotonicClock.now() < end
        counters.spinMissCount &+= 1
        spinCredit = max(spinCredit - 1, 0)
        return false
    }

    private func turnAio(_ aio: AioEngine, wait: Int64) {
        submitAio(aio)
        reapAio(aio)
        var wait = ready.isEmpty ? wait : 0
        if aio.mustRetry { wait = wait < 0 ? 1_000_000 : min(wait, 1_000_000) }
        var sleeps = false
        if wait != 0 {
            sleeps = waker.trySleep()
            if sleeps { counters.sleepCount &+= 1 }
        }
        let count = aio.wait(nanoseconds: sleeps ? wait : 0)
        for index in 0..<count {
            if let readiness = aio.readiness(index, wakeDescriptor: waker.eventDescriptor) {
                driveDescriptor(readiness)
            }
        }
        reapAio(aio)
    }

    private func reapAio(_ aio: AioEngine) {
        var count = aio.reap()
        while count > 0 {
            for index in 0..<count {
                let (userData, result) = aio.finished(index)
                deliver(userData: userData.rawValue, result: result)
            }
            count = aio.reap()
        }
    }

    // MARK: - What the kernel gives back

    /// Takes a completion of the kernel; one that names nobody is counted and dropped.
    package func deliver(userData rawValue: UInt64, result: Int32) {
        let userData = UserData(rawValue: rawValue)
        switch userData.kind {
        case .wake: isEventArmed = false
        case .cancel: break
        case .operation:
            let slot = userData.slot
            guard slot < table.slots.count, table.slots[slot].kind != .free,
                table.slots[slot].generation == userData.generation
            else {
                counters.staleCompletionCount &+= 1
                return
            }
            if absorb(slot, result) { start(slot) }
        case nil: counters.staleCompletionCount &+= 1
        }
    }

    /// Books a result to its operation.
    ///
    /// - Returns: Whether the operation goes on and must be started again.
    func absorb(_ slot: Int, _ result: Int32) -> Bool {
        if table.slots[slot].device >= 0 { return absorbDevice(slot, result) }
        return absorbSocket(slot, result)
    }

    /// Gives an operation, or what is left of it, to the engine.
    func start(_ slot: Int) {
        let operation = table.slots[slot]
        if operation.device >= 0 { hasQueuedDeviceOperation = true }
        if let uring {
            let isFixed = operation.device >= 0 && attached[Int(operation.device)].isFixed
            uring.submit(operation, slot: slot, table: table, isFixed: isFixed)
        } else if let aio {
            if operation.device >= 0 {
                startAioDevice(aio, operation, slot)
            } else {
                driveSocket(slot)
            }
        }
    }
}
