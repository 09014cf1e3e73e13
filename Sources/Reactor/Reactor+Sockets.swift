public import BlockCore
internal import CLinux

extension Reactor {
    // MARK: - Operations on sockets

    /// Accepts connections until it is cancelled, its socket is closed, or it fails for good.
    ///
    /// Each connection is a completion whose result is the new socket's descriptor and whose
    /// `isFinal` is false. At most one is delivered per turn and listener, and the next is
    /// accepted only when the owner has taken it: a flood of connections waits in the kernel.
    /// A final `-EMFILE`, `-ENFILE`, `-ENOBUFS` or `-ENOMEM` means that the system ran out of
    /// something; the owner accepts again later. A connection whose descriptor is beyond
    /// `descriptorCountMax` was closed again and is reported as `-EMFILE`, not final.
    public func accept(_ listener: Socket, token: UInt64) {
        guard let slot = beginSocket(.accept, listener, token) else { return }
        start(slot)
    }

    /// Receives what is there, at least one byte.
    ///
    /// Completes with the number of bytes, 0 at the end of the stream, or -errno.
    ///
    /// - Precondition: no other receive is in flight on the socket; the region is not empty.
    public func receive(_ socket: Socket, into region: ByteRegion, token: UInt64) {
        precondition(!region.isEmpty, "a receive needs room")
        precondition(region.byteCount <= Self.transferByteCountMax, "too long")
        guard let slot = beginSocket(.receive, socket, token) else { return }
        table.slots[slot].region = region
        start(slot)
    }

    /// Sends all of a region; completes with its byte count, or -errno.
    ///
    /// - Precondition: no other send is in flight on the socket.
    public func send(_ socket: Socket, _ region: ByteRegion, token: UInt64) {
        // SAFETY: one region, borrowed for the call.
        unsafe withUnsafePointer(to: region) { vector in
            unsafe send(socket, vector, 1, region.byteCount, token)
        }
    }

    /// Sends all of at most ``sendRegionCountMax`` regions in order.
    ///
    /// Completes with the byte count of all, or -errno; an error leaves open how much was sent.
    ///
    /// - Parameters:
    ///   - socket: Where to.
    ///   - regions: Borrowed for the call; the memory they view is kept until the completion.
    ///   - token: The completion's mark.
    /// - Precondition: no other send is in flight on the socket.
    public func send(_ socket: Socket, _ regions: Span<ByteRegion>, token: UInt64) {
        precondition(regions.count <= Self.sendRegionCountMax, "too many regions")
        var byteCount = 0
        for index in regions.indices { byteCount += regions[index].byteCount }
        // SAFETY: the span is borrowed for the call.
        unsafe regions.withUnsafeBufferPointer { buffer in
            guard let base = buffer.baseAddress else {
                complete(Completion(token: token, result: 0))
                return
            }
            unsafe send(socket, base, buffer.count, byteCount, token)
        }
    }

    /// Cancels what is in flight on a socket, waits for its end, then closes it.
    ///
    /// The operations complete first (`-ECANCELED`, or what they came to), then `token` with 0.
    /// The owner that wants its last bytes sent waits for that send before it closes.
    public func close(_ socket: Socket, token: UInt64) {
        guard Int(socket.descriptor) < descriptors.count else {
            // Beyond the table nothing was ever in flight.
            complete(Completion(token: token, result: cbl_close(socket.descriptor)))
            return
        }
        guard let index = descriptorIndex(socket, token) else { return }
        descriptors[index].isClosing = true
        descriptors[index].closeToken = token
        var slot = descriptors[index].head
        while slot >= 0 {
            let next = table.slots[Int(slot)].next
            cancelSlot(Int(slot))
            slot = next
        }
        closeIfIdle(socket.descriptor)
    }

    // MARK: - Descriptors

    /// The socket's place in the descriptor table, or nil after completing `token`.
    private func descriptorIndex(_ socket: Socket, _ token: UInt64) -> Int? {
        let index = Int(socket.descriptor)
        guard index >= 0 && index < descriptors.count else {
            complete(Completion(token: token, result: index < 0 ? -EBADF : -EMFILE))
            return nil
        }
        guard !descriptors[index].isClosing else {
            complete(Completion(token: token, result: -EBADF))
            return nil
        }
        return index
    }

