// Programs that volctl starts: servers that outlive it, and tools that work for it.

import ChildProcesses
import Glibc
import ProgramMain

extension ChildSpecification {
    /// Starts the program.
    ///
    /// - Returns: Its process id; the caller waits for it, or lets it outlive this program.
    /// - Throws: ``CommandFailure`` with the system's reason.
    func launch() throws(CommandFailure) -> pid_t {
        do {
            return try start()
        } catch {
            throw CommandFailure(
                "cannot_start",
                "Cannot start \(executable): \(systemErrorText(error.errorNumber))."
            )
        }
    }
}
