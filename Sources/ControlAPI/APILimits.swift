// Every limit of the two APIs, by name; and the checks of names and sizes, made once at the edge.

/// The limits of both APIs.
public enum APILimits {
    /// The largest request body, in bytes: twice the largest legal one, the registration of a node
    /// with 64 stores.
    public static var bodyByteCountMax: Int { 64 << 10 }
    /// The largest answer a client accepts, in bytes: 100,000 volumes and more.
    public static var answerByteCountMax: Int { 256 << 20 }
    /// The longest name of a volume, snapshot, image, version, host or node, in bytes.
    public static var nameByteCountMax: Int { 128 }
    /// The longest description of an image, in bytes.
    public static var descriptionByteCountMax: Int { 1024 }
    /// The longest text that a node keeps with a volume, in bytes.
    public static var descriptorByteCountMax: Int { 2048 }
    /// The longest endpoint or path in a registration, in bytes.
    public static var endpointByteCountMax: Int { 256 }
    /// The longest idempotency key, in bytes.
    public static var idempotencyKeyByteCountMax: Int { 128 }
    /// The granule of sizes, in bytes: the store's block.
    public static var volumeByteCountGranule: UInt64 { 4096 }
    /// The largest volume, in bytes (64 TiB).
    public static var volumeByteCountMax: UInt64 { 64 << 40 }
    /// The most bytes that a node may say of its stores (1 EiB): more than any has, and few enough
    /// that the sums of some of them fit.
    public static var nodeByteCountMax: UInt64 { 1 << 60 }
    /// The most stores that a node tells of one by one: 64 with long paths are half a body.
    public static var nodeStoreCountMax: Int { 64 }
    /// Failed requests that a store is said to have had; beyond, the number stays there.
    public static var failedRequestCountMax: UInt64 { 1_000_000_000_000 }
    /// The largest volume id: JSON readers keep integers exact up to here.
    public static var volumeIDMax: UInt64 { (1 << 53) - 1 }
    /// The highest epoch of a volume: exact in JSON, and room above it for sums.
    public static var epochMax: UInt64 { (1 << 53) - 1 }
    /// The highest lease epoch: write numbers have 20 bits for it.
    public static var leaseEpochMax: UInt64 { (1 << 20) - 1 }
    /// The largest instance of a replica: exact in JSON.
    public static var instanceMax: UInt64 { (1 << 53) - 1 }
    /// The largest id of a replicated volume's snapshot: exact in JSON.
    public static var snapshotIDMax: UInt64 { (1 << 53) - 1 }
    /// The largest write number: 20 bits of epoch above 36 of counter.
    public static var writeNumberMax: UInt64 { (1 << 56) - 1 }
    /// The most snapshots of a replicated volume: its replicas tell all of them in one frame.
    public static var replicaSnapshotCountMax: Int { 512 }
    /// The most replicas of a volume.
    public static var replicaCountMax: Int { 5 }
    /// The most replicated volumes that a node serves: what it says of each fits a heartbeat.
    public static var nodeServiceCountMax: Int { 4096 }
    /// The largest heartbeat, in bytes: 4096 services with 5 replicas have less than 1 KiB each.
    public static var heartbeatByteCountMax: Int { 8 << 20 }
    /// Volumes in one page of a list, at most and by default.
    public static var pageCountMax: Int { 1000 }
    /// Events in one answer, at most and by default.
    public static var eventPageCountMax: Int { 1000 }
    /// Hosts that may have one volume attached read-only at the same time.
    public static var attachmentCountMax: Int { 64 }
    /// Events kept; older ones are dropped.
    public static var eventCountMax: Int { 100_000 }
    /// Connections that a server serves at the same time; more wait in the listen queue.
    public static var connectionCountMax: Int { 512 }
    /// The longest header field, in bytes.
    public static var headerFieldByteCountMax: Int { 8 << 10 }
    /// The longest header, all fields together, in bytes.
    public static var headerListByteCountMax: Int { 16 << 10 }
    /// The number of header fields.
    public static var headerFieldCountMax: Int { 64 }
    /// Followers of events at the same time.
    public static var followerCountMax: Int { 64 }

