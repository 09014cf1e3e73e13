package import BlockCore
internal import Glibc

/// The end of an operation, as an engine reports it.
@frozen
package struct EngineCompletion: BitwiseCopyable, Sendable {
    /// The lane whose operation ended.
    package var lane: Int32
    /// 0, or the errno that the target answered.
    package var errno: Int32

    /// Creates the end of `lane`'s operation.
    package init(lane: Int32, errno: Int32) {
        self.lane = lane
        self.errno = errno
    }
}

/// Something that carries operations out: an NBD client, a device, or nothing at all.
///
/// A lane has at most one operation in flight. One thread owns an engine and drives it:
/// `submit` some lanes, `turn`, take what is in `completions`, again. What is submitted may stay
/// in user memory until the next `turn`, so that a turn costs one system call per connection and
/// not one per operation.
package protocol Engine: AnyObject {
    /// The number of operations that can be in flight.
    var laneCount: Int { get }
    /// The size of the target, in bytes.
    var targetByteCount: UInt64 { get }
    /// Ended operations; the owner drains it after every turn.
    var completions: FixedRing<EngineCompletion> { get }
    /// A lane's payload: what a write sends, and what a read brought where that was asked for.
    ///
    /// Empty where the engine moves no bytes.
    func payload(lane: Int) -> ByteRegion
    /// Accepts an operation on an idle lane.
    func submit(_ operation: Operation, lane: Int)
    /// Sends what was submitted and waits until an operation ends or `deadline` passes.
    ///
    /// - Throws: ``BenchError`` when the target is gone; the job is over.
    func turn(deadline: Instant) throws(BenchError)
    /// Ends connections and gives memory back; nothing is in flight, or the target is gone.
    func close()
}

/// Why a run could not start or go on: one line for people.
package struct BenchError: Error, Sendable, Equatable {
    /// The line.
    package var message: String
    /// The errno that says it best; `EIO` where none does.
    package var code: Int32

    /// Creates an error from its line.
    package init(_ message: String, code: Int32 = EIO) {
        self.message = message
        self.code = code
    }
}

/// The engine that completes everything at once: it measures the generator itself.
package final class NullEngine: Engine {
    package let laneCount: Int
    package let targetByteCount: UInt64
    package let completions: FixedRing<EngineCompletion>

    /// The size of an imaginary target that nobody gave one.
    package static var byteCountDefault: UInt64 { 1 << 30 }

    /// Creates an engine over an imaginary target.
    package init(laneCount: Int, targetByteCount: UInt64) {
        self.laneCount = laneCount
        self.targetByteCount = targetByteCount
        completions = FixedRing(capacityMin: laneCount)
    }

    package func payload(lane: Int) -> ByteRegion { .empty }

    package func submit(_ operation: Operation, lane: Int) {
        completions.append(EngineCompletion(lane: Int32(lane), errno: 0))
    }

    package func turn(deadline: Instant) throws(BenchError) {
        if completions.isEmpty { Clock.sleep(until: deadline) }
    }

    package func close() {}
}
