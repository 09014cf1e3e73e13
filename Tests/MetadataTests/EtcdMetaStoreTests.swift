// The store on etcd against members that die and freeze, and answers that are lost.

import Foundation
import Glibc
import Logging
import Metadata
import Synchronization
import TestSupport
import Testing

@Suite(
    "etcd metadata store",
    .serialized,
    .etcdCluster,
    .enabled(if: EtcdCluster.isInstalled || EtcdCluster.isRequired, "needs etcd-server"),
    .timeLimit(.minutes(3))
)
struct EtcdMetaStoreTests {
    private func openStore(
        _ adjust: (inout EtcdConfiguration) -> Void = { _ in }
    ) throws -> EtcdMetaStore {
        let cluster = try #require(EtcdClusterTrait.cluster)
        var configuration = try cluster.configuration("/" + UUID().uuidString)
        adjust(&configuration)
        return try EtcdMetaStore(configuration, logger: Logger(label: "test"))
    }

    @Test("Transactions whose answers are lost are done once, and their end is known")
    func transact_lostAnswers_doneOnce() async throws {
        let cluster = try #require(EtcdClusterTrait.cluster)
        let proxy = try AnswerLosingProxy(to: cluster.members[0].port)
        let store = try openStore { $0.endpoints = ["http://127.0.0.1:\(proxy.port)"] }
        _ = try await store.transact(MetaTransaction(success: [put("/n", "0")]))
        proxy.state.lossInterval.store(3, ordering: .relaxed)
        let tally = await Incrementer(store: store, key: "/n").run(count: 30, taskCount: 3)
        // Not guarded by anything of the caller's: a second time would undo what came between.
        let lost = proxy.state.lossCount.load(ordering: .relaxed)
        var revisions: [MetaRevision] = []
        for number in 0..<10 {
            let result = try await store.transact(
                MetaTransaction(success: [put("/u", "\(number)"), .get("/u")])
            )
            #expect(texts(result.records[1]) == ["/u=\(number)"])
            revisions.append(result.revision)
        }
        proxy.state.lossInterval.store(0, ordering: .relaxed)
        #expect(lost > 5)
        #expect(tally.unknownCount == 0)
        let read = try await store.transact(MetaTransaction(success: [.get("/n"), .get("/u")]))
        #expect(texts(read.records[0]) == ["/n=\(tally.successCount)"])
        #expect(tally.successCount == 30)
        #expect(revisions == revisions.sorted() && Set(revisions).count == 10)
        #expect(read.records[1].map(\.modifyRevision) == [revisions[9]])
        // A compare that does not hold is told as such, also when the first answer is lost.
        proxy.state.lossInterval.store(2, ordering: .relaxed)
        for _ in 0..<6 {
            let result = try await store.transact(
                MetaTransaction(
                    compares: [.absent("/n")],
                    success: [put("/n", "0")],
                    failure: [.get("/n")]
                )
            )
            #expect(!result.succeeded)
            #expect(texts(result.records[0]) == ["/n=30"])
        }
        await store.close()
    }

