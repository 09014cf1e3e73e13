internal import BlockCore
internal import CLinux
public import StorageIO

/// Why a device could not be opened or created.
public enum DeviceError: Error, Sendable, Hashable, CustomStringConvertible {
    /// There is nothing at the path.
    case notFound
    /// The path is neither a regular file nor a block device.
    case notADevice
    /// Another process has it open (or mounted).
    case locked
    /// `create` found something at the path.
    case alreadyExists
    /// A file's length, or the length to create, is not a multiple of 4096 bytes or is 0.
    case misaligned(byteCount: UInt64)
    /// The file system does not do direct I/O at 4096 bytes; buffered I/O was not allowed.
    case directRefused(errno: Int32)
    /// There is not room for it.
    case noSpace
    /// The system refused with this errno.
    case system(errno: Int32)

    init(negated result: Int32) {
        switch 0 - result {
        case ENOENT: self = .notFound
        case EEXIST: self = .alreadyExists
        case EISDIR, ENXIO: self = .notADevice
        case EAGAIN, EBUSY: self = .locked
        case ENOSPC: self = .noSpace
        case let errno: self = .system(errno: errno)
        }
    }

    /// One line for a person.
    public var description: String {
        switch self {
        case .notFound: "no such file or device"
        case .notADevice: "neither a regular file nor a block device"
        case .locked: "in use by another process"
        case .alreadyExists: "already exists"
        case .misaligned(let byteCount):
            "its length of \(byteCount) bytes is not a positive multiple of 4096"
        case .directRefused(let errno):
            "direct I/O is refused (\(errorText(errno))); allow buffered I/O to use it anyway"
        case .noSpace: "no space left on the file system"
        case .system(let errno): errorText(errno)
        }
    }
}

/// How to open a device.
public struct DeviceOptions: Sendable {
    /// Opens for reading only, shared with other readers.
    public var isReadOnly = false
    /// Goes through the page cache where the file system refuses direct I/O.
    public var allowsBuffered = false
    /// Faults to inject; nil for none.
    public var faults: FaultPlan?

    /// Creates the defaults: read and write, direct I/O or nothing.
    public init() {}
}

/// How much of a new file is made real at once.
public enum Preallocation: String, Sendable, Hashable, CaseIterable {
    /// A sparse file: space is taken as it is written, and may run out later.
    case none
    /// Space is reserved; the first write to each part still costs a journal commit.
    case allocate
    /// Zeroes are written: slow now, quickest afterwards.
    case write
}

/// An open regular file or block device, locked against other processes.
///
/// Closed and unlocked when the last reference goes; a reactor holds one while it is attached.
public final class Device: Sendable {
    /// Where it was found.
    public let path: String
    /// Its usable size.
    public let geometry: DeviceGeometry
    /// Whether it is a block device rather than a file.
    public let isBlockDevice: Bool
    /// Whether it is open for reading only.
    public let isReadOnly: Bool
    /// Why transfers go through the page cache, as an errno; 0 when they are direct.
    public let bufferedErrno: Int32
    let descriptor: Int32
    let faults: FaultPlan?

    /// Whether transfers bypass the page cache (O_DIRECT).
    public var isDirect: Bool { bufferedErrno == 0 }

    /// What to log about it: nil when all is as wished.
    public var limitation: String? {
        isDirect ? nil : "buffered I/O on \(path): \(errorText(bufferedErrno))"
    }

