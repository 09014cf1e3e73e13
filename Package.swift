// swift-tools-version: 6.2
import PackageDescription

// The data path depends on nothing but C libraries; the control plane depends on NIO and friends.
// `CAIRN_TARGETS=data-path` drops the control plane from the manifest, so that the tests,
// sanitizer and fuzz builds of the data path take seconds. `control-plane` keeps the control plane
// alone: its programs but volnode, and its tests. `fuzz` is the data path and libFuzzer's entry
// points: see Tests/FuzzTargets.
let isFuzzing = Context.environment["CAIRN_TARGETS"] == "fuzz"
let dataPathOnly = isFuzzing || Context.environment["CAIRN_TARGETS"] == "data-path"
let controlPlaneOnly = Context.environment["CAIRN_TARGETS"] == "control-plane"
let instrumentation = ["-sanitize=fuzzer,address"]

let common: [SwiftSetting] = [
    .strictMemorySafety(),
    .treatAllWarnings(as: .error),
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("MemberImportVisibility"),
]
let control: [SwiftSetting] = common + [.enableUpcomingFeature("NonisolatedNonsendingByDefault")]

/// A target below the line: no Foundation, no packages.
func dataPath(_ name: String, _ dependencies: [Target.Dependency] = []) -> Target {
    .target(
        name: name,
        dependencies: dependencies,
        swiftSettings: common + (isFuzzing ? [.unsafeFlags(instrumentation)] : [])
    )
}

/// The tests of a target below the line.
func dataPathTests(_ name: String, _ dependencies: [Target.Dependency]) -> Target {
    .testTarget(
        name: name,
        dependencies: dependencies,
        path: "Tests/\(name)",
        swiftSettings: common
    )
}

