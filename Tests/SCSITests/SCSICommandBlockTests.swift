import SCSI
import Testing

@Suite struct SCSICommandBlockTests {
    @Test("Fields are big-endian, wherever they lie")
    func field_acrossWords_isBigEndian() {
        let block = SCSICommandBlock((0..<16).map { UInt8($0 * 0x11) })
        #expect(block.operationCode == 0x00)
        #expect(block[15] == 0xFF)
        #expect(block.field16(7) == 0x7788)
        #expect(block.field32(6) == 0x6677_8899)
        #expect(block.field64(2) == 0x2233_4455_6677_8899)
    }

    @Test("A short command reads as zeroes beyond its end, a long one is cut")
    func init_otherLengths_padsAndCuts() {
        let short = SCSICommandBlock([0x28, 1, 2])
        #expect((0..<16).map { short[$0] } == [0x28, 1, 2] + zeroes(13))
        let long = SCSICommandBlock(Array(repeating: 0xAA, count: 40))
        #expect((0..<16).allSatisfy { long[$0] == 0xAA })
        #expect(SCSICommandBlock([]).operationCode == 0)
    }
}
