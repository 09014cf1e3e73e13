// volnode format: an empty store on a file or block device.

import ArgumentParser
import BlockCore
import ControlAPI
import Foundation
import ProgramMain
import Reactor
import StorageIO
import StorageNode

/// `volnode format`.
struct Format: ParsableCommand {
    static let configuration = CommandConfiguration(
        abstract: "Puts an empty store on a file or block device.",
        discussion: """
            A file that does not exist is made with --size. A device that holds anything but
            zeroes is refused, unless --force gives its contents up.

            Examples:
              volnode format /var/lib/cairn/store --size 64GiB --preallocate write
              volnode format /dev/nvme1n1
            """
    )

    @Argument(help: "The file or block device.")
    var path: String

    @Option(
        help: ArgumentHelp("The size of a file to be made.", valueName: "size"),
        transform: ByteSize.storeArgument
    )
    var size: ByteSize?

    @Option(
        help: """
            How much of a new file is made real at once: none (sparse), allocate (reserved), \
            write (zeroes are written: slow now, quickest afterwards).
            """
    )
    var preallocate: Preallocation = .allocate

    @Option(
        help: ArgumentHelp(
            "Bytes in a segment of the log, a power of two; default by the device's size.",
            valueName: "size"
        ),
        transform: ByteSize.argument
    )
    var segmentSize: ByteSize?

    @Flag(help: "Overwrite whatever is there.")
    var force = false

    @Flag(help: "Print one JSON document.")
    var json = false

    @Flag(help: "Go through the page cache where the file system refuses direct I/O.")
    var buffered = false

    func run() throws {
        let isNew = !FileManager.default.fileExists(atPath: path)
        if isNew { try create() } else { try checkSize() }
        do {
            try format()
        } catch {
            if isNew { try? FileManager.default.removeItem(atPath: path) }
            throw error
        }
    }

    private func create() throws {
        guard let size else {
            throw Failure(
                "\(path) does not exist.",
                help: "Give the size of the file to make, for example '--size 8GiB'."
            )
        }
        do throws(DeviceError) {
            try Device.create(path: path, byteCount: size.byteCount, preallocate: preallocate)
        } catch { throw Failure(path: path, error) }
    }

    private func checkSize() throws {
        guard let size else { return }
        let attributes = try? FileManager.default.attributesOfItem(atPath: path)
        let existing = (attributes?[.size] as? NSNumber)?.uint64Value
        let type = attributes?[.type] as? FileAttributeType
        guard type != .typeDirectory else { throw Failure(path: path, .notADevice) }
        let isFile = type == .typeRegular
        guard isFile, existing == size.byteCount else {
            throw Failure(
                "\(path) exists; its size cannot be changed by formatting it.",
                help: "Leave --size out to use all of it, or choose another path."
            )
        }
    }

    private func format() throws {
        var options = DeviceOptions()
        options.allowsBuffered = buffered
        let device: Device
        do throws(DeviceError) {
            device = try Device.open(path: path, options: options)
        } catch { throw Failure(path: path, error) }
        var random = SystemRandomNumberGenerator()
        let identity = StoreIdentity(high: random.next(), low: random.next())
        var segmentByteCount: UInt32?
        if let segmentSize {
            segmentByteCount = UInt32(exactly: segmentSize.byteCount) ?? UInt32.max
        }
        do throws(DeviceFormatError) {
            try StoreDevice.format(
                device,
                identity: identity,
                segmentByteCount: segmentByteCount,
                overwrites: force
            )
        } catch { throw Failure(path: path, error) }
        guard json else {
            print("\(path): store \(identity.hexText), \(device.geometry.byteCount >> 20) MiB")
            return
        }
        try printDocument(
            FormatDocument(
                path: path,
                identity: identity.hexText,
                byteCount: device.geometry.byteCount
            )
        )
    }
}

/// The JSON of `volnode format --json`.
private struct FormatDocument: Encodable {
    var path: String
    var identity: String
    var byteCount: UInt64
}

/// Prints a document as JSON with the keys of our APIs.
func printDocument(_ document: some Encodable) throws {
    let encoder = JSONEncoder()
    encoder.keyEncodingStrategy = .convertToSnakeCase
    encoder.outputFormatting = [.prettyPrinted, .sortedKeys]
    print(String(decoding: try encoder.encode(document), as: UTF8.self))
}
