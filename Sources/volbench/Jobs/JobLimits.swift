/// What a job may ask for at most; beyond lies a slip of the fingers or memory that is not there.
package enum JobLimits {
    /// Operations in flight per job: the reply tables are sized by it.
    package static var depthMax: Int { 4096 }
    /// Connections per job; beyond, one client thread measures itself.
    package static var connectionCountMax: Int { 256 }
    /// Clones of a job: each has a thread.
    package static var cloneCountMax: Int { 512 }
    /// Jobs of a run, clones counted.
    package static var jobCountMax: Int { 1024 }
    /// The largest operation, in bytes: NBD's own limit for a payload.
    package static var blockByteCountMax: Int { 32 << 20 }
    /// The smallest operation, in bytes: the smallest block of a disk.
    package static var blockByteCountMin: Int { 512 }
    /// Payload memory of one job, in bytes.
    package static var memoryByteCountMax: Int { 4 << 30 }
    /// Entries of a `bssplit`, as in fio.
    package static var splitCountMax: Int { 64 }
    /// Entries of a `percentile_list`, as in fio.
    package static var percentileCountMax: Int { 20 }
    /// Bytes of a pattern, as in fio.
    package static var patternByteCountMax: Int { 512 }
    /// Blocks whose visits or writes are remembered, one bit or one word each (2^28: 1 TiB of 4k).
    package static var mapBlockCountMax: UInt64 { 1 << 28 }
    /// Bytes of a job file: what people write by hand is far smaller.
    package static var jobFileByteCountMax: Int { 1 << 20 }
    /// Seconds of a run: a month.
    package static var secondsMax: UInt64 { 31 * 86_400 }
    /// Operations per second that a rate may ask for.
    package static var rateMax: Int { 1_000_000_000 }
    /// Lines of a log that are kept before they are written out.
    package static var logLineCountMax: Int { 1 << 14 }

    /// A size as the size of a block.
    ///
    /// - Throws: ``BenchError`` when it is not one that disks and NBD know.
    package static func blockByteCount(
        _ byteCount: UInt64,
        of text: OptionText
    ) throws(BenchError) -> Int {
        guard byteCount >= UInt64(blockByteCountMin), byteCount <= UInt64(blockByteCountMax),
            byteCount % UInt64(blockByteCountMin) == 0
        else { throw text.wrong("a multiple of \(blockByteCountMin) up to 32m") }
        return Int(byteCount)
    }
}
