// Events from what nodes say of themselves.

import ControlAPI
import Foundation
import Metadata

extension ControlPlane {
    /// Reports what has become of a node's stores.
    func report(
        _ change: NodeTable.Change,
        on name: String,
        _ entry: NodeTable.Entry
    ) async {
        let room = roomEvent(change.room, entry.space)
        for (kind, message) in [room, failureEvent(change.failures)].compactMap(\.self) {
            await report(EventRecord(time: now, kind: kind, subject: name, message: message))
        }
    }

    private func roomEvent(
        _ change: NodeTable.RoomChange,
        _ space: StoreSpaceUsage
    ) -> (kind: String, message: String)? {
        let rest = ByteSize(byteCount: space.availableByteCount)
        let facts = "\(space.usedPercent)% of its fullest store is used, \(rest) are left in all"
        let help = "; delete volumes or snapshots, or drain it"
        return switch change {
        case .none: nil
        case .filling: ("node.filling", facts + help)
        case .full: ("node.full", "refuses writes: " + facts + help)
        case .waiting:
            (
                "node.waiting",
                "writes wait: the file system of a store is full; make room there"
            )
        case .roomy: ("node.roomy", facts)
        }
    }

    private func failureEvent(_ failures: StoreFailures?) -> (kind: String, message: String)? {
        guard let failures else { return nil }
        if failures.stopped {
            return (
                "node.store_stopped",
                "a store has stopped, and requests to its volumes fail; see the node's log"
            )
        }
        let volume = failures.volume.map { ", the last of volume \($0)" } ?? ""
        return (
            "node.damaged",
            "\(counted(Int(clamping: failures.requestCount), "request")) failed since it was started\(volume): "
                + "blocks are damaged or cannot be read; see its log, and 'dmesg' there"
        )
    }
}
