// What a check of a store finds, in words.

import BlockCore
import ControlAPI
import LogStore
import Reactor

extension StoreProblem {
    /// What is wrong where, and with whose bytes, in one line.
    func text(_ report: StoreCheckReport) -> String {
        guard let part, let owner = report.layerOwners[part.layer] else { return text }
        return text + ": \(owner), \(part.byteCount) bytes at \(part.offset)"
    }

    /// The part of a layer that it is about, in bytes.
    private var part: (layer: UInt64, offset: UInt64, byteCount: UInt64)? {
        switch self {
        case .pageDamaged(let layer, let level, let index, _),
            .pageNotInLog(let layer, let level, let index, _):
            let shift = 20 + 8 * UInt64(level)
            return (layer, index << shift, 1 << shift)
        case .badLocation(let layer, let block, _), .blockDamaged(let layer, let block, _),
            .claimedTwice(let layer, let block, _), .blockNotInLog(let layer, let block, _):
            return (layer, block << 12, 4096)
        case .unusable, .cannotOpen, .superblockDamaged, .unreadable, .manifestDamaged,
            .danglingLayer, .usageWrong, .layerCountWrong, .headerDamaged:
            return nil
        }
    }

    /// What is wrong where.
    private var text: String {
        switch self {
        case .unusable(let error): "no superblock can be used: \(error.checkText)"
        case .cannotOpen(let error):
            "the store cannot be opened: \(error.checkText); checked as of its last checkpoint"
        case .superblockDamaged(let offset): "a copy of the superblock at byte \(offset) is damaged"
        case .unreadable(let offset, let errno):
            "byte \(offset) cannot be read: \(errorText(errno))"
        case .manifestDamaged(let offset): "the manifest at byte \(offset) does not verify"
        case .danglingLayer(let id): "layer \(id) is named but does not exist"
        case .pageDamaged(let layer, let level, let index, let offset):
            "map page \(index) of level \(level), layer \(layer), at byte \(offset) does not verify"
        case .badLocation(let layer, let block, let location):
            "block \(block) of layer \(layer) is mapped outside the store, to \(location)"
        case .blockDamaged(let layer, let block, let offset):
            "block \(block) of layer \(layer) at byte \(offset) does not have its checksum"
        case .claimedTwice(let layer, let block, let offset):
            "block \(block) of layer \(layer) at byte \(offset) is claimed by another too"
        case .usageWrong(let segment, let recorded, let found):
            "segment \(segment) is recorded with \(recorded) live blocks, but has \(found)"
        case .layerCountWrong(let layer, let recorded, let found):
            "layer \(layer) is recorded with \(recorded) blocks, but has \(found)"
        case .headerDamaged(let offset):
            "the header of a batch at byte \(offset), with live blocks behind it, does not verify"
        case .blockNotInLog(let layer, let block, let offset):
            "block \(block) of layer \(layer) at byte \(offset) is not what the log says is there"
        case .pageNotInLog(let layer, let level, let index, let offset):
            "map page \(index) of level \(level), layer \(layer), at byte \(offset) is not what the "
                + "log says is there"
        }
    }
}

extension StoreNote {
    /// What to know, in one line.
    var text: String {
        switch self {
        case .superblockCopyMissing(let offset):
            "the superblock's copy at byte \(offset) is missing, as after a crash while it was "
                + "written; the next start of the node writes all copies anew"
        }
    }
}

extension StoreError {
    /// Why a store cannot be opened, within a sentence.
    fileprivate var checkText: String {
        switch self {
        case .notAStore: "there is no store"
        case .versionTooNew(let found, let supported):
            "it was written in format \(found), and this program knows up to \(supported)"
        case .versionTooOld(let found, let supported):
            "it was written in format \(found), and this program reads \(supported) only"
        case .wrongIdentity(let found): "it is another store, \(found.hexText)"
        case .deviceTooSmall(let need, let have):
            "it needs \(need) bytes, and there are \(have): it was cut off"
        case .corrupt(let offset): "byte \(offset) is damaged"
        case .writesLost(let offset):
            "byte \(offset) of its log is damaged, and flushed writes lie behind it; what follows is "
                + "of the last checkpoint"
        case .mapMemoryTooSmall(let need, let have):
            "replaying its log takes \(ByteSize(byteCount: UInt64(need))) of map memory, and the "
                + "check has \(ByteSize(byteCount: UInt64(have))): run it with --map-memory"
        case .noRoom: "there is no room left to put its map in order"
        case .deviceError(let errno): errorText(errno)
        }
    }
}
