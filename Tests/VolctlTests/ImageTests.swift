// Disk images: told apart from what is none, copied, compared.

import ChildProcesses
import ControlAPI
import Foundation
import Glibc
import ProgramMain
import TestSupport
import Testing
import volctl

private let quiet = Terminal(columnCount: nil, hasColor: false)

/// Makes a file longer; what is new is a hole.
private func extend(_ path: String, to byteCount: Int) throws {
    let file = try Descriptor.open(path, O_RDWR)
    defer { file.close() }
    #expect(ftruncate(file.number, byteCount) == 0)
}

func noProgress() -> ProgressDisplay {
    ProgressDisplay(.none, isJSON: false, terminal: quiet)
}

@Suite(.background) struct DiskImageTests {
    /// A qcow2 header of version 3 for a disk of 1 MiB.
    private func header(_ change: (inout [UInt8]) -> Void = { _ in }) -> [UInt8] {
        var bytes = [UInt8](repeating: 0, count: 512)
        bytes.replaceSubrange(0..<8, with: [0x51, 0x46, 0x49, 0xFB, 0, 0, 0, 3])
        bytes[29] = 0x10
        change(&bytes)
        return bytes
    }

    private func reason(_ bytes: [UInt8], _ format: ImageFormat? = nil) throws -> String {
        let directory = try TestDirectory()
        let path = try directory.file("image", bytes)
        let failure = #expect(throws: CommandFailure.self) {
            try DiskImage(inspecting: path, format: format)
        }
        #expect(failure?.problem.contains(path) == true, "the message names the file")
        return failure?.line ?? ""
    }

    @Test("a file of whole sectors is a raw disk")
    func inspect_wholeSectors_isRaw() throws {
        let directory = try TestDirectory()
        let image = try DiskImage(
            inspecting: try directory.file("a.img", [UInt8](repeating: 7, count: 1536)),
            format: nil
        )
        #expect(image.format == .raw)
        #expect(image.virtualByteCount == 1536)
        #expect(image.volumeByteCount == 4096, "a volume has whole blocks")
    }

    @Test("a qcow2 header tells the size of the disk")
    func inspect_qcow_givesVirtualSize() throws {
        let directory = try TestDirectory()
        let path = try directory.file("a.qcow2", header())
        let image = try DiskImage(inspecting: path, format: nil)
        #expect(image.format == .qcow2)
        #expect(image.virtualByteCount == 1 << 20)
        #expect(
            try DiskImage(inspecting: path, format: .raw).format == .raw,
            "what the caller says counts: a guest may write such a header to its disk"
        )
    }

    @Test("what is no disk image is refused with what to do")
    func inspect_others_areRefused() throws {
        #expect(try reason([]).contains("is empty"))
        #expect(try reason(Array("hello".utf8)).contains("not whole sectors"))
        #expect(try reason([0x1F, 0x8B] + [UInt8](repeating: 0, count: 510)).contains("gunzip"))
        #expect(try reason([0xFD, 0x37, 0x7A, 0x58, 0x5A, 0] + header()).contains("unxz"))
        #expect(try reason([0x28, 0xB5, 0x2F, 0xFD] + header()).contains("unzstd"))
        #expect(try reason(Array("BZh91AY".utf8)).contains("bunzip2"))
        #expect(try reason(Array("PK\u{3}\u{4}".utf8)).contains("unzip"))
        #expect(try reason(Array("KDMV".utf8)).contains("-f vmdk"))
        #expect(try reason(Array("vhdxfile".utf8)).contains("-f vhdx"))
        #expect(try reason([UInt8](repeating: 0, count: 512), .qcow2).contains("not a qcow2"))
    }

    @Test(
        "a web page in an image's place is refused, unless it is called raw",
        arguments: ["<!DOCTYPE html>", "<!doctype HTML", "\u{FEFF} \r\n<html lang='en'>", "<HTML>"]
    )
    func inspect_webPage_isRefused(start: String) throws {
        var page = Array(start.utf8)
        page += [UInt8](repeating: 0x20, count: 512 - page.count)
        #expect(try reason(page).contains("is a web page, not a disk image"))
        #expect(try reason(page).contains("--format raw"))
        let directory = try TestDirectory()
        let path = try directory.file("page", page)
        #expect(try DiskImage(inspecting: path, format: .raw).format == .raw)
    }

    @Test("a qcow2 image that needs something else is refused with what to do")
    func inspect_dependentQcow_isRefused() throws {
        let backed = header { bytes in
            bytes[14] = 1  // The backing file's name is at 256 and has 8 bytes.
            bytes[19] = 8
            bytes.replaceSubrange(256..<264, with: Array("base.img".utf8))
        }
        #expect(try reason(backed).contains("backing file 'base.img'"))
        #expect(try reason(header { $0[35] = 2 }).contains("encrypted"))
        #expect(try reason(header { $0[79] = 2 }).contains("corrupt"))
        #expect(try reason(header { $0[79] = 4 }).contains("another file"))
        #expect(try reason(header { $0[7] = 4 }).contains("version 4"))
        #expect(try reason(header { $0[24] = 0xFF }).contains("largest volume"))
        #expect(try reason(header { $0[31] = 1 }).contains("not whole sectors"))
        #expect(try reason(header { $0[29] = 0 }).contains("is empty"))
    }

    @Test("a qcow2 header cut short anywhere is refused and never traps")
    func qcowHeader_truncated_isRefused() throws {
        for count in 0..<104 {
            let failure = #expect(throws: CommandFailure.self) {
                try QcowHeader(Array(header().prefix(count)), path: "a.qcow2")
            }
            #expect(failure?.problem.contains("cut short") == true)
        }
        #expect(try QcowHeader(header(), path: "a.qcow2").virtualByteCount == 1 << 20)
    }

    @Test("no single changed bit of a header traps")
    func qcowHeader_flippedBits_neverTrap() throws {
        for bit in 0..<104 * 8 {
            let bytes = header { $0[bit / 8] ^= 1 << UInt8(bit % 8) }
            let isQcow = ImageSignature(bytes) == .qcow2
            #expect(isQcow == (bit >= 32), "only the magic tells")
            _ = try? QcowHeader(bytes, path: "a.qcow2")
        }
    }

    @Test("directories, devices of other kinds and missing files are refused")
    func inspect_noFile_isRefused() throws {
        let directory = try TestDirectory()
        for path in [directory.path, "\(directory.path)/none", "/dev/null", ""] {
            let failure = #expect(throws: CommandFailure.self) {
                try DiskImage(inspecting: path, format: nil)
            }
            #expect(failure?.code == "bad_image")
        }
    }

    @Test("a link that leads nowhere is told as one")
    func inspect_danglingLink_isTold() throws {
        let directory = try TestDirectory()
        let path = "\(directory.path)/link.img"
        try FileManager.default.createSymbolicLink(
            atPath: path,
            withDestinationPath: "\(directory.path)/none"
        )
        let failure = #expect(throws: CommandFailure.self) {
            try DiskImage(inspecting: path, format: nil)
        }
        #expect(failure?.problem.contains("is a symbolic link that leads nowhere") == true)
        #expect(failure?.remedy?.contains("readlink -m \(path)") == true)
    }

    @Test(
        "a qcow2 file cut short behind its header is found",
        .enabled(if: areInstalled("qemu-img", "qemu-io"))
    )
    func checkIntegrity_truncated_isFound() throws {
        let directory = try TestDirectory()
        let path = "\(directory.path)/a.qcow2"
        _ = try Tool.qemuImage.run(["create", "-q", "-f", "qcow2", path, "64M"])
        _ = try Tool.qemuIO.run(["-f", "qcow2", "-c", "write -P 1 0 4M", path])
        try DiskImage(inspecting: path, format: nil).checkIntegrity()
        let whole = try Data(contentsOf: URL(fileURLWithPath: path))
        try whole.prefix(whole.count / 2).write(to: URL(fileURLWithPath: path))
        let failure = #expect(throws: CommandFailure.self) {
            try DiskImage(inspecting: path, format: nil).checkIntegrity()
        }
        #expect(failure?.code == "bad_image")
        #expect(failure?.problem.contains("cut short") == true)
    }
}

