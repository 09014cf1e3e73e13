// INQUIRY: the standard data and the vital product data pages.

internal import BlockCore

extension LogicalUnit {
    /// The vendor in standard data and in the T10 designator.
    private static var vendor: String { "CAIRN" }
    /// The product in standard data.
    private static var product: String { "VOLUME" }
    /// The revision in standard data; the version of what this file says.
    private static var revision: String { "0001" }
    /// Bytes of standard data: up to and with the version descriptors.
    private static var standardByteCount: Int { 96 }
    /// SAM-5, SPC-4, SBC-3, iSCSI, none of them with a version.
    ///
    /// Spec: SPC-4, table 142.
    private static var standards: [UInt16] { [0x00A0, 0x0460, 0x04C0, 0x0960] }
    /// The company in NAA and EUI designators: a locally administered one, as its bit 1 says.
    static var company: UInt64 { 0x02CA1D }
    /// The pages, in ascending order.
    static var pages: [UInt8] { [0x00, 0x80, 0x83, 0x86, 0x87, 0xB0, 0xB1, 0xB2] }

    func planInquiry(_ command: SCSICommand, _ dataIn: ByteRegion) -> SCSIPlan {
        let page = command.block[2]
        let allocation = Int(command.block.field16(3))
        guard command.block[1] & 0x01 != 0 else {
            guard page == 0 else { return .fail(.invalidField(command: 2)) }
            return answer(standardData(dataIn), allocation: allocation)
        }
        guard Self.pages.contains(page) else { return .fail(.invalidField(command: 2)) }
        var data = DataWriter(dataIn)
        data.append(UInt8(0))
        data.append(page)
        data.skip(2)
        switch page {
        case 0x00: data.append(Self.pages)
        case 0x80: data.append(serialNumber.utf8)
        case 0x83: writeIdentification(&data, nexus: command.nexus)
        case 0x86: writeExtended(&data)
        // One set of mode pages for all nexuses: all pages, all subpages, shared.
        case 0x87: data.append([0x3F, 0xFF, 0x00, 0x00] as [UInt8])
        case 0xB0: writeBlockLimits(&data)
        case 0xB1: writeCharacteristics(&data)
        default: writeProvisioning(&data)
        }
        data.patch(UInt16(data.count - 4), at: 2)
        return answer(data, allocation: allocation)
    }

    /// Spec: SPC-4, table 139.
    private func standardData(_ dataIn: ByteRegion) -> DataWriter {
        var data = DataWriter(dataIn)
        data.append(UInt8(0))
        data.append(UInt8(description.isRemovable ? 0x80 : 0))
        // SPC-4; HISUP, response data format 2.
        data.append(UInt8(6))
        data.append(UInt8(0x12))
        data.append(UInt8(Self.standardByteCount - 5))
        // Implicit ALUA, third-party copy.
        data.append(UInt8(0x18))
        // MULTIP where there is more than one port; CMDQUE.
        data.append(UInt8(description.portGroups.count > 1 ? 0x10 : 0))
        data.append(UInt8(0x02))
        data.append(Self.vendor, byteCount: 8)
        data.append(Self.product, byteCount: 16)
        data.append(Self.revision, byteCount: 4)
        data.pad(to: 58)
        for standard in Self.standards { data.append(standard) }
        data.pad(to: Self.standardByteCount)
        return data
    }

    /// The volume's identity in 32 hexadecimal digits.
    var serialNumber: String { Self.serialNumber(description) }

    static func serialNumber(_ description: LogicalUnitDescription) -> String {
        hexadecimal(description.identityHigh, digitCount: 16)
            + hexadecimal(description.identityLow, digitCount: 16)
    }

    // MARK: - Identification

    /// The designators of the unit itself, in the order in which initiators prefer them.
    ///
    /// Spec: SPC-4, section 7.8.6: NAA IEEE Registered Extended, EUI-64 with an extension, T10
    /// vendor; SPC-5 for the UUID.
    static func unitDesignators(_ description: LogicalUnitDescription) -> [Designator] {
        let high = description.identityHigh
        let low = description.identityLow
        let registered = 0x6 << 60 | company << 36 | high & 0xF_FFFF_FFFF
        let extended = company << 40 | high & 0xFF_FFFF_FFFF
        let text = Array((vendor + "   " + serialNumber(description)).utf8)
        return [
            Designator(codeSet: 1, kind: 3, bytes: bigEndian(registered) + bigEndian(low)),
            Designator(codeSet: 1, kind: 2, bytes: bigEndian(low) + bigEndian(extended)),
            Designator(codeSet: 2, kind: 1, bytes: text),
            Designator(codeSet: 1, kind: 10, bytes: [0x10, 0] + bigEndian(high) + bigEndian(low)),
        ]
    }

    private static func bigEndian(_ value: UInt64) -> [UInt8] {
        (0..<8).map { UInt8(truncatingIfNeeded: value >> UInt64(56 - 8 * $0)) }
    }

