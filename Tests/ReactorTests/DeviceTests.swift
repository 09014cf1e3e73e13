import BlockCore
import CLinux
import Glibc
import Reactor
import StorageIO
import TestSupport
import Testing

@Suite struct DeviceTests {
    private let directory: TestDirectory

    init() throws { directory = try TestDirectory() }

    /// A file made by hand.
    private func file(_ name: String, byteCount: Int) throws -> String {
        let path = "\(directory.path)/\(name)"
        guard let handle = unsafe fopen(path, "w") else {
            throw DeviceError.notFound
        }
        if byteCount > 0 {
            unsafe fseek(handle, byteCount - 1, SEEK_SET)
            unsafe fputc(0, handle)
        }
        unsafe fclose(handle)
        return path
    }

    private func openError(_ path: String) -> DeviceError? {
        var options = DeviceOptions()
        options.allowsBuffered = true
        do throws(DeviceError) {
            _ = try Device.open(path: path, options: options)
            return nil
        } catch {
            return error
        }
    }

    @Test("What is not a device is refused with the reason")
    func open_notADevice_throws() throws {
        #expect(openError("\(directory.path)/none") == .notFound)
        #expect(openError(directory.path) == .notADevice)
        #expect(openError("/dev/null") == .notADevice)
        let pipe = "\(directory.path)/pipe"
        #expect(unsafe mkfifo(pipe, 0o600) == 0)
        #expect(openError(pipe) == .notADevice)
        #expect(openError(try file("empty", byteCount: 0)) == .misaligned(byteCount: 0))
        #expect(openError(try file("odd", byteCount: 5000)) == .misaligned(byteCount: 5000))
        #expect(openError(try file("even", byteCount: 8192)) == nil)
    }

    @Test("A second opener finds the device locked until the first is gone")
    func open_twice_isLocked() throws {
        let path = "\(directory.path)/device"
        try Device.create(path: path, byteCount: 1 << 20)
        var options = DeviceOptions()
        options.allowsBuffered = true
        var device: Device? = try Device.open(path: path, options: options)
        #expect(device?.geometry == DeviceGeometry(byteCount: 1 << 20))
        #expect(device?.isBlockDevice == false)
        options.isReadOnly = true
        withExtendedLifetime(device) {
            #expect(openError(path) == .locked)
            #expect(throws: DeviceError.locked) {
                try Device.open(path: path, options: options)
            }
        }
        device = nil
        #expect(openError(path) == nil)
        let readers = try (0..<2).map { _ in try Device.open(path: path, options: options) }
        // The optimiser may let go of what is not used any more.
        withExtendedLifetime(readers) { #expect(openError(path) == .locked) }
    }

    @Test("A new file has the space that was asked for", arguments: Preallocation.allCases)
    func create_preallocation_takesSpace(_ preallocation: Preallocation) throws {
        let path = "\(directory.path)/device"
        try Device.create(path: path, byteCount: 1 << 20, preallocate: preallocation)
        var status = stat()
        #expect(unsafe stat(path, &status) == 0)
        #expect(status.st_size == 1 << 20)
        #expect((status.st_blocks * 512 >= 1 << 20) == (preallocation != .none))
        #expect(throws: DeviceError.alreadyExists) {
            try Device.create(path: path, byteCount: 1 << 20)
        }
    }

    @Test("A file that cannot be made leaves nothing behind")
    func create_impossible_leavesNothing() throws {
        let path = "\(directory.path)/device"
        #expect(throws: DeviceError.misaligned(byteCount: 4095)) {
            try Device.create(path: path, byteCount: 4095)
        }
        // 4 PiB: more than any file system here holds.
        #expect(throws: DeviceError.self) {
            try Device.create(path: path, byteCount: 1 << 52, preallocate: .allocate)
        }
        #expect(openError(path) == .notFound)
    }

    @Test("Every error has words")
    func deviceError_all_haveText() {
        let all: [DeviceError] = [
            .notFound, .notADevice, .locked, .alreadyExists, .misaligned(byteCount: 1),
            .directRefused(errno: EINVAL), .noSpace, .system(errno: EACCES),
        ]
        #expect(Set(all.map(\.description)).count == all.count)
        #expect(DeviceError.system(errno: EACCES).description == "Permission denied")
    }
}
