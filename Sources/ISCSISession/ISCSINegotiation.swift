// Negotiation of operational parameters: one table, a row for each key.
//
// Spec: RFC 7143, 6.2 and 13.

internal import ISCSIWire

/// What was agreed on; the specification's defaults until then.
public struct ISCSIParameters: Sendable, Hashable, BitwiseCopyable {
    /// Whether headers have digests.
    public var hasHeaderDigest = false
    /// Whether data has digests.
    public var hasDataDigest = false
    /// Whether all data but immediate data waits for an R2T.
    public var needsInitialR2T = true
    /// Whether a command may bring data along.
    public var allowsImmediateData = true
    /// The most data in a PDU to the initiator.
    public var peerSegmentByteCount: UInt32 = 8192
    /// The most data in a sequence.
    public var burstByteCount: UInt32 = 262_144
    /// The most data that nobody asked for.
    public var firstBurstByteCount: UInt32 = 65_536

    /// The defaults.
    public init() {}
}

/// How the value of a key is found.
enum NegotiationRule {
    /// The first of the initiator's list that is in ours.
    case list([String])
    /// Yes when either side says so.
    case or(Bool)
    /// Yes when both sides say so.
    case and(Bool)
    /// The smaller of both numbers.
    case minimum(UInt64, in: ClosedRange<UInt64>)
    /// The larger of both numbers.
    case maximum(UInt64, in: ClosedRange<UInt64>)
    /// Each side says its own; nothing is answered.
    case declaredNumber(ClosedRange<UInt64>)
    /// A key of an earlier version, answered with this.
    case obsolete(String)

    /// What came of an offer.
    enum Outcome: Equatable {
        /// This is the value, and the answer.
        case agreed(String)
        /// The initiator has declared this.
        case declared(UInt64)
        /// The value is not one of the key's.
        case rejected
    }

    func outcome(_ offer: String) -> Outcome {
        switch self {
        case .list(let ours):
            let match = offer.split(separator: ",").first { ours.contains(String($0)) }
            return match.map { .agreed(String($0)) } ?? .rejected
        case .or(let ours):
            return Self.flag(offer).map { .agreed($0 || ours ? "Yes" : "No") } ?? .rejected
        case .and(let ours):
            return Self.flag(offer).map { .agreed($0 && ours ? "Yes" : "No") } ?? .rejected
        case .minimum(let ours, let range):
            return Self.number(offer, range).map { .agreed("\(min($0, ours))") } ?? .rejected
        case .maximum(let ours, let range):
            return Self.number(offer, range).map { .agreed("\(max($0, ours))") } ?? .rejected
        case .declaredNumber(let range):
            return Self.number(offer, range).map { .declared($0) } ?? .rejected
        case .obsolete(let answer): return .agreed(answer)
        }
    }

    private static func flag(_ text: String) -> Bool? {
        switch text {
        case "Yes": true
        case "No": false
        default: nil
        }
    }

    private static func number(_ text: String, _ range: ClosedRange<UInt64>) -> UInt64? {
        ISCSIText.number(text).flatMap { range.contains($0) ? $0 : nil }
    }
}

/// The keys that are negotiated; others have rules of their own in the login.
enum NegotiationKey: String, CaseIterable {
    case headerDigest = "HeaderDigest"
    case dataDigest = "DataDigest"
    case maxConnections = "MaxConnections"
    case initialR2T = "InitialR2T"
    case immediateData = "ImmediateData"
    case maxRecvDataSegmentLength = "MaxRecvDataSegmentLength"
    case maxBurstLength = "MaxBurstLength"
    case firstBurstLength = "FirstBurstLength"
    case defaultTime2Wait = "DefaultTime2Wait"
    case defaultTime2Retain = "DefaultTime2Retain"
    case maxOutstandingR2T = "MaxOutstandingR2T"
    case dataPDUInOrder = "DataPDUInOrder"
    case dataSequenceInOrder = "DataSequenceInOrder"
    case errorRecoveryLevel = "ErrorRecoveryLevel"
    case ifMarker = "IFMarker"
    case ofMarker = "OFMarker"

    /// Bytes that lengths of data may have.
    ///
    /// Spec: RFC 7143, 13.12 to 13.14.
    static var lengths: ClosedRange<UInt64> { 512...16_777_215 }

    var rule: NegotiationRule {
        switch self {
        case .headerDigest, .dataDigest: .list(["CRC32C", "None"])
        case .maxConnections: .minimum(1, in: 1...65_535)
        case .initialR2T: .or(false)
        case .immediateData: .and(true)
        case .maxRecvDataSegmentLength: .declaredNumber(Self.lengths)
        case .maxBurstLength: .minimum(UInt64(ISCSISession.burstByteCountMax), in: Self.lengths)
        case .firstBurstLength:
            .minimum(UInt64(ISCSISession.firstBurstByteCountMax), in: Self.lengths)
        case .defaultTime2Wait: .maximum(2, in: 0...3600)
        case .defaultTime2Retain: .minimum(0, in: 0...3600)
        case .maxOutstandingR2T: .minimum(1, in: 1...65_535)
        case .dataPDUInOrder, .dataSequenceInOrder: .or(true)
        case .errorRecoveryLevel: .minimum(0, in: 0...2)
        // Markers are gone from RFC 7143; who still asks is told that there are none.
        case .ifMarker, .ofMarker: .obsolete("No")
        }
    }
}

extension ISCSIParameters {
    /// Takes an offer; the answer, or nil when none is due.
    mutating func negotiate(_ key: NegotiationKey, _ offer: String) -> String? {
        switch key.rule.outcome(offer) {
        case .rejected: return "Reject"
        case .declared(let number):
            if key == .maxRecvDataSegmentLength { peerSegmentByteCount = UInt32(number) }
            return nil
        case .agreed(let value):
            apply(key, value)
            return value
        }
    }

    private mutating func apply(_ key: NegotiationKey, _ value: String) {
        let number = UInt32(value) ?? 0
        switch key {
        case .headerDigest: hasHeaderDigest = value == "CRC32C"
        case .dataDigest: hasDataDigest = value == "CRC32C"
        case .initialR2T: needsInitialR2T = value == "Yes"
        case .immediateData: allowsImmediateData = value == "Yes"
        case .maxBurstLength: burstByteCount = number
        case .firstBurstLength: firstBurstByteCount = number
        case .maxConnections, .maxRecvDataSegmentLength, .defaultTime2Wait, .defaultTime2Retain,
            .maxOutstandingR2T, .dataPDUInOrder, .dataSequenceInOrder, .errorRecoveryLevel,
            .ifMarker, .ofMarker:
            break
        }
    }

    /// Brings what was agreed on separately in line: the first burst is part of a burst.
    mutating func settle() { firstBurstByteCount = min(firstBurstByteCount, burstByteCount) }
}
