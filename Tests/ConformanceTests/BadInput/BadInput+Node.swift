import Foundation
import Testing

extension BadInput {
    private static func node(
        _ name: String,
        _ arguments: [String],
        exitCode: Int32 = 1,
        mentions: [String],
        prepare: @escaping @Sendable (BadInputCase) async throws -> Void = { _ in }
    ) -> BadInput {
        BadInput(
            name: name,
            area: .node,
            command: ["volnode", "run", "--name", "n2", "--store", "DIR/store.img"] + arguments,
            exitCode: exitCode,
            mentions: mentions,
            opensStore: true,
            prepare: { context in
                try await context.copyStore()
                try await prepare(context)
            }
        )
    }

    private static func metadata(
        _ name: String,
        _ arguments: [String],
        exitCode: Int32 = 1,
        mentions: [String],
        prepare: @escaping @Sendable (BadInputCase) async throws -> Void = { _ in }
    ) -> BadInput {
        BadInput(
            name: name,
            area: .metadata,
            command: ["volmeta", "run"] + arguments,
            exitCode: exitCode,
            mentions: mentions,
            prepare: prepare
        )
    }

    /// Programs that are started wrongly.
    static let nodeCases: [BadInput] = [
        node(
            "an NBD port that is taken",
            ["--listen-nbd", "127.0.0.1:TAKEN"],
            mentions: ["TAKEN", "listens"]
        ),
        node(
            "an admin port that is taken",
            ["--listen-nbd", "127.0.0.1:PORT", "--admin", "127.0.0.1:TAKEN"],
            mentions: ["TAKEN"]
        ),
        node(
            "an address of another machine",
            ["--listen-nbd", "192.0.2.1:PORT"],
            mentions: ["192.0.2.1"]
        ),
        node(
            "a port that is no number",
            ["--listen-nbd", "127.0.0.1:nbd"],
            exitCode: 2,
            mentions: ["127.0.0.1:nbd"]
        ),
        node(
            "a port beyond 65535",
            ["--listen-nbd", "127.0.0.1:70000"],
            exitCode: 2,
            mentions: ["--listen-nbd"]
        ),
        node(
            "a socket path that is too long",
            ["--listen-nbd-unix", "DIR/" + String(repeating: "x", count: 120)],
            mentions: ["107"]
        ),
        node(
            "a socket path taken by a file",
            ["--listen-nbd-unix", "DIR/file"],
            mentions: ["DIR/file", "not a socket"],
            prepare: { try $0.scratch.write("file", "mine\n") }
        ),
        node(
            "a socket in a folder that is not there",
            ["--listen-nbd-unix", "DIR/no/nbd.sock"],
            mentions: ["DIR/no"]
        ),
        node(
            "a socket that another node listens on",
            ["--listen-nbd-unix", "SOCKET"],
            mentions: ["SOCKET", "listens"]
        ),
        node("nothing to listen on", [], exitCode: 2, mentions: ["--listen-nbd"]),
        node(
            "the same store twice",
            ["--store", "./store.img", "--listen-nbd", "127.0.0.1:PORT"],
            exitCode: 2,
            mentions: ["DIR/store.img", "the same"]
        ),
        node(
            "two stores with volumes of one name",
            ["--store", "DIR/other.img", "--listen-nbd", "127.0.0.1:PORT"],
            mentions: ["DIR/store.img", "same name as 'a' in DIR/other.img"],
            prepare: { try await $0.makeStores(withVolumes: "a=16MiB", "a=32MiB") }
        ),
        node(
            "two stores with volumes of one id",
            ["--store", "DIR/other.img", "--listen-nbd", "127.0.0.1:PORT"],
            mentions: ["DIR/store.img", "same id as 'b' in DIR/other.img"],
            prepare: { try await $0.makeStores(withVolumes: "a=16MiB", "b=16MiB") }
        ),
        node(
            "the loss of a store that is not served",
            ["--listen-nbd", "127.0.0.1:PORT", "--accept-loss", "./other.img"],
            exitCode: 2,
            mentions: ["--accept-loss", "./other.img", "DIR/store.img"]
        ),
        node(
            "an engine that does not exist",
            ["--listen-nbd", "127.0.0.1:PORT", "--engine", "magic"],
            exitCode: 2,
            mentions: ["magic"]
        ),
        node(
            "no reactors",
            ["--listen-nbd", "127.0.0.1:PORT", "--reactors", "0"],
            exitCode: 2,
            mentions: ["reactors"]
        ),
        node(
            "too little memory for maps",
            ["--listen-nbd", "127.0.0.1:PORT", "--map-memory", "64KiB"],
            exitCode: 2,
            mentions: ["--map-memory", "512KiB"]
        ),
        node(
            "a metadata service that is no address",
            ["--listen-nbd", "127.0.0.1:PORT", "--admin", "127.0.0.1:0", "--meta", "nowhere"],
            exitCode: 2,
            mentions: ["nowhere"]
        ),
        node(
            "an NBD address that hosts cannot connect to",
            [
                "--listen-nbd", "0.0.0.0:PORT", "--admin", "127.0.0.1:0",
                "--meta", "http://127.0.0.1:1",
            ],
            exitCode: 2,
            mentions: ["0.0.0.0:PORT", "--advertise-nbd"]
        ),
        node(
            "an NBD address without a host",
            [
                "--listen-nbd", ":PORT", "--admin", "127.0.0.1:0", "--meta", "http://127.0.0.1:1",
            ],
            exitCode: 2,
            mentions: ["--advertise-nbd"]
        ),
        node(
            "an admin address that the metadata service cannot connect to",
            [
                "--listen-nbd", "127.0.0.1:PORT", "--admin", "[::]:PORT",
                "--meta", "http://127.0.0.1:1",
            ],
            exitCode: 2,
            mentions: ["[::]:PORT", "--advertise-admin"]
        ),
        node(
            "advertising what is no address either",
            [
                "--listen-nbd", "0.0.0.0:PORT", "--advertise-nbd", "0.0.0.0:PORT",
                "--admin", "127.0.0.1:0", "--meta", "http://127.0.0.1:1",
            ],
            exitCode: 2,
            mentions: ["--advertise-nbd", "no address to connect to"]
        ),
        node(
            "advertising without a metadata service",
            ["--listen-nbd", "127.0.0.1:PORT", "--advertise-nbd", "192.0.2.7:10809"],
            exitCode: 2,
            mentions: ["--meta"]
        ),
        node(
            "a lost store without a metadata service",
            [
                "--listen-nbd", "127.0.0.1:PORT",
                "--lost-store", "8f3a6c0d5b1e4792a4d0c7e916b25f38",
            ],
            exitCode: 2,
            mentions: ["--lost-store", "--meta"]
        ),
        node(
            "a volume without a size",
            ["--listen-nbd", "127.0.0.1:PORT", "--volume", "v"],
            exitCode: 2,
            mentions: ["NAME=SIZE"]
        ),
        node(
            "a volume of an odd size",
            ["--listen-nbd", "127.0.0.1:PORT", "--volume", "v=1000"],
            exitCode: 2,
            mentions: ["4096"]
        ),
        node(
            "a volume with a bad name",
            ["--listen-nbd", "127.0.0.1:PORT", "--volume", "a@b=1MiB"],
            exitCode: 2,
            mentions: ["a@b"]
        ),
        node(
            "TLS required without credentials",
            ["--listen-nbd", "127.0.0.1:PORT", "--tls", "require"],
            exitCode: 2,
            mentions: ["--tls-certificates"]
        ),
        node(
            "TLS credentials that are not there",
            [
                "--listen-nbd", "127.0.0.1:PORT", "--tls", "require", "--tls-certificates",
                "DIR/none",
            ],
            mentions: ["DIR/none"]
        ),
        node(
            "a key that belongs to another certificate",
            [
                "--listen-nbd", "127.0.0.1:PORT", "--tls", "require", "--tls-certificates",
                "DIR/tls",
            ],
            mentions: ["key"],
            prepare: { context in
                let credentials = try await Credentials.make(in: context.scratch)
                try FileManager.default.removeItem(atPath: credentials.file("server-key.pem"))
                try FileManager.default.copyItem(
                    atPath: credentials.file("client-key.pem"),
                    toPath: credentials.file("server-key.pem")
                )
            }
        ),
        node(
            "pre-shared keys that are not hexadecimal",
            ["--listen-nbd", "127.0.0.1:PORT", "--tls", "require", "--tls-psk", "DIR/keys"],
            mentions: ["DIR/keys"],
            prepare: { try $0.scratch.write("keys", "alice:not hexadecimal\n") }
        ),
        node(
            "links to other nodes in the clear on a network",
            ["--listen-nbd", "127.0.0.1:PORT", "--listen-peer", "0.0.0.0:PORT"],
            exitCode: 2,
            mentions: ["--peer-tls-certificates", "--peer-tls off"]
        ),
        node(
            "volumes for every initiator on a network",
            ["--iscsi", "0.0.0.0:PORT"],
            exitCode: 2,
            mentions: ["--iscsi-initiators", "--iscsi-any-initiator"]
        ),
        node(
            "initiators without iSCSI",
            ["--listen-nbd", "127.0.0.1:PORT", "--iscsi-initiators", "DIR/initiators"],
            exitCode: 2,
            mentions: ["--iscsi"]
        ),
        node(
            "secrets of initiators that everybody may read",
            ["--iscsi", "127.0.0.1:PORT", "--iscsi-initiators", "DIR/initiators"],
            mentions: ["DIR/initiators", "chmod 600"],
            prepare: { try $0.scratch.write("initiators", "* * -\n") }
        ),
        node(
            "TLS between nodes without credentials",
            ["--listen-nbd", "127.0.0.1:PORT", "--peer-tls", "require"],
            exitCode: 2,
            mentions: ["--peer-tls-certificates"]
        ),
        node(
            "credentials for links that are not to be under TLS",
            [
                "--listen-nbd", "127.0.0.1:PORT", "--peer-tls", "off",
                "--peer-tls-certificates", "DIR/none",
            ],
            exitCode: 2,
            mentions: ["--peer-tls off"]
        ),
        node(
            "credentials for links to nodes that are not there",
            ["--listen-nbd", "127.0.0.1:PORT", "--peer-tls-certificates", "DIR/none"],
            mentions: ["DIR/none", "certs create"]
        ),
        node(
            "another node's certificate",
            ["--listen-nbd", "127.0.0.1:PORT", "--peer-tls-certificates", "DIR/certs/n7"],
            mentions: ["n2.node.cairn"],
            prepare: { context in
                let result = try await run(
                    TestEnvironment.program("volctl"),
                    ["certs", "create", "--out", "\(context.scratch.path)/certs", "n7"]
                )
                try #require(result.exitCode == 0, "\(result.report)")
            }
        ),
        node(
            "no name",
            ["--name", "", "--listen-nbd", "127.0.0.1:PORT"],
            exitCode: 2,
            mentions: ["name"]
        ),
        metadata(
            "no data directory",
            ["--listen", "127.0.0.1:PORT"],
            exitCode: 2,
            mentions: ["--data"]
        ),
        metadata(
            "a data directory that is a file",
            ["--data", "DIR/file", "--listen", "127.0.0.1:PORT"],
            mentions: ["DIR/file"],
            prepare: { try $0.scratch.write("file", "mine\n") }
        ),
        metadata(
            "a control port that is taken",
            ["--data", "DIR/m", "--listen", "127.0.0.1:TAKEN"],
            mentions: ["TAKEN"]
        ),
        metadata(
            "a database that is none",
            ["--data", "DIR", "--listen", "127.0.0.1:PORT"],
            mentions: ["database"],
            prepare: { context in
                for name in ["metadata.sqlite", "cairn.sqlite", "meta.sqlite"] {
                    try context.scratch.write(
                        name,
                        String(repeating: "not a database ", count: 400)
                    )
                }
            }
        ),
        metadata(
            "a data directory that another service has",
            ["--data", "DATA/meta", "--listen", "127.0.0.1:PORT"],
            mentions: ["DATA/meta"]
        ),
        metadata(
            "an address without a port",
            ["--data", "DIR/m", "--listen", "127.0.0.1"],
            exitCode: 2,
            mentions: ["127.0.0.1"]
        ),
    ]
}
