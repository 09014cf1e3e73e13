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
        for (kind, message) in [room].compactMap(\.self) + change.failures.map(failureEvent) {
            await report(EventRecord(time: now, kind: kind, subject: name, message: message))
        }
    }

    /// Reports why a known node is refused: once, though it asks again and again.
    func report(refusal: ControlError, of name: String) async {
        guard nodeTable.noteRefusal(of: name, refusal.detail) else { return }
        let message = [refusal.detail, refusal.help].compactMap(\.self).joined(separator: " ")
        let event = EventRecord(time: now, kind: "node.refused", subject: name, message: message)
        await report(event)
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

    private func failureEvent(
        _ change: NodeTable.FailureChange
    ) -> (kind: String, message: String) {
        switch change {
        case .stopped(let store):
            return (
                "node.store_stopped",
                "its store \(store) has stopped: writes to its volumes fail, as do new "
                    + "connections; see the node's log"
            )
        case .damaged(let store, let requestCount, let volume):
            let last = volume.map { ", the last of volume \($0)" } ?? ""
            return (
                "node.damaged",
                "\(counted(Int(clamping: requestCount), "request")) to its store \(store) failed "
                    + "since it was started\(last): blocks are damaged or cannot be read; see its "
                    + "log, and 'dmesg' there"
            )
        }
    }
}
