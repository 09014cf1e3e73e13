internal import BlockCore
public import StorageIO

/// Faults to inject into a device's operations, for tests.
///
/// Compiled in always: a device without a plan costs one predictable branch per operation.
/// Used by the thread that sets it up until the device is attached, then by the reactor's.
public final class FaultPlan: @unchecked Sendable {
    // SAFETY (Sendable): one thread at a time, as said above; attaching hands it over.

    /// What happens to an operation.
    @frozen
    public enum Effect: BitwiseCopyable, Sendable, Hashable {
        /// It completes with this positive errno and never reaches the kernel.
        case fail(errno: Int32)
        /// It reaches the kernel this much later, in nanoseconds, or once the plan is empty.
        case delay(nanoseconds: UInt64)
        /// The kernel is asked for only so many bytes first, as if it had cut the transfer short.
        case shorten(byteCount: Int)
    }

    private struct Rule: BitwiseCopyable {
        var kind: DeviceRequest.Kind
        var skipCount: UInt64
        var remainingCount: UInt64
        var effect: Effect
    }

    /// Rules of a plan, at most; a plan with more traps.
    public static var ruleCountMax: Int { 16 }

    private var rules = FixedArray<Rule>(
        repeating: Rule(
            kind: .read,
            skipCount: 0,
            remainingCount: 0,
            effect: .fail(errno: 0)
        ),
        count: ruleCountMax
    )
    private var ruleCount = 0

    /// Creates a plan without faults.
    public init() {}

    /// Adds a fault.
    ///
    /// - Parameters:
    ///   - effect: What happens.
    ///   - kind: To operations of which kind.
    ///   - skipCount: How many operations of that kind pass first.
    ///   - count: How many are then hit; each try of a write that waits for space counts.
    public func add(
        _ effect: Effect,
        to kind: DeviceRequest.Kind,
        after skipCount: UInt64 = 0,
        count: UInt64 = 1
    ) {
        precondition(ruleCount < Self.ruleCountMax, "too many fault rules")
        rules[ruleCount] = Rule(
            kind: kind,
            skipCount: skipCount,
            remainingCount: count,
            effect: effect
        )
        ruleCount += 1
    }

    /// Forgets all faults; what they delay goes on.
    public func removeAll() { ruleCount = 0 }

    /// Whether there are no faults.
    var isEmpty: Bool { ruleCount == 0 }

    /// Decides about the next operation of `kind`; the first rule that hits wins.
    func next(_ kind: DeviceRequest.Kind) -> Effect? {
        var effect: Effect?
        for index in 0..<ruleCount where rules[index].kind == kind {
            if rules[index].skipCount > 0 {
                rules[index].skipCount -= 1
            } else if effect == nil && rules[index].remainingCount > 0 {
                rules[index].remainingCount -= 1
                effect = rules[index].effect
            }
        }
        return effect
    }
}
