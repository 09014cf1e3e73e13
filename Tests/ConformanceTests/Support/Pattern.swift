// The first blocks of a disk, filled with one byte: what tests tell disks apart by.

import Testing

/// Fills the first 64 KiB of a disk, durably.
///
/// - Parameters:
///   - byte: Two hexadecimal digits.
///   - uri: Where the disk is: an NBD URI or a path.
/// - Throws: What qemu-io reported.
func write(_ byte: String, to uri: String) async throws {
    try await succeed(
        "/usr/bin/qemu-io",
        ["-f", "raw", "-c", "write -P 0x\(byte) 0 64k", "-c", "flush", uri],
        within: 30
    )
}

/// Whether the first 64 KiB of a disk can be read and are filled so.
///
/// - Parameters:
///   - byte: Two hexadecimal digits.
///   - uri: Where the disk is: an NBD URI or a path.
/// - Returns: False when they are not, or cannot be read.
/// - Throws: When qemu-io cannot be run.
func reads(_ byte: String, from uri: String) async throws -> Bool {
    let result = try await run(
        "/usr/bin/qemu-io",
        ["-f", "raw", "-r", "-c", "read -P 0x\(byte) 0 64k", uri],
        within: 30
    )
    return result.exitCode == 0 && !result.output.contains("verification failed")
}
