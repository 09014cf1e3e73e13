// Checking the maps: every page and block that they name is read and claimed.

internal import BlockCore
internal import LogFormat

extension StoreCheck {
    mutating func checkMaps() {
        for layer in manifest.layers {
            var walk = LayerWalk(layer: layer.id.rawValue)
            if !layer.root.isAbsent {
                checkPage(&walk, level: layer.rootLevel, index: 0, layer.root)
            }
            let recorded = layer.ownBlockCount
            let found = walk.blockCount
            guard walk.isWhole ? found != recorded : found > recorded else { continue }
            note(.layerCountWrong(layer: walk.layer, recorded: recorded, found: found))
        }
    }

    /// One layer's map, while it is walked over.
    private struct LayerWalk {
        let layer: UInt64
        /// Blocks that its leaves name.
        var blockCount: UInt64 = 0
        /// Whether every page could be looked into.
        var isWhole = true
    }

    /// Leaves a page out: what it names is not known.
    private mutating func skip(_ walk: inout LayerWalk, _ problem: StoreProblem?) {
        if let problem { note(problem) }
        walk.isWhole = false
        isIncomplete = true
    }

    private mutating func checkPage(
        _ walk: inout LayerWalk,
        level: UInt8,
        index: UInt64,
        _ link: MapEntry
    ) {
        let offset = link.location * 4096
        switch claims.take(link.location) {
        case .taken: break
        case .outside:
            skip(
                &walk,
                .badLocation(layer: walk.layer, block: index, location: link.location)
            )
            return
        case .twice:
            skip(&walk, .claimedTwice(layer: walk.layer, block: index, offset: offset))
            return
        }
        addPrint(MapPrint.page(walk.layer, level: level, index: index, link), link.location)
        report.pageCount += 1
        let region = arena.region.slice(4096 * (1 + Int(level)), 4096)
        let errno = read(offset, region)
        guard errno == 0 else {
            noteUnreadable(offset, errno)
            skip(&walk, nil)
            return
        }
        guard region.crc32c() == link.crc else {
            skip(
                &walk,
                .pageDamaged(layer: walk.layer, level: level, index: index, offset: offset)
            )
            return
        }
        guard level > 0 else {
            checkBlocks(&walk, index, region)
            return
        }
        for position in 0..<MapEntry.countPerPage {
            let entry = region.mapEntry(position)
            guard !entry.isAbsent else { continue }
            let child = index << MapEntry.pageShift | UInt64(position)
            checkPage(&walk, level: level - 1, index: child, entry)
        }
    }

    /// Adjacent blocks become one read.
    private mutating func checkBlocks(
        _ walk: inout LayerWalk,
        _ leafIndex: UInt64,
        _ page: ByteRegion
    ) {
        let owner = owners.owner(of: walk.layer)
        var run = 0..<0
        for position in 0..<MapEntry.countPerPage {
            let entry = page.mapEntry(position)
            guard entry.isData else { continue }
            walk.blockCount += 1
            let block = leafIndex << MapEntry.pageShift | UInt64(position)
            guard claim(walk.layer, block, entry, owner: owner) else { continue }
            let isNext =
                run.upperBound == position && !run.isEmpty
                && page.mapEntry(position - 1).location + 1 == entry.location
            if isNext {
                run = run.lowerBound..<(position + 1)
            } else {
                verify(run, walk.layer, leafIndex, page)
                run = position..<(position + 1)
            }
        }
        verify(run, walk.layer, leafIndex, page)
        progress(
            .blocks,
            (report.pageCount + report.blockCount) * 4096,
            expectedBlockCount * 4096
        )
    }

    /// Claims the place of a block.
    ///
    /// - Returns: Whether there is something to verify: also where two claim it, of which one at
    ///   most is right.
    private mutating func claim(
        _ layer: UInt64,
        _ block: UInt64,
        _ entry: MapEntry,
        owner: UInt64
    ) -> Bool {
        switch claims.take(entry.location) {
        case .taken:
            addPrint(MapPrint.block(owner, block, entry), entry.location)
            return true
        case .outside:
            note(.badLocation(layer: layer, block: block, location: entry.location))
            return false
        case .twice:
            note(.claimedTwice(layer: layer, block: block, offset: entry.location * 4096))
            return true
        }
    }

    private mutating func addPrint(_ print: UInt64, _ location: UInt64) {
        guard let segment = claims.segment(of: location) else { return }
        mapPrints[segment] &+= print
    }

    /// Reads adjacent blocks at once; one by one when one of them cannot be read.
    private mutating func verify(
        _ run: Range<Int>,
        _ layer: UInt64,
        _ leafIndex: UInt64,
        _ page: ByteRegion
    ) {
        guard !run.isEmpty else { return }
        let data = arena.region.slice(1 << 20, run.count * 4096)
        report.blockCount += UInt64(run.count)
        let isWhole = read(page.mapEntry(run.lowerBound).location * 4096, data) == 0
        for position in run {
            let entry = page.mapEntry(position)
            let bytes = data.slice((position - run.lowerBound) * 4096, 4096)
            if !isWhole {
                let errno = read(entry.location * 4096, bytes)
                guard errno == 0 else {
                    noteUnreadable(entry.location * 4096, errno)
                    continue
                }
            }
            guard bytes.crc32c() != entry.crc else { continue }
            note(
                .blockDamaged(
                    layer: layer,
                    block: leafIndex << MapEntry.pageShift | UInt64(position),
                    offset: entry.location * 4096
                )
            )
        }
    }
}
