// What goes wrong at start, in one line each, with what helps.

import BlockCore
import ControlAPI
import Foundation
import LogStore
import ProgramMain
import Reactor
import StorageNode

extension Failure {
    /// A node that does not start.
    init(_ error: NodeError) {
        switch error {
        case .configuration(let text):
            self.init("The options do not fit together: it takes \(text).")
        case .device(let path, let error):
            self.init(path: path, error)
        case .sameStore(let path, let copy):
            self.init(
                "\(path) and \(copy) hold the same store: one is a copy of the other.",
                help: "Nothing was written. Give the one that was served last."
            )
        case .store(let path, let error):
            self.init(path: path, error)
        case .listener(let address, let error):
            self.init(address: address, error)
        case .reactor(let error):
            self.init("The I/O engine does not start: \(error).", help: "Try '--engine aio'.")
        case .thread(let errno):
            self.init(
                "The system refused a thread: \(errorText(errno)).",
                help: "Give fewer --reactors, or raise 'ulimit -u'."
            )
        case .memory(let byteCount):
            self.init(
                "The system does not grant \(ByteSize(byteCount: UInt64(byteCount))) of memory.",
                help: "Raise 'ulimit -v' or vm.overcommit_memory, or \(Self.memoryAdvice)."
            )
        case .tls(let error):
            self.init(error)
        case .peerTLS(let error):
            self.init(ofPeers: error)
        }
    }

    /// What takes less memory.
    static var memoryAdvice: String {
        "give less with --map-memory, --cache-memory and --buffer-memory"
    }

    /// Credentials that cannot be used.
    private init(_ error: TLSError) {
        let help: String? =
            switch error {
            case .fileMissing(let path) where path.hasSuffix(".pem"):
                "--tls-certificates takes a directory with ca-cert.pem, server-cert.pem and "
                    + "server-key.pem."
            case .fileMissing, .presharedKeyMissing:
                "--tls-psk takes a file of user:hexadecimal-key lines, as psktool writes."
            case .fileMalformed:
                "See what it holds with 'openssl x509 -text -noout -in FILE'."
            case .keyMismatch:
                "Put the key there that the certificate was made with, or make both anew."
            default:
                nil
            }
        self.init("\(error).", help: help)
    }

    /// Credentials of links between nodes that cannot be used.
    private init(ofPeers error: TLSError) {
        let help: String? =
            switch error {
            case .fileMissing:
                "--peer-tls-certificates takes a directory with ca-cert.pem, node-cert.pem and "
                    + "node-key.pem, as 'volctl certs create' makes it for each node."
            case .fileMalformed:
                "See what it holds with 'openssl x509 -text -noout -in FILE'."
            case .certificateNotFor:
                "Check --name and --peer-tls-certificates, or make one: 'volctl certs create'."
            case .keyMismatch, .certificateExpired:
                "Make new ones with 'volctl certs create'."
            default:
                nil
            }
        self.init("\(error).", help: help)
    }

    /// A device that cannot be opened or made.
    init(path: String, _ error: DeviceError) {
        switch error {
        case .notFound:
            let directory = FilePath.parent(of: path)
            guard directory.isEmpty || FileManager.default.fileExists(atPath: directory) else {
                self.init(
                    "The directory \(directory) does not exist.",
                    help: "Check the path, or make it first: mkdir -p \(directory)"
                )
                return
            }
            self.init(
                "\(path) does not exist.",
                help: "Check the path; 'volnode format \(path) --size 8GiB' makes a store there."
            )
        case .notADevice:
            self.init(
                "\(path) is neither a regular file nor a block device.",
                help: "Give a store's file or disk, such as /var/lib/cairn/store or /dev/nvme1n1."
            )
        case .locked:
            self.init(
                "\(path) is in use by another process.",
                help: "Find it with 'fuser \(path)'; a mounted disk cannot be a store."
            )
        case .alreadyExists:
            self.init("\(path) exists already.", help: "Choose another path, or use --force.")
        case .misaligned(byteCount: 0):
            self.init(
                "\(path) is empty.",
                help: "Remove it, and make a store there: volnode format \(path) --size 8GiB"
            )
        case .misaligned(let byteCount):
            self.init(
                "\(path) has \(byteCount) bytes; a store has a multiple of 4096.",
                help: "Check the path; if a store was cut off there, copy it again in full."
            )
        case .directRefused(let errno):
            self.init(
                "The file system of \(path) refuses direct I/O: \(errorText(errno)).",
                help: "Use another file system, or '--buffered' for tests."
            )
        case .noSpace:
            self.init(
                "There is no room for \(path).",
                help: "Choose a smaller --size, or see 'df -h'. With '--preallocate none' it takes "
                    + "space only as it is written."
            )
        case .system(let errno) where errno == EFBIG:
            self.init(
                "\(path) would be larger than its file system allows a file to be.",
                help: "Choose a smaller --size, or see 'df -h' for one with more room."
            )
        case .system(let errno) where errno == EACCES || errno == EPERM:
            self.init(
                "This user may not open \(path).",
                help: "Change its owner with 'chown', or run as a user that may."
            )
        case .system(let errno):
            self.init("\(path) cannot be opened: \(errorText(errno)).", help: "See 'dmesg'.")
        }
    }

