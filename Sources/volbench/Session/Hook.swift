internal import Glibc

/// Something that is done to a server while jobs run.
package struct Hook: Sendable, Equatable {
    /// What is done.
    package enum Action: Sendable, Equatable {
        /// Sends a signal to a process.
        case signal(Int32, pid: Int32)
        /// Runs a command in the shell.
        case run(String)
    }

    /// Seconds after the first job began to count.
    package var seconds: Double
    /// What is done.
    package var action: Action
    /// How it was written, for the output.
    package var text: String

    /// Reads `SECONDS:ACTION:WHAT`.
    package init(parsing option: OptionText) throws(BenchError) {
        let form = "SECONDS:kill:PID, SECONDS:stop:PID, SECONDS:cont:PID or SECONDS:run:COMMAND"
        let parts = option.value.split(separator: ":", maxSplits: 2).map(String.init)
        guard parts.count == 3, let seconds = Double(parts[0]), seconds >= 0, seconds <= 86_400
        else { throw option.wrong(form) }
        self.seconds = seconds
        text = option.value
        if parts[1] == "run" {
            action = .run(parts[2])
            return
        }
        let signals = ["kill": SIGKILL, "stop": SIGSTOP, "cont": SIGCONT]
        guard let signal = signals[parts[1]], let pid = Int32(parts[2]), pid > 1 else {
            throw option.wrong(form)
        }
        action = .signal(signal, pid: pid)
    }

    /// Does it.
    ///
    /// - Returns: What went wrong, or nil.
    package func act() -> String? {
        switch action {
        case .signal(let signal, let pid):
            guard kill(pid, signal) == 0 else { return "hook \(text): \(describe(errno))" }
        case .run(let command):
            let status = Shell.run(command)
            guard status == 0 else { return "hook \(text): status \(status)" }
        }
        return nil
    }
}

/// Commands of the user's, in the shell.
package enum Shell {
    /// Runs a command and waits for it.
    ///
    /// - Returns: Its exit status; 127 and more for what did not run or was killed.
    package static func run(_ command: String) -> Int32 {
        // SAFETY: the text is lent for the call.
        let status = unsafe system(command)
        return status & 0x7f == 0 ? status >> 8 & 0xff : 128 + (status & 0x7f)
    }

    /// A word as the shell takes it for one.
    package static func quoted(_ word: String) -> String {
        let plain = "-_=+./:,%@~"
        let isPlain = word.allSatisfy { $0.isLetter || $0.isNumber || plain.contains($0) }
        guard !isPlain || word.isEmpty else { return word }
        let parts = word.split(separator: "'", omittingEmptySubsequences: false)
        return "'" + parts.joined(separator: "'\\''") + "'"
    }

    /// The standard output of a command, or nil when it fails.
    package static func output(_ command: String) -> String? {
        // SAFETY: both texts are lent for the call.
        guard let stream = unsafe popen(command, "r") else { return nil }
        var text: [UInt8] = []
        var bytes = [UInt8](repeating: 0, count: 4096)
        while true {
            // SAFETY: the array is borrowed for the call with its own count; the stream is open.
            let count = unsafe bytes.withUnsafeMutableBytes { buffer in
                unsafe fread(buffer.baseAddress, 1, buffer.count, stream)
            }
            guard count > 0 else { break }
            text += bytes.prefix(count)
        }
        // SAFETY: opened above and not used afterwards.
        return unsafe pclose(stream) == 0 ? String(decoding: text, as: UTF8.self) : nil
    }
}
