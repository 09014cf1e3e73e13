internal import BlockCore
internal import CLinux
public import StorageIO

/// What the data path needs of an attached device, without a reference count.
struct AttachedDevice: BitwiseCopyable {
    var descriptor: Int32 = -1
    var operationCount: Int32 = 0
    var byteCount: UInt64 = 0
    var isBlockDevice = false
    var isFixed = false
    var hasFaults = false
    /// Whether writes that find no space wait for some.
    var waitsForSpace = false
    var spaceWaitCount: UInt64 = 0
}

extension Reactor {
    /// Makes a device usable; the reactor keeps it open until it is detached.
    ///
    /// - Parameters:
    ///   - device: Open.
    ///   - waitsForSpace: Whether a write to a sparse file whose file system (or quota) is full is
    ///     tried again until there is space, instead of failing. It counts as in flight meanwhile.
    /// - Returns: What requests name it by.
    /// - Precondition: fewer than `deviceCountMax` devices are attached.
    public func attach(_ device: Device, waitsForSpace: Bool = false) -> DeviceHandle {
        guard let index = devices.firstIndex(where: { $0 == nil }) else {
            preconditionFailure("too many devices: raise deviceCountMax")
        }
        devices[index] = device
        attached[index] = AttachedDevice(
            descriptor: device.descriptor,
            byteCount: device.geometry.byteCount,
            isBlockDevice: device.isBlockDevice,
            isFixed: uring?.registerFile(index, descriptor: device.descriptor) ?? false,
            hasFaults: device.faults != nil,
            waitsForSpace: waitsForSpace
        )
        if let limitation = device.limitation { report.limitations.append(limitation) }
        return DeviceHandle(index: Int32(index))
    }

    /// Lets go of a device.
    ///
    /// - Precondition: nothing is in flight on it.
    public func detach(_ handle: DeviceHandle) {
        let index = Int(handle.index)
        precondition(devices[index] != nil, "the device is not attached")
        precondition(attached[index].operationCount == 0, "operations are in flight")
        if attached[index].isFixed { _ = uring?.registerFile(index, descriptor: -1) }
        attached[index] = AttachedDevice()
        devices[index] = nil
    }

    /// Begins a device transfer.
    ///
    /// Completes with the whole byte count of a transfer, 0 for a flush or a discard, or -errno;
    /// a transfer beyond the device's end is `-EIO`. The completion carries the request's own
    /// token as well as `token`. Discards are best effort: a device that cannot is no failure.
    ///
    /// - Precondition: region and offset are multiples of 4096, at most ``transferByteCountMax``
    ///   bytes are transferred, and ``freeOperationCount`` is not 0.
    public func submit(_ request: DeviceRequest, to device: DeviceHandle, token: UInt64) {
        admit()
        let index = Int(device.index)
        precondition(attached[index].descriptor >= 0, "the device is not attached")
        let slot = table.take(OperationKind(request.kind), token: token)
        table.slots[slot].requestToken = request.token
        table.slots[slot].device = device.index
        table.slots[slot].descriptor = attached[index].descriptor
        table.slots[slot].region = request.region
        table.slots[slot].offset = request.offset
        table.slots[slot].byteCount = request.byteCount
        attached[index].operationCount += 1
        deviceOperationCount += 1
        if table.slots[slot].kind.isTransfer {
            precondition(request.byteCount == UInt64(request.region.byteCount), "byte count")
            precondition(request.byteCount > 0, "an empty transfer")
            precondition(request.byteCount <= UInt64(Self.transferByteCountMax), "too long")
        }
        if attached[index].hasFaults && applyFault(request.kind, slot, index) { return }
        start(slot)
    }

    /// Continues or finishes a device operation.
    func absorbDevice(_ slot: Int, _ result: Int32) -> Bool {
        let operation = table.slots[slot]
        if result == -EINTR && !operation.isCancelled { return true }
        guard result >= 0 else {
            if operation.kind.isTransfer, isTransient(result), retry(slot) { return false }
            if isOutOfSpace(result), waitForSpace(slot) { return false }
            finish(slot, operation.kind == .discard && isUnsupported(result) ? 0 : result)
            return false
        }
        guard operation.kind.isTransfer else {
            finish(slot, 0)
            return false
        }
        // No progress: the end of the device, which a store that knows its size never asks for.
        guard result > 0 else {
            finish(slot, -EIO)
            return false
        }
        let doneByteCount = operation.doneByteCount + UInt64(result)
        table.slots[slot].doneByteCount = doneByteCount
        table.slots[slot].firstByteCountMax = .max
        guard doneByteCount < operation.byteCount else {
            finish(slot, Int32(truncatingIfNeeded: doneByteCount))
            return false
        }
        counters.shortTransferCount &+= 1
        return true
    }

    /// Errors that only say that the device does not know discards.
    private func isUnsupported(_ result: Int32) -> Bool {
        result == -EOPNOTSUPP || result == -ENOTTY || result == -EINVAL || result == -ENOSYS
    }

    // MARK: - Injected faults

    /// - Returns: Whether the fault took the operation over.
    func applyFault(_ kind: DeviceRequest.Kind, _ slot: Int, _ index: Int) -> Bool {
        guard let effect = devices[index]?.faults?.next(kind) else { return false }
        counters.faultCount &+= 1
        switch effect {
        case .fail(let errno):
            if absorbDevice(slot, 0 - errno) { start(slot) }
            return true
        case .delay(let nanoseconds):
            delay(slot, nanoseconds: nanoseconds)
            return true
        case .shorten(let byteCount):
            table.slots[slot].firstByteCountMax = UInt64(max(byteCount, 1))
            return false
        }
    }

    // MARK: - The aio engine

    func startAioDevice(_ aio: AioEngine, _ operation: Operation, _ slot: Int) {
        guard operation.kind == .discard else {
            aio.queue(operation, slot: slot, table: table)
            return
        }
        // libaio knows no discard: the thread waits for it.
        let result = cbl_discard(
            operation.descriptor,
            attached[Int(operation.device)].isBlockDevice,
            operation.offset,
            operation.byteCount
        )
        if absorb(slot, result) { startAioDevice(aio, table.slots[slot], slot) }
    }

    /// Hands queued transfers to the kernel and deals with those it refuses.
    func submitAio(_ aio: AioEngine) {
        while case .refused(let slot, let result) = aio.submitBatch() {
            var result = result
            if table.slots[slot].kind == .flush && isUnsupported(result) {
                // Before Linux 4.18 libaio knows no flush either.
                result = cbl_flush(table.slots[slot].descriptor)
            }
            if absorb(slot, result) { start(slot) }
        }
    }
}

extension OperationKind {
    init(_ kind: DeviceRequest.Kind) {
        switch kind {
        case .read: self = .read
        case .write: self = .write
        case .writeDurable: self = .writeDurable
        case .flush: self = .flush
        case .discard: self = .discard
        }
    }
}
