// Sizes on the command line.

import ControlAPI
import ProgramMain
import Testing
import volctl

@Suite struct ByteSizeTests {
    @Test(
        "a size is a whole number and a binary unit, or bytes",
        arguments: [
            ("0", 0), ("4096", 4096), ("1B", 1), ("1K", 1024), ("1KiB", 1024),
            ("512MiB", 512 << 20),
            ("10GiB", 10 << 30), ("10gib", 10 << 30), ("1T", 1 << 40), ("3P", 3 << 50),
            ("8388607TiB", 8_388_607 << 40), ("9223372036854775807", UInt64(Int64.max)),
        ] as [(String, UInt64)]
    )
    func parse_valid_givesBytes(text: String, byteCount: UInt64) throws {
        #expect(try ByteSize(parsing: text).byteCount == byteCount)
    }

    @Test(
        "anything else is refused with the reason",
        arguments: [
            ("", ByteSizeError.notANumber("")), ("GiB", .notANumber("GiB")),
            ("-1GiB", .notANumber("-1GiB")), ("+1", .notANumber("+1")),
            ("١GiB", .notANumber("١GiB")),
            ("0x10", .hexadecimal("0x10")), ("1e9", .unknownUnit("e9", number: "1")),
            ("10GB", .ambiguousUnit("GB", number: "10")),
            ("5kb", .ambiguousUnit("kb", number: "5")),
            ("1.5GiB", .notWhole("1.5GiB")), ("1,5GiB", .notWhole("1,5GiB")),
            ("10 GiB", .spaced("10 GiB")), ("1GiB ", .spaced("1GiB ")), (" ", .spaced(" ")),
            ("10GiBs", .unknownUnit("GiBs", number: "10")),
            ("9223372036854775808", .tooLarge("9223372036854775808")),
            ("8388608TiB", .tooLarge("8388608TiB")),
            ("99999999999999999999999", .tooLarge("99999999999999999999999")),
            ("18446744073709551615P", .tooLarge("18446744073709551615P")),
        ] as [(String, ByteSizeError)]
    )
    func parse_invalid_throwsReason(text: String, reason: ByteSizeError) {
        #expect(throws: reason) { try ByteSize(parsing: text) }
    }

    @Test(
        "a size with a space, and one that is not decimal, are answered with what to write",
        arguments: [
            ("1 GiB", "'1 GiB' has a space in it; write 1GiB"),
            (" 1GiB\t", "write 1GiB"), ("a b", "write it as one word, such as 10GiB"),
            ("0x10", "'0x10' is not decimal; write 16"), ("0XZ", "write a number and a unit"),
        ]
    )
    func description_nearlyASize_saysHow(text: String, words: String) {
        let error = #expect(throws: ByteSizeError.self) { try ByteSize(parsing: text) }
        #expect(error?.description.contains(words) == true, "\(error?.description ?? "")")
    }

    @Test("an ambiguous unit is answered with the one to write")
    func description_ambiguousUnit_namesBinaryUnit() {
        #expect(
            ByteSizeError.ambiguousUnit("gb", number: "10").description.hasSuffix("write 10GiB")
        )
    }

    @Test(
        "a size prints exactly when it can, and never as more than it is",
        arguments: [
            (0, "0B"), (1, "1B"), (1023, "1023B"), (1024, "1KiB"), (1536, "1.5KiB"),
            (10 << 30, "10GiB"), ((1 << 30) - 1, "1023.9MiB"), (UInt64.max, "16383.9PiB"),
            (1 << 40, "1TiB"), (64 << 40, "64TiB"), (1_000_000_000, "953.6MiB"),
        ] as [(UInt64, String)]
    )
    func description_anySize_isShort(byteCount: UInt64, text: String) {
        #expect(ByteSize(byteCount: byteCount).description == text)
    }

    @Test("what is printed exactly is read back as the same")
    func parse_printed_isSame() throws {
        for shift in 0..<53 as Range<UInt64> {
            let size = ByteSize(byteCount: 1 << shift)
            #expect(try ByteSize(parsing: size.description) == size)
        }
    }

    @Test("messages give exact sizes, with a unit in any case")
    func exactText_anySize_hasUnit() {
        #expect(ByteSize(byteCount: 2 << 30).exactText == "2GiB")
        #expect(ByteSize(byteCount: 1_572_864_000).exactText == "1572864000 bytes")
        #expect(ByteSize(byteCount: 3 << 29).exactText == "1610612736 bytes")
    }
}
