// The offline check of what a run leaves on its device.

import BlockCore
import LogStore
import StorageIO

extension StoreSimulation {
    /// Holds what a closed store left on the device against itself, as `volnode check` does.
    func checkOffline() {
        guard shutDown() else { return }
        var check = makeCheck()
        judge(check.run(), "after an orderly end")
    }

    /// Does the same after a crash.
    func checkAfterCrash() {
        guard failure == nil, device.damageCount == 0 else { return }
        var check = makeCheck()
        judge(check.run(), "after a crash")
    }

    private func makeCheck() -> StoreCheck {
        StoreCheck(
            geometry: device.geometry,
            configuration: scenario.configuration,
            read: { self.device.readThrough($0, $1) }
        )
    }

    private func judge(_ report: StoreCheckReport, _ when: String) {
        trace.say { "check \(when): \(report.problemCount) problems, \(report.notes.count) notes" }
        if device.damageCount == 0, let first = report.problems.first {
            fail("the check \(when) finds \(report.problemCount) problems, first: \(first)")
        }
    }
}
