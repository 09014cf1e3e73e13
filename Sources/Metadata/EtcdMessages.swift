// What is said to etcd's JSON gateway and what it answers: Documentation/dev-guide/api_reference_v3
// of etcd 3.4. Keys and values are base64, which is how Foundation writes `Data`; 64-bit numbers
// are strings; fields that are zero are left out of answers.

import Foundation

// MARK: - Requests

/// `TxnRequest`.
struct EtcdTransaction: Encodable {
    var compare: [EtcdCompare] = []
    var success: [EtcdOperation] = []
    var failure: [EtcdOperation] = []
}

/// `Compare`.
struct EtcdCompare: Encodable {
    var key: Data
    var rangeEnd: Data?
    var target: String
    var result: String
    var version: String?
    var modRevision: String?

    /// Whether a key, or no key of a range, has been changed last by a revision.
    static func modified(_ key: Data, equals revision: MetaRevision) -> Self {
        Self(key: key, target: "MOD", result: "EQUAL", modRevision: "\(revision)")
    }

    /// Whether there is a key.
    static func exists(_ key: Data) -> Self {
        Self(key: key, target: "VERSION", result: "GREATER", version: "0")
    }

    /// Whether there is no key, or none in a range.
    static func absent(_ key: Data, end: Data? = nil) -> Self {
        Self(key: key, rangeEnd: end, target: "VERSION", result: "EQUAL", version: "0")
    }

    /// What never holds.
    static func never(_ key: Data) -> Self {
        Self(key: key, target: "VERSION", result: "LESS", version: "0")
    }
}

/// `RequestOp`: one of its fields is set.
struct EtcdOperation: Encodable {
    var requestRange: EtcdRange?
    var requestPut: EtcdPut?
    var requestDeleteRange: EtcdDelete?
    var requestTxn: EtcdTransaction?
}

/// `RangeRequest`.
struct EtcdRange: Encodable {
    var key: Data
    var rangeEnd: Data?
    var limit: Int?
    var revision: String?
    var sortOrder: String?
    var sortTarget: String?
    var minModRevision: String?
    var countOnly: Bool?
}

/// `PutRequest`.
struct EtcdPut: Encodable {
    var key: Data
    var value: Data
    var lease: String?
}

/// `DeleteRangeRequest`.
struct EtcdDelete: Encodable {
    var key: Data
    var rangeEnd: Data?
}

/// `WatchRequest`.
struct EtcdWatchRequest: Encodable {
    struct Create: Encodable {
        var key: Data
        var rangeEnd: Data
        var startRevision: String
        var progressNotify = true
    }

    var createRequest: Create
}

// MARK: - Answers

/// A 64-bit number, as a string or not.
struct EtcdNumber: Decodable {
    var value: Int64

    init(from decoder: any Decoder) throws {
        let container = try decoder.singleValueContainer()
        if let number = try? container.decode(Int64.self) {
            value = number
            return
        }
        guard let number = Int64(try container.decode(String.self)) else {
            throw DecodingError.dataCorruptedError(in: container, debugDescription: "no number")
        }
        value = number
    }
}

/// `ResponseHeader`.
struct EtcdHeader: Decodable {
    var revision: EtcdNumber?
}

/// `KeyValue`.
struct EtcdKeyValue: Decodable {
    var key: Data
    var value: Data?
    var createRevision: EtcdNumber?
    var modRevision: EtcdNumber?
    var lease: EtcdNumber?

    /// The revision that last changed it.
    var modified: MetaRevision { MetaRevision(modRevision?.value ?? 0) }
}

/// `RangeResponse`.
struct EtcdRangeAnswer: Decodable {
    var header: EtcdHeader?
    var kvs: [EtcdKeyValue]?
    var more: Bool?
    var count: EtcdNumber?
}

/// `TxnResponse`.
struct EtcdTransactionAnswer: Decodable {
    var header: EtcdHeader?
    var succeeded: Bool?
    var responses: [EtcdOperationAnswer]?
}

/// `ResponseOp`.
struct EtcdOperationAnswer: Decodable {
    var responseRange: EtcdRangeAnswer?
    var responseTxn: EtcdTransactionAnswer?
}

/// `LeaseGrantResponse`, and `LeaseRevokeResponse` which has less.
struct EtcdLeaseAnswer: Decodable {
    var header: EtcdHeader?
}

/// What the gateway makes of `LeaseKeepAliveResponse`.
struct EtcdKeepAliveAnswer: Decodable {
    struct Result: Decodable {
        enum CodingKeys: String, CodingKey { case seconds = "TTL" }
        /// What is left; nothing or 0 when there is no such lease.
        var seconds: EtcdNumber?
    }

    var result: Result?
    var error: EtcdStreamProblem?
}

/// What the gateway makes of `WatchResponse`.
struct EtcdWatchAnswer: Decodable {
    struct Result: Decodable {
        var header: EtcdHeader?
        var canceled: Bool?
        var compactRevision: EtcdNumber?
        var events: [Event]?
    }

    struct Event: Decodable {
        /// Nothing for a put.
        var type: String?
        var kv: EtcdKeyValue
    }

    var result: Result?
    var error: EtcdStreamProblem?
}

/// The end of a stream that failed.
struct EtcdStreamProblem: Decodable {
    var message: String?
}

/// The body of an answer that is an error.
struct EtcdProblem: Decodable {
    var message: String?
    var error: String?
    var code: Int?
}
