internal import BlockCore
internal import CLinux

/// The io_uring engine: turns operations into submissions, and completions into results.
///
/// Decides nothing about operations; ``Reactor`` does. It never loses a completion: the
/// completion queue has twice the entries of operations in flight (an operation and its
/// cancellation), and the kernel keeps what does not fit (`IORING_FEAT_NODROP`).
@safe
final class UringEngine {
    private let ring: UnsafeMutablePointer<io_uring>
    private let eventCounter: UnsafeMutablePointer<UInt64>
    private let registeredFileCount: Int
    private var isBound = false
    private var bufferPieces: [BufferPiece] = []
    /// Submissions queued and not yet given to the kernel.
    private(set) var unsubmittedCount = 0
    let features: [String]

    private struct BufferPiece: BitwiseCopyable {
        var start: UInt
        var end: UInt
    }

    /// The kernel's limit for one registered buffer.
    private static var bufferByteCountMax: Int { 1 << 30 }

    // MARK: - Start and end

    /// Sets a ring up, with as much of what the reactor likes as the kernel has.
    ///
    /// The ring starts disabled; the thread that turns it first enables it and thereby becomes
    /// its only submitter.
    static func make(options: ReactorOptions) throws(ReactorError) -> UringEngine {
        guard options.uringRefusalErrno == 0 else {
            throw .uringUnavailable(errno: options.uringRefusalErrno)
        }
        let ring = UnsafeMutablePointer<io_uring>.allocate(capacity: 1)
        // SAFETY: the ring is allocated for one element here and freed in deinit.
        unsafe ring.initialize(to: io_uring())
        let coop = UInt32(cbl_uring_coop_flags)
        let attempts: [(flags: UInt32, features: [String])] = [
            (
                UInt32(cbl_uring_base_flags) | coop,
                ["SINGLE_ISSUER", "DEFER_TASKRUN", "COOP_TASKRUN"]
            ),
            (coop, ["COOP_TASKRUN"]),
            (0, []),
        ]
        var result: Int32 = -EINVAL
        var features: [String] = []
        for attempt in attempts where result == -EINVAL {
            features = attempt.features
            // SAFETY: the ring's memory lives as long as the engine.
            result = unsafe cbl_uring_setup(
                ring,
                UInt32(clamping: options.submissionCountMax),
                // Never fewer than submissions: the kernel refuses that.
                UInt32(clamping: max(options.operationCountMax, options.submissionCountMax) * 2),
                attempt.flags | UInt32(cbl_uring_disabled_flag)
            )
        }
        if result == 0 {
            if unsafe cbl_uring_has_needed_features(ring) && cbl_uring_has_operations(ring) {
                return unsafe UringEngine(ring: ring, features: features, options: options)
            }
            unsafe io_uring_queue_exit(ring)
            result = -ENOSYS
        }
        unsafe ring.deallocate()
        throw .uringUnavailable(errno: 0 - result)
    }

    private init(
        ring: UnsafeMutablePointer<io_uring>,
        features: [String],
        options: ReactorOptions
    ) {
        unsafe self.ring = unsafe ring
        unsafe eventCounter = .allocate(capacity: 1)
        unsafe eventCounter.initialize(to: 0)
        var features = features
        let hasFiles =
            unsafe io_uring_register_files_sparse(ring, UInt32(options.deviceCountMax)) == 0
        registeredFileCount = hasFiles ? options.deviceCountMax : 0
        if hasFiles { features.append("registered files") }
        self.features = features
    }

    deinit {
        // SAFETY: the reactor has drained the ring; nothing in the kernel points here any more.
        unsafe io_uring_queue_exit(ring)
        unsafe ring.deallocate()
        unsafe eventCounter.deallocate()
    }

    /// Makes the calling thread the ring's only submitter.
    private func bind() {
        let result = unsafe cbl_uring_enable(ring)
        precondition(result == 0, "the kernel refused to enable the ring")
        _ = unsafe io_uring_register_ring_fd(ring)
        isBound = true
    }

    // MARK: - Registration

    /// Pins arenas as fixed buffers.
    ///
    /// - Returns: 0, or the positive errno of the refusal; then none is registered.
    func registerBuffers(_ arenas: [MemoryArena]) -> Int32 {
        var vector: [ByteRegion] = []
        var pieces: [BufferPiece] = []
        for arena in arenas {
            var offset = 0
            while offset < arena.region.byteCount {
                let byteCount = min(arena.region.byteCount - offset, Self.bufferByteCountMax)
                let piece = arena.region.slice(offset, byteCount)
                let start = unsafe UInt(bitPattern: piece.address)
                vector.append(piece)
                pieces.append(BufferPiece(start: start, end: start + UInt(byteCount)))
                offset += byteCount
            }
        }
        let count = UInt32(vector.count)
        // SAFETY: a region is laid out as an iovec; the array is borrowed for the call.
        let result = unsafe vector.withUnsafeBytes { bytes in
            unsafe cbl_uring_register_buffers(ring, bytes.baseAddress, count)
        }
        guard result == 0 else { return 0 - result }
        bufferPieces = pieces
        return 0
    }

    /// The registered buffer that holds all of `region`, or -1.
    private func bufferIndex(_ region: ByteRegion) -> Int32 {
        let start = unsafe UInt(bitPattern: region.address)
        let end = start + UInt(region.byteCount)
        for index in 0..<bufferPieces.count
        where bufferPieces[index].start <= start && end <= bufferPieces[index].end {
            return Int32(index)
        }
        return -1
    }

