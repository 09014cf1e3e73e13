// Devices while no node serves them: what is on them, and putting an empty store there.

public import BlockCore
internal import LogFormat
public import LogStore
public import Reactor
internal import StorageIO

/// What a device holds, as far as its first MiB and samples of the rest tell.
public enum DeviceContent: Sendable, Hashable {
    /// Nothing but zeroes wherever it was looked.
    case blank
    /// A store.
    case store(StoreIdentity)
    /// A store of a newer format.
    case newerStore(version: UInt32)
    /// A store of a format that is not read any more.
    case olderStore(version: UInt32)
    /// What was a store: its superblocks are damaged.
    case damagedStore
    /// Something else that is known by its signature.
    case foreign(String)
    /// Something that is not known.
    case unknown
}

/// Why a device was not formatted.
public enum DeviceFormatError: Error, Sendable, Hashable {
    /// It cannot be opened or created.
    case device(DeviceError)
    /// It is not blank, and was not to be overwritten.
    case notBlank(DeviceContent)
    /// It is too small, or the segment size is wrong.
    case layout(StoreFormatError)
    /// Reading or writing it failed.
    case transfer(errno: Int32)
    /// No engine to read and write with.
    case reactor(ReactorError)
}

/// Looks at devices and formats them; blocks while it does.
public enum StoreDevice {
    /// The bytes that tell what a device holds: the store's superblocks and every signature known.
    private static var headByteCount: Int { 1 << 20 }
    /// Places looked at behind them when those hold nothing: a disk whose first MiB was wiped, or
    /// never used, may hold everything else.
    private static var sampleCountMax: UInt64 { 256 }
    /// Samples lie at multiples of it, as segments, partitions and extents mostly do.
    private static var sampleAlignment: UInt64 { 1 << 20 }

    /// Puts an empty store on a device.
    ///
    /// - Parameters:
    ///   - device: Open for writing.
    ///   - identity: The new store's; random, so that no two stores share one.
    ///   - segmentByteCount: Bytes per segment, or nil for what suits the size.
    ///   - overwrites: Whether what is there is given up.
    /// - Throws: ``DeviceFormatError``; before anything was written except for `transfer`.
    public static func format(
        _ device: Device,
        identity: StoreIdentity,
        segmentByteCount: UInt32? = nil,
        overwrites: Bool = false
    ) throws(DeviceFormatError) {
        let transfers = try DeviceTransfers(device)
        if !overwrites {
            let found = try content(transfers)
            guard found == .blank else { throw .notBlank(found) }
        }
        let plan: [(offset: UInt64, bytes: [UInt8])]
        do throws(StoreFormatError) {
            plan = try StoreFormat.plan(
                identity: identity,
                geometry: device.geometry,
                segmentByteCount: segmentByteCount
            )
        } catch { throw .layout(error) }
        // Old superblocks first: a format that is cut off leaves a device that is no store,
        // never one with an old map and new segments.
        try transfers.write(
            [UInt8](repeating: 0, count: min(headByteCount, Int(device.geometry.byteCount))),
            at: 0
        )
        try transfers.flush()
        for piece in plan where piece.offset >= UInt64(headByteCount) {
            try transfers.write(piece.bytes, at: piece.offset)
        }
        try transfers.flush()
        for piece in plan where piece.offset < UInt64(headByteCount) {
            try transfers.write(piece.bytes, at: piece.offset)
        }
        try transfers.flush()
    }

    /// What a device holds.
    public static func content(of device: Device) throws(DeviceFormatError) -> DeviceContent {
        try content(DeviceTransfers(device))
    }

    private static func content(
        _ transfers: DeviceTransfers
    ) throws(DeviceFormatError)
        -> DeviceContent
    {
        let head = try transfers.read(
            byteCount: min(headByteCount, Int(transfers.geometry.byteCount)),
            at: 0
        )
        let found = content(head: head)
        guard found == .blank, try !isBlankBehindHead(transfers) else { return found }
        return .unknown
    }

