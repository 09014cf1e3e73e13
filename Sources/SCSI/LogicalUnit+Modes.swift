// MODE SENSE and MODE SELECT.

internal import BlockCore

/// The mode parameters that initiators can change; one set for all nexuses, lost with a reset.
struct ModeParameters: BitwiseCopyable, Sendable, Hashable {
    /// Control page: SWP.
    var isWriteProtected = false
    /// Control page: D_SENSE.
    var isDescriptorSense = false
}

/// A mode page: its bytes as they are, and the bits of them that can be changed.
private struct ModePage {
    var bytes: [UInt8]
    var changeable: [UInt8]

    var code: UInt8 { bytes[0] }

    /// A page of which nothing can be changed.
    init(_ code: UInt8, byteCount: Int) {
        bytes = [code, UInt8(byteCount - 2)] + Array(repeating: 0, count: byteCount - 2)
        changeable = bytes
    }
}

/// Which values MODE SENSE wants.
///
/// Spec: SPC-4, table 173.
private enum PageControl: UInt8 {
    case current = 0
    case changeable = 1
    case defaults = 2
    case saved = 3
}

extension LogicalUnit {
    private static var allPages: UInt8 { 0x3F }
    private static var controlPage: UInt8 { 0x0A }
    private static var shortDescriptorByteCount: Int { 8 }
    private static var longDescriptorByteCount: Int { 16 }
    private static var writeProtectBit: UInt8 { 0x80 }
    /// DPO and FUA are obeyed.
    ///
    /// Spec: SBC-3, table 152.
    private static var cacheControlBit: UInt8 { 0x10 }

    /// Whether sense data goes out in descriptor format: the control mode page's D_SENSE.
    public var isDescriptorSense: Bool { modes.isDescriptorSense }

    // MARK: - Pages

    /// All pages, in ascending order.
    private func modePages(_ modes: ModeParameters) -> [ModePage] {
        var caching = ModePage(0x08, byteCount: 20)
        // WCE tells the truth about the volume's durability mode, which is not changed here.
        caching.bytes[2] = description.caching == .writeback ? 0x04 : 0
        var control = ModePage(Self.controlPage, byteCount: 12)
        control.bytes[2] = modes.isDescriptorSense ? 0x04 : 0
        // Unrestricted reordering; no limit of time to be busy.
        control.bytes[3] = 0x10
        control.bytes[4] = modes.isWriteProtected ? 0x08 : 0
        control.bytes[8] = 0xFF
        control.bytes[9] = 0xFF
        control.changeable[2] = 0x04
        control.changeable[4] = 0x08
        return [
            ModePage(0x01, byteCount: 12), caching, control, ModePage(0x1C, byteCount: 12),
        ]
    }

    // MARK: - MODE SENSE

    func planModeSense(_ command: SCSICommand, _ dataIn: ByteRegion) -> SCSIPlan {
        let block = command.block
        let isLong = block.operationCode == 0x5A
        guard let control = PageControl(rawValue: block[2] >> 6) else {
            return .fail(.invalidField(command: 2, bit: 7))
        }
        guard control != .saved else { return .fail(.illegalRequest, .savingNotSupported) }
        let code = block[2] & 0x3F
        let subpage = block[3]
        let all = modePages(control == .defaults ? ModeParameters() : modes)
        let pages = all.filter { code == Self.allPages || $0.code == code }
        guard !pages.isEmpty else { return .fail(.invalidField(command: 2, bit: 5)) }
        guard subpage == 0 || subpage == 0xFF else { return .fail(.invalidField(command: 3)) }
        var data = DataWriter(dataIn)
        let descriptorByteCount =
            block[1] & 0x08 != 0
            ? 0
            : isLong && block[1] & 0x10 != 0
                ? Self.longDescriptorByteCount : Self.shortDescriptorByteCount
        writeModeHeader(&data, isLong: isLong, descriptorByteCount: descriptorByteCount)
        writeBlockDescriptor(&data, byteCount: descriptorByteCount)
        for page in pages { data.append(control == .changeable ? page.changeable : page.bytes) }
        if isLong {
            data.patch(UInt16(data.count - 2), at: 0)
        } else {
            data.patch(UInt8(data.count - 1), at: 0)
        }
        return answer(data, allocation: isLong ? Int(block.field16(7)) : Int(block[4]))
    }

    private func writeModeHeader(
        _ data: inout DataWriter,
        isLong: Bool,
        descriptorByteCount: Int
    ) {
        let device = Self.cacheControlBit | (isWriteProtected ? Self.writeProtectBit : 0)
        data.skip(isLong ? 3 : 2)
        data.append(device)
        if isLong {
            data.append(UInt8(descriptorByteCount == Self.longDescriptorByteCount ? 1 : 0))
            data.skip(1)
            data.append(UInt16(descriptorByteCount))
        } else {
            data.append(UInt8(descriptorByteCount))
        }
    }

