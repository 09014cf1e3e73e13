import NBDWire
import Testing

@Suite struct NBDErrorTests {
    @Test func values_areTheOnesOfTheSpecification() {
        let values: [NBDError: UInt32] = [
            .notPermitted: 1, .inputOutput: 5, .outOfMemory: 12, .invalid: 22, .noSpace: 28,
            .overflow: 75, .notSupported: 95, .shutdown: 108,
        ]
        #expect(values.count == NBDError.allCases.count)
        for (error, value) in values { #expect(error.rawValue == value) }
    }

    /// Every errno that Linux has, and some that it has not.
    @Test func errno_mapsToItsValueOrToInputOutput() {
        let own: [Int32: NBDError] = [
            1: .notPermitted, 13: .notPermitted, 30: .notPermitted, 12: .outOfMemory,
            22: .invalid, 27: .noSpace, 28: .noSpace, 122: .noSpace, 75: .overflow,
            95: .notSupported, 108: .shutdown,
        ]
        for errno in Int32(-1)...200 {
            #expect(NBDError(errno: errno) == own[errno] ?? .inputOutput, "errno \(errno)")
        }
        #expect(NBDError(errno: .max) == .inputOutput)
        #expect(NBDError(errno: .min) == .inputOutput)
    }

    @Test(arguments: NBDError.allCases)
    func errno_ofAValue_mapsBack(_ error: NBDError) {
        #expect(NBDError(errno: error.errno) == error)
    }
}
