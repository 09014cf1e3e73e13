import Foundation
import Testing

extension BadInput {
    private static func refused(
        _ area: Area,
        _ name: String,
        _ arguments: [String],
        exitCode: Int32 = 1,
        mentions: [String],
        prepare: @escaping @Sendable (BadInputCase) async throws -> Void = { _ in }
    ) -> BadInput {
        BadInput(
            name: name,
            area: area,
            command: ["volctl"] + arguments,
            exitCode: exitCode,
            mentions: mentions,
            prepare: prepare
        )
    }

    private static let long = String(repeating: "n", count: 129)

    /// Requests that the control plane refuses.
    static let volumeCases: [BadInput] = [
        refused(
            .volume,
            "a volume of no size",
            ["volume", "create", "v", "--size", "0"],
            exitCode: 2,
            mentions: ["size"]
        ),
        refused(
            .volume,
            "a size that is not whole blocks",
            ["volume", "create", "v", "--size", "1000"],
            exitCode: 2,
            mentions: ["4096"]
        ),
        refused(
            .volume,
            "a size in an unknown unit",
            ["volume", "create", "v", "--size", "1XB"],
            exitCode: 2,
            mentions: ["1XB"]
        ),
        refused(
            .volume,
            "a volume beyond the limit",
            ["volume", "create", "v", "--size", "65TiB"],
            exitCode: 2,
            mentions: ["64"]
        ),
        refused(
            .volume,
            "a volume beyond 64 bits",
            ["volume", "create", "v", "--size", "99999999999999999999"],
            exitCode: 2,
            mentions: ["too large", "64TiB"]
        ),
        refused(
            .volume,
            "a volume of a negative size",
            ["volume", "create", "v", "--size", "-5"],
            exitCode: 2,
            mentions: ["-5", "negative"]
        ),
        refused(
            .volume,
            "a size with a space",
            ["volume", "create", "v", "--size", "1 GiB"],
            exitCode: 2,
            mentions: ["space", "write 1GiB"]
        ),
        refused(
            .volume,
            "a size that is not decimal",
            ["volume", "create", "v", "--size", "0x10"],
            exitCode: 2,
            mentions: ["not decimal", "write 16"]
        ),
        refused(
            .volume,
            "a block size that no guest knows",
            ["volume", "create", "v", "--size", "64MiB", "--block-size", "1024"],
            exitCode: 2,
            mentions: ["512"]
        ),
        refused(
            .volume,
            "more replicas than there are nodes",
            ["volume", "create", "v", "--size", "64MiB", "--replicas", "3"],
            mentions: ["replica"]
        ),
        refused(
            .volume,
            "no replicas",
            ["volume", "create", "v", "--size", "64MiB", "--replicas", "0"],
            exitCode: 2,
            mentions: ["--replicas"]
        ),
        refused(
            .volume,
            "a durability that does not exist",
            ["volume", "create", "v", "--size", "64MiB", "--durability", "maybe"],
            exitCode: 2,
            mentions: ["writeback"]
        ),
        refused(
            .volume,
            "a name with a blank",
            ["volume", "create", "a b", "--size", "64MiB"],
            exitCode: 2,
            mentions: ["a b"]
        ),
        refused(
            .volume,
            "a name that starts with a dot",
            ["volume", "create", ".v", "--size", "64MiB"],
            exitCode: 2,
            mentions: [".v"]
        ),
        refused(
            .volume,
            "a name with a path",
            ["volume", "create", "../v", "--size", "64MiB"],
            exitCode: 2,
            mentions: ["../v"]
        ),
        refused(
            .volume,
            "a name that is too long",
            ["volume", "create", long, "--size", "64MiB"],
            exitCode: 2,
            mentions: ["128"]
        ),
        refused(
            .volume,
            "a name that is a snapshot's",
            ["volume", "create", "v@s", "--size", "64MiB"],
            exitCode: 2,
            mentions: ["v@s"]
        ),
        refused(
            .volume,
            "a name that is taken",
            ["volume", "create", "precious", "--size", "64MiB"],
            mentions: ["precious", "already"]
        ),
        refused(
            .volume,
            "showing a volume with a typing error",
            ["volume", "show", "precios"],
            mentions: ["precios", "precious"]
        ),
        refused(.volume, "deleting no volume", ["volume", "delete", "none"], mentions: ["none"]),
        refused(
            .volume,
            "deleting a volume in use",
            ["volume", "delete", "precious"],
            mentions: ["precious"]
        ),
        refused(
            .volume,
            "shrinking without saying so",
            ["volume", "resize", "precious", "4MiB"],
            mentions: ["shrink"]
        ),
        refused(
            .volume,
            "resizing to odd bytes",
            ["volume", "resize", "precious", "16777217"],
            exitCode: 2,
            mentions: ["4096"]
        ),
        refused(
            .volume,
            "resizing no volume",
            ["volume", "resize", "none", "64MiB"],
            mentions: ["none"]
        ),
        refused(
            .snapshot,
            "a snapshot without a name",
            ["snapshot", "create", "precious"],
            exitCode: 2,
            mentions: ["@"]
        ),
        refused(
            .snapshot,
            "a snapshot of no volume",
            ["snapshot", "create", "none@s"],
            mentions: ["none"]
        ),
        refused(
            .snapshot,
            "a snapshot's name that is taken",
            ["snapshot", "create", "precious@s1"],
            mentions: ["s1", "already"]
        ),
        refused(
            .snapshot,
            "deleting no snapshot",
            ["snapshot", "delete", "precious@none"],
            mentions: ["none"]
        ),
        refused(
            .snapshot,
            "rolling back a volume in use",
            ["snapshot", "rollback", "precious@s1"],
            mentions: ["precious", "detach"]
        ),
        refused(
            .snapshot,
            "cloning no snapshot",
            ["clone", "precious@none", "c"],
            mentions: ["none"]
        ),
        refused(
            .snapshot,
            "cloning to a name that is taken",
            ["clone", "precious@s1", "child"],
            mentions: ["child", "already"]
        ),
        refused(
            .snapshot,
            "cloning a volume instead of a snapshot",
            ["clone", "precious", "c"],
            exitCode: 2,
            mentions: ["@"]
        ),
        refused(
            .attachment,
            "attaching no volume",
            ["attach", "none", "--host", "h9"],
            mentions: ["none"]
        ),
        refused(
            .attachment,
            "attaching what another host has",
            ["attach", "precious", "--host", "h2"],
            mentions: ["h1", "--force"]
        ),
        refused(
            .attachment,
            "attaching without a host",
            ["attach", "precious"],
            exitCode: 2,
            mentions: ["--host"]
        ),
        refused(
            .attachment,
            "attaching through no node",
            ["attach", "child", "--host", "h1", "--via", "none"],
            mentions: ["--via"]
        ),
        refused(
            .attachment,
            "attaching over a protocol that is not there",
            ["attach", "child", "--host", "h1", "--protocol", "iscsi"],
            mentions: ["iscsi"]
        ),
        refused(
            .attachment,
            "detaching from a host that has it not",
            ["detach", "precious", "--host", "h2"],
            mentions: ["h2"]
        ),
    ]

