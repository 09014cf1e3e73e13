// Pre-shared keys in GnuTLS's file format, and OpenSSL's questions about them.
//
// Format: one `user:hexadecimal key` per line, as psktool writes; a user that starts with `#` is
// hexadecimal itself. Spec: GnuTLS manual, "PSK credentials".

internal import COpenSSL
internal import Glibc

/// The users and keys of one file; immutable, so all threads may ask.
final class TLSPresharedKeys: Sendable {
    private let keys: [[UInt8]: [UInt8]]
    /// The user that a client names; empty for a server.
    private let offeredUser: [UInt8]

    /// The longest file: 10,000 users with long names and keys.
    static var fileByteCountMax: Int { 4 << 20 }
    /// OpenSSL's own limits, checked here so that a longer line is an error with a number.
    static var userByteCountMax: Int { Int(PSK_MAX_IDENTITY_LEN) }
    static var keyByteCountMax: Int { Int(PSK_MAX_PSK_LEN) }
    /// 128 bits: less can be guessed off line from one recorded handshake.
    static var keyByteCountMin: Int { 16 }

    init(path: String, role: TLSRole) throws(TLSError) {
        let bytes = try TLSFile.read(path, byteCountMax: TLSPresharedKeys.fileByteCountMax)
        var keys: [[UInt8]: [UInt8]] = [:]
        var firstUser: [UInt8]?
        var lineNumber = 0
        for line in bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false) {
            lineNumber += 1
            var line = line
            if line.last == UInt8(ascii: "\r") { line.removeLast() }
            guard !line.isEmpty else { continue }
            guard let (user, key) = TLSPresharedKeys.parse(line) else {
                throw .presharedKeyMalformed(path: path, line: lineNumber)
            }
            keys[user] = key
            firstUser = firstUser ?? user
        }
        guard let firstUser else { throw .presharedKeyMissing(path: path) }
        self.keys = keys
        switch role {
        case .server:
            offeredUser = []
        case .client(_, let user):
            offeredUser = user.map { Array($0.utf8) } ?? firstUser
            guard keys[offeredUser] != nil else { throw .presharedKeyMissing(path: path) }
        }
    }

    private static func parse(_ line: ArraySlice<UInt8>) -> (user: [UInt8], key: [UInt8])? {
        guard let colon = line.lastIndex(of: UInt8(ascii: ":")) else { return nil }
        var user = Array(line[..<colon])
        if user.first == UInt8(ascii: "#") {
            guard let decoded = bytes(hexadecimal: user.dropFirst()) else { return nil }
            user = decoded
        }
        // OpenSSL hands users over as C strings: one with a zero in it could never match.
        guard (1...userByteCountMax).contains(user.count), !user.contains(0),
            let key = bytes(hexadecimal: line[(colon + 1)...]),
            (keyByteCountMin...keyByteCountMax).contains(key.count)
        else { return nil }
        return (user, key)
    }

    private static func bytes(hexadecimal digits: ArraySlice<UInt8>) -> [UInt8]? {
        guard digits.count % 2 == 0 else { return nil }
        var result: [UInt8] = []
        var high: UInt8?
        for digit in digits {
            guard let value = Character(UnicodeScalar(digit)).hexDigitValue else { return nil }
            if let first = high {
                result.append(first << 4 | UInt8(value))
                high = nil
            } else {
                high = UInt8(value)
            }
        }
        return result
    }

    // MARK: - OpenSSL's questions

    /// Answers a server's question which key a user has.
    ///
    /// 0 bytes means none: OpenSSL then refuses the peer, or asks for its certificate.
    ///
    /// SAFETY: OpenSSL gives a terminated string and room for `byteCountMax` bytes.
    @unsafe
    static func answer(
        _ session: OpaquePointer?,
        _ user: UnsafePointer<CChar>?,
        _ key: UnsafeMutablePointer<UInt8>?,
        _ byteCountMax: UInt32
    ) -> UInt32 {
        // SAFETY: see above; the copy is no longer than `byteCountMax`.
        guard let keys = unsafe owner(of: session), let user = unsafe user, let key = unsafe key
        else { return 0 }
        let name = unsafe Array(UnsafeRawBufferPointer(start: user, count: strlen(user)))
        guard let found = keys.keys[name], found.count <= Int(byteCountMax) else { return 0 }
        for index in found.indices { unsafe key[index] = found[index] }
        if let session = unsafe TLSSession.of(session) { session.noteClaimedUser(name) }
        return UInt32(found.count)
    }

    /// Answers a client's question which user and key to offer.
    ///
    /// SAFETY: OpenSSL gives room for as many bytes as it says.
    @unsafe
    static func offer(
        _ session: OpaquePointer?,
        _ user: UnsafeMutablePointer<CChar>?,
        _ userByteCountMax: UInt32,
        _ key: UnsafeMutablePointer<UInt8>?,
        _ keyByteCountMax: UInt32
    ) -> UInt32 {
        // SAFETY: see above; both copies are no longer than the room given.
        guard let keys = unsafe owner(of: session), let user = unsafe user, let key = unsafe key,
            let found = keys.keys[keys.offeredUser], found.count <= Int(keyByteCountMax),
            keys.offeredUser.count < Int(userByteCountMax)
        else { return 0 }
        for (index, byte) in keys.offeredUser.enumerated() {
            unsafe user[index] = CChar(bitPattern: byte)
        }
        unsafe user[keys.offeredUser.count] = 0
        for index in found.indices { unsafe key[index] = found[index] }
        return UInt32(found.count)
    }

    private static func owner(of session: OpaquePointer?) -> TLSPresharedKeys? {
        // SAFETY: the owner is set once, to the keys that the session's TLSContext keeps alive.
        guard let session = unsafe session, let owner = unsafe cbl_tls_owner(session) else {
            return nil
        }
        return unsafe Unmanaged<TLSPresharedKeys>.fromOpaque(owner).takeUnretainedValue()
    }
}
