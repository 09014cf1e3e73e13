import BlockCore
import CAllocationCounter
import SCSI
import Testing

/// Planning the data path allocates nothing: neither what is accepted nor what is refused.
@Suite(.enabled(if: allocation_counter_is_active(), "a sanitizer has its own allocator"))
struct SCSIAllocationTests {
    @Test("READ, WRITE and SYNCHRONIZE CACHE allocate nothing")
    func dataPath_allocatesNothing() {
        let test = TestUnit()
        let unit = test.unit
        let codes: [UInt8] = [
            0x08, 0x28, 0xA8, 0x88, 0x0A, 0x2A, 0xAA, 0x8A, 0x35, 0x91, 0x2F, 0x89, 0x34, 0x00,
        ]
        var commands: [SCSICommand] = []
        for code in codes {
            for address in [0, 5000] as [UInt64] {
                commands.append(
                    SCSICommand(
                        block: SCSICommandBlock(Blocks.any(code, address, 1)),
                        nexus: NexusIndex(1),
                        dataOutByteCount: 1024,
                        dataInByteCount: 1024
                    )
                )
            }
        }
        let dataIn = test.dataIn
        var operationCount = 0
        let before = allocation_counter_thread_count()
        for _ in 0..<100 {
            for command in commands {
                let plan = unit.plan(command, dataIn: dataIn)
                if case .perform(let operation) = plan.step {
                    operationCount += 1
                    _ = unit.complete(operation, .done)
                }
            }
        }
        let count = allocation_counter_thread_count() - before
        #expect(count == 0)
        #expect(operationCount == 1300)
    }
}
