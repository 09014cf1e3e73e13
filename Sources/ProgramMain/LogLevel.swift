// What a server program logs, and where.

import ArgumentParser
package import Logging

/// From what weight on messages are logged.
package enum LogLevel: String, ExpressibleByArgument, CaseIterable, Sendable {
    case debug
    case info
    case notice
    case warning
    case error

    private var level: Logger.Level { Logger.Level(rawValue: rawValue) ?? .info }

    /// Makes standard error the log of the whole program, and a logger of it; once at the start.
    package func startLogging(as program: String) -> Logger {
        LoggingSystem.bootstrap(StreamLogHandler.standardError)
        var logger = Logger(label: program)
        logger.logLevel = level
        return logger
    }
}
