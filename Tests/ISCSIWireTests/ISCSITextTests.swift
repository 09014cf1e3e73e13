import BlockCore
import ISCSIWire
import Testing

@Suite struct ISCSITextTests {
    private func pairs(_ text: String) throws(ISCSITextError) -> [ISCSITextPair] {
        let scratch = Scratch()
        return try ISCSIText.pairs(scratch.region(Array(text.utf8)))
    }

    @Test("Pairs come back as they were written")
    func pairs_roundTrip() throws {
        let all = [
            ISCSITextPair("InitiatorName", "iqn.2026-01.example:host"),
            ISCSITextPair("HeaderDigest", "CRC32C,None"),
            ISCSITextPair("SendTargets", ""),
            ISCSITextPair("X-odd", "a=b"),
        ]
        let scratch = Scratch()
        #expect(try ISCSIText.pairs(scratch.region(ISCSIText.bytes(all))) == all)
        #expect(try pairs("") == [])
        #expect(try pairs("\0\0a=1\0\0") == [ISCSITextPair("a", "1")])
    }

    @Test("What is no text is refused")
    func pairs_malformed_throws() {
        #expect(throws: ISCSITextError.malformed) { try pairs("a=1") }
        #expect(throws: ISCSITextError.malformed) { try pairs("a\0") }
        #expect(throws: ISCSITextError.malformed) { try pairs("=1\0") }
        let key = String(repeating: "k", count: 64)
        #expect(throws: ISCSITextError.malformed) { try pairs(key + "=1\0") }
        #expect(throws: ISCSITextError.badCharacter) { try pairs("a=\u{1}\0") }
        let scratch = Scratch()
        #expect(throws: ISCSITextError.badCharacter) {
            try ISCSIText.pairs(scratch.region([0x61, 0x3D, 0xFF, 0x00]))
        }
        let many = String(repeating: "a=1\0", count: ISCSIText.pairCountMax)
        #expect(throws: Never.self) { try pairs(many) }
        #expect(throws: ISCSITextError.tooMany) { try pairs(many + "a=1\0") }
    }

    @Test("Numbers are decimal or hexadecimal, and nothing else")
    func number_forms() {
        let good: [(String, UInt64)] = [("0", 0), ("262144", 262_144), ("0x10", 16), ("0XfF", 255)]
        for (text, value) in good { #expect(ISCSIText.number(text) == value) }
        for text in ["", "-1", "+1", "1 ", "0x", "0xg", "٣", "99999999999999999999", "1e3"] {
            #expect(ISCSIText.number(text) == nil, "\(text)")
        }
    }

    @Test("Binary values are hexadecimal or base64")
    func binary_forms() {
        #expect(ISCSIText.binary("0xdeadBEEF") == [0xDE, 0xAD, 0xBE, 0xEF])
        #expect(ISCSIText.binary("0xabc") == [0x0A, 0xBC])
        #expect(ISCSIText.binary("0bTWFu") == Array("Man".utf8))
        #expect(ISCSIText.binary("0bTWE=") == Array("Ma".utf8))
        #expect(ISCSIText.binary("0BTQ==") == Array("M".utf8))
        for text in ["", "0x", "0xzz", "0b", "0bTWF", "0bT===", "0b=TWE", "0bTW!u", "deadbeef"] {
            #expect(ISCSIText.binary(text) == nil, "\(text)")
        }
        let all = (0...255).map { UInt8($0) }
        #expect(ISCSIText.binary(ISCSIText.hexText(all)) == all)
    }

    @Test("Names are those of the protocol")
    func name_forms() {
        let good = ["iqn.2026-01.cairn:vm01:3", "eui.02004567A425678D", "naa.52004567BA64678D"]
        for name in good { #expect(ISCSIName.isValid(name), "\(name)") }
        let long = "iqn." + String(repeating: "a", count: 219)
        #expect(ISCSIName.isValid(long))
        for name in ["", "iqn.", "disk", "iqn.a b", "eui.12", "naa.xyz", "iqn.é", long + "a"] {
            #expect(!ISCSIName.isValid(name), "\(name)")
        }
    }
}

@Suite struct CHAPTests {
    private func hex(_ bytes: [UInt8]) -> String { String(ISCSIText.hexText(bytes).dropFirst(2)) }

    /// Spec: RFC 1321, A.5.
    @Test("MD5 is the RFC's")
    func md5_vectors() {
        let vectors = [
            ("", "d41d8cd98f00b204e9800998ecf8427e"),
            ("a", "0cc175b9c0f1b6a831c399e269772661"),
            ("message digest", "f96b697d7cb7938d525a2f31aaf161d0"),
            (
                "12345678901234567890123456789012345678901234567890123456789012345678901234567890",
                "57edf4a22be3c955ac49da2e2107b67a"
            ),
        ]
        for (text, digest) in vectors {
            #expect(hex(CHAPAlgorithm.md5.digest(Array(text.utf8))) == digest)
        }
    }

    /// Spec: FIPS 180-4's examples.
    @Test("SHA-256 is the standard's")
    func sha256_vectors() {
        let vectors = [
            ("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            ("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            (
                "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
                "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
            ),
        ]
        for (text, digest) in vectors {
            #expect(hex(CHAPAlgorithm.sha256.digest(Array(text.utf8))) == digest)
        }
    }

    @Test("A response depends on the identifier, the secret and the challenge")
    func response_anyPartChanged_differs() {
        for algorithm in CHAPAlgorithm.allCases {
            let response = algorithm.response(identifier: 1, secret: [1, 2], challenge: [3, 4])
            #expect(response.count == algorithm.responseByteCount)
            #expect(response == algorithm.digest([1, 1, 2, 3, 4]))
            let others = [
                algorithm.response(identifier: 2, secret: [1, 2], challenge: [3, 4]),
                algorithm.response(identifier: 1, secret: [1, 3], challenge: [3, 4]),
                algorithm.response(identifier: 1, secret: [1, 2], challenge: [3, 5]),
            ]
            for other in others { #expect(!CHAPAlgorithm.isEqual(response, other)) }
            #expect(CHAPAlgorithm.isEqual(response, response))
            #expect(!CHAPAlgorithm.isEqual(response, Array(response.dropLast())))
        }
    }
}
