// Checking the superblocks and the manifest.

internal import BlockCore
internal import LogFormat

extension StoreCheck {
    /// What one of the four places of a superblock holds.
    private enum SlotContent {
        case valid(Superblock)
        /// Of a newer format.
        case newer(UInt32)
        /// Of a format that is not read any more.
        case older(UInt32)
        /// A superblock whose checksum is wrong: a write cut short leaves that too.
        case torn
        /// No superblock at all, which no write leaves.
        case foreign
        case unreadable(Int32)

        var superblock: Superblock? { if case .valid(let found) = self { found } else { nil } }
    }

    private func readSlot(_ offset: UInt64) -> SlotContent {
        let block = arena.region.slice(0, 4096)
        let errno = read(offset, block)
        guard errno == 0 else { return .unreadable(errno) }
        do throws(LogFormatError) {
            return .valid(try Superblock.decode(block))
        } catch {
            return switch error {
            case .versionTooNew(let version): .newer(version)
            case .versionTooOld(let version): .older(version)
            case .badChecksum: .torn
            case .malformed, .truncated: .foreign
            }
        }
    }

    private func newest(_ slots: [SlotContent]) -> Superblock? {
        slots.compactMap(\.superblock).max { $0.generation < $1.generation }
    }

    /// Chooses the superblock without looking for damage.
    mutating func findSuperblock() -> Bool {
        superblock = newest(Superblock.slotOffsets.map(readSlot))
        return superblock != nil
    }

    /// Chooses the superblock, and says what is wrong with the others.
    ///
    /// - Returns: Whether there is one.
    mutating func readSuperblocks() -> Bool {
        let slots = Superblock.slotOffsets.map(readSlot)
        for case .newer(let version) in slots {
            note(.unusable(.versionTooNew(found: version, supported: Superblock.version)))
            return false
        }
        for (slot, content) in slots.enumerated() {
            guard case .unreadable(let errno) = content else { continue }
            noteUnreadable(Superblock.slotOffsets[slot], errno)
        }
        guard let best = newest(slots) else {
            note(.unusable(unusableReason(slots)))
            return false
        }
        superblock = best
        report.identity = best.identity
        judge(slots, best)
        return true
    }

    private func unusableReason(_ slots: [SlotContent]) -> StoreError {
        for case .older(let version) in slots {
            return .versionTooOld(found: version, supported: Superblock.version)
        }
        for case .unreadable(let errno) in slots { return .deviceError(errno: errno) }
        for (slot, content) in slots.enumerated() {
            if case .torn = content { return .corrupt(offset: Superblock.slotOffsets[slot]) }
        }
        return .notAStore
    }

    /// Tells damage from what a write that was cut short leaves.
    ///
    /// Both copies of a generation are written at once, over the generation before the last. A
    /// crash leaves each of the two old, new or torn, and the other two whole. The next opening
    /// writes one generation to the other two, and with its closing checkpoint one to these.
    private mutating func judge(_ slots: [SlotContent], _ best: Superblock) {
        var missing: [Int] = []
        var pairs: Set<Int> = []
        var explains = true
        for (slot, content) in slots.enumerated() {
            switch content {
            case .valid(let found):
                let isOurs =
                    found.identity == best.identity
                    && Superblock.slots(generation: found.generation).contains(slot)
                let isNewestPair = Superblock.slots(generation: best.generation).contains(slot)
                if isOurs, !isNewestPair || found.generation == best.generation { continue }
                if !isOurs { explains = false }
                missing.append(slot)
            case .torn: missing.append(slot)
            case .foreign, .older:
                missing.append(slot)
                explains = false
            case .unreadable: break
            case .newer: continue
            }
            pairs.insert(slot / 2)
        }
        for slot in missing {
            let offset = Superblock.slotOffsets[slot]
            if explains, pairs.count == 1 {
                report.notes.append(.superblockCopyMissing(offset: offset))
            } else {
                note(.superblockDamaged(offset: offset))
            }
        }
    }

    // MARK: - Manifest

    /// Reads the manifest that the superblock names.
    ///
    /// - Returns: Whether it is whole.
    mutating func readManifest() -> Bool {
        guard let superblock else { return false }
        var bytes: [UInt8] = []
        var isReadable = true
        for extent in superblock.manifestExtents {
            for block in 0..<UInt64(extent.blockCount) {
                let region = arena.region.slice(0, 4096)
                let offset = (extent.location + block) * 4096
                let errno = read(offset, region)
                if errno == 0 {
                    bytes += region.array()
                } else {
                    noteUnreadable(offset, errno)
                    isReadable = false
                }
            }
        }
        guard isReadable else { return false }
        bytes.removeLast(max(0, bytes.count - Int(superblock.manifestByteCount)))
        let crc = MemoryArena.withTemporary(byteCount: max(bytes.count, 1)) { region in
            region.copy(from: bytes)
            return region.slice(0, bytes.count).crc32c()
        }
        guard crc == superblock.manifestCRC,
            let decoded = try? Manifest.decode(bytes, segmentCount: superblock.segmentCount)
        else {
            let offset = (superblock.manifestExtents.first?.location ?? 0) * 4096
            note(.manifestDamaged(offset: offset))
            return false
        }
        manifest = decoded
        return true
    }
}
