import Foundation
import Testing

/// A block device over a sparse file in a test's directory; needs root and the kernel's loop
/// driver.
struct LoopDevice: Sendable {
    let path: String

    /// Whether they can be made here: as root, with the driver, outside of most containers.
    static func arePossible() async throws -> Bool {
        guard TestEnvironment.isRoot, TestEnvironment.tool("losetup") != nil else { return false }
        let scratch = try ScratchDirectory()
        guard let device = try? await LoopDevice(scratch.file("disk"), byteCount: 1 << 20) else {
            return false
        }
        await device.detach()
        return true
    }

    /// - Throws: when it cannot be made here.
    init(_ file: String, byteCount: UInt64) async throws {
        try await succeed("/usr/bin/truncate", ["-s", "\(byteCount)", file])
        let made = try await run(Self.tool, ["--find", "--show", file])
        path = made.output.trimmingCharacters(in: .whitespacesAndNewlines)
        guard made.exitCode == 0, path.hasPrefix("/dev/loop") else { throw Refused() }
    }

    private struct Refused: Error {}

    private static var tool: String { TestEnvironment.tool("losetup") ?? "/usr/sbin/losetup" }

    /// Ends it; whoever has it open still keeps it until then.
    func detach() async { _ = try? await run(Self.tool, ["--detach", path]) }
}

/// Makes as many block devices, gives them to `body`, and ends them however `body` ends.
func withLoopDevices(
    _ count: Int,
    byteCount: UInt64,
    in scratch: ScratchDirectory,
    _ body: ([LoopDevice]) async throws -> Void
) async throws {
    var devices: [LoopDevice] = []
    do {
        for index in 0..<count {
            devices.append(try await LoopDevice(scratch.file("disk\(index)"), byteCount: byteCount))
        }
        try await body(devices)
    } catch {
        for device in devices { await device.detach() }
        throw error
    }
    for device in devices { await device.detach() }
}