    @Test("A cluster that does not answer is told in bounded time, with what may have been done")
    func transact_noMember_fails() async throws {
        let socket = try LoopbackSocket(backlog: 8)
        defer { close(socket.descriptor) }
        let silent = try openStore { configuration in
            configuration.endpoints = ["http://127.0.0.1:\(socket.port)"]
            configuration.tryMillisecondsMax = 100
            configuration.totalMillisecondsMax = 400
        }
        await #expect {
            try await silent.requireMembers()
        } throws: { error in
            if case MetadataError.unavailable = error { true } else { false }
        }
        await silent.close()
        let nobody = try openStore { configuration in
            configuration.endpoints = ["http://127.0.0.1:1"]
            configuration.totalMillisecondsMax = 6_000
        }
        await #expect {
            _ = try await nobody.transact(MetaTransaction(success: [put("/a", "")]))
        } throws: { error in
            if case MetadataError.unavailable = error { true } else { false }
        }
        await nobody.close()
    }

    @Test("A session that has ended is replaced by another")
    func session_ended_isReplaced() async throws {
        let store = try openStore { $0.sessionSeconds = 2 }
        _ = try await store.transact(MetaTransaction(success: [put("/a", "1")]))
        // Nobody keeps it alive; etcd takes some seconds to see that.
        try await Task.sleep(for: .seconds(4))
        let result = try await store.transact(MetaTransaction(success: [put("/a", "2")]))
        #expect(result.succeeded)
        let read = try await store.transact(MetaTransaction(success: [.get("/a")]))
        #expect(texts(read.records[0]) == ["/a=2"])
        await store.close()
    }

    @Test("A lease that nobody keeps alive takes its keys with it, and watchers see that")
    func lease_expires_deletesKeys() async throws {
        let store = try openStore()
        let lease = try await store.grantLease(milliseconds: 1_000)
        let revision = try await store.transact(
            MetaTransaction(success: [put("/l", "", lease: lease)])
        ).revision
        let stream = try await store.watch(prefix: "/l", after: revision)
        for await batch in stream.prefix(1) { #expect(batch.changes == [.delete("/l")]) }
        await #expect(throws: MetadataError.leaseNotFound) { try await store.keepAlive(lease) }
        await store.close()
    }

    @Test("A watcher that lags too far gets an end, not a hole")
    func watch_lagging_ends() async throws {
        let store = try openStore()
        let first = try await store.transact(MetaTransaction(success: [put("/a", "")])).revision
        let stream = try await store.watch(prefix: "/", after: first)
        let excess = 10
        await withTaskGroup(of: Void.self) { group in
            for _ in 0..<16 {
                group.addTask {
                    for _ in 0..<((MetaLimits.watchBacklogMax + excess) / 16 + 1) {
                        _ = try? await store.transact(MetaTransaction(success: [put("/a", "")]))
                    }
                }
            }
        }
        var revisions: [MetaRevision] = []
        // Read only when all of them have been told.
        try await Task.sleep(for: .milliseconds(500))
        for await batch in stream { revisions.append(batch.revision) }
        #expect(revisions == (1...UInt64(MetaLimits.watchBacklogMax)).map { first + $0 })
        await store.close()
    }

    // MARK: - Members that fail

    @Test("When the leader is killed no increment is lost or doubled and the watch has no gap")
    func leader_killed() async throws {
        try await withFailure(of: .kill)
    }

    @Test("When the leader freezes and comes back, no increment is lost or doubled either")
    func leader_frozen() async throws {
        try await withFailure(of: .freeze)
    }

    private enum Failure { case kill, freeze }

    /// A cluster of its own, in which the leader fails under load.
    private func withFailure(of failure: Failure) async throws {
        let cluster = try await EtcdCluster()
        defer { cluster.stop() }
        let leader = try #require(await cluster.leader())
        var configuration = try cluster.configuration()
        // All begin with the one that will fail.
        configuration.endpoints.insert(configuration.endpoints.remove(at: leader), at: 0)
        let store = try EtcdMetaStore(configuration, logger: Logger(label: "test"))
        let first = try await store.transact(MetaTransaction(success: [put("/n", "0")])).revision
        let lease = try await store.grantLease(milliseconds: 30_000)
        let stream = try await store.watch(prefix: "/n", after: first)
        let watcher = Task {
            var seen: [String] = []
            for await batch in stream {
                for case .put(let record) in batch.changes {
                    seen.append(String(decoding: record.value, as: UTF8.self))
                }
                if seen.last == "end" { break }
            }
            return seen
        }
        let stop = StopFlag()
        let worker = Task {
            await Incrementer(store: store, key: "/n", pauseMilliseconds: 5)
                .run(count: .max, taskCount: 2, until: { stop.isSet.load(ordering: .relaxed) })
        }
        try await Task.sleep(for: .seconds(1))
        cluster.signal(leader, failure == .kill ? SIGKILL : SIGSTOP)
        try await Task.sleep(for: .seconds(4))
        if failure == .freeze {
            cluster.signal(leader, SIGCONT)
            try await Task.sleep(for: .seconds(1))
        }
        stop.isSet.store(true, ordering: .relaxed)
        let tally = await worker.value
        let result = try await store.transact(MetaTransaction(success: [.get("/n")]))
        let total = try #require(Int(texts(result.records[0])[0].dropFirst(3)))
        _ = try await store.transact(MetaTransaction(success: [put("/n", "end")]))
        let seen = await watcher.value
        #expect(tally.unknownCount == 0)
        #expect(total == tally.successCount)
        #expect(total > 50)
        #expect(seen == (1...total).map(String.init) + ["end"])
        #expect(tally.longest < .seconds(9))
        try await store.keepAlive(lease)
        print(
            "etcd, leader \(failure): \(total) increments, the longest took \(tally.longest)"
        )
        await store.close()
    }
}

