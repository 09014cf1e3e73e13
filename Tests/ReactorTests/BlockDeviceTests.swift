import BlockCore
import Foundation
import Reactor
import StorageIO
import TestSupport
import Testing

/// A block device over a file, while it lives; needs root and the kernel's loop driver.
private final class LoopDevice {
    let path: String
    private let directory: TestDirectory
    private static var tool: String { "/usr/sbin/losetup" }

    static var isPossible: Bool { (try? LoopDevice(byteCount: 1 << 20)) != nil }

    /// - Throws: when it cannot be made here.
    init(byteCount: UInt64) throws {
        directory = try TestDirectory()
        let file = "\(directory.path)/disk"
        try Device.create(path: file, byteCount: byteCount)
        path = try Self.run(["--find", "--show", file])
    }

    deinit { _ = try? Self.run(["--detach", path]) }

    private struct Refused: Error {}

    private static func run(_ arguments: [String]) throws -> String {
        let result = try runProgram(tool, arguments)
        guard result.exitCode == 0 else { throw Refused() }
        return result.output.trimmingCharacters(in: .whitespacesAndNewlines)
    }
}

@Suite(.enabled(if: LoopDevice.isPossible, "needs root and loop devices"))
struct BlockDeviceTests {
    @Test("A block device is claimed, written, flushed, read and discarded", arguments: engines)
    func blockDevice_allKinds_work(_ engine: EngineChoice) throws {
        let loop = try LoopDevice(byteCount: 16 << 20)
        let harness = try Harness(engine)
        let device = try Device.open(path: loop.path)
        #expect(device.isBlockDevice && device.isDirect)
        #expect(device.geometry.byteCount == 16 << 20)
        #expect(throws: DeviceError.locked) { try Device.open(path: loop.path) }
        let handle = harness.reactor.attach(device)
        let source = harness.region(byteCount: 1 << 20)
        let target = harness.region(byteCount: 1 << 20)
        fill(source, seed: 8)
        let requests: [DeviceRequest] = [
            DeviceRequest(kind: .write, offset: 4096, region: source, token: 0),
            .flush(token: 0),
            DeviceRequest(kind: .writeDurable, offset: 8 << 20, region: source, token: 0),
            DeviceRequest(kind: .read, offset: 4096, region: target, token: 0),
            .discard(offset: 8 << 20, byteCount: 1 << 20, token: 0),
        ]
        for request in requests {
            harness.reactor.submit(request, to: handle, token: 1)
            #expect(try harness.wait(token: 1).result == Int32(request.region.byteCount))
        }
        #expect(target.equals(source))
        harness.reactor.submit(
            DeviceRequest(kind: .read, offset: 16 << 20, region: target, token: 0),
            to: handle,
            token: 2
        )
        #expect(try harness.wait(token: 2).result == -EIO)
        harness.reactor.detach(handle)
    }
}