    /// Gives a device's descriptor a fixed place; -1 takes it back.
    ///
    /// - Returns: Whether operations may name the device by its index.
    func registerFile(_ index: Int, descriptor: Int32) -> Bool {
        guard index < registeredFileCount else { return false }
        var descriptor = descriptor
        // SAFETY: one descriptor, borrowed for the call.
        return unsafe io_uring_register_files_update(ring, UInt32(index), &descriptor, 1) == 1
    }

    // MARK: - Submission

    /// A free submission entry; makes room by submitting when there is none.
    @unsafe
    private func entry() -> UnsafeMutablePointer<io_uring_sqe> {
        while true {
            if let entry = unsafe io_uring_get_sqe(ring) {
                unsubmittedCount += 1
                return unsafe entry
            }
            // The kernel takes entries in order and at once; it refuses only while completions
            // wait to be taken, which running them (get_events) ends, because they all fit.
            submitAndGetEvents()
        }
    }

    /// Queues the next step of an operation: what is left of it.
    func submit(_ operation: Operation, slot: Int, table: OperationTable, isFixed: Bool) {
        let entry = unsafe entry()
        let descriptor = isFixed ? operation.device : operation.descriptor
        switch operation.kind {
        case .read, .write, .writeDurable:
            let rest = operation.region.suffix(from: Int(operation.doneByteCount))
            let byteCount = min(UInt64(rest.byteCount), operation.firstByteCountMax)
            // SAFETY: the region's arena outlives the operation; see ByteRegion.
            unsafe cbl_sqe_transfer(
                entry,
                operation.kind != .read,
                operation.kind == .writeDurable,
                descriptor,
                rest.address,
                UInt32(byteCount),
                operation.offset + operation.doneByteCount,
                bufferIndex(rest)
            )
        case .flush: unsafe cbl_sqe_flush(entry, descriptor)
        case .discard:
            unsafe cbl_sqe_fallocate(
                entry,
                descriptor,
                cbl_punch_hole_mode(),
                operation.offset,
                operation.byteCount
            )
        case .accept: unsafe cbl_sqe_accept(entry, descriptor)
        case .receive:
            unsafe cbl_sqe_receive(
                entry,
                descriptor,
                operation.region.address,
                UInt32(operation.region.byteCount)
            )
        case .send:
            // SAFETY: message and vector belong to the slot until its completion.
            let message = unsafe table.message(slot)
            let first = unsafe table.vector(slot) + Int(operation.vectorIndex)
            unsafe cbl_message_set(
                message,
                first,
                operation.vectorCount - operation.vectorIndex
            )
            unsafe cbl_sqe_send_message(entry, descriptor, message)
        case .free: preconditionFailure("submission of a free slot")
        }
        unsafe cbl_sqe_mark(entry, table.userData(slot), isFixed)
    }

    /// Asks the kernel to end an operation early.
    func cancel(_ userData: UInt64) {
        let entry = unsafe entry()
        unsafe cbl_sqe_cancel(entry, userData)
        unsafe cbl_sqe_mark(entry, UserData(.cancel).rawValue, false)
    }

    /// Queues a read of the waker's event, which completes when somebody wakes us.
    func armEvent(_ descriptor: Int32) {
        let entry = unsafe entry()
        // SAFETY: the counter lives as long as the engine.
        unsafe cbl_sqe_event(entry, descriptor, eventCounter)
        unsafe cbl_sqe_mark(entry, UserData(.wake).rawValue, false)
    }

    // MARK: - Completion

    /// Whether a completion can be taken without a system call.
    var hasCompletion: Bool { unsafe cbl_uring_ready_count(ring) > 0 }

    /// Whether entering the kernel would bring something forward.
    var needsEnter: Bool { unsafe unsubmittedCount > 0 || cbl_uring_needs_enter(ring) }

    /// Takes the oldest completion.
    func pop() -> (userData: UserData, result: Int32)? {
        var userData = UserData(rawValue: 0)
        var result: Int32 = 0
        // SAFETY: both are borrowed for the call.
        guard unsafe cbl_uring_pop(ring, &userData.rawValue, &result) else { return nil }
        return (userData, result)
    }

    /// Submits what is queued, and nothing else.
    func submitQueued() {
        guard unsubmittedCount > 0 else { return }
        if !isBound { bind() }
        check(unsafe io_uring_submit(ring))
    }

    /// Submits what is queued and runs what the kernel has deferred, without waiting.
    func submitAndGetEvents() {
        if !isBound { bind() }
        check(unsafe io_uring_submit_and_get_events(ring))
    }

    /// Submits what is queued and waits for a completion, at most `nanoseconds` (< 0: for ever).
    func submitAndWait(nanoseconds: Int64) {
        if !isBound { bind() }
        check(unsafe cbl_uring_submit_and_wait(ring, nanoseconds))
    }

    private func check(_ result: Int32) {
        unsubmittedCount = Int(unsafe io_uring_sq_ready(ring))
        switch result {
        // Time is up, a signal came, or the kernel is short of memory or of room for
        // completions: what was not submitted goes with the next turn.
        case 0..., -ETIME, -EINTR, -EAGAIN, -EBUSY: return
        case -EEXIST: preconditionFailure("a reactor belongs to the thread that turned it first")
        default: preconditionFailure("io_uring_enter refused a well-formed call")
        }
    }
}
