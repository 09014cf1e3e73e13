public import BlockCore

/// Why a command ended with CHECK CONDITION.
@frozen
public struct SCSISense: Sendable, Hashable, BitwiseCopyable {
    /// A block address, or the offset of the first difference; only with ``hasInformation``.
    public var information: UInt64
    /// What exactly is wrong.
    public var code: SenseCode
    /// The first byte of the field that is wrong; only with ``hasFieldPointer``.
    public var fieldByte: UInt16
    /// The class of the failure.
    public var key: SenseKey
    /// The most significant bit of the field that is wrong; 8 for a field of whole bytes.
    public var fieldBit: UInt8
    /// Whether ``information`` means anything.
    public var hasInformation: Bool
    /// Whether ``fieldByte`` means anything.
    public var hasFieldPointer: Bool
    /// Whether the field is in the command block; otherwise it is in the parameter list.
    public var isFieldInCommand: Bool

    /// Bytes of fixed-format sense data.
    ///
    /// Spec: SPC-4, 4.5.3.
    @inlinable
    public static var fixedByteCount: Int { 18 }
    /// The most bytes that ``encode(into:isDescriptorFormat:)`` writes.
    @inlinable
    public static var byteCountMax: Int { 32 }

    /// Creates sense data of a class and a code.
    @inlinable
    public init(_ key: SenseKey, _ code: SenseCode) {
        self.key = key
        self.code = code
        information = 0
        fieldByte = 0
        fieldBit = 8
        hasInformation = false
        hasFieldPointer = false
        isFieldInCommand = false
    }

    /// Sense data that says nothing.
    @inlinable
    public static var none: Self { Self(.noSense, SenseCode(0)) }

    /// INVALID FIELD IN CDB, pointing at the field.
    @inlinable
    public static func invalidField(command byte: Int, bit: UInt8 = 8) -> Self {
        var sense = Self(.illegalRequest, .invalidFieldInCDB)
        sense.point(byte: byte, bit: bit, isInCommand: true)
        return sense
    }

    /// INVALID FIELD IN PARAMETER LIST, pointing at the field.
    @inlinable
    public static func invalidField(parameters byte: Int, bit: UInt8 = 8) -> Self {
        var sense = Self(.illegalRequest, .invalidFieldInParameters)
        sense.point(byte: byte, bit: bit, isInCommand: false)
        return sense
    }

    /// The same with ``information``.
    @inlinable
    public func with(information: UInt64) -> Self {
        var sense = self
        sense.information = information
        sense.hasInformation = true
        return sense
    }

    @usableFromInline
    mutating func point(byte: Int, bit: UInt8, isInCommand: Bool) {
        fieldByte = UInt16(truncatingIfNeeded: byte)
        fieldBit = bit
        hasFieldPointer = true
        isFieldInCommand = isInCommand
    }

    /// Writes it as sense data.
    ///
    /// In the fixed format ``information`` has 32 bits: a larger one is left out, as it has to be.
    ///
    /// - Parameters:
    ///   - region: At least ``byteCountMax`` bytes.
    ///   - isDescriptorFormat: What the control mode page's D_SENSE asks for.
    /// - Returns: The bytes written.
    public func encode(into region: ByteRegion, isDescriptorFormat: Bool) -> Int {
        isDescriptorFormat ? encodeDescriptors(into: region) : encodeFixed(into: region)
    }

    private func encodeFixed(into region: ByteRegion) -> Int {
        let fixed = region.slice(0, Self.fixedByteCount)
        fixed.zero()
        let fits = hasInformation && information <= UInt64(UInt32.max)
        fixed.store(UInt8(fits ? 0xF0 : 0x70), at: 0)
        fixed.store(key.rawValue, at: 2)
        if fits { fixed.storeBigEndian(UInt32(information), at: 3) }
        fixed.store(UInt8(Self.fixedByteCount - 8), at: 7)
        fixed.storeBigEndian(code.rawValue, at: 12)
        if hasFieldPointer { encodePointer(into: fixed.slice(15, 3)) }
        return Self.fixedByteCount
    }

    private func encodeDescriptors(into region: ByteRegion) -> Int {
        region.slice(0, Self.byteCountMax).zero()
        region.store(UInt8(0x72), at: 0)
        region.store(key.rawValue, at: 1)
        region.storeBigEndian(code.rawValue, at: 2)
        var end = 8
        if hasInformation {
            region.store(UInt8(0x0A), at: end + 1)
            region.store(UInt8(0x80), at: end + 2)
            region.storeBigEndian(information, at: end + 4)
            end += 12
        }
        if hasFieldPointer {
            region.store(UInt8(0x02), at: end)
            region.store(UInt8(0x06), at: end + 1)
            encodePointer(into: region.slice(end + 4, 3))
            end += 8
        }
        region.store(UInt8(end - 8), at: 7)
        return end
    }

    /// Spec: SPC-4, table 50.
    private func encodePointer(into region: ByteRegion) {
        var flags: UInt8 = 0x80
        if isFieldInCommand { flags |= 0x40 }
        if fieldBit < 8 { flags |= 0x08 | fieldBit }
        region.store(flags, at: 0)
        region.storeBigEndian(fieldByte, at: 1)
    }
}
