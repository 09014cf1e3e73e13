// Disk images in files: what they are and whether they can be imported, found out before anything
// is changed.

import ChildProcesses
import ControlAPI
import Foundation
import Glibc
import ProgramMain

/// How a disk is laid out in a file.
package enum ImageFormat: String, CaseIterable, Sendable {
    /// Byte for byte.
    case raw
    /// QEMU copy-on-write, version 2 or 3.
    case qcow2
}

/// A disk image that can be imported.
package struct DiskImage: Hashable, Sendable {
    /// Its file, an absolute path: a relative one might read as a protocol to QEMU's tools.
    package var path: String
    /// How it is laid out.
    package var format: ImageFormat
    /// The size of the disk in it.
    package var virtualByteCount: UInt64

    /// The bytes of a file that are looked at to tell what it is.
    private static var headByteCountMax: Int { 4096 }

    /// Finds out what is in the file `path`.
    ///
    /// - Parameters:
    ///   - path: The file, or a block device.
    ///   - format: What it is; nil finds out. A guest can write what it likes at the start of a
    ///     raw disk, so callers pass what they know.
    /// - Throws: ``CommandFailure`` that says why it cannot be imported and what helps.
    package init(inspecting path: String, format: ImageFormat?) throws(CommandFailure) {
        let path = absolutePath(path)
        guard let status = Path.status(path) else {
            let reason = systemErrorText()
            guard Path.linkStatus(path)?.kind == .link else {
                throw CommandFailure("bad_image", "Cannot read \(path): \(reason).")
            }
            throw CommandFailure(
                "bad_image",
                "\(path) is a symbolic link that leads nowhere: \(reason).",
                remedy: "Give the image itself, or see where it leads: readlink -m "
                    + path.shellQuoted
            )
        }
        guard status.kind == .file || status.kind == .blockDevice else {
            let what =
                status.kind == .directory ? "a directory" : "neither a file nor a block device"
            throw CommandFailure(
                "bad_image",
                "\(path) is \(what).",
                remedy: "Give the file of a disk image."
            )
        }
        let file = try Descriptor.open(path, O_RDONLY)
        defer { file.close() }
        let fileByteCount = UInt64(max(0, lseek(file.number, 0, SEEK_END)))
        let head = try file.readHead(byteCountMax: Self.headByteCountMax)
        let found = ImageSignature(head)
        switch (format, found) {
        case (.qcow2?, .qcow2), (nil, .qcow2):
            let header = try QcowHeader(head, path: path)
            self.init(path: path, format: .qcow2, virtualByteCount: header.virtualByteCount)
        case (.qcow2?, _):
            throw CommandFailure(
                "bad_image",
                "\(path) is not a qcow2 image.",
                remedy: "Leave --format away, or give --format raw."
            )
        case (nil, .foreign(let name, let remedy)):
            throw CommandFailure(
                "bad_image",
                "\(path) is \(name), not a disk image.",
                remedy: remedy
            )
        case (nil, .none), (.raw?, _):
            self.init(path: path, format: .raw, virtualByteCount: fileByteCount)
        }
        try checkSize()
    }

    private init(path: String, format: ImageFormat, virtualByteCount: UInt64) {
        self.path = path
        self.format = format
        self.virtualByteCount = virtualByteCount
    }

    private func checkSize() throws(CommandFailure) {
        guard virtualByteCount > 0 else {
            throw CommandFailure("bad_image", "\(path) is empty.", remedy: "Give a disk image.")
        }
        guard virtualByteCount.isMultiple(of: 512) else {
            throw CommandFailure(
                "bad_image",
                "\(path) is not a disk image: its \(virtualByteCount) bytes are not whole sectors "
                    + "of 512.",
                remedy: "If it is one cut short, get it again."
            )
        }
        guard virtualByteCount <= APILimits.volumeByteCountMax else {
            throw CommandFailure(
                "bad_image",
                "\(path) holds a disk of \(ByteSize(byteCount: virtualByteCount)); "
                    + "the largest volume has \(ByteSize(byteCount: APILimits.volumeByteCountMax))."
            )
        }
    }

    /// Has QEMU's tools check what the header only promises: a file cut short, or damaged maps.
    package func checkIntegrity() throws {
        guard format == .qcow2 else { return }
        let (result, _) = try Tool.qemuImage.run(["check", "-q", "-f", "qcow2", path])
        switch result.end {
        case .exited(0), .exited(3):
            // 3: clusters are leaked, which costs room in the file and nothing else.
            return
        case .exited(2):
            throw CommandFailure(
                "bad_image",
                "\(path) is damaged or cut short: \(result.reason).",
                remedy: "Get it again, or see 'qemu-img check \(path.shellQuoted)'."
            )
        default:
            throw CommandFailure("bad_image", "\(path) cannot be read: \(result.reason).")
        }
    }

    /// The size of a volume that holds the disk: whole blocks of the store.
    package var volumeByteCount: UInt64 {
        let granule = APILimits.volumeByteCountGranule
        return (virtualByteCount + granule - 1) / granule * granule
    }
}