    private func writeBlockDescriptor(_ data: inout DataWriter, byteCount: Int) {
        switch byteCount {
        case Self.shortDescriptorByteCount:
            data.append(UInt32(clamping: geometry.blockCount))
            data.append(geometry.blockByteCount)
        case Self.longDescriptorByteCount:
            data.append(geometry.blockCount)
            data.skip(4)
            data.append(geometry.blockByteCount)
        default: break
        }
    }

    // MARK: - MODE SELECT

    func planModeSelect(_ command: SCSICommand) -> SCSIPlan {
        let block = command.block
        let isLong = block.operationCode == 0x55
        guard block[1] & 0x01 == 0 else { return .fail(.invalidField(command: 1, bit: 0)) }
        let byteCount = isLong ? Int(block.field16(7)) : Int(block[4])
        guard byteCount > 0 else { return .reply(.good) }
        return collect(command, byteCount: byteCount)
    }

    func finishModeSelect(_ command: SCSICommand, _ parameters: ByteRegion) -> SCSIPlan {
        let isLong = command.block.operationCode == 0x55
        let list = parameters.array()
        let headerByteCount = isLong ? 8 : 4
        guard list.count >= headerByteCount else {
            return .fail(.illegalRequest, .parameterListLength)
        }
        let descriptorByteCount = isLong ? Int(list[6]) << 8 | Int(list[7]) : Int(list[3])
        let isLongDescriptor = isLong && list[4] & 1 != 0
        if let sense = descriptorRefusal(
            list[headerByteCount...],
            byteCount: descriptorByteCount,
            isLong: isLongDescriptor,
            field: isLong ? 6 : 3
        ) {
            return .fail(sense)
        }
        var changed = modes
        var offset = headerByteCount + descriptorByteCount
        while offset < list.count {
            let (next, sense) = select(list, offset, &changed)
            if let sense { return .fail(sense) }
            offset = next
        }
        if changed != modes {
            modes = changed
            raise(.modeParametersChanged, except: command.nexus)
        }
        return SCSIPlan(.reply(.good), dataOutByteCount: UInt32(list.count))
    }

    /// A block descriptor may say what is so, or nothing.
    ///
    /// Spec: SBC-3, 6.3.2.
    private func descriptorRefusal(
        _ rest: ArraySlice<UInt8>,
        byteCount: Int,
        isLong: Bool,
        field: Int
    ) -> SCSISense? {
        guard byteCount > 0 else { return nil }
        let wanted = isLong ? Self.longDescriptorByteCount : Self.shortDescriptorByteCount
        guard byteCount == wanted else { return .invalidField(parameters: field) }
        guard rest.count >= byteCount else {
            return SCSISense(.illegalRequest, .parameterListLength)
        }
        let bytes = rest.prefix(byteCount)
        let blocks = bytes.prefix(isLong ? 8 : 4).reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        let block = bytes.suffix(3).reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
        let most = isLong ? UInt64.max : UInt64(UInt32.max)
        guard blocks == 0 || blocks == most || blocks == geometry.blockCount else {
            return .invalidField(parameters: rest.startIndex)
        }
        guard block == 0 || block == geometry.blockByteCount else {
            return .invalidField(parameters: rest.startIndex + byteCount - 3)
        }
        return nil
    }

    /// Takes over the page at `offset`: what can be changed may differ, the rest has to be as it is.
    private func select(
        _ list: [UInt8],
        _ offset: Int,
        _ changed: inout ModeParameters
    ) -> (next: Int, sense: SCSISense?) {
        guard list.count >= offset + 2 else {
            return (offset, SCSISense(.illegalRequest, .parameterListLength))
        }
        // Bit 7 is PS, which is reserved here; bit 6 says that it is a subpage: there are none.
        let code = list[offset] & 0x7F
        guard let page = modePages(changed).first(where: { $0.code == code }) else {
            return (offset, .invalidField(parameters: offset, bit: 6))
        }
        guard Int(list[offset + 1]) == page.bytes.count - 2 else {
            return (offset, .invalidField(parameters: offset + 1))
        }
        guard list.count >= offset + page.bytes.count else {
            return (offset, SCSISense(.illegalRequest, .parameterListLength))
        }
        for index in 2..<page.bytes.count {
            let difference = list[offset + index] ^ page.bytes[index]
            guard difference & ~page.changeable[index] == 0 else {
                return (offset, .invalidField(parameters: offset + index))
            }
        }
        if code == Self.controlPage {
            changed.isDescriptorSense = list[offset + 2] & 0x04 != 0
            changed.isWriteProtected = list[offset + 4] & 0x08 != 0
        }
        return (offset + page.bytes.count, nil)
    }
}