    /// Images, clusters and endpoints that are not what they should be.
    static let clusterCases: [BadInput] = [
        refused(
            .image,
            "importing no file",
            ["image", "import", "DIR/none.img", "v"],
            mentions: ["none.img"]
        ),
        refused(
            .image,
            "importing an empty file",
            ["image", "import", "DIR/empty.img", "v"],
            mentions: ["empty"],
            prepare: { try $0.resize("empty.img", to: 0) }
        ),
        refused(
            .image,
            "importing a web page",
            ["image", "import", "DIR/page.img", "v"],
            mentions: ["web page", "--format raw"],
            prepare: { context in
                let page = "<!DOCTYPE html>\n" + String(repeating: " ", count: 496)
                try Data(page.utf8).write(
                    to: URL(fileURLWithPath: context.scratch.file("page.img"))
                )
            }
        ),
        refused(
            .image,
            "importing a qcow2 file that was cut off",
            ["image", "import", "DIR/cut.qcow2", "v"],
            mentions: ["cut.qcow2"],
            prepare: { context in
                let path = context.scratch.file("cut.qcow2")
                try await succeed(
                    "/usr/bin/qemu-img",
                    ["create", "-q", "-f", "qcow2", path, "64M"]
                )
                try await succeed("/usr/bin/qemu-io", ["-c", "write -P 1 0 8M", path])
                try context.resize("cut.qcow2", to: 300_000)
            }
        ),
        refused(
            .image,
            "importing a qcow2 file with a backing file",
            ["image", "import", "DIR/top.qcow2", "v"],
            mentions: ["backing"],
            prepare: { context in
                let base = try context.scratch.write(
                    "base.raw",
                    String(repeating: "secret\n", count: 9362)
                )
                try await succeed(
                    "/usr/bin/qemu-img",
                    [
                        "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw",
                        context.scratch.file("top.qcow2"),
                    ]
                )
            }
        ),
        refused(
            .image,
            "importing what is called qcow2 and is not",
            ["image", "import", "DIR/text", "v", "--format", "qcow2"],
            mentions: ["qcow2"],
            prepare: { try $0.scratch.write("text", String(repeating: "text\n", count: 4000)) }
        ),
        refused(
            .image,
            "importing more than the volume holds",
            ["image", "import", "DIR/big.img", "child", "--overwrite"],
            mentions: ["64MiB", "child"],
            prepare: { try $0.resize("big.img", to: 64 << 20) }
        ),
        refused(
            .image,
            "importing a link that leads nowhere",
            ["image", "import", "DIR/link.img", "v"],
            mentions: ["link.img", "symbolic link", "readlink"],
            prepare: { context in
                try FileManager.default.createSymbolicLink(
                    atPath: context.scratch.file("link.img"),
                    withDestinationPath: context.scratch.file("none.img")
                )
            }
        ),
        refused(
            .image,
            "importing over a volume with data",
            ["image", "import", "DIR/i.img", "child"],
            mentions: ["--overwrite"],
            prepare: { try $0.resize("i.img", to: 8 << 20) }
        ),
        refused(
            .image,
            "importing from a server that is not there",
            ["image", "import", "http://127.0.0.1:PORT/i.img", "v"],
            mentions: ["127.0.0.1:PORT"]
        ),
        refused(
            .image,
            "importing from a scheme that is not taken",
            ["image", "import", "ftp://127.0.0.1/i.img", "v"],
            mentions: ["ftp"]
        ),
        refused(
            .image,
            "exporting no volume",
            ["volume", "export", "none", "DIR/out.img"],
            mentions: ["none"]
        ),
        refused(
            .image,
            "exporting over a file",
            ["volume", "export", "child", "DIR/mine"],
            mentions: ["DIR/mine"],
            prepare: { try $0.scratch.write("mine", "mine\n") }
        ),
        refused(
            .image,
            "exporting into no folder",
            ["volume", "export", "child", "DIR/no/out.img"],
            mentions: ["DIR/no"]
        ),
        refused(
            .image,
            "exporting in an unknown format",
            ["volume", "export", "child", "DIR/out.img", "--format", "vhd"],
            exitCode: 2,
            mentions: ["vhd"]
        ),
        refused(
            .image,
            "cataloguing no snapshot",
            ["image", "create", "debian:12", "precious@none"],
            mentions: ["none"]
        ),
        refused(
            .image,
            "cataloguing without a version",
            ["image", "create", "debian", "precious@s1"],
            exitCode: 2,
            mentions: [":"]
        ),
        refused(
            .image,
            "deleting no image",
            ["image", "delete", "debian:13"],
            mentions: ["debian"]
        ),
        refused(
            .cluster,
            "an endpoint where nothing answers",
            ["volume", "list", "--endpoint", "http://127.0.0.1:PORT"],
            mentions: ["127.0.0.1:PORT"]
        ),
        BadInput(
            name: "an environment with what is no endpoint",
            area: .cluster,
            command: ["CAIRN_ENDPOINT=nonsense", "volctl", "volume", "list"],
            exitCode: 2,
            mentions: ["nonsense", "CAIRN_ENDPOINT", "http://HOST:PORT"]
        ),
        refused(
            .cluster,
            "an endpoint that speaks another protocol",
            ["volume", "list", "--endpoint", "http://127.0.0.1:TAKEN"],
            mentions: ["TAKEN"]
        ),
        refused(
            .cluster,
            "an endpoint that is no URL",
            ["volume", "list", "--endpoint", "::::"],
            exitCode: 2,
            mentions: ["::::"]
        ),
        refused(
            .cluster,
            "a node that is not there",
            ["node", "show", "none"],
            mentions: ["none"]
        ),
        refused(
            .cluster,
            "purging a volume that the node does not have",
            ["node", "purge", "node1", "12345"],
            mentions: ["node1", "12345", "volctl node strays node1"]
        ),
        refused(
            .cluster,
            "purging by a name instead of an id",
            ["node", "purge", "node1", "child"],
            exitCode: 2,
            mentions: ["child", "whole number"]
        ),
        refused(
            .cluster,
            "killing no node",
            ["dev", "kill", "none", "--data", "DATA"],
            mentions: ["none"]
        ),
        refused(
            .cluster,
            "starting no node",
            ["dev", "start", "none", "--data", "DATA"],
            mentions: ["none"]
        ),
        refused(
            .cluster,
            "the state of no cluster",
            ["dev", "status", "--data", "DIR/none"],
            mentions: ["dev up"]
        ),
        refused(
            .cluster,
            "a cluster of no nodes",
            ["dev", "up", "--nodes", "0", "--data", "DIR/c"],
            exitCode: 2,
            mentions: ["nodes"]
        ),
        refused(
            .cluster,
            "a cluster of more nodes than a number holds",
            ["dev", "up", "--nodes", "99999999999999999999", "--data", "DIR/c"],
            exitCode: 2,
            mentions: ["--nodes", "1 to 64"]
        ),
        refused(
            .cluster,
            "a cluster in a file",
            ["dev", "up", "--data", "DIR/file"],
            mentions: ["DIR/file"],
            prepare: { try $0.scratch.write("file", "mine\n") }
        ),
        refused(
            .cluster,
            "a command that does not exist",
            ["volume", "explode"],
            exitCode: 2,
            mentions: ["explode", "create"]
        ),
        refused(
            .cluster,
            "a misspelt command",
            ["volume", "lsit"],
            exitCode: 2,
            mentions: ["lsit", "'list'"]
        ),
        refused(
            .cluster,
            "an option that does not exist",
            ["volume", "list", "-x"],
            exitCode: 2,
            mentions: ["option '-x'"]
        ),
        refused(
            .cluster,
            "an option that does not exist, and an argument missing",
            ["clone", "-x"],
            exitCode: 2,
            mentions: ["option '-x'"]
        ),
        refused(
            .cluster,
            "the help of a command that does not exist",
            ["help", "volme"],
            exitCode: 2,
            mentions: ["'volctl' has no subcommand 'volme'", "'volume'"]
        ),
    ]
}
