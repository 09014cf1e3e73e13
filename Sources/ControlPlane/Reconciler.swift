// Background work: carrying on what was interrupted, comparing nodes with the metadata, noticing
// nodes that fall silent, forgetting what is old.

public import ControlAPI
import Foundation
import Logging
import Metadata
public import ServiceLifecycle

extension ControlPlane: Service {
    /// How often pending operations are looked at, in seconds.
    static var pendingIntervalSeconds: Int { 5 }
    /// How often nodes are compared with the metadata, in seconds.
    static var comparisonIntervalSeconds: Int { 300 }
    /// How often old operations and events are forgotten, in seconds.
    static var trimIntervalSeconds: Int { 3600 }
    /// How long an operation's key is remembered, in seconds.
    static var operationKeepSeconds: Double { 24 * 3600 }

    /// Does the background work until the service is told to stop.
    public func run() async {
        await withTaskCancellationOrGracefulShutdownHandler {
            await withTaskGroup(of: Void.self) { group in
                group.addTask {
                    await self.logged("compare the nodes") { try await self.recover() }
                }
                group.addTask { await self.watchNodeLives() }
                group.addTask {
                    await self.withEach(of: self.reconcileSoon) { await self.reconcile($0) }
                }
                group.addTask {
                    await self.withEach(of: self.resumeSoon) { name in
                        await self.logged("carry on pending operations") {
                            _ = try await self.resumePending(on: name)
                        }
                    }
                }
                group.addTask {
                    await self.withEach(of: self.failOverSoon) { _ in
                        await self.logged("give volumes other primaries") {
                            try await self.failOver()
                        }
                    }
                }
                group.addTask {
                    await self.withEach(of: self.serveSoon) { await self.keepServed($0) }
                }
                group.addTask {
                    await self.withEach(of: self.toDescribe) { await self.describe($0) }
                }
                group.addTask {
                    await self.withEach(of: self.moveSoon) { await self.goOnMoving($0) }
                }
                group.addTask {
                    for await event in self.happened.stream { await self.report(event) }
                }
                if self.keepsTime {
                    group.addTask { await self.keepLeases() }
                    group.addTask { await self.keepHouse() }
                }
                await group.waitForAll()
            }
        } onCancelOrGracefulShutdown: {
            self.stop()
        }
    }

    /// Ends the streams that clients follow and the background work.
    public func stop() {
        followers.finish()
        reconcileSoon.finish()
        resumeSoon.finish()
        serveSoon.finish()
        moveSoon.finish()
        toDescribe.finish()
        failOverSoon.finish()
        happened.finish()
        stopped.finish()
    }

    /// Carries on what was interrupted and compares all live nodes with the metadata.
    ///
    /// - Throws: ``ControlError`` when the metadata cannot be read.
    public func recover() async throws(ControlError) {
        let live = try await meta(await metadata.liveNodes())
        failOverSoon.yield(Self.allNodes)
        // All at once: one that hangs must not hold up the others.
        await withTaskGroup(of: Void.self) { group in
            for name in live.keys { group.addTask { await self.reconcile(name) } }
        }
    }

    /// The name of the one entry that ``failOverSoon`` has: who serves what is looked at as a whole.
    static var allNodes: String { "nodes" }

    // MARK: - Time

    /// Ends leases in time, whatever else is slow: nodes that are down must be seen to be.
    private func keepLeases() async {
        for await _ in seconds() {
            await logged("maintain the metadata") { [metadata] in
                try await metadata.store.maintain()
            }
        }
    }

    /// The work that is done now and then.
    private func keepHouse() async {
        var tick = 0
        for await _ in seconds() {
            tick += 1
            if tick.isMultiple(of: Self.pendingIntervalSeconds) {
                await lookAtPending()
                await logged("look at who serves what") { [self] in
                    try await lookAtServices()
                    try await repair()
                    try await moveReplicas()
                }
            }
            if tick.isMultiple(of: Self.comparisonIntervalSeconds) {
                await logged("compare the nodes") { [self] in
                    for name in try await metadata.liveNodes().keys { reconcileSoon.yield(name) }
                }
            }
            if tick.isMultiple(of: Self.trimIntervalSeconds) {
                await logged("forget old records") { [metadata] in
                    let limit = Date().addingTimeInterval(-Self.operationKeepSeconds)
                    _ = try await metadata.trimOperations(before: limit)
                    _ = try await metadata.trimEvents(countMax: APILimits.eventCountMax)
                }
            }
        }
    }

    /// Has every live node looked at that has pending operations.
    private func lookAtPending() async {
        await logged("look for pending operations") { [self] in
            let pending = try await metadata.allVolumes().map(\.value).filter { $0.pending != nil }
            guard !pending.isEmpty else { return }
            let live = try await metadata.liveNodes()
            // Those of replicated volumes end whether their primary's node answers or not.
            let names = pending.filter { live[$0.primary] != nil || $0.isReplicated }.map(\.primary)
            for name in Set(names) { resumeSoon.yield(name) }
        }
    }

    /// A tick a second, until the service stops.
    private func seconds() -> AsyncStream<Void> {
        let (stream, continuation) = AsyncStream<Void>.makeStream(
            bufferingPolicy: .bufferingNewest(1)
        )
        let ticker = Task {
            while (try? await Task.sleep(for: .seconds(1))) != nil { continuation.yield() }
        }
        let stopper = Task { [stopped] in
            await stopped.wait()
            continuation.finish()
        }
        continuation.onTermination = { _ in
            ticker.cancel()
            stopper.cancel()
        }
        return stream
    }