@Suite(.background) struct ContentDigestTests {
    @Test("the digest is SHA-256")
    func finish_knownInputs_areKnown() {
        let empty = ContentDigest()
        #expect(
            empty.finish() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        )
        let abc = ContentDigest()
        abc.update(Array("abc".utf8)[...])
        #expect(
            abc.finish() == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        )
    }

    @Test("zeros counted are zeros taken in")
    func update_zeroCount_isSameAsZeros() {
        let counted = ContentDigest()
        counted.update(zeroCount: (3 << 20) + 5)
        let taken = ContentDigest()
        taken.update([UInt8](repeating: 0, count: (3 << 20) + 5)[...])
        #expect(counted.byteCount == taken.byteCount)
        #expect(counted.finish() == taken.finish())
    }

    @Test("holes of a file, at its start, inside and at its end, count as zeros")
    func of_sparseFile_isDigestOfContent() throws {
        let directory = try TestDirectory()
        let path = "\(directory.path)/sparse.img"
        let file = try Descriptor.open(path, O_RDWR | O_CREAT)
        defer { file.close() }
        let expected = ContentDigest()
        lseek(file.number, 1 << 20, SEEK_SET)
        try file.writeAll([1, 2, 3])
        lseek(file.number, 4 << 20, SEEK_SET)
        try file.writeAll([4])
        ftruncate(file.number, 8 << 20)
        expected.update(zeroCount: 1 << 20)
        expected.update([1, 2, 3])
        expected.update(zeroCount: (3 << 20) - 3)
        expected.update([4])
        expected.update(zeroCount: (4 << 20) - 1)
        let image = try DiskImage(inspecting: path, format: .raw)
        #expect(try ContentDigest.of(image, progress: noProgress()) == expected.finish())
    }

    @Test(
        "a qcow2 image has the digest of the disk in it",
        .enabled(if: areInstalled("qemu-img", "qemu-nbd", "nbdcopy"))
    )
    func of_qcow_isDigestOfDisk() throws {
        let directory = try TestDirectory()
        let raw = try directory.file(
            "a.img",
            (0..<(1 << 20)).map { UInt8(truncatingIfNeeded: $0 &* 31 >> 7) }
        )
        let qcow = "\(directory.path)/a.qcow2"
        let (made, _) = try Tool.qemuImage.run(["convert", "-f", "raw", "-O", "qcow2", raw, qcow])
        #expect(made.isSuccess)
        let digests = try [raw, qcow].map { path in
            try ContentDigest.of(
                DiskImage(inspecting: path, format: nil),
                progress: noProgress()
            )
        }
        #expect(digests[0] == digests[1])
    }
}

