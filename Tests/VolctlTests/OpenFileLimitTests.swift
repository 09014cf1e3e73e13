// How many files may be open.

import Glibc
import ProgramMain
import Testing

@Suite struct OpenFileLimitTests {
    private func message(soft: UInt, hard: UInt, isAllowed: Bool) -> String? {
        do throws(Failure) {
            try OpenFileLimit.require(40, of: rlimit(rlim_cur: soft, rlim_max: hard)) { raised in
                #expect(raised.rlim_cur == min(40, hard) && raised.rlim_max == hard)
                return isAllowed
            }
            return nil
        } catch {
            return error.what
        }
    }

    @Test("a low limit is raised, and what could not be raised is refused")
    func require_lowLimit() {
        #expect(message(soft: 40, hard: 40, isAllowed: false) == nil)
        #expect(message(soft: 10, hard: 40, isAllowed: true) == nil)
        #expect(message(soft: 10, hard: 20, isAllowed: true)?.hasPrefix("Only 20 files") == true)
        #expect(message(soft: 10, hard: 40, isAllowed: false)?.hasPrefix("Only 10 files") == true)
    }
}
