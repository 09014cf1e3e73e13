// The empty store that a run begins with, and all the room that it gives back in the end.

import BlockCore
import LogFormat
import LogStore
import StorageIO

extension StoreSimulation {
    /// Time in which a store without clients finishes its background work, in nanoseconds.
    private static var restNanoseconds: UInt64 { 5_000_000_000 }

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

    // MARK: - Giving everything back

    /// Deletes everything, waits, and asks for the room back.
    func emptyOut() {
        guard failure == nil, !endedByDamage, device.damageCount == 0 else { return }
        trace.say { "\(driver.nowNanoseconds) deleting everything" }
        deleteReplicas()
        guard failure == nil, !endedByDamage, replicas.volumes.isEmpty else { return }
        var remaining = oracle.volumes.count * 2 + 2
        while let id = oracle.volumeIDs.first(where: { !oracle.carriesClones($0) }), remaining > 0 {
            remaining -= 1
            settle()
            guard failure == nil, !endedByDamage, oracle.volumes[id] != nil else { continue }
            closeHandles(of: id)
            submit(.deleteVolume(VolumeID(id)))
            settle()
        }
        guard failure == nil, !endedByDamage, device.damageCount == 0 else { return }
        guard oracle.volumes.isEmpty || device.errorCount > 0 else {
            fail(
                "\(oracle.volumes.count) volumes cannot be deleted: \(driver.store.space); "
                    + driver.store.progressDescription
            )
            return
        }
        guard oracle.volumes.isEmpty else { return }
        pump(untilNanoseconds: driver.nowNanoseconds + Self.restNanoseconds) { true }
        restart()
        guard failure == nil, !endedByDamage, let emptySpace else { return }
        pump(untilNanoseconds: driver.nowNanoseconds + Self.restNanoseconds) { true }
        let space = driver.store.space
        if space.liveByteCount > emptySpace.liveByteCount + (512 << 10)
            || space.availableByteCount + (1 << 20) < emptySpace.availableByteCount
        {
            fail(
                "everything is deleted, but the space is \(space); it was \(emptySpace); "
                    + driver.store.progressDescription
            )
        }
    }
}