@Suite(.background) struct ConversionTests {
    @Test("the newest percentage is read from what qemu-img writes")
    func percent_output_isNewest() {
        #expect(Conversion.percent(in: "    (0.00/100%)\r    (12.34/100%)\r") == 12.34)
        #expect(Conversion.percent(in: "    (0.00/100%)\r    (12.3") == 0)
        #expect(Conversion.percent(in: "(100.00/100%)\n") == 100)
        #expect(Conversion.percent(in: "") == nil)
        #expect(Conversion.percent(in: "(x/100%)") == nil)
    }

    @Test("an import flushes at its end, and skips zeros only where the volume has them")
    func import_arguments_areRight() throws {
        let directory = try TestDirectory()
        let image = try DiskImage(
            inspecting: try directory.file("a.img", [UInt8](repeating: 1, count: 512)),
            format: nil
        )
        let node = ServingNode(name: "n1", uri: "nbd://h:1/v")
        let blank = Conversion.import(image, to: node, isBlank: true).arguments
        let used = Conversion.import(image, to: node, isBlank: false).arguments
        #expect(blank.contains("--target-is-zero"))
        #expect(!used.contains("--target-is-zero"))
        for arguments in [blank, used] {
            #expect(arguments.suffix(2) == [image.path, "nbd://h:1/v"])
            let cache = try #require(arguments.firstIndex(of: "-t"))
            #expect(arguments[cache + 1] == "writeback")
        }
    }

    @Test("the tail of a larger volume is zeroed without gap or overlap")
    func zeroCommands_anyRange_coverIt() {
        let (start, end): (UInt64, UInt64) = (512, (3 << 30) + 4096)
        var next = start
        for command in ImageImport.zeroCommands(from: start, to: end) {
            let words = command.split(separator: " ")
            #expect(words.prefix(3) == ["write", "-z", "-u"])
            #expect(UInt64(words[3]) == next)
            next += UInt64(words[4]) ?? 0
        }
        #expect(next == end)
        #expect(ImageImport.zeroCommands(from: 5, to: 5).isEmpty)
    }

