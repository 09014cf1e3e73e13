import BlockCore
import Glibc
import Reactor
import StorageIO
import StorageNode
import TestSupport
import Testing

/// What formatting spares.
@Suite struct StoreDeviceTests {
    private static var byteCount: UInt64 { 512 << 20 }

    /// Formats a file that holds nothing but a byte at an offset.
    private func format(byteAt offset: UInt64?) throws {
        let directory = try TestDirectory()
        let path = directory.path + "/disk"
        try Device.create(path: path, byteCount: Self.byteCount)
        if let offset { try TestFiles.write([1], to: path, at: offset) }
        var options = DeviceOptions()
        options.allowsBuffered = true
        try StoreDevice.format(
            try Device.open(path: path, options: options),
            identity: StoreIdentity(high: 1, low: 2)
        )
    }

    @Test("A blank device is formatted")
    func format_blank_works() throws {
        try format(byteAt: nil)
    }

    @Test("With leave to overwrite nothing is looked at: what cannot be read is formatted too")
    func format_overwriting_readsNothing() throws {
        let directory = try TestDirectory()
        let path = directory.path + "/disk"
        try Device.create(path: path, byteCount: Self.byteCount)
        try TestFiles.write([1], to: path, at: 0)
        let plan = FaultPlan()
        plan.add(.fail(errno: EIO), to: .read, count: .max)
        var options = DeviceOptions()
        options.allowsBuffered = true
        options.faults = plan
        let identity = StoreIdentity(high: 1, low: 2)
        #expect(throws: DeviceFormatError.transfer(errno: EIO)) {
            let device = try Device.open(path: path, options: options)
            try StoreDevice.format(device, identity: identity)
        }
        let device = try Device.open(path: path, options: options)
        try StoreDevice.format(device, identity: identity, overwrites: true)
        plan.removeAll()
        #expect(try StoreDevice.content(of: device) == .store(identity))
    }

    @Test(
        "A device that holds something is spared, also when its first MiB is blank",
        arguments: [0, 700_000, 1 << 20, 101 << 20, (512 << 20) - 1]
    )
    func format_notBlank_refused(offset: UInt64) {
        #expect(throws: DeviceFormatError.notBlank(.unknown)) { try format(byteAt: offset) }
    }
}
