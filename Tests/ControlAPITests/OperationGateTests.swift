// The order of a volume's changes on its node.

import ControlAPI
import Synchronization
import TestSupport
import Testing

@Suite("The gate in front of a node", .timeLimit(.minutes(3)))
struct OperationGateTests {
    /// A clock that goes when it is told to.
    private final class Clock: Sendable {
        private let time = Mutex(ContinuousClock.now)
        var now: ContinuousClock.Instant { time.withLock { $0 } }
        func advance(seconds: Int64) { time.withLock { $0 += .seconds(seconds) } }
    }

    private func operation(_ revision: UInt64, term: UInt64 = 1) -> NodeOperation {
        NodeOperation(term: term, revision: revision, epochMax: 0)
    }

    private func grow(
        _ gate: OperationGate,
        _ node: MemoryNode,
        _ operation: NodeOperation?,
        volume: UInt64 = 7
    ) async -> ControlError? {
        await controlError { () throws(ControlError) in
            let update = NodeVolumeUpdate(byteCount: 8192)
            _ = try await gate.admit(operation, to: node).updateVolume(volume, update)
        }
    }

    @Test("Changes of one volume go through one at a time, those of others meanwhile")
    func change_sameVolume_waits() async throws {
        let node = MemoryNode(name: "n1")
        let gate = OperationGate()
        for id in [7, 8] as [UInt64] {
            _ = try await gate.admit(nil, to: node).createVolume(.small(id))
        }
        let inside = Mutex((now: 0, max: 0, all: 0))
        let isHeld = Mutex(true)
        node.whenUpdating { id in
            guard id == 7 else { return }
            inside.withLock { $0 = ($0.now + 1, max($0.max, $0.now + 1), $0.all + 1) }
            // Others would come in here.
            for _ in 0..<100 { await Task.yield() }
            _ = try? await isEventually { !isHeld.withLock { $0 } }
            inside.withLock { $0.now -= 1 }
        }
        try await withThrowingTaskGroup(of: ControlError?.self) { group in
            for _ in 0..<16 { group.addTask { await grow(gate, node, nil) } }
            #expect(try await isEventually { inside.withLock { $0.all } > 0 })
            #expect(await grow(gate, node, nil, volume: 8) == nil)
            #expect(inside.withLock { $0.all } == 1)
            isHeld.withLock { $0 = false }
            for try await error in group { #expect(error == nil) }
        }
        #expect(inside.withLock { $0.max } == 1)
        #expect(inside.withLock { $0.all } == 16)
    }

    @Test("What is older than the last is refused for ten minutes, and is let through afterwards")
    func change_older_isRefusedWhileRemembered() async throws {
        let clock = Clock()
        let node = MemoryNode(name: "n1")
        let gate = OperationGate { clock.now }
        _ = try await gate.admit(operation(5), to: node).createVolume(.small())
        #expect(await grow(gate, node, operation(6)) == nil)
        #expect(await grow(gate, node, operation(6)) == nil, "a repetition")
        #expect(await grow(gate, node, operation(5))?.code == .outdated)
        clock.advance(seconds: OperationGate.rememberedSeconds - 1)
        #expect(await grow(gate, node, operation(5))?.code == .outdated)
        // What was refused does not count as the last.
        clock.advance(seconds: 1)
        #expect(await grow(gate, node, operation(5)) == nil)
        #expect(await grow(gate, node, operation(9, term: 0))?.code == .outdated, "an earlier term")
        #expect(await grow(gate, node, operation(1, term: 2)) == nil, "a later term")
    }

    @Test("A node with many volumes forgets their operations when their time is over")
    func change_manyVolumes_areForgotten() async throws {
        let clock = Clock()
        let node = MemoryNode(name: "n1")
        let gate = OperationGate { clock.now }
        let count = UInt64(OperationGate.sweepCountMin)
        for id in 1...count {
            _ = await grow(gate, node, operation(id), volume: id)
        }
        #expect(gate.rememberedCount == Int(count))
        clock.advance(seconds: OperationGate.rememberedSeconds)
        _ = await grow(gate, node, operation(1), volume: count + 1)
        #expect(gate.rememberedCount == 1)
    }
}