/// What the first bytes of a file tell about it.
package enum ImageSignature: Hashable, Sendable {
    /// Nothing known: taken for a raw disk.
    case none
    /// A qcow2 image.
    case qcow2
    /// Something else, and what to do about it.
    case foreign(name: String, remedy: String)

    /// Looks at the first bytes of a file.
    package init(_ head: [UInt8]) {
        func has(_ bytes: [UInt8], at offset: Int = 0) -> Bool {
            head.dropFirst(offset).starts(with: bytes)
        }
        func has(_ text: String, at offset: Int = 0) -> Bool { has(Array(text.utf8), at: offset) }
        func packed(_ name: String, _ command: String) -> ImageSignature {
            .foreign(name: "compressed with \(name)", remedy: "Unpack it first: \(command)")
        }
        func converted(_ name: String, _ format: String) -> ImageSignature {
            .foreign(
                name: "a \(name) image",
                remedy: "Convert it first: qemu-img convert -f \(format) -O qcow2 IMAGE NEW.qcow2"
            )
        }
        func isMarkup() -> Bool {
            // A byte order mark and white space may come first; case does not count.
            let mark: [UInt8] = [0xEF, 0xBB, 0xBF]
            let text = head.dropFirst(has(mark) ? mark.count : 0)
                .drop { [0x20, 0x09, 0x0A, 0x0D].contains($0) }
            let start = String(decoding: text.prefix(16), as: UTF8.self).lowercased()
            return ["<!doctype html", "<html"].contains(where: start.hasPrefix)
        }
        self =
            if has([0x51, 0x46, 0x49, 0xFB]) { .qcow2 }  // "QFI\xFB"
            else if has([0x1F, 0x8B]) {
                packed("gzip", "gunzip FILE")
            } else if has([0xFD, 0x37, 0x7A, 0x58, 0x5A]) {
                packed("xz", "unxz FILE")
            } else if has([0x28, 0xB5, 0x2F, 0xFD]) {
                packed("zstd", "unzstd FILE")
            } else if has("BZh") { packed("bzip2", "bunzip2 FILE") } else if has("PK\u{3}\u{4}") {
                packed("zip", "unzip FILE")
            } else if has("KDMV") || has("# Disk DescriptorFile") {
                converted("VMDK", "vmdk")
            } else if has("vhdxfile") { converted("VHDX", "vhdx") } else if has("conectix") {
                converted("VHD", "vpc")
            } else if has([0x7F, 0x10, 0xDA, 0xBE], at: 64) {
                converted("VDI", "vdi")
            } else if has("ustar", at: 257) {
                .foreign(name: "a tar archive", remedy: "Unpack it first: tar -xf FILE")
            } else if isMarkup() {
                .foreign(
                    name: "a web page",
                    remedy: "Get the image itself, such as from a link on that page; --format raw "
                        + "takes the file as it is."
                )
            } else { .none }
    }
}