    private func writeIdentification(_ data: inout DataWriter, nexus: NexusIndex) {
        for designator in Self.unitDesignators(description) {
            designator.write(to: &data, association: 0)
        }
        let port = identities[Int(nexus.rawValue)]?.targetPort ?? 1
        let group = description.portGroups.first { $0.targetPort == port }?.group ?? 1
        let name = description.targetName
        let portName = name + ",t,0x" + hexadecimal(UInt64(port), digitCount: 4)
        Designator(codeSet: 1, kind: 4, bytes: [0, 0, UInt8(port >> 8), UInt8(port & 0xFF)])
            .write(to: &data, association: 1)
        Designator(codeSet: 1, kind: 5, bytes: [0, 0, UInt8(group >> 8), UInt8(group & 0xFF)])
            .write(to: &data, association: 1)
        Designator(codeSet: 3, kind: 8, name: portName).write(to: &data, association: 1)
        Designator(codeSet: 3, kind: 8, name: name).write(to: &data, association: 2)
    }

    // MARK: - Other pages

    /// Spec: SPC-4, table 459.
    private func writeExtended(_ data: inout DataWriter) {
        data.skip(1)
        // Head of queue, ordered and simple tasks.
        data.append(UInt8(0x07))
        // V_SUP: there is a volatile cache.
        data.append(UInt8(description.caching == .writeback ? 0x01 : 0))
        // LUICLR.
        data.append(UInt8(0x01))
        data.pad(to: 64)
    }

    /// Spec: SBC-4, table 232.
    private func writeBlockLimits(_ data: inout DataWriter) {
        let limits = description.limits
        let shift = UInt32(geometry.blockShift)
        let isThin = description.isThin
        // WSNZ: WRITE SAME needs a length.
        data.append(UInt8(0x01))
        data.append(UInt8(geometry.compareBlockCountMax))
        data.append(UInt16(clamping: limits.granularityByteCount >> shift))
        data.append(UInt32(clamping: geometry.transferBlockCountMax))
        data.append(limits.transferByteCountOptimal >> shift)
        data.skip(4)
        data.append(isThin ? unmapBlockCountSaid : 0)
        data.append(isThin ? UInt32(geometry.unmapRangeCountMax) : 0)
        data.append(isThin ? limits.unmapGranularityByteCount >> shift : 0)
        data.append(UInt32(isThin ? 0x8000_0000 : 0))
        data.append(geometry.writeSameBlockCountMax)
        data.append(UInt32(clamping: geometry.atomicBlockCountMax))
        data.pad(to: 64)
    }

    /// What does not limit this volume is said to be no limit.
    private var unmapBlockCountSaid: UInt32 {
        let most = geometry.unmapBlockCountMax
        return most >= min(geometry.blockCount, UInt64(UInt32.max)) ? .max : UInt32(most)
    }

    /// Spec: SBC-4, table 230: a medium that does not rotate.
    private func writeCharacteristics(_ data: inout DataWriter) {
        data.append(UInt16(1))
        data.pad(to: 64)
    }

    /// Spec: SBC-4, table 238: LBPU, LBPWS, LBPWS10, LBPRZ; thin.
    private func writeProvisioning(_ data: inout DataWriter) {
        data.skip(1)
        data.append(UInt8(description.isThin ? 0xE4 : 0))
        data.append(UInt8(description.isThin ? 0x02 : 0))
        data.skip(1)
    }
}

/// A name of a unit, a port or a target.
///
/// Spec: SPC-4, table 462.
struct Designator: Hashable {
    /// 1 binary, 2 ASCII, 3 UTF-8.
    let codeSet: UInt8
    /// Spec: DESIGNATOR TYPE.
    let kind: UInt8
    let bytes: [UInt8]

    init(codeSet: UInt8, kind: UInt8, bytes: [UInt8]) {
        self.codeSet = codeSet
        self.kind = kind
        self.bytes = bytes
    }

    /// A SCSI name string: with a zero byte at its end, filled up to four bytes.
    init(codeSet: UInt8, kind: UInt8, name: String) {
        var bytes = Array(name.utf8.prefix(InitiatorPort.nameByteCountMax + 16))
        repeat { bytes.append(0) } while bytes.count % 4 != 0
        self.init(codeSet: codeSet, kind: kind, bytes: bytes)
    }

    /// Writes it as a descriptor: of the unit (0), of the port (1), of the target (2).
    func write(to data: inout DataWriter, association: UInt8) {
        // Protocol 5 with PIV, where a port or a target is named.
        data.append(codeSet | (association == 0 ? 0 : 0x50))
        data.append(kind | association << 4 | (association == 0 ? 0 : 0x80))
        data.append(UInt8(0))
        data.append(UInt8(bytes.count))
        data.append(bytes)
    }
}