    /// How long a connection may be silent, in seconds.
    public static var idleSecondsMax: Int64 { 75 }
    /// How long a request may take to arrive whole, in seconds: the largest one is 64 KiB, and a
    /// client that sends a byte now and then must not hold a connection.
    public static var requestSecondsMax: Int64 { 20 }
    /// How long a client may take nothing of an answer that waits for it, in seconds: longer than
    /// a network is away that comes back.
    public static var writeSecondsMax: Int64 { 30 }
    /// How long a client waits for a connection, in milliseconds.
    public static var connectMillisecondsMax: Int64 { 3_000 }
    /// How long a client waits for an answer, in milliseconds: a deletion in a large store is
    /// one log record, so seconds are plenty.
    public static var answerMillisecondsMax: Int64 { 30_000 }
    /// For how long `volctl` asks again for a change of which nobody knows whether it was made, in
    /// milliseconds: two looks of the service at what is pending.
    public static var repeatMillisecondsMax: Int64 { 10_000 }
    /// How long it waits before it asks again, in milliseconds.
    public static var repeatIntervalMilliseconds: Int64 { 500 }
    /// How long one of several services may take to say whether it leads, in milliseconds.
    public static var leaderMillisecondsMax: Int64 { 2_000 }
    /// How long a node waits for each of several services to take its heartbeat, in milliseconds:
    /// its lease must not end because the one that leads has frozen.
    public static var heartbeatAnswerMillisecondsMax: Int64 { 3_000 }
    /// How long a client bears silence in an answer, in milliseconds: longer than any answer may
    /// take, and several signs of life.
    public static var silenceMillisecondsMax: Int64 { 45_000 }
    /// The longest line of a followed answer, in bytes.
    public static var lineByteCountMax: Int { 1 << 20 }
    /// How long the metadata service waits for a node, in milliseconds; less than its own client
    /// waits, so that the client hears what happened.
    public static var nodeAnswerMillisecondsMax: Int64 { 20_000 }
    /// How long a node may take to say what it knows of volumes that are shown; without it they
    /// are shown with a warning.
    public static var nodeViewMillisecondsMax: Int64 { 3_000 }
    /// How often a node sends a heartbeat, in milliseconds.
    public static var heartbeatIntervalMilliseconds: Int { 2_000 }
    /// After how long without one a node counts as down, in milliseconds: four may get lost.
    public static var heartbeatTimeoutMilliseconds: Int { 10_000 }
    /// How long a node may be down before its replicas are replaced, in seconds: longer than a
    /// machine takes to start, short enough that a second death in between is unlikely.
    public static var replaceSeconds: Double { 600 }
    /// How often a follower of events that has nothing to say sends an empty line, in seconds, so
    /// that a dead connection is noticed.
    public static var followKeepaliveSeconds: Int { 5 }
}

/// Checks of what users type.
public enum ValidName {
    /// The rule, for messages.
    public static var rule: String {
        "1 to 128 of the letters A-Z a-z, digits, '.', '_' and '-', not starting with '.' or '-'"
    }

    /// Whether `name` keeps the rule.
    public static func check(_ name: String) -> Bool {
        let bytes = name.utf8
        guard (1...APILimits.nameByteCountMax).contains(bytes.count), let first = bytes.first else {
            return false
        }
        guard first != UInt8(ascii: "-"), first != UInt8(ascii: ".") else { return false }
        return bytes.allSatisfy { byte in
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "."), UInt8(ascii: "_"),
                UInt8(ascii: "-"):
                true
            default: false
            }
        }
    }

    /// Refuses a name that breaks the rule.
    ///
    /// - Parameters:
    ///   - name: What was given.
    ///   - what: What it names, for the message: "volume", "snapshot", ….
    /// - Throws: ``ControlError/Code/invalidArgument``.
    public static func require(_ name: String, of what: String) throws(ControlError) {
        guard check(name) else {
            throw ControlError(
                .invalidArgument,
                "\(quoted(name)) is not a name for a \(what).",
                help: "A name is \(rule)."
            )
        }
    }

    /// `name` in quotes, cut and cleaned so that it fits a line and hides nothing.
    public static func quoted(_ name: String) -> String {
        var result = ""
        for scalar in name.unicodeScalars.prefix(80) {
            result += scalar.value < 0x20 || scalar.value == 0x7F ? "?" : String(scalar)
        }
        return "'\(result)\(name.unicodeScalars.count > 80 ? "…" : "")'"
    }
}

/// Checks of sizes.
public enum ValidSize {
    /// Refuses a volume size outside its limits.
    ///
    /// - Throws: ``ControlError/Code/invalidArgument``.
    public static func require(volumeByteCount byteCount: UInt64) throws(ControlError) {
        guard byteCount > 0 else {
            throw ControlError(
                .invalidArgument,
                "A volume of 0 bytes cannot be made.",
                help: "Give a size such as 10GiB."
            )
        }
        guard byteCount <= APILimits.volumeByteCountMax else {
            throw ControlError(
                .invalidArgument,
                "\(ByteSize(byteCount: byteCount).exactText) is more than the largest volume has.",
                help: "Give a size of at most \(ByteSize(byteCount: APILimits.volumeByteCountMax))."
            )
        }
        let granule = APILimits.volumeByteCountGranule
        guard byteCount.isMultiple(of: granule) else {
            let above = (byteCount / granule + 1) * granule
            throw ControlError(
                .invalidArgument,
                "\(byteCount) bytes are not a multiple of \(granule).",
                help: "Round it up to \(above)."
            )
        }
    }

    /// Refuses a logical block size other than 512 and 4096.
    ///
    /// - Throws: ``ControlError/Code/invalidArgument``.
    public static func require(logicalBlockByteCount: UInt32) throws(ControlError) {
        guard logicalBlockByteCount == 512 || logicalBlockByteCount == 4096 else {
            throw ControlError(
                .invalidArgument,
                "A logical block of \(logicalBlockByteCount) bytes is not served.",
                help: "Give a block size of 512 or 4096."
            )
        }
    }
}
