// How many files may be open, and how much address space there may be.

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

@Suite struct AddressSpaceLimitTests {
    @Test("a limit is refused with what is needed, unless that is within it")
    func require_littleSpace() throws {
        try AddressSpaceLimit.require(300 << 20, of: 300 << 20)
        let failure = #expect(throws: Failure.self) {
            try AddressSpaceLimit.require(300 << 20, of: (300 << 20) - 1, advice: "give less")
        }
        #expect(
            failure?.what
                == "It may take only 299 MiB of address space here, and needs 300 MiB."
        )
        #expect(failure?.help?.hasSuffix("LimitAS= in a unit of systemd; or give less.") == true)
    }

    @Test("each core has threads, and each thread a stack")
    func neededByteCount_cores_areCounted() {
        let few = AddressSpaceLimit.neededByteCount(coreCount: 2, stackByteCount: 8 << 20)
        let many = AddressSpaceLimit.neededByteCount(coreCount: 64, stackByteCount: 8 << 20)
        #expect(many - few == 62 * UInt64(AddressSpaceLimit.threadCountPerCore) * 8 << 20)
    }
}
