// The offline check of what a run leaves on its device, and whether it sees what it must.

import BlockCore
import LogStore
import StorageIO

extension StoreSimulation {
    /// Holds what a closed store left on the device against itself, as `volnode check` does.
    func checkOffline() {
        guard shutDown() else { return }
        var check = makeCheck()
        judge(check.run(), "after an orderly end")
        if failure == nil, device.damageCount == 0 { plantDamage(check) }
    }

    /// Does the same after a crash.
    func checkAfterCrash() {
        guard failure == nil, device.damageCount == 0 else { return }
        var check = makeCheck()
        judge(check.run(), "after a crash")
    }

    private func makeCheck(_ read: StoreCheck.Reader? = nil) -> StoreCheck {
        StoreCheck(
            geometry: device.geometry,
            configuration: scenario.configuration,
            read: read ?? { self.device.readThrough($0, $1) }
        )
    }

    private func judge(_ report: StoreCheckReport, _ when: String) {
        trace.say { "check \(when): \(report.problemCount) problems, \(report.notes.count) notes" }
        if device.damageCount == 0, let first = report.problems.first {
            fail("the check \(when) finds \(report.problemCount) problems, first: \(first)")
        }
        // What a client could not read when everything was read back, nothing has mended.
        if isReckoning, unreadCount > 0, options.errorAt == nil, report.problemCount == 0 {
            fail("\(unreadCount) reads ended with media errors; the check \(when) finds nothing")
        }
    }

    /// Damages one live block or page, which the check must name.
    private func plantDamage(_ check: StoreCheck) {
        // A stream of its own: what was simulated before stays as it was.
        var random = SeededRandom(seed: scenario.seed ^ 0x0C41_94CB)
        let pageCount = device.geometry.byteCount / 4096
        let start = random.below(Int(pageCount))
        let offsets = (0..<pageCount).lazy.map { (UInt64(start) + $0) % pageCount * 4096 }
        guard let offset = offsets.first(where: check.holdsLive) else { return }
        let isUnreadable = random.chance(perMille: 300)
        let bit = random.below(8 * 4096)
        var second = makeCheck { from, region in
            let errno = self.device.readThrough(from, region)
            guard errno == 0, offset >= from, offset < from + UInt64(region.byteCount) else {
                return errno
            }
            if isUnreadable { return 5 }
            let place = Int(offset - from) + bit / 8
            let byte = region.load(place, as: UInt8.self)
            region.store(byte ^ (1 << UInt8(bit % 8)), at: place)
            return 0
        }
        let report = second.run()
        trace.say { "check with damage at \(offset): \(report.problems)" }
        if !report.problems.contains(where: { names($0, offset) }) {
            fail("the check does not find damage at \(offset): \(report.problems)")
        }
    }

    private func names(_ problem: StoreProblem, _ damaged: UInt64) -> Bool {
        switch problem {
        case .blockDamaged(_, _, let offset), .pageDamaged(_, _, _, let offset),
            .unreadable(let offset, _):
            offset == damaged
        default: false
        }
    }
}