    /// Takes a slot and links it to its descriptor; nil after completing `token`.
    private func beginSocket(_ kind: OperationKind, _ socket: Socket, _ token: UInt64) -> Int? {
        admit()
        guard let index = descriptorIndex(socket, token) else { return nil }
        switch kind {
        case .accept, .receive:
            precondition(!descriptors[index].hasReader, "one receive at a time")
            descriptors[index].hasReader = true
        case .send: descriptors[index].hasWriter = true
        default: break
        }
        let slot = table.take(kind, token: token)
        table.slots[slot].descriptor = socket.descriptor
        let head = descriptors[index].head
        table.slots[slot].next = head
        table.slots[slot].previous = -1
        if head >= 0 { table.slots[Int(head)].previous = Int32(slot) }
        descriptors[index].head = Int32(slot)
        descriptors[index].operationCount += 1
        return slot
    }

    /// Takes a finished operation off its descriptor.
    func unlink(_ slot: Int) {
        let operation = table.slots[slot]
        let index = Int(operation.descriptor)
        if operation.previous >= 0 {
            table.slots[Int(operation.previous)].next = operation.next
        } else {
            descriptors[index].head = operation.next
        }
        if operation.next >= 0 {
            table.slots[Int(operation.next)].previous = operation.previous
        }
        switch operation.kind {
        case .accept, .receive: descriptors[index].hasReader = false
        case .send: descriptors[index].hasWriter = false
        default: break
        }
        descriptors[index].operationCount -= 1
    }

    /// Closes a descriptor that is to be closed and has nothing in flight any more.
    func closeIfIdle(_ descriptor: Int32) {
        let entry = descriptors[Int(descriptor)]
        guard entry.isClosing && entry.operationCount == 0 else { return }
        descriptors[Int(descriptor)] = DescriptorEntry()
        _ = cbl_close(descriptor)
        complete(Completion(token: entry.closeToken, result: 0))
    }

    // MARK: - Sending

    /// Sends at once what the socket takes, and leaves the rest to the engine.
    private func send(
        _ socket: Socket,
        _ vector: UnsafePointer<ByteRegion>,
        _ count: Int,
        _ byteCount: Int,
        _ token: UInt64
    ) {
        admit()
        precondition(byteCount <= Self.transferByteCountMax, "too long")
        guard let index = descriptorIndex(socket, token) else { return }
        precondition(!descriptors[index].hasWriter, "one send at a time")
        // SAFETY: a region is laid out as an iovec; `vector` holds `count` of them.
        let sent = unsafe cbl_try_send_vector(socket.descriptor, vector, UInt32(count))
        if sent == Int32(byteCount) || (sent < 0 && sent != -EAGAIN && sent != -EINTR) {
            if sent >= 0 { counters.directSendCount &+= 1 }
            complete(Completion(token: token, result: sent))
            return
        }
        guard let slot = beginSocket(.send, socket, token) else { return }
        counters.queuedSendCount &+= 1
        // SAFETY: the slot's vector has room for `sendRegionCountMax` regions; checked before.
        unsafe table.vector(slot).update(from: vector, count: count)
        table.slots[slot].vectorCount = UInt32(count)
        table.slots[slot].byteCount = UInt64(byteCount)
        if sent > 0 { advanceSend(slot, Int(sent)) }
        start(slot)
    }

    /// Takes sent bytes off a slot's vector.
    private func advanceSend(_ slot: Int, _ byteCount: Int) {
        table.slots[slot].doneByteCount += UInt64(byteCount)
        // SAFETY: the index stays below `vectorCount`: no more is sent than the vector holds.
        let vector = unsafe table.vector(slot)
        var index = Int(table.slots[slot].vectorIndex)
        let end = Int(table.slots[slot].vectorCount)
        var left = byteCount
        while index < end, unsafe left >= vector[index].byteCount {
            left -= unsafe vector[index].byteCount
            index += 1
        }
        if left > 0 {
            precondition(index < end, "the kernel sent more than it was given")
            unsafe vector[index] = unsafe vector[index].suffix(from: left)
        }
        table.slots[slot].vectorIndex = UInt32(index)
    }

    // MARK: - Results

