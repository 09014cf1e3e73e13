import BlockCore
import Glibc
import Reactor
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

    @Test(
        "A device that holds something is spared, also when its first MiB is blank",
        arguments: [0, 700_000, 1 << 20, 101 << 20, (512 << 20) - 1]
    )
    func format_notBlank_refused(offset: UInt64) {
        #expect(throws: DeviceFormatError.notBlank(.unknown)) { try format(byteAt: offset) }
    }
}
