// Error values of replies, and the one table that maps system errors to them.
//
// Spec: NetworkBlockDevice/nbd doc/proto.md, "Error values".

/// An error value of a reply; the protocol allows these and no others.
@frozen
public enum NBDError: UInt32, Sendable, Hashable, BitwiseCopyable, CaseIterable, Error {
    /// Operation not permitted: a change of a read-only export (`NBD_EPERM`).
    case notPermitted = 1
    /// Input/output error (`NBD_EIO`).
    case inputOutput = 5
    /// Out of memory. Spec: `NBD_ENOMEM`; a server should not send it, and this one does not.
    case outOfMemory = 12
    /// Invalid argument (`NBD_EINVAL`).
    case invalid = 22
    /// No space left on device (`NBD_ENOSPC`).
    case noSpace = 28
    /// Value too large (`NBD_EOVERFLOW`).
    case overflow = 75
    /// Operation not supported, as an answer to a fast zero only (`NBD_ENOTSUP`).
    case notSupported = 95
    /// The server is shutting down (`NBD_ESHUTDOWN`).
    case shutdown = 108

    /// The value for the positive Linux `errno`.
    ///
    /// `EDQUOT` and `EFBIG` count as no space, as the specification asks; `EROFS` and `EACCES` as
    /// not permitted. What has no value of its own is an input/output error, because the client
    /// did nothing wrong.
    @inlinable
    public init(errno: Int32) {
        switch errno {
        case 1, 13, 30: self = .notPermitted
        case 12: self = .outOfMemory
        case 22: self = .invalid
        case 27, 28, 122: self = .noSpace
        case 75: self = .overflow
        case 95: self = .notSupported
        case 108: self = .shutdown
        default: self = .inputOutput
        }
    }

    /// The Linux `errno` of the value; values and errno numbers agree by the protocol's choice.
    @inlinable
    public var errno: Int32 { Int32(truncatingIfNeeded: rawValue) }
}
