internal import BlockCore
internal import CLinux

/// The second engine: libaio for devices, epoll for everything else.
///
/// For kernels and containers where io_uring is disabled. Device transfers are batched and
/// submitted once a turn. Buffered devices block in the submission, and discards always do;
/// libaio has nothing better.
@safe
final class AioEngine {
    private var context: io_context_t?
    private let controlBlocks: UnsafeMutablePointer<iocb>
    private let batch: UnsafeMutablePointer<UnsafeMutablePointer<iocb>?>
    private let batchSlots: FixedArray<Int32>
    private let batchCountMax: Int
    private var batchCount = 0
    private let waiting: FixedRing<Int32>
    private let transferEvents: UnsafeMutablePointer<io_event>
    private let readyEvents: UnsafeMutablePointer<epoll_event>
    private let epollDescriptor: Int32
    private let transferDescriptor: Int32
    private let depthMax: Int
    private var inFlightCount = 0
    let features: [String]

    private static var eventCountMax: Int { 64 }
    private static var transferEventCountMax: Int { 256 }
    /// Below this the engine would be useless; a system this short of aio contexts is reported.
    private static var depthMin: Int { 16 }

    /// What became ready.
    struct Readiness: BitwiseCopyable {
        var descriptor: Int32
        var canRead: Bool
        var canWrite: Bool
    }

    // MARK: - Start and end

    /// Sets up an aio context, as deep as the system still has room for, and an epoll set.
    static func make(
        options: ReactorOptions,
        wakeDescriptor: Int32
    ) throws(ReactorError) -> AioEngine {
        var depth = max(options.aioDepthMax, depthMin)
        var context: io_context_t?
        // SAFETY: the kernel writes the context through the pointer during the call only.
        var result = unsafe cbl_aio_setup(UInt32(depth), &context)
        while result == -EAGAIN && depth > depthMin {
            depth = max(depth / 2, depthMin)
            result = unsafe cbl_aio_setup(UInt32(depth), &context)
        }
        guard result == 0 else { throw .aioUnavailable(errno: 0 - result) }
        let epoll = cbl_epoll_create()
        let event = cbl_event_create(true)
        if epoll >= 0 && event >= 0 {
            result = cbl_epoll_watch_input(epoll, event)
            if result == 0 { result = cbl_epoll_watch_input(epoll, wakeDescriptor) }
        } else {
            result = min(epoll, event)
        }
        guard result == 0 else {
            unsafe cbl_aio_destroy(context)
            _ = cbl_close(epoll)
            _ = cbl_close(event)
            throw .aioUnavailable(errno: 0 - result)
        }
        return unsafe AioEngine(
            context: context,
            depth: depth,
            epollDescriptor: epoll,
            transferDescriptor: event,
            options: options
        )
    }

    private init(
        context: io_context_t?,
        depth: Int,
        epollDescriptor: Int32,
        transferDescriptor: Int32,
        options: ReactorOptions
    ) {
        // SAFETY: the context and the arrays belong to the engine until deinit, which frees them
        // after the kernel has given every control block back; capacities bound all indices.
        unsafe self.context = unsafe context
        depthMax = depth
        self.epollDescriptor = epollDescriptor
        self.transferDescriptor = transferDescriptor
        let count = options.operationCountMax
        batchCountMax = max(options.submissionCountMax, 1)
        unsafe controlBlocks = .allocate(capacity: count)
        unsafe controlBlocks.initialize(repeating: iocb(), count: count)
        unsafe batch = .allocate(capacity: batchCountMax)
        unsafe batch.initialize(repeating: nil, count: batchCountMax)
        batchSlots = FixedArray(repeating: -1, count: batchCountMax)
        waiting = FixedRing(capacityMin: count)
        unsafe transferEvents = .allocate(capacity: Self.transferEventCountMax)
        unsafe transferEvents.initialize(
            repeating: io_event(),
            count: Self.transferEventCountMax
        )
        unsafe readyEvents = .allocate(capacity: Self.eventCountMax)
        unsafe readyEvents.initialize(repeating: epoll_event(), count: Self.eventCountMax)
        features = ["libaio at depth \(depth)", "edge-triggered epoll"]
    }

    deinit {
        // SAFETY: io_destroy waits for what is in flight; nothing points here afterwards.
        unsafe cbl_aio_destroy(context)
        _ = cbl_close(epollDescriptor)
        _ = cbl_close(transferDescriptor)
        unsafe controlBlocks.deallocate()
        unsafe batch.deallocate()
        unsafe transferEvents.deallocate()
        unsafe readyEvents.deallocate()
    }

    // MARK: - Devices

