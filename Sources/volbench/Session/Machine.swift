internal import Glibc

/// The version that outputs name.
package enum VolbenchVersion {
    /// The version.
    package static let text = "volbench 1.0"
}

/// The date, for outputs.
package enum Calendar {
    /// Milliseconds since 1970.
    package static var now: UInt64 {
        var time = timespec()
        // SAFETY: `time` outlives the call.
        _ = unsafe clock_gettime(CLOCK_REALTIME, &time)
        return UInt64(time.tv_sec) * 1000 + UInt64(time.tv_nsec) / 1_000_000
    }

    /// Date and time, as `ctime` writes them.
    package static var text: String {
        var seconds = time_t(now / 1000)
        var bytes = [CChar](repeating: 0, count: 32)
        // SAFETY: both outlive the call; ctime_r writes 26 bytes at most.
        _ = unsafe bytes.withUnsafeMutableBufferPointer { buffer in
            unsafe ctime_r(&seconds, buffer.baseAddress)
        }
        let letters = bytes.prefix { $0 != 0 && $0 != 10 }.map { UInt8(bitPattern: $0) }
        return String(decoding: letters, as: UTF8.self)
    }
}

/// What figures depend on besides the software.
package struct MachineReport: Sendable {
    package var kernel: String
    package var processor: String
    package var coreCount: Int
    package var memoryByteCount: UInt64
    /// What holds a target that is a file: file system and device; empty for others.
    package var device = ""
    /// CPU that neither volbench nor the servers used during the run, as a share of all cores.
    package var othersShare = 0.0

    /// Looks at the machine.
    package init(devicesOf paths: [String] = []) {
        kernel = (TextFile.read("/proc/sys/kernel/osrelease") ?? "").trimmed
        let processors = (TextFile.read("/proc/cpuinfo") ?? "").split(separator: "\n")
        coreCount = processors.filter { $0.hasPrefix("processor") }.count
        let model = processors.first { $0.hasPrefix("model name") }?.split(separator: ":").last
        processor = model.map { String($0).trimmed } ?? "unknown"
        let memory = (TextFile.read("/proc/meminfo") ?? "").split(whereSeparator: \.isWhitespace)
        memoryByteCount = memory.count > 1 ? (UInt64(memory[1]) ?? 0) << 10 : 0
        device = Set(paths.compactMap(MachineReport.device)).sorted().joined(separator: "; ")
    }

    /// File system, device and mount options of the longest mount point that begins `path`.
    private static func device(of path: String) -> String? {
        if path.hasPrefix("/dev/") { return path }
        let lines = (TextFile.read("/proc/self/mounts") ?? "").split(separator: "\n")
        let mounts = lines.map { $0.split(separator: " ") }.filter { $0.count >= 4 }
        let holding = mounts.filter { fields in
            path.hasPrefix(fields[1] == "/" ? "/" : fields[1] + "/")
        }
        return holding.max { $0[1].count < $1[1].count }.map { "\($0[2]) on \($0[0]) (\($0[3]))" }
    }

    /// One line for people.
    package var text: String {
        var parts = ["\(processor), \(coreCount) cores, \(memoryByteCount >> 30) GiB"]
        parts.append("Linux \(kernel)")
        if !device.isEmpty { parts.append(device) }
        parts.append("others used \(fixed(othersShare * 100, 1)) % of the CPU meanwhile")
        return parts.joined(separator: "; ")
    }

    /// The same for programs.
    package var json: JSONValue {
        .object([
            ("kernel", .string(kernel)), ("cpu", .string(processor)),
            ("cores", .integer(UInt64(coreCount))), ("memory_bytes", .integer(memoryByteCount)),
            ("device", .string(device)), ("cpu_of_others", .number(othersShare)),
        ])
    }
}

/// How busy the machine is with what is not part of the measurement.
package struct MachineLoad: Sendable {
    private let busyTicks: UInt64
    private let allTicks: UInt64
    private let ownNanoseconds: UInt64
    private let servers: [(pid: Int32, nanoseconds: UInt64)]

    /// Notes where the clocks stand.
    package init(serverPIDs: [Int32]) {
        (busyTicks, allTicks) = MachineLoad.ticks()
        ownNanoseconds = Clock.ownProcessNanoseconds()
        servers = serverPIDs.flatMap { Clock.family(of: $0) }.compactMap { pid in
            Clock.cpuNanoseconds(of: pid).map { (pid, $0) }
        }
    }

    /// The share of all cores that others have used since then.
    package func othersShare() -> Double {
        let (busy, all) = MachineLoad.ticks()
        guard all > allTicks else { return 0 }
        var own = Clock.ownProcessNanoseconds() - ownNanoseconds
        for server in servers {
            own += (Clock.cpuNanoseconds(of: server.pid) ?? server.nanoseconds) - server.nanoseconds
        }
        let ownTicks = Double(own) / 1e9 * Double(sysconf(Int32(_SC_CLK_TCK)))
        let others = Double(busy - busyTicks) - ownTicks
        return min(max(others / Double(all - allTicks), 0), 1)
    }

    /// Ticks that all cores together worked, and all ticks.
    private static func ticks() -> (busy: UInt64, all: UInt64) {
        let text = TextFile.read("/proc/stat") ?? ""
        let line = text.split(separator: "\n").first ?? ""
        let numbers = line.split(separator: " ").dropFirst().prefix(8).compactMap { UInt64($0) }
        guard numbers.count == 8 else { return (0, 0) }
        let all = numbers.reduce(0, +)
        // The fourth is idle, the fifth waits for a disk.
        return (all - numbers[3] - numbers[4], all)
    }
}

extension StringProtocol {
    /// Without spaces and line ends around it.
    var trimmed: String {
        var text = self[...]
        while let last = text.last, last.isWhitespace { text.removeLast() }
        return String(text.drop { $0.isWhitespace })
    }
}
