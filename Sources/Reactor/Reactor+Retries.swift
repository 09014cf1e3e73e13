// Device operations that are put off: short of means for the moment, short of space for as long as
// that lasts, or held back by a fault plan.

internal import BlockCore
internal import CLinux
internal import StorageIO

extension Reactor {
    // MARK: - Transient errors

    /// Tries of a transfer before the error counts: 10 s.
    static var retryCountMax: UInt16 { 1000 }
    /// Time between them.
    private static var retryNanoseconds: UInt64 { 10_000_000 }

    /// Whether the kernel is only short of memory or requests for the moment.
    ///
    /// The device has not seen the transfer then. A flush that failed is never asked for again,
    /// whatever it says.
    func isTransient(_ result: Int32) -> Bool { result == -EAGAIN || result == -ENOMEM }

    /// - Returns: Whether the transfer will be tried again.
    func retry(_ slot: Int) -> Bool {
        let operation = table.slots[slot]
        guard !operation.isCancelled, operation.retryCount < Self.retryCountMax else {
            return false
        }
        table.slots[slot].retryCount += 1
        counters.retryCount &+= 1
        delay(slot, nanoseconds: Self.retryNanoseconds)
        return true
    }

    // MARK: - Full file systems

    /// Time between tries of a write that waits for space.
    private static var spaceWaitNanoseconds: UInt64 { 250_000_000 }

    func isOutOfSpace(_ result: Int32) -> Bool { result == -ENOSPC || result == -EDQUOT }

    /// - Returns: Whether the write will be tried again: a flush that found no space has lost what
    ///   it was to write, and is not.
    func waitForSpace(_ slot: Int) -> Bool {
        let operation = table.slots[slot]
        let device = Int(operation.device)
        guard attached[device].waitsForSpace, !operation.isCancelled,
            operation.kind == .write || operation.kind == .writeDurable
        else { return false }
        attached[device].spaceWaitCount &+= 1
        table.slots[slot].isWaitingForSpace = true
        delay(slot, nanoseconds: Self.spaceWaitNanoseconds)
        return true
    }

    /// How often a write has found no space and was put off: it grows while one waits.
    public func spaceWaitCount(_ handle: DeviceHandle) -> UInt64 {
        attached[Int(handle.index)].spaceWaitCount
    }

    /// Has writes that wait for space fail from now on, those that wait already among them.
    public func stopWaitingForSpace(_ handle: DeviceHandle) {
        attached[Int(handle.index)].waitsForSpace = false
    }

    // MARK: - Operations put off

    func delay(_ slot: Int, nanoseconds: UInt64) {
        table.slots[slot].state = .delayed
        table.slots[slot].dueNanoseconds = MonotonicClock.now().nanoseconds &+ nanoseconds
        delayedSlots[delayedCount] = Int32(slot)
        delayedCount += 1
    }

    /// Starts the delayed operations that are due, and those whose plan was emptied.
    func startDelayed() {
        let now = MonotonicClock.now().nanoseconds
        var index = 0
        while index < delayedCount {
            let slot = Int(delayedSlots[index])
            let operation = table.slots[slot]
            let device = Int(operation.device)
            let plan = devices[device]?.faults
            guard operation.dueNanoseconds <= now || plan?.isEmpty == true else {
                index += 1
                continue
            }
            delayedCount -= 1
            delayedSlots[index] = delayedSlots[delayedCount]
            table.slots[slot].state = .inFlight
            table.slots[slot].isWaitingForSpace = false
            // A file system stays full: each try is one more that the plan decides about.
            if operation.isWaitingForSpace,
                applyFault(operation.kind == .write ? .write : .writeDurable, slot, device)
            {
                continue
            }
            start(slot)
        }
    }

    func removeDelayed(_ slot: Int) {
        for index in 0..<delayedCount where delayedSlots[index] == Int32(slot) {
            delayedCount -= 1
            delayedSlots[index] = delayedSlots[delayedCount]
            return
        }
    }
}