let dataPathTargets: [Target] = [
    .target(
        name: "CLinux",
        linkerSettings: [.linkedLibrary("uring"), .linkedLibrary("aio"), .linkedLibrary("isal")]
    ),
    .target(
        name: "COpenSSL",
        linkerSettings: [.linkedLibrary("ssl"), .linkedLibrary("crypto")]
    ),
    .target(name: "CProcess"),
    dataPath("ChildProcesses", ["CProcess"]),
    dataPath("BlockCore", ["CLinux"]),
    dataPath("LogFormat", ["BlockCore"]),
    dataPath("NBDWire", ["BlockCore"]),
    dataPath("StorageIO", ["BlockCore"]),
    dataPath("LogStore", ["BlockCore", "LogFormat", "StorageIO"]),
    dataPath("NBDSession", ["BlockCore", "NBDWire"]),
    dataPath("Replication", ["BlockCore"]),
    dataPath("SCSI", ["BlockCore"]),
    dataPath("ISCSIWire", ["BlockCore"]),
    dataPath("ISCSISession", ["BlockCore", "ISCSIWire"]),
    dataPath("PeerWire", ["BlockCore", "Replication"]),
    dataPath(
        "FuzzSupport",
        [
            "BlockCore", "NBDWire", "NBDSession", "Replication", "PeerWire", "ISCSIWire",
            "ISCSISession",
        ]
    ),
    dataPath("Reactor", ["BlockCore", "StorageIO", "CLinux"]),
    dataPath("Simulation", ["BlockCore", "StorageIO", "LogFormat", "LogStore", "Replication"]),
    dataPath(
        "StorageNode",
        [
            "BlockCore", "StorageIO", "LogFormat", "LogStore", "NBDWire", "NBDSession", "PeerWire",
            "Reactor", "Replication", "CLinux", "COpenSSL", "SCSI", "ISCSIWire", "ISCSISession",
        ]
    ),
    .executableTarget(
        name: "devtool",
        dependencies: [
            "BlockCore", "StorageIO", "LogFormat", "LogStore", "NBDSession", "Simulation",
            "FuzzSupport", "ChildProcesses", "CProcess",
        ],
        swiftSettings: common
    ),
    .executableTarget(
        name: "volbench",
        dependencies: ["BlockCore", "NBDWire", "StorageIO", "Reactor", "CLinux"],
        swiftSettings: common
    ),
    .target(name: "CAllocationCounter", path: "Tests/Support/CAllocationCounter"),
    .target(
        name: "TestSupport",
        dependencies: ["ChildProcesses"],
        path: "Tests/Support/TestSupport",
        swiftSettings: common
    ),
    dataPathTests("BlockCoreTests", ["BlockCore"]),
    dataPathTests("LogFormatTests", ["BlockCore", "LogFormat"]),
    dataPathTests(
        "LogStoreTests",
        ["BlockCore", "StorageIO", "LogFormat", "LogStore", "CAllocationCounter", "TestSupport"]
    ),
    dataPathTests("NBDWireTests", ["BlockCore", "NBDWire"]),
    dataPathTests(
        "NBDSessionTests",
        ["BlockCore", "NBDWire", "NBDSession", "CAllocationCounter"]
    ),
    dataPathTests("SCSITests", ["BlockCore", "SCSI", "CAllocationCounter", "TestSupport"]),
    dataPathTests("ISCSIWireTests", ["BlockCore", "ISCSIWire"]),
    dataPathTests(
        "ISCSISessionTests",
        ["BlockCore", "ISCSIWire", "ISCSISession", "CAllocationCounter"]
    ),
    dataPathTests("ReplicationTests", ["BlockCore", "Replication", "CAllocationCounter"]),
    dataPathTests(
        "PeerWireTests",
        ["BlockCore", "Replication", "PeerWire", "FuzzSupport", "CAllocationCounter"]
    ),
    dataPathTests(
        "FuzzTests",
        ["BlockCore", "NBDWire", "NBDSession", "LogFormat", "FuzzSupport", "TestSupport"]
    ),
    dataPathTests(
        "ReactorTests",
        ["BlockCore", "StorageIO", "Reactor", "CLinux", "CAllocationCounter", "TestSupport"]
    ),
    dataPathTests(
        "SimulationTests",
        ["BlockCore", "StorageIO", "LogFormat", "LogStore", "Simulation", "TestSupport"]
    ),
    dataPathTests(
        "StorageNodeTests",
        [
            "BlockCore", "StorageIO", "LogStore", "NBDSession", "Reactor", "Replication",
            "StorageNode", "ISCSIWire", "ISCSISession", "ChildProcesses", "CAllocationCounter",
            "TestSupport",
        ]
    ),
    dataPathTests(
        "VolbenchTests",
        ["volbench", "BlockCore", "ChildProcesses", "CAllocationCounter", "TestSupport"]
    ),
    dataPathTests("TidyTests", ["TestSupport"]),
]

let argumentParser = Target.Dependency.product(
    name: "ArgumentParser",
    package: "swift-argument-parser"
)
let logging = Target.Dependency.product(name: "Logging", package: "swift-log")
let lifecycle = Target.Dependency.product(
    name: "ServiceLifecycle",
    package: "swift-service-lifecycle"
)
let hummingbird = Target.Dependency.product(name: "Hummingbird", package: "hummingbird")
let hummingbirdTesting = Target.Dependency.product(
    name: "HummingbirdTesting",
    package: "hummingbird"
)
let httpClient = Target.Dependency.product(name: "AsyncHTTPClient", package: "async-http-client")
let nioSSL = Target.Dependency.product(name: "NIOSSL", package: "swift-nio-ssl")
let yams = Target.Dependency.product(name: "Yams", package: "Yams")
let grdb = Target.Dependency.product(name: "GRDB", package: "GRDB.swift")

