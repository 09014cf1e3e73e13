// Numbers of the handshake: options, replies to them, items of information.
//
// Spec: NetworkBlockDevice/nbd doc/proto.md, "Option types", "Option reply types"; branch
// extension-ext-header.

/// An option of the handshake.
@frozen
public enum NBDOption: UInt32, Sendable, Hashable, BitwiseCopyable, CaseIterable {
    /// Enters transmission, without a way to refuse (`NBD_OPT_EXPORT_NAME`).
    case exportName = 1
    /// Ends the session (`NBD_OPT_ABORT`).
    case abort = 2
    /// Lists the exports (`NBD_OPT_LIST`).
    case list = 3
    /// Withdrawn (`NBD_OPT_PEEK_EXPORT`).
    case peekExport = 4
    /// Goes on under TLS (`NBD_OPT_STARTTLS`).
    case startTLS = 5
    /// Describes an export (`NBD_OPT_INFO`).
    case info = 6
    /// Describes an export and enters transmission (`NBD_OPT_GO`).
    case go = 7
    /// Asks for structured replies (`NBD_OPT_STRUCTURED_REPLY`).
    case structuredReply = 8
    /// Lists metadata contexts (`NBD_OPT_LIST_META_CONTEXT`).
    case listMetaContext = 9
    /// Selects metadata contexts (`NBD_OPT_SET_META_CONTEXT`).
    case setMetaContext = 10
    /// Asks for extended headers (`NBD_OPT_EXTENDED_HEADERS`).
    case extendedHeaders = 11
}

/// What a reply to an option is.
@frozen
public enum NBDOptionReplyKind: UInt32, Sendable, Hashable, BitwiseCopyable, CaseIterable {
    /// Done, nothing more to come (`NBD_REP_ACK`).
    case acknowledgement = 1
    /// An export (`NBD_REP_SERVER`).
    case server = 2
    /// An item of information about an export (`NBD_REP_INFO`).
    case info = 3
    /// A metadata context (`NBD_REP_META_CONTEXT`).
    case metaContext = 4
    /// Not known here (`NBD_REP_ERR_UNSUP`).
    case unsupported = 0x8000_0001
    /// Known and not allowed (`NBD_REP_ERR_POLICY`).
    case policy = 0x8000_0002
    /// Known and ill-formed (`NBD_REP_ERR_INVALID`).
    case invalid = 0x8000_0003
    /// Not possible on this platform (`NBD_REP_ERR_PLATFORM`).
    case platform = 0x8000_0004
    /// Not without TLS (`NBD_REP_ERR_TLS_REQD`).
    case tlsRequired = 0x8000_0005
    /// No such export (`NBD_REP_ERR_UNKNOWN`).
    case unknown = 0x8000_0006
    /// The server is shutting down (`NBD_REP_ERR_SHUTDOWN`).
    case shutdown = 0x8000_0007
    /// Not unless the client asks for block sizes (`NBD_REP_ERR_BLOCK_SIZE_REQD`).
    case blockSizeRequired = 0x8000_0008
    /// Too large to process (`NBD_REP_ERR_TOO_BIG`).
    case tooBig = 0x8000_0009
    /// Extended headers are needed, or in force (`NBD_REP_ERR_EXT_HEADER_REQD`).
    case extendedHeadersRequired = 0x8000_000A

    /// Whether the option failed; the reply's data is then text for people.
    @inlinable
    public var isError: Bool { rawValue & 0x8000_0000 != 0 }
}

/// An item of information about an export.
@frozen
public enum NBDInfoKind: UInt16, Sendable, Hashable, BitwiseCopyable, CaseIterable {
    /// Size and transmission flags (`NBD_INFO_EXPORT`).
    case export = 0
    /// Canonical name (`NBD_INFO_NAME`).
    case name = 1
    /// Description for people (`NBD_INFO_DESCRIPTION`).
    case description = 2
    /// Block and payload sizes (`NBD_INFO_BLOCK_SIZE`).
    case blockSize = 3
}