/// The part of a qcow2 header that decides whether the image can be imported.
///
/// Spec: QEMU docs/interop/qcow2.txt, "Header"; all numbers are big-endian.
package struct QcowHeader: Hashable, Sendable {
    /// The size of the disk in it.
    package var virtualByteCount: UInt64

    /// Reads the header at the start of `head`.
    ///
    /// - Parameters:
    ///   - head: The first bytes of the file.
    ///   - path: The file, for messages.
    /// - Throws: ``CommandFailure`` that says why the image cannot be imported.
    package init(_ head: [UInt8], path: String) throws(CommandFailure) {
        func number(at offset: Int, byteCount: Int) -> UInt64 {
            head[offset..<offset + byteCount].reduce(0) { $0 << 8 | UInt64($1) }
        }
        guard head.count >= 72 else {
            throw CommandFailure(
                "bad_image",
                "\(path) is cut short: a qcow2 header has 72 bytes, this file \(head.count).",
                remedy: "Get it again."
            )
        }
        let version = number(at: 4, byteCount: 4)
        guard version == 2 || version == 3 else {
            throw CommandFailure(
                "bad_image",
                "\(path) is a qcow image of version \(version); versions 2 and 3 are read.",
                remedy: "Convert it first: qemu-img convert -O qcow2 IMAGE NEW.qcow2"
            )
        }
        guard number(at: 8, byteCount: 8) == 0 else {
            let flatten = "qemu-img convert -O qcow2 \(path.shellQuoted) FLAT.qcow2"
            throw CommandFailure(
                "bad_image",
                "\(path) has a backing file\(Self.backingName(head)), and holds only what differs.",
                remedy: "If you trust it, flatten it first: \(flatten)"
            )
        }
        guard number(at: 32, byteCount: 4) == 0 else {
            throw CommandFailure(
                "bad_image",
                "\(path) is encrypted.",
                remedy: "Decrypt it first with 'qemu-img convert'."
            )
        }
        if version == 3 {
            guard head.count >= 104 else {
                throw CommandFailure(
                    "bad_image",
                    "\(path) is cut short in its header.",
                    remedy: "Get it again."
                )
            }
            let incompatible = number(at: 72, byteCount: 8)
            guard incompatible & 2 == 0 else {
                throw CommandFailure(
                    "bad_image",
                    "\(path) is marked as corrupt.",
                    remedy: "Repair it first: qemu-img check -r all \(path.shellQuoted)"
                )
            }
            guard incompatible & 4 == 0 else {
                throw CommandFailure(
                    "bad_image",
                    "\(path) keeps its data in another file.",
                    remedy: "Convert it first: qemu-img convert -O qcow2 IMAGE NEW.qcow2"
                )
            }
        }
        virtualByteCount = number(at: 24, byteCount: 8)
    }

    private static func backingName(_ head: [UInt8]) -> String {
        let offset = head[8..<16].reduce(0 as UInt64) { $0 << 8 | UInt64($1) }
        let byteCount = head[16..<20].reduce(0 as UInt64) { $0 << 8 | UInt64($1) }
        guard byteCount <= 1023, offset <= UInt64(head.count),
            offset + byteCount <= UInt64(head.count)
        else { return "" }
        let bytes = head[Int(offset)..<Int(offset + byteCount)]
        return " '\(String(decoding: bytes, as: UTF8.self).printable)'"
    }
}

extension Descriptor {
    /// The first bytes of the file, at most `byteCountMax`.
    func readHead(byteCountMax: Int) throws(CommandFailure) -> [UInt8] {
        var head = [UInt8](repeating: 0, count: byteCountMax)
        // SAFETY: the pointer and count are those of one live buffer.
        let count = unsafe head.withUnsafeMutableBytes { bytes in
            unsafe pread(number, bytes.baseAddress, bytes.count, 0)
        }
        guard count >= 0 else {
            throw CommandFailure("io_error", "Cannot read: \(systemErrorText()).")
        }
        return Array(head[..<count])
    }
}
