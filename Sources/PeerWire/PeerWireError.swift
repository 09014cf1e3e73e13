/// A way in which bytes of a peer are wrong.
///
/// There is one reaction: the connection is closed, and somebody is told why. Only for
/// ``needMoreBytes(missingByteCount:)`` the caller reads on, and ``versionNotSpoken(_:)`` is
/// answered with ``PeerRefusal/versionNotSpoken`` first.
public enum PeerWireError: Error, Hashable, Sendable, BitwiseCopyable {
    /// Fewer bytes than the header, or than the body that it announces; nothing is consumed.
    case needMoreBytes(missingByteCount: Int)
    /// The stream is out of step, or the peer is something else.
    case badMagic
    /// Another version of the format.
    case versionNotSpoken(UInt8)
    /// A kind of frame that does not exist.
    case unknownKind(UInt8)
    /// Bytes without a meaning that are not zero.
    case reservedNotZero
    /// A body above ``PeerLimits/bodyByteCountMax``.
    case bodyTooLong(byteCount: Int)
    /// A body that ends before its fields.
    case bodyTooShort
    /// A body that goes on behind its fields.
    case bodyNotConsumed(byteCount: Int)
    /// A payload that is not made of whole blocks.
    case payloadNotWhole(byteCount: Int)
    /// A payload above what the kind may have.
    case payloadTooLong(byteCount: Int)
    /// A payload of another size than the blocks that it is for.
    case payloadNotOfRange
    /// Header or body were changed on the way.
    case badChecksum
    /// The id that names no volume.
    case badVolume
    /// An epoch that cannot exist, or one in a greeting.
    case badEpoch
    /// A write number beyond 56 bits.
    case badNumber
    /// A counter of an epoch beyond 36 bits, or 0 where there is none.
    case badCounter
    /// Counters, epochs or blocks in an order in which they cannot be.
    case badOrder
    /// No blocks, or blocks beyond the largest volume, more than there may be, or a write in two
    /// leaves.
    case badRange
    /// A block beyond the largest volume.
    case badBlock
    /// A volume of no bytes, of half blocks, or above the largest.
    case badVolumeByteCount
    /// A code outside its list.
    case badCode(UInt8)
    /// More entries than an answer to a scan, or steps than a lineage, may have.
    case tooManyEntries(count: Int)
    /// Steps that are no lineage of the epoch.
    case badLineage
    /// A snapshot without an id, or with the number of none.
    case badSnapshot
    /// More room than is told apart.
    case badRoom

    /// What is wrong, for people.
    public var text: String {
        switch self {
        case .needMoreBytes(let count): "\(count) bytes are missing"
        case .badMagic: "not a frame of replication"
        case .versionNotSpoken(let version):
            "version \(version) is not spoken here, \(PeerWireVersion.current) is"
        case .unknownKind(let code): "no kind of frame has the number \(code)"
        case .reservedNotZero: "reserved bytes are not zero"
        case .bodyTooLong(let count): "a body of \(count) bytes"
        case .bodyTooShort: "a body that ends before its fields"
        case .bodyNotConsumed(let count): "\(count) bytes behind the fields of a body"
        case .payloadNotWhole(let count): "a payload of \(count) bytes, which are no whole blocks"
        case .payloadTooLong(let count): "a payload of \(count) bytes, too many for its kind"
        case .payloadNotOfRange: "a payload of another size than its blocks"
        case .badChecksum: "the checksum of header and body does not match"
        case .badVolume: "no volume is named"
        case .badEpoch: "an epoch that cannot exist"
        case .badNumber: "a write number that cannot exist"
        case .badCounter: "a counter that cannot exist"
        case .badOrder: "numbers out of order"
        case .badRange: "a range of blocks that cannot exist"
        case .badBlock: "a block beyond the largest volume"
        case .badVolumeByteCount: "a size that no volume has"
        case .badCode(let code): "a code \(code) that means nothing"
        case .tooManyEntries(let count): "\(count) entries"
        case .badLineage: "epochs that are no lineage"
        case .badSnapshot: "a snapshot that cannot exist"
        case .badRoom: "more room than is told"
        }
    }
}