    /// Opens and locks the file or block device at `path`.
    ///
    /// The lock (an open-file-description lock; on block devices also an exclusive claim) keeps
    /// a second node from the same store, and goes with the process however it ends.
    ///
    /// - Throws: ``DeviceError``; nothing stays open.
    public static func open(
        path: String,
        options: DeviceOptions = DeviceOptions()
    ) throws(DeviceError) -> Device {
        let access = options.isReadOnly ? Int32(cbl_open_read_only) : 0
        var bufferedErrno: Int32 = 0
        // SAFETY: `cbl_open` keeps nothing of the path, here and below.
        var descriptor = unsafe cbl_open(path, access | Int32(cbl_open_direct))
        if descriptor == -EINVAL || descriptor == -EOPNOTSUPP {
            // Whether that is permitted comes after the question whether it is a device at all.
            bufferedErrno = 0 - descriptor
            // SAFETY: as above.
            descriptor = unsafe cbl_open(path, access)
        }
        guard descriptor >= 0 else { throw DeviceError(negated: descriptor) }
        do throws(DeviceError) {
            return try Device(
                path: path,
                descriptor: descriptor,
                bufferedErrno: bufferedErrno,
                options: options
            )
        } catch {
            _ = cbl_close(descriptor)
            throw error
        }
    }

    private init(
        path: String,
        descriptor: Int32,
        bufferedErrno: Int32,
        options: DeviceOptions
    ) throws(DeviceError) {
        var byteCount: UInt64 = 0
        var alignment: UInt32 = 0
        // SAFETY: both are borrowed for the call.
        let kind = unsafe cbl_device_kind(descriptor, &byteCount, &alignment)
        guard kind >= 0 else {
            throw kind == -EINVAL ? .notADevice : DeviceError(negated: kind)
        }
        guard bufferedErrno == 0 || options.allowsBuffered else {
            throw .directRefused(errno: bufferedErrno)
        }
        let locked = cbl_lock(descriptor, options.isReadOnly)
        guard locked == 0 else { throw DeviceError(negated: locked) }
        let blockByteCount = UInt64(BlockGeometry.blockByteCount)
        // A disk's odd tail is left unused; a file with one was not made by us.
        if kind == 1 { byteCount -= byteCount % blockByteCount }
        guard byteCount > 0 && byteCount % blockByteCount == 0 else {
            throw .misaligned(byteCount: byteCount)
        }
        guard bufferedErrno != 0 || UInt64(alignment) <= blockByteCount else {
            throw .directRefused(errno: EINVAL)
        }
        self.path = path
        self.geometry = DeviceGeometry(byteCount: byteCount)
        self.isBlockDevice = kind == 1
        self.isReadOnly = options.isReadOnly
        self.bufferedErrno = bufferedErrno
        self.descriptor = descriptor
        self.faults = options.faults
    }

    deinit { _ = cbl_close(descriptor) }

    /// Creates a file of `byteCount` bytes, durable under its name; blocks while it writes.
    ///
    /// - Throws: ``DeviceError``; the file is removed again, unless it was there before.
    public static func create(
        path: String,
        byteCount: UInt64,
        preallocate: Preallocation = .none
    ) throws(DeviceError) {
        let blockByteCount = UInt64(BlockGeometry.blockByteCount)
        guard byteCount > 0 && byteCount % blockByteCount == 0 && byteCount <= UInt64(Int64.max)
        else { throw .misaligned(byteCount: byteCount) }
        // SAFETY: as in `open`, the path is lent for the call.
        let descriptor = unsafe cbl_open(path, Int32(cbl_open_create))
        guard descriptor >= 0 else { throw DeviceError(negated: descriptor) }
        defer { _ = cbl_close(descriptor) }
        var result = cbl_truncate(descriptor, byteCount)
        if result == 0 {
            switch preallocate {
            case .none: break
            case .allocate: result = cbl_allocate(descriptor, byteCount)
            case .write: result = cbl_write_zeroes(descriptor, byteCount)
            }
        }
        // The size is durable with the file's data, the name with its directory.
        if result == 0 { result = cbl_flush(descriptor) }
        // SAFETY: as above, the path is lent for each call.
        if result == 0 { result = unsafe cbl_flush_directory_of(path) }
        guard result == 0 else {
            _ = unsafe cbl_unlink(path)
            throw DeviceError(negated: result)
        }
    }
}

/// A device attached to a reactor; a value that only that reactor understands.
@frozen
public struct DeviceHandle: Hashable, Sendable, BitwiseCopyable {
    @usableFromInline let index: Int32
}