    private static func isBlankBehindHead(
        _ transfers: DeviceTransfers
    ) throws(DeviceFormatError) -> Bool {
        let byteCount = transfers.geometry.byteCount
        let alignedCount = (byteCount + sampleAlignment - 1) / sampleAlignment
        let step = (alignedCount + sampleCountMax - 1) / sampleCountMax * sampleAlignment
        var offset = UInt64(headByteCount)
        while offset + 4096 <= byteCount {
            guard try transfers.read(byteCount: 4096, at: offset).isZero else { return false }
            offset += step
        }
        // Copies of partition tables and members of RAID sets are known at the end.
        let tailByteCount = min(UInt64(headByteCount), byteCount) & ~4095
        let tail = (byteCount - tailByteCount) & ~4095
        return try transfers.read(byteCount: Int(tailByteCount), at: tail).isZero
    }

    private static func content(head: ByteRegion) -> DeviceContent {
        var isDamaged = false
        for offset in Superblock.slotOffsets where Int(offset) + 4096 <= head.byteCount {
            do throws(LogFormatError) {
                return .store(try Superblock.decode(head.slice(Int(offset), 4096)).identity)
            } catch .versionTooNew(let version) {
                return .newerStore(version: version)
            } catch .versionTooOld(let version) {
                return .olderStore(version: version)
            } catch .malformed {
                continue
            } catch {
                isDamaged = true
            }
        }
        if isDamaged { return .damagedStore }
        for signature in DeviceSignature.known where signature.matches(head) {
            return .foreign(signature.name)
        }
        return head.isZero ? .blank : .unknown
    }
}

/// A few bytes at a known place that tell what a device holds.
private struct DeviceSignature {
    var name: String
    var offset: Int
    var bytes: [UInt8]

    /// What people have on disks.
    ///
    /// Source: libblkid's probes, the ones with a magic in the first
    /// MiB.
    static let known = [
        DeviceSignature("an ext2, ext3 or ext4 file system", 0x438, [0x53, 0xEF]),
        DeviceSignature("an XFS file system", 0, "XFSB"),
        DeviceSignature("a Btrfs file system", 0x10040, "_BHRfS_M"),
        DeviceSignature("an NTFS file system", 3, "NTFS    "),
        DeviceSignature("a FAT file system", 0x52, "FAT32   "),
        DeviceSignature("a FAT file system", 0x36, "FAT16   "),
        DeviceSignature("a squashfs image", 0, "hsqs"),
        DeviceSignature("a LUKS volume", 0, [0x4C, 0x55, 0x4B, 0x53, 0xBA, 0xBE]),
        DeviceSignature("an LVM physical volume", 0x218, "LVM2 001"),
        DeviceSignature("swap space", 4086, "SWAPSPACE2"),
        DeviceSignature("a RAID member", 0x1000, [0xFC, 0x4E, 0x2B, 0xA9]),
        DeviceSignature("a qcow2 image", 0, [0x51, 0x46, 0x49, 0xFB]),
        DeviceSignature("a VMDK image", 0, "KDMV"),
        DeviceSignature("a GPT partition table", 512, "EFI PART"),
        DeviceSignature("a GPT partition table", 4096, "EFI PART"),
        DeviceSignature("a partition table or boot sector", 510, [0x55, 0xAA]),
    ]

    private init(_ name: String, _ offset: Int, _ bytes: [UInt8]) {
        self.name = name
        self.offset = offset
        self.bytes = bytes
    }

    private init(_ name: String, _ offset: Int, _ text: String) {
        self.init(name, offset, Array(text.utf8))
    }

    func matches(_ head: ByteRegion) -> Bool {
        guard offset + bytes.count <= head.byteCount else { return false }
        return head.slice(offset, bytes.count).array() == bytes
    }
}