private final class StopFlag: Sendable {
    let isSet = Atomic(false)
}

/// Adds 1 to a number by compare-and-set.
private struct Incrementer: Sendable {
    struct Tally: Sendable {
        var successCount = 0
        var unknownCount = 0
        var longest = Duration.zero
    }

    let store: EtcdMetaStore
    let key: String
    var pauseMilliseconds = 0

    /// Adds `count` times, in several tasks together, or until it is told to stop.
    func run(
        count: Int,
        taskCount: Int,
        until isOver: @escaping @Sendable () -> Bool = { false }
    ) async -> Tally {
        await withTaskGroup(of: Tally.self) { group in
            for _ in 0..<taskCount {
                group.addTask { await runOne(count: count / taskCount, isOver) }
            }
            return await group.reduce(into: Tally()) { sum, tally in
                sum.successCount += tally.successCount
                sum.unknownCount += tally.unknownCount
                sum.longest = max(sum.longest, tally.longest)
            }
        }
    }

    private func runOne(count: Int, _ isOver: @Sendable () -> Bool) async -> Tally {
        var tally = Tally()
        while tally.successCount < count, tally.unknownCount == 0, !isOver() {
            let begin = ContinuousClock.now
            do throws(MetadataError) {
                let read = try await store.transact(MetaTransaction(success: [.get(key)]))
                guard let record = read.records[0].first,
                    let number = Int(String(decoding: record.value, as: UTF8.self))
                else { break }
                let result = try await store.transact(
                    MetaTransaction(
                        compares: [.unchanged(key, since: record.modifyRevision)],
                        success: [put(key, "\(number + 1)")]
                    )
                )
                if result.succeeded { tally.successCount += 1 }
            } catch .outcomeUnknown {
                tally.unknownCount += 1
            } catch {
                // Nothing was done.
            }
            tally.longest = max(tally.longest, .now - begin)
            if pauseMilliseconds > 0 {
                try? await Task.sleep(for: .milliseconds(pauseMilliseconds))
            }
        }
        return tally
    }
}

/// Passes on what comes and goes, but for some answers: it closes the connection instead.
private final class AnswerLosingProxy: Sendable {
    /// Outlives the proxy, for its threads.
    final class State: Sendable {
        /// Every so many-th answer is lost; 0 for none.
        let lossInterval = Atomic(0)
        let lossCount = Atomic(0)
        let answerCount = Atomic(0)
    }

    let state: State
    private let listener: LoopbackListener

    var port: UInt16 { listener.port }

    init(to port: UInt16) throws {
        let state = State()
        self.state = state
        listener = try LoopbackListener { connection in
            Thread.detachNewThread { Self.pass(connection, to: port, state) }
        }
    }

    private static func pass(_ client: Int32, to port: UInt16, _ state: State) {
        defer { close(client) }
        let server = socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        defer { close(server) }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = port.bigEndian
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        // SAFETY: the address outlives the call, whose length is that of its type.
        let isConnected = unsafe withUnsafePointer(to: &address) { pointer in
            unsafe pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { rebound in
                unsafe connect(server, rebound, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0
            }
        }
        guard isConnected else { return }
        var bytes = [UInt8](repeating: 0, count: 1 << 16)
        while true {
            var ends = [
                pollfd(fd: client, events: Int16(POLLIN), revents: 0),
                pollfd(fd: server, events: Int16(POLLIN), revents: 0),
            ]
            // SAFETY: pointer and count are those of a live array.
            guard unsafe poll(&ends, 2, -1) > 0 else { return }
            let isAnswer = ends[1].revents != 0
            let (from, to) = isAnswer ? (server, client) : (client, server)
            // SAFETY: pointer and count are those of a live array.
            let count = unsafe recv(from, &bytes, bytes.count, 0)
            guard count > 0 else { return }
            if isAnswer {
                let number = state.answerCount.add(1, ordering: .relaxed).newValue
                let interval = state.lossInterval.load(ordering: .relaxed)
                if interval > 0, number.isMultiple(of: interval) {
                    state.lossCount.add(1, ordering: .relaxed)
                    return
                }
            }
            // SAFETY: as many bytes as were received into the array.
            guard unsafe send(to, bytes, count, Int32(MSG_NOSIGNAL)) == count else { return }
        }
    }
}
