// What is told of nodes' stores, and how often.

import ControlAPI
import ControlPlane
import Foundation
import Testing

@Suite struct NodeTableTests {
    private let table = NodeTable()

    /// What is new when a node says this of its stores `/a` and `/b`, so many seconds after it
    /// began.
    private func changes(
        seconds: TimeInterval,
        session: UInt64 = 1,
        _ first: StoreFailures?,
        _ second: StoreFailures? = nil
    ) -> [NodeTable.FailureChange] {
        let entry = NodeTable.Entry(
            session: session,
            space: .empty,
            stores: [
                NodeStore(path: "/a", identity: nil, space: .empty, failures: first),
                NodeStore(path: "/b", identity: nil, space: .empty, failures: second),
            ],
            lastSeenAt: Date(timeIntervalSince1970: 1_000_000 + seconds)
        )
        return table.update("n1", entry).failures
    }

    private func damaged(_ store: String, _ count: UInt64) -> NodeTable.FailureChange {
        .damaged(store: store, requestCount: count, volume: "v")
    }

    private func failures(_ count: UInt64, stopped: Bool = false) -> StoreFailures {
        StoreFailures(stopped: stopped, requestCount: count, volume: "v")
    }

    @Test("Failed requests are told of at once, and further ones once a minute")
    func update_requestsFail_areGathered() {
        #expect(changes(seconds: 0, nil) == [])
        #expect(changes(seconds: 1, failures(0)) == [])
        #expect(changes(seconds: 2, failures(1)) == [damaged("/a", 1)])
        #expect(changes(seconds: 61, failures(5)) == [])
        #expect(changes(seconds: 62, failures(9)) == [damaged("/a", 9)])
        #expect(changes(seconds: 600, failures(9)) == [])
    }

    @Test("Of each store by itself, also of one beside one that has stopped")
    func update_twoStores_areTold() {
        #expect(changes(seconds: 0, failures(0, stopped: true)) == [.stopped(store: "/a")])
        let damage = changes(seconds: 1, failures(0, stopped: true), failures(3))
        #expect(damage == [damaged("/b", 3)])
        let second = changes(seconds: 2, failures(0, stopped: true), failures(3, stopped: true))
        #expect(second == [.stopped(store: "/b")])
        #expect(changes(seconds: 3, failures(0, stopped: true), failures(3, stopped: true)) == [])
    }

    @Test("A node that registers anew is told of anew")
    func update_newSession_isToldAnew() {
        #expect(changes(seconds: 0, failures(5, stopped: true)).count == 2)
        let again = changes(seconds: 1, session: 2, failures(1, stopped: true))
        #expect(again == [.stopped(store: "/a"), damaged("/a", 1)])
    }
}