let controlTargets: [Target] = [
    .target(
        name: "ControlAPI",
        dependencies: [hummingbird, httpClient, logging],
        swiftSettings: control
    ),
    .target(
        name: "ProgramMain",
        dependencies: ["ControlAPI", "CProcess", argumentParser, logging],
        swiftSettings: control
    ),
    .target(
        name: "Metadata",
        dependencies: [grdb, httpClient, nioSSL, logging],
        swiftSettings: control
    ),
    .target(
        name: "ControlPlane",
        dependencies: ["ControlAPI", "Metadata", logging, lifecycle],
        swiftSettings: control
    ),
    .executableTarget(
        name: "volnode",
        dependencies: [
            "BlockCore", "StorageIO", "LogStore", "Reactor", "Replication", "StorageNode",
            "ControlAPI", "ProgramMain", argumentParser, logging, lifecycle, hummingbird,
        ],
        swiftSettings: control
    ),
    .executableTarget(
        name: "volmeta",
        dependencies: [
            "ControlAPI", "ControlPlane", "Metadata", "ProgramMain",
            argumentParser, logging, lifecycle, hummingbird,
        ],
        swiftSettings: control
    ),
    .executableTarget(
        name: "volctl",
        dependencies: [
            "ControlAPI", "ProgramMain", "ChildProcesses", "COpenSSL", argumentParser, httpClient,
        ],
        swiftSettings: control
    ),
    .testTarget(
        name: "VolctlTests",
        dependencies: [
            "volctl", "ControlAPI", "ControlPlane", "Metadata", "ProgramMain", "ChildProcesses",
            "TestSupport", argumentParser, hummingbird, logging,
        ],
        swiftSettings: control
    ),
    .testTarget(
        name: "ControlAPITests",
        dependencies: [
            "ControlAPI", "ControlPlane", "Metadata", "TestSupport",
            hummingbird, hummingbirdTesting, logging, yams,
        ],
        swiftSettings: control
    ),
    .testTarget(
        name: "MetadataTests",
        dependencies: ["Metadata", "ChildProcesses", "TestSupport", grdb, logging],
        swiftSettings: control
    ),
    .testTarget(
        name: "ConformanceTests",
        dependencies: ["ChildProcesses", "TestSupport"],
        exclude: ["ControlAPI"],
        swiftSettings: control
    ),
]

let fuzzTargets: [Target] = [
    .target(name: "CFuzzer", path: "Tests/FuzzTargets/CFuzzer"),
    .executableTarget(
        name: "fuzz-nbd",
        dependencies: ["FuzzSupport", "CFuzzer"],
        path: "Tests/FuzzTargets/NBDSession",
        swiftSettings: common + [.unsafeFlags(instrumentation)],
        linkerSettings: [.unsafeFlags(instrumentation + ["-use-ld=lld"])]
    ),
]

let package = Package(
    name: "cairn",
    dependencies: dataPathOnly
        ? []
        : [
            .package(url: "https://github.com/apple/swift-argument-parser", from: "1.8.2"),
            .package(url: "https://github.com/apple/swift-log", from: "1.16.2"),
            .package(
                url: "https://github.com/swift-server/swift-service-lifecycle",
                from: "2.13.0"
            ),
            .package(url: "https://github.com/hummingbird-project/hummingbird", from: "2.28.1"),
            .package(url: "https://github.com/swift-server/async-http-client", from: "1.37.0"),
            .package(url: "https://github.com/apple/swift-nio-ssl.git", from: "2.37.0"),
            .package(url: "https://github.com/groue/GRDB.swift", from: "7.10.0"),
            .package(url: "https://github.com/jpsim/Yams", from: "6.2.2"),
        ],
    targets: controlPlaneOnly
        ? dataPathTargets.filter {
            ["COpenSSL", "CProcess", "ChildProcesses", "TestSupport"].contains($0.name)
        }
            + controlTargets.filter { $0.name != "volnode" }
        : dataPathTargets + (dataPathOnly ? [] : controlTargets) + (isFuzzing ? fuzzTargets : []),
    swiftLanguageModes: [.v6]
)
