import Foundation
import Testing

extension BadInput {
    private static let run = [
        "volnode", "run", "--name", "n2", "--store", "DIR/store.img", "--listen-nbd",
        "127.0.0.1:PORT",
    ]

    private static func format(
        _ name: String,
        _ arguments: [String],
        exitCode: Int32 = 1,
        mentions: [String],
        prepare: @escaping @Sendable (BadInputCase) async throws -> Void = { _ in }
    ) -> BadInput {
        BadInput(
            name: name,
            area: .format,
            command: ["volnode", "format"] + arguments,
            exitCode: exitCode,
            mentions: mentions,
            prepare: prepare
        )
    }

    private static func store(
        _ name: String,
        mentions: [String],
        prepare: @escaping @Sendable (BadInputCase) async throws -> Void
    ) -> BadInput {
        BadInput(name: name, area: .store, command: run, mentions: mentions, prepare: prepare)
    }

    /// Stores that cannot be made, or are not what someone thinks they are.
    static let storeCases: [BadInput] = [
        format(
            "a store of no size",
            ["DIR/s.img", "--size", "0"],
            exitCode: 2,
            mentions: ["size"]
        ),
        format("a negative size", ["DIR/s.img", "--size=-1GiB"], exitCode: 2, mentions: ["-1GiB"]),
        format(
            "a unit that does not exist",
            ["DIR/s.img", "--size", "8QiB"],
            exitCode: 2,
            mentions: ["8QiB"]
        ),
        format(
            "a size that is a word",
            ["DIR/s.img", "--size", "big"],
            exitCode: 2,
            mentions: ["big"]
        ),
        format(
            "a size beyond 64 bits",
            ["DIR/s.img", "--size", "99999999999TiB"],
            exitCode: 2,
            mentions: ["99999999999TiB"]
        ),
        format("a store too small to work", ["DIR/s.img", "--size", "1MiB"], mentions: ["small"]),
        format(
            "more than the file system has",
            ["DIR/s.img", "--size", "900TiB", "--preallocate", "allocate"],
            mentions: ["large"]
        ),
        format(
            "a folder that is not there",
            ["DIR/no/s.img", "--size", "1GiB"],
            mentions: ["DIR/no"]
        ),
        format("a folder instead of a file", ["DIR", "--size", "1GiB"], mentions: ["DIR"]),
        format(
            "a preallocation that does not exist",
            ["DIR/s.img", "--size", "1GiB", "--preallocate", "maybe"],
            exitCode: 2,
            mentions: ["maybe"]
        ),
        format(
            "formatting a store again",
            ["DIR/store.img", "--size", "256MiB"],
            mentions: ["store", "--force"],
            prepare: { try await $0.copyStore() }
        ),
        format(
            "formatting a file system",
            ["DIR/disk.img"],
            mentions: ["ext", "--force"],
            prepare: { context in
                try context.resize("disk.img", to: 256 << 20)
                try await succeed(
                    "/usr/sbin/mke2fs",
                    ["-q", "-t", "ext4", "-F", context.scratch.file("disk.img")]
                )
            }
        ),
        format(
            "formatting a store that is in use",
            ["LIVE", "--size", "256MiB", "--force"],
            mentions: ["use"]
        ),
        store(
            "no store at the path",
            mentions: ["store.img", "volnode format"],
            prepare: { _ in }
        ),
        store(
            "an empty file",
            mentions: ["store.img"],
            prepare: { try $0.resize("store.img", to: 0) }
        ),
        store(
            "a file that holds no store",
            mentions: ["no store", "volnode format"],
            prepare: { try $0.resize("store.img", to: 256 << 20) }
        ),
        store(
            "a file of an odd length",
            mentions: ["4096"],
            prepare: { context in
                try await context.copyStore()
                try context.resize("store.img", to: (256 << 20) - 100)
            }
        ),
        store(
            "a store that was cut off",
            mentions: ["134217728", "needs"],
            prepare: { context in
                try await context.copyStore()
                try context.resize("store.img", to: 128 << 20)
            }
        ),
        store(
            "both superblocks destroyed",
            mentions: ["store.img"],
            prepare: { context in
                try await context.copyStore()
                try context.overwrite(
                    "store.img",
                    at: 0,
                    with: Data(repeating: 0xff, count: 1 << 20)
                )
            }
        ),
        store(
            "a store whose superblocks all rotted",
            mentions: ["damaged at byte", "volnode check"],
            prepare: { context in
                try await context.copyStore()
                for offset in [0, 32_768, 65_536, 98_304] as [UInt64] {
                    try context.overwrite("store.img", at: offset + 60, with: Data([0xa5]))
                }
            }
        ),
        BadInput(
            name: "a store that this user may not read",
            area: .store,
            command: ["volnode", "check", "DIR/store.img"],
            mentions: ["may not open", "chown"],
            obeysModes: true,
            prepare: { context in
                try await context.copyStore()
                try FileManager.default.setAttributes(
                    [.posixPermissions: 0],
                    ofItemAtPath: context.scratch.file("store.img")
                )
            }
        ),
        store(
            "a store from the future",
            mentions: ["format 9", "newer"],
            prepare: { context in
                try await context.copyStore()
                try context.makeStoreOfVersion(9)
            }
        ),
        store(
            "a store that another node serves",
            mentions: ["in use"],
            prepare: { context in
                try FileManager.default.createSymbolicLink(
                    atPath: context.scratch.file("store.img"),
                    withDestinationPath: context.fixture.server.storePath
                )
            }
        ),
        store(
            "a folder where the store should be",
            mentions: ["store.img"],
            prepare: { context in
                try FileManager.default.createDirectory(
                    atPath: context.scratch.file("store.img"),
                    withIntermediateDirectories: false
                )
            }
        ),
        store(
            "a character device",
            mentions: ["store.img"],
            prepare: { context in
                try FileManager.default.createSymbolicLink(
                    atPath: context.scratch.file("store.img"),
                    withDestinationPath: "/dev/zero"
                )
            }
        ),
        BadInput(
            name: "another store than the one expected",
            area: .store,
            command: run + ["--identity", "OTHERID"],
            mentions: ["DIR/store.img", "STOREID", "Nothing was written"],
            prepare: { try await $0.copyStore() }
        ),
        BadInput(
            name: "two stores that changed places",
            area: .store,
            command: run
                + ["--store", "DIR/other.img", "--identity", "OTHERID", "--identity", "STOREID"],
            mentions: ["DIR/", "--identity", "Nothing was written"],
            prepare: { context in
                try await context.copyStore()
                try await context.copyOtherStore()
            }
        ),
        BadInput(
            name: "a store and its copy",
            area: .store,
            command: run + ["--store", "DIR/copy.img"],
            mentions: ["same store", "DIR/copy.img", "Nothing was written"],
            prepare: { context in
                try await context.copyStore()
                try FileManager.default.copyItem(
                    atPath: context.scratch.file("store.img"),
                    toPath: context.scratch.file("copy.img")
                )
            }
        ),
        BadInput(
            name: "an identity for one of two stores",
            area: .store,
            command: run + ["--store", "DIR/other.img", "--identity", "STOREID"],
            exitCode: 2,
            mentions: ["--identity", "--store"],
            prepare: { context in
                try await context.copyStore()
                try await context.copyOtherStore()
            }
        ),
        BadInput(
            name: "an identity that is none",
            area: .store,
            command: run + ["--identity", "store1"],
            exitCode: 2,
            mentions: ["store1", "32 hex digits"],
            prepare: { try await $0.copyStore() }
        ),
        BadInput(
            name: "less map memory than the log of a killed node needs",
            area: .store,
            command: run + ["--map-memory", "512KiB"],
            mentions: ["--map-memory 22MiB", "Nothing is lost"],
            opensStore: true,
            prepare: { try await $0.killNodeWithScatteredWrites() }
        ),
        BadInput(
            name: "checking a file that holds no store",
            area: .store,
            command: ["volnode", "check", "DIR/disk.img"],
            mentions: ["no store"],
            prepare: { try $0.resize("disk.img", to: 64 << 20) }
        ),
        BadInput(
            name: "checking what is not there, named by one character",
            area: .store,
            command: ["volnode", "check", "C"],
            mentions: ["C does not exist"]
        ),
        BadInput(
            name: "checking a store that is in use",
            area: .store,
            command: ["volnode", "check", "LIVE"],
            mentions: ["in use"]
        ),
        BadInput(
            name: "checking nothing",
            area: .store,
            command: ["volnode", "check", "DIR/none.img"],
            mentions: ["none.img"]
        ),
    ]
}