    private func logged(
        _ what: String,
        _ body: () async throws -> Void
    ) async {
        do {
            try await body()
        } catch {
            logger.error("could not \(what)", metadata: ["reason": "\(error)"])
        }
    }

    // MARK: - Lives of nodes

    /// Reports each node whose lease ends.
    private func watchNodeLives() async {
        while !stopped.isFinished {
            do throws(MetadataError) {
                let revision = try await metadata.revision()
                let changes = try await metadata.watchNodes(after: revision)
                await consume(changes)
            } catch {
                logger.error("could not watch nodes", metadata: ["reason": "\(error)"])
            }
            // The stream ended: the store closed, or we lagged and begin anew.
            await stopped.wait(atMostMilliseconds: 1000)
        }
    }

    private func consume(_ changes: AsyncStream<[(name: String, isLive: Bool)]>) async {
        let reader = Task {
            for await batch in changes {
                for change in batch where !change.isLive { await noteDown(change.name) }
            }
        }
        let stopper = Task { [stopped] in
            await stopped.wait()
            reader.cancel()
        }
        await reader.value
        stopper.cancel()
    }

    private func noteDown(_ name: String) async {
        guard
            let node = try? await metadata.node(name)?.value,
            (try? await metadata.liveNode(name)) == .some(nil)
        else { return }
        let event = EventRecord(
            time: now,
            kind: "node.down",
            subject: name,
            message: "no heartbeat for \(APILimits.heartbeatTimeoutMilliseconds / 1000) s"
        )
        failOverSoon.yield(Self.allNodes)
        await report(event, id: "down-\(name)-\(node.incarnation)")
    }

    // MARK: - Reconciliation

    /// Does `work` with the nodes that `names` gives, with each at most once at a time.
    ///
    /// One task per node: one that hangs must not hold up the others.
    private func withEach(
        of names: NameQueue,
        _ work: @escaping @Sendable (String) async -> Void
    ) async {
        await withDiscardingTaskGroup { group in
            for await name in names.stream {
                group.addTask {
                    await work(name)
                    names.end(name)
                }
            }
        }
    }

    /// Carries on a node's pending operations, until it is silent to one.
    ///
    /// - Returns: Whether it answers.
    /// - Throws: ``MetadataError``.
    private func resumePending(on name: String) async throws -> Bool {
        let pending = try await metadata.allVolumes().map(\.value).filter {
            $0.primary == name && $0.pending != nil
        }
        // In any order: one whose operation alone hangs must not hide the same others every time.
        for volume in pending.shuffled() {
            guard await resume(volume) else { return false }
        }
        return true
    }

    /// Carries on a volume's pending operation, if it still has one when its turn comes.
    ///
    /// - Returns: Whether it is of use to go on with others of its node.
    private func resume(_ volume: VolumeRecord) async -> Bool {
        // As a client's change: whoever waits behind this one has come later and counts on it.
        let deadline = changeDeadline
        do throws(ControlError) {
            try await locks.withLock(volume.name) { [self] () throws(ControlError) in
                let current = try await meta(await metadata.volume(id: volume.id))
                guard let current, current.value.pending != nil else { return }
                _ = try await settled(current, until: deadline)
            }
            return true
        } catch {
            logger.info(
                "an operation stays pending",
                metadata: ["volume": "\(volume.name)", "reason": "\(error.detail)"]
            )
            return await mayGoOn(with: volume.primary, after: error, until: deadline)
        }
    }

    /// Whether it is of use to ask a node for others of its volumes after one was to no avail.
    ///
    /// One store of several that has stopped answers at once that nothing can be done or known of
    /// its volumes; that says nothing of the others. A node that hangs costs each question its
    /// time, so nobody asks it another one.
    ///
    /// - Parameters:
    ///   - name: The node.
    ///   - error: What came of the question.
    ///   - deadline: When the question was given up, at the latest.
    /// - Returns: Whether the node answers.
    func mayGoOn(
        with name: String,
        after error: ControlError,
        until deadline: ContinuousClock.Instant
    ) async -> Bool {
        guard !error.isRefusal else { return true }
        guard .now < deadline, let node = try? await nodeService(name) else { return false }
        let limit = ContinuousClock.now + .milliseconds(viewMillisecondsMax)
        do throws(ControlError) {
            _ = try await answered(by: name, until: limit) { () throws(ControlError) in
                try await node.report()
            }
            return true
        } catch {
            return error.isRefusal
        }
    }

    /// Compares one node with the metadata, for tests.
    package func compareNow(_ name: String) async { await reconcile(name) }

    /// Carries on a node's pending operations and compares it with the metadata.
    func reconcile(_ name: String) async {
        do {
            guard try await resumePending(on: name) else { return }
            await removeDiscarded(on: name)
            try await stopStrayServices(on: name)
            let told = try await heldVolumes(of: name, until: changeDeadline)
            let known = try await metadata.allVolumes().map(\.value).filter {
                $0.lies(on: name) && !told.unknown.contains($0.id)
            }
            await compare(name, held: told.held, known: known)
        } catch {
            logger.warning(
                "could not compare a node with the metadata",
                metadata: ["node": "\(name)", "reason": "\(error)"]
            )
        }
    }
}