    /// Continues or finishes a socket operation.
    func absorbSocket(_ slot: Int, _ result: Int32) -> Bool {
        let operation = table.slots[slot]
        if operation.kind == .accept { return absorbAccept(slot, result) }
        if !operation.isCancelled && (result == -EINTR || result == -EAGAIN) { return true }
        guard operation.kind == .send && result >= 0 else {
            finish(slot, result)
            return false
        }
        advanceSend(slot, Int(result))
        let doneByteCount = table.slots[slot].doneByteCount
        if doneByteCount == operation.byteCount {
            finish(slot, Int32(truncatingIfNeeded: doneByteCount))
            return false
        }
        // A stream that takes nothing and reports nothing would loop for ever.
        if result == 0 || operation.isCancelled {
            finish(slot, operation.isCancelled ? -ECANCELED : -EPIPE)
            return false
        }
        return true
    }

    private func absorbAccept(_ slot: Int, _ result: Int32) -> Bool {
        let operation = table.slots[slot]
        guard result >= 0 else {
            let goesOn = !operation.isCancelled && Self.isTransientAcceptError(result)
            if !goesOn { finish(slot, result) }
            return goesOn
        }
        var outcome = result
        if Int(result) >= descriptors.count {
            _ = cbl_close(result)
            outcome = -EMFILE
        }
        // A connection that arrives together with the cancellation: nobody waits for it.
        if operation.isCancelled {
            if outcome >= 0 { _ = cbl_close(outcome) }
            finish(slot, -ECANCELED)
            return false
        }
        table.slots[slot].state = .parked
        complete(
            Completion(token: operation.token, result: outcome, isFinal: false),
            parkedSlot: Int32(slot),
            generation: operation.generation
        )
        return false
    }

    /// Errors of one connection, not of the listener.
    ///
    /// Spec: accept(2), "Error handling".
    private static func isTransientAcceptError(_ result: Int32) -> Bool {
        switch 0 - result {
        case ECONNABORTED, EINTR, EAGAIN, EPROTO, ENETDOWN, ENOPROTOOPT, EHOSTDOWN, ENONET,
            EHOSTUNREACH, ENETUNREACH, EPERM:
            true
        default: false
        }
    }

    /// Accepts the next connection, now that the owner has taken the last.
    func resumeAccept(_ slot: Int, _ generation: UInt32) {
        let operation = table.slots[slot]
        guard
            operation.kind == .accept && operation.generation == generation
                && operation.state == .parked
        else { return }
        table.slots[slot].state = .inFlight
        start(slot)
    }

    // MARK: - The aio engine

    /// Tries the operations of a descriptor that became ready.
    func driveDescriptor(_ readiness: AioEngine.Readiness) {
        guard Int(readiness.descriptor) < descriptors.count else { return }
        var slot = descriptors[Int(readiness.descriptor)].head
        while slot >= 0 {
            let operation = table.slots[Int(slot)]
            let next = operation.next
            let isReady =
                switch operation.kind {
                case .accept, .receive: readiness.canRead
                case .send: readiness.canWrite
                default: true
                }
            if isReady && operation.state == .inFlight { driveSocket(Int(slot)) }
            slot = next
        }
    }

    /// Does as much of a socket operation as can be done now, and watches the socket for more.
    ///
    /// Edge-triggered epoll announces a change after an attempt that found nothing, never
    /// before; so every operation is tried first, and again at each edge.
    func driveSocket(_ slot: Int) {
        while true {
            let operation = table.slots[slot]
            let result = attempt(operation, slot)
            if result == -EAGAIN {
                let index = Int(operation.descriptor)
                guard !descriptors[index].isWatched, let aio else { return }
                let watched = aio.watch(operation.descriptor)
                guard watched == 0 else {
                    finish(slot, watched)
                    return
                }
                // Adding reports what is ready already, so nothing is missed in between.
                descriptors[index].isWatched = true
                return
            }
            guard absorb(slot, result) else { return }
        }
    }

    private func attempt(_ operation: Operation, _ slot: Int) -> Int32 {
        switch operation.kind {
        case .accept: return cbl_accept(operation.descriptor)
        case .receive:
            // SAFETY: the region's arena outlives the operation; see ByteRegion.
            return unsafe cbl_try_receive(
                operation.descriptor,
                operation.region.address,
                operation.region.byteCount
            )
        case .send:
            // SAFETY: the vector belongs to the slot; the index is within it.
            return unsafe cbl_try_send_vector(
                operation.descriptor,
                table.vector(slot) + Int(operation.vectorIndex),
                operation.vectorCount - operation.vectorIndex
            )
        default: preconditionFailure("not a socket operation")
        }
    }
}