    /// Queues the next step of a transfer or a flush; ``submitBatch()`` hands it to the kernel.
    func queue(_ operation: Operation, slot: Int, table: OperationTable) {
        let block = unsafe controlBlocks + slot
        if operation.kind == .flush {
            unsafe cbl_iocb_flush(block, operation.descriptor)
        } else {
            let rest = operation.region.suffix(from: Int(operation.doneByteCount))
            // SAFETY: the region's arena outlives the operation; the block belongs to the slot.
            unsafe cbl_iocb_transfer(
                block,
                operation.kind != .read,
                operation.kind == .writeDurable,
                operation.descriptor,
                rest.address,
                min(UInt64(rest.byteCount), operation.firstByteCountMax),
                operation.offset + operation.doneByteCount
            )
        }
        unsafe cbl_iocb_mark(block, table.userData(slot), transferDescriptor)
        waiting.append(Int32(slot))
    }

    /// What became of an attempt to submit.
    enum Submission {
        /// Nothing is left, or the kernel wants to finish something first.
        case done
        /// The kernel refused this operation with a negated errno; call again for the rest.
        case refused(slot: Int, result: Int32)
    }

    /// Hands queued transfers to the kernel.
    func submitBatch() -> Submission {
        while true {
            while batchCount < min(batchCountMax, depthMax - inFlightCount),
                let slot = waiting.popFirst()
            {
                unsafe batch[batchCount] = unsafe controlBlocks + Int(slot)
                batchSlots[batchCount] = slot
                batchCount += 1
            }
            let count = min(batchCount, depthMax - inFlightCount)
            guard count > 0 else { return .done }
            // SAFETY: the first `count` pointers are control blocks of operations in flight.
            let result = unsafe cbl_aio_submit(context, UInt32(count), batch)
            if result > 0 {
                inFlightCount += Int(result)
                removeFromBatch(Int(result))
            } else if result == 0 || result == -EAGAIN || result == -EINTR {
                return .done
            } else {
                let slot = Int(batchSlots[0])
                removeFromBatch(1)
                return .refused(slot: slot, result: result)
            }
        }
    }

    private func removeFromBatch(_ count: Int) {
        for index in count..<max(batchCount, count) {
            unsafe batch[index - count] = unsafe batch[index]
            batchSlots[index - count] = batchSlots[index]
        }
        batchCount -= count
    }

    /// Whether transfers wait that nothing in flight will make room for.
    ///
    /// The system is short of memory or aio slots; the reactor tries again soon instead of
    /// sleeping.
    var mustRetry: Bool { batchCount > 0 && inFlightCount == 0 }

    /// Fetches finished transfers without waiting.
    func reap() -> Int {
        // SAFETY: the array has room for that many.
        let count = unsafe cbl_aio_reap(
            context,
            UInt32(Self.transferEventCountMax),
            transferEvents
        )
        guard count > 0 else { return 0 }
        inFlightCount -= Int(count)
        return Int(count)
    }

    /// A finished transfer of the last ``reap()``.
    func finished(_ index: Int) -> (userData: UserData, result: Int32) {
        precondition(index >= 0 && index < Self.transferEventCountMax, "event index")
        // SAFETY: bounds checked; filled by `reap`.
        let event = unsafe transferEvents + index
        return unsafe (
            UserData(rawValue: cbl_aio_user_data(event)),
            Int32(truncatingIfNeeded: cbl_aio_result(event))
        )
    }

    // MARK: - Readiness

    /// Watches a descriptor from now until it is closed.
    func watch(_ descriptor: Int32) -> Int32 { cbl_epoll_watch(epollDescriptor, descriptor) }

    /// Waits for readiness or finished transfers, at most `nanoseconds` (< 0: for ever).
    func wait(nanoseconds: Int64) -> Int {
        // SAFETY: the array has room for that many.
        let count = unsafe cbl_epoll_wait(
            epollDescriptor,
            readyEvents,
            Int32(Self.eventCountMax),
            nanoseconds
        )
        precondition(count >= 0 || count == -EINTR, "epoll_wait refused a well-formed call")
        return max(0, Int(count))
    }

    /// An event of the last ``wait(nanoseconds:)``; nil when it was not about a socket.
    func readiness(_ index: Int, wakeDescriptor: Int32) -> Readiness? {
        precondition(index >= 0 && index < Self.eventCountMax, "event index")
        // SAFETY: bounds checked; filled by `wait`.
        let event = unsafe readyEvents + index
        let descriptor = unsafe cbl_epoll_descriptor(event)
        if descriptor == transferDescriptor || descriptor == wakeDescriptor {
            _ = cbl_event_consume(descriptor)
            return nil
        }
        let events = unsafe event.pointee.events
        let bothWays = EPOLLERR.rawValue | EPOLLHUP.rawValue
        return Readiness(
            descriptor: descriptor,
            canRead: events & (EPOLLIN.rawValue | EPOLLRDHUP.rawValue | bothWays) != 0,
            canWrite: events & (EPOLLOUT.rawValue | bothWays) != 0
        )
    }
}