    @Test(
        "an image goes through a server and back unchanged, and stays sparse",
        .enabled(if: areInstalled("qemu-img", "qemu-nbd", "nbdcopy")),
        arguments: [ImageFormat.raw, .qcow2]
    )
    func run_thereAndBack_isSame(format: ImageFormat) async throws {
        let directory = try TestDirectory()
        let byteCount = 16 << 20
        let raw = try directory.file("a.img", [UInt8](repeating: 9, count: 1 << 20))
        try extend(raw, to: byteCount)
        let source = "\(directory.path)/source"
        let (made, _) = try Tool.qemuImage.run([
            "convert", "-f", "raw", "-O", format.rawValue, raw, source,
        ])
        #expect(made.isSuccess)
        // QEMU's own server stands in for ours: it speaks the same protocol.
        let disk = "\(directory.path)/disk"
        try extend(try directory.file("disk"), to: byteCount)
        let socket = "\(directory.path)/s"
        let null = try Descriptor.open("/dev/null", O_WRONLY)
        defer { null.close() }
        let server = try ChildSpecification(
            try Tool.qemuServer.located(),
            ["-f", "raw", "-x", "vol", "-k", socket, "--persistent", "--discard", "unmap", disk],
            output: null.number,
            error: null.number
        ).start()
        defer {
            kill(server, SIGKILL)
            _ = ChildEnd.wait(for: server)
        }
        #expect(try await isEventually { Path.exists(socket) })
        let node = ServingNode(name: "n1", uri: "nbd+unix:///vol?socket=\(socket)")

        let image = try DiskImage(inspecting: source, format: format)
        try Conversion.import(image, to: node, isBlank: true).run(progress: noProgress())
        let wanted = try ContentDigest.of(image, progress: noProgress())
        let stored = try ContentDigest.ofExport(
            node,
            byteCount: image.virtualByteCount,
            progress: noProgress()
        )
        #expect(stored == wanted)
        #expect((Path.status(disk)?.allocatedByteCount ?? .max) < 2 << 20, "holes stayed holes")

        let copy = "\(directory.path)/copy"
        try Conversion.export(node, to: copy, format: format, isCompressed: false)
            .run(progress: noProgress())
        let exported = try DiskImage(inspecting: copy, format: format)
        #expect(try ContentDigest.of(exported, progress: noProgress()) == wanted)
        #expect((Path.status(copy)?.allocatedByteCount ?? .max) < 3 << 20, "and here too")
    }
}

@Suite struct VolumeAccessTests {
    private func snapshot(_ uri: String?, unix: String? = nil) -> Snapshot {
        Snapshot(
            volume: "vm1",
            name: "monday",
            byteCount: 4096,
            nbdURI: uri,
            nbdUnixURI: unix,
            createdAt: .now
        )
    }

    @Test("the socket of this machine comes before TCP")
    func uri_prefersUnix() throws {
        let tcp = "nbd://127.0.0.1:10809/vm1@monday"
        let unix = "nbd+unix:///vm1@monday?socket=/nbd.sock"
        #expect(try VolumeAccess.uri(of: snapshot(tcp)) == tcp)
        #expect(try VolumeAccess.uri(of: snapshot(tcp, unix: unix)) == unix)
    }

    @Test(
        "what volctl cannot open is refused with what can be done",
        arguments: [
            nil, "nbds://127.0.0.1:10809/vm1@monday",
        ]
    )
    func uri_unusable_isRefused(uri: String?) throws {
        let error = #expect(throws: ControlError.self) {
            _ = try VolumeAccess.uri(of: snapshot(uri))
        }
        #expect(error?.code == .unsupported)
        #expect(error?.help != nil)
    }
}

@Suite struct ToolTests {
    private let shell = Tool(name: "sh", package: "dash")

    @Test("a tool that is missing is named with the package that has it")
    func located_missing_namesPackage() {
        let failure = #expect(throws: CommandFailure.self) {
            try Tool.qemuImage.located(searchPath: "/nonexistent:/proc")
        }
        #expect(failure?.code == "tool_missing")
        #expect(failure?.remedy?.contains("apt-get install qemu-utils") == true)
    }

    @Test("output and complaints of a tool arrive, and how it ended")
    func run_both_arrive() throws {
        let (result, output) = try shell.run([
            "-c", "echo out; echo first >&2; echo last >&2; exit 3",
        ])
        #expect(String(decoding: output, as: UTF8.self) == "out\n")
        #expect(result.end == .exited(3))
        #expect(result.reason == "last")
        #expect(!result.isSuccess)
    }

    @Test("a tool that writes more than a pipe holds to both does not hang")
    func run_muchOutput_doesNotHang() throws {
        let script =
            "i=0; while [ $i -lt 3000 ]; do echo $i; echo complaint$i >&2; i=$((i+1)); done; "
        let (result, output) = try shell.run(["-c", script + "head -c 1000000 /dev/zero"])
        #expect(output.count > 1_000_000)
        #expect(result.reason == "complaint2999")
    }

    @Test("a tool killed by a signal says so")
    func run_killed_saysSo() throws {
        let (result, _) = try shell.run(["-c", "kill -9 $$"])
        #expect(result.end == .signalled(9))
        #expect(result.reason == "signal 9 ended it")
    }

    @Test("when the reader of its output gives up, the tool is ended")
    func run_readerThrows_endsTool() throws {
        struct Enough: Error {}
        var pid: Int32 = 0
        #expect(throws: Enough.self) {
            _ = try shell.run(["-c", "echo $$; exec sleep 600"]) { piece in
                let text = String(decoding: piece, as: UTF8.self)
                pid = Int32(text.trimmingCharacters(in: .whitespacesAndNewlines)) ?? 0
                throw Enough()
            }
        }
        #expect(pid > 1)
        #expect(ProcessRecord(running: pid) == nil)
    }
}
