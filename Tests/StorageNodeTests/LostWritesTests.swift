import Foundation
import LogStore
import StorageNode
import TestSupport
import Testing

/// Stores that lost a batch of their log, in a node.
@Suite("Lost writes", .serialized) struct LostWritesTests {
    private static func block(_ index: UInt64) -> [UInt8] { pattern(byteCount: 4096, seed: index) }

    /// Two stores as a power cut leaves them, each without the second of its three last batches.
    private func damagedStores() async throws -> TestDirectory {
        let copies = try TestDirectory()
        let node = try await TestNode(storeCount: 2)
        for store in 0..<2 {
            let name = "disk\(store)"
            try await node.makeVolume(name, id: UInt64(store) + 1, store: store)
            let client = try node.client(name)
            for index in 0..<3 as Range<UInt64> {
                let data = Self.block(index)
                try #require(
                    try client.call(1, index * 4096, 4096, flags: 1, payload: data).error == 0
                )
            }
            let copy = "\(copies.path)/store\(store)"
            try FileManager.default.copyItem(
                atPath: "\(node.directory.path)/store\(store)",
                toPath: copy
            )
            // Its header lies in front of it.
            let place = try #require(try place(of: Self.block(1), in: copy))
            try TestFiles.write([0xFF], to: copy, at: place - 4096)
        }
        await node.stop()
        return copies
    }

    private func place(of block: [UInt8], in path: String) throws -> UInt64? {
        let contents = try Data(contentsOf: URL(fileURLWithPath: path), options: .alwaysMapped)
        return contents.range(of: Data(block)).map { UInt64($0.lowerBound) }
    }

    private func open(_ directory: TestDirectory, accepting: [Int]) async throws -> TestNode {
        try await TestNode(storeCount: 2, directory: directory) {
            for index in accepting { $0.stores[index].log.acceptsLoss = true }
        }
    }

    @Test("A store whose log lost a batch is opened only when its own loss is accepted")
    func start_logLostBatch_namedStoreAlone() async throws {
        let directory = try await damagedStores()
        let paths = (0..<2).map { "\(directory.path)/store\($0)" }
        for (accepting, refused) in [([], 0), ([0], 1)] as [([Int], Int)] {
            do {
                _ = try await open(directory, accepting: accepting)
                Issue.record("opened, accepting \(accepting)")
            } catch NodeError.store(let path, .writesLost) {
                #expect(path == paths[refused])
            }
        }
        // The first went back to its checkpoint, and is whole.
        let node = try await open(directory, accepting: [1])
        let told = node.events.all.compactMap { event -> String? in
            if case .lossAccepted(let path, _) = event { path } else { nil }
        }
        #expect(told == [paths[1]])
        let client = try node.client("disk1")
        #expect(try client.call(0, 0, 4096).data == Self.block(0))
        #expect(try client.call(0, 8192, 4096).data == [UInt8](repeating: 0, count: 4096))
        await node.stop()
    }
}