    /// A store that cannot be served.
    init(path: String, _ error: StoreError) {
        switch error {
        case .notAStore:
            self.init(
                "\(path) holds no store.",
                help: "Check the path, or make a store there with 'volnode format \(path)'."
            )
        case .versionTooNew(let found, let supported):
            self.init(
                "\(path) was written in format \(found); this program knows up to \(supported).",
                help: "Run the newer program."
            )
        case .versionTooOld(let found, let supported):
            self.init(
                "\(path) was written in format \(found); this program reads \(supported) only.",
                help: "Run the older program, or format the device anew."
            )
        case .wrongIdentity(let found):
            self.init(
                "\(path) holds the store \(found.hexText), not the one of --identity.",
                help: "Nothing was written. Check the path: names such as /dev/sdb change, those "
                    + "in /dev/disk/by-id do not."
            )
        case .deviceTooSmall(let need, let have):
            self.init(
                "\(path) has \(have) bytes, but the store on it needs \(need): it was cut off.",
                help: "Copy it again in full; 'volnode check' says whether a copy is whole."
            )
        case .mapMemoryTooSmall(let need, let have):
            let needed = ByteSize(byteCount: UInt64(need))
            self.init(
                "\(path) was not closed in order, and putting its map in order takes more than the "
                    + "\(ByteSize(byteCount: UInt64(have))) of map memory given. Nothing is lost.",
                help: "Start it with '--map-memory \(needed)' or what it ran with before."
            )
        case .noRoom:
            self.init(
                "\(path) has no room left to put its map in order.",
                help: "Nothing was changed; 'volnode check \(path)' shows what it holds."
            )
        case .writesLost(let offset):
            self.init(
                "The log of the store on \(path) is damaged at byte \(offset): writes that were "
                    + "flushed cannot be replayed from there on.",
                help: "Nothing was changed. Copy the store away first; with '--accept-loss "
                    + "\(path)' it opens as it was before those writes."
            )
        case .corrupt(let offset):
            self.init(
                "The store on \(path) is damaged at byte \(offset).",
                help: "See what is left with 'volnode check \(path)'."
            )
        case .deviceError(let errno):
            self.init("\(path) failed: \(errorText(errno)).", help: "See 'dmesg'.")
        }
    }

    /// An address that cannot be listened on.
    private init(address: ListenAddress, _ error: SocketError) {
        switch error {
        case .addressInUse:
            self.init(
                "Another process listens at \(address).",
                help: "Choose another address, or find the process with 'ss -ltnxp'."
            )
        case .addressNotAvailable:
            self.init(
                "\(address) is not an address of this machine.",
                help: "Listen on 127.0.0.1, or on an address that 'ip address' shows."
            )
        case .pathTooLong:
            self.init(
                "The socket path \(address) has no bytes or more than 107.",
                help: "Use a shorter directory."
            )
        case .notASocket:
            self.init(
                "\(address) exists and is not a socket.",
                help: "Choose another path, or move the file away."
            )
        case .system(let errno) where errno == EACCES || errno == EPERM:
            self.init(
                "This user may not listen at \(address).",
                help: "Ports below 1024 need root; a socket's directory must be writable."
            )
        case .system(let errno) where errno == ENOENT:
            self.init(
                "The directory of \(address) does not exist.",
                help: "Make it first with 'mkdir -p'."
            )
        case .system(let errno):
            self.init(
                "It cannot listen at \(address): \(errorText(errno)).",
                help: "Choose another address; 'ss -ltnxp' shows those in use."
            )
        }
    }

    /// A device that was not formatted.
    init(path: String, _ error: DeviceFormatError) {
        switch error {
        case .device(let error):
            self.init(path: path, error)
        case .notBlank(let content):
            self.init(
                "\(path) holds \(content.text); formatting would destroy it.",
                help: "If that is what you want, add --force."
            )
        case .layout(.tooSmall(let byteCountMin)):
            self.init(
                "\(path) is too small for a store.",
                help: "The smallest store with these segments has "
                    + "\(ByteSize(byteCount: byteCountMin)) (\(byteCountMin) bytes)."
            )
        case .layout(.badSegmentSize):
            self.init(
                "That segment size does not work.",
                help: "Choose a power of two from 64KiB to 256MiB."
            )
        case .layout(.tooManySegments(let byteCountMin)):
            self.init(
                "\(path) would have more segments of that size than a store can manage.",
                help: "Choose a --segment-size of at least "
                    + "\(ByteSize(byteCount: UInt64(byteCountMin))), or leave it out."
            )
        case .transfer(let errno):
            self.init("\(path) failed: \(errorText(errno)).", help: "See 'dmesg'.")
        case .reactor(let error):
            self.init("The I/O engine does not start: \(error).", help: "See 'dmesg'.")
        }
    }
}

extension DeviceContent {
    /// What it is, for a sentence.
    var text: String {
        switch self {
        case .blank: "nothing"
        case .store(let identity): "the store \(identity.hexText)"
        case .newerStore(let version): "a store of the newer format \(version)"
        case .olderStore(let version): "a store of the older format \(version)"
        case .damagedStore: "a damaged store"
        case .foreign(let name): name
        case .unknown: "data of an unknown kind"
        }
    }
}
