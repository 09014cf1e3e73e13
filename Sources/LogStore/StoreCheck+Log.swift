// Holding the maps against the log: what the headers of the batches say of each live block.
//
// A segment at a time: prints of what the maps name in it were summed up when they were read
// (``MapPrint``), and its headers must give the same sum. Only where they do not are the maps walked
// once more, for the blocks of a few segments at a time, to find out which block it is.

internal import BlockCore
internal import LogFormat
internal import StorageIO

extension StoreCheck {
    /// Blocks read where a header is expected: small batches lie close to one another.
    private static var probeBlockCount: UInt64 { 16 }
    /// Blocks of the segments that are looked at closely at a time: 8 MiB of prints.
    private static var closeBlockCountMax: UInt64 { 1 << 20 }

    /// Where a header must be and is not.
    private struct LostHeader {
        var location: UInt64
        /// The next header, or the segment's end.
        var end: UInt64
        /// Of a header that cannot be read; 0 for one that does not verify.
        var errno: Int32
    }

    /// What the headers of a segment were found to be.
    private struct SegmentWalk {
        var headerCount: UInt64 = 0
        var lost: [LostHeader] = []
    }

    mutating func checkLog() {
        let segmentByteCount = claims.segmentBlockCount * 4096
        let totalByteCount = UInt64(claims.liveCounts.count) * segmentByteCount
        var deviating: [Int] = []
        for segment in 0..<claims.liveCounts.count {
            defer { progress(.log, UInt64(segment + 1) * segmentByteCount, totalByteCount) }
            let end = claims.location(ofSegment: segment + 1) * 4096
            guard claims.liveCounts[segment] > 0, end <= geometry.byteCount else { continue }
            var sum: UInt64 = 0
            let walk = walkLog(segment) { sum &+= $1 }
            report.headerCount += walk.headerCount
            for header in walk.lost {
                if header.errno == 0 {
                    note(.headerDamaged(offset: header.location * 4096))
                } else {
                    noteUnreadable(header.location * 4096, header.errno)
                }
            }
            if sum != mapPrints[segment] { deviating.append(segment) }
        }
        lookClosely(deviating)
    }

    // MARK: - Headers

    /// Walks over the batches of a segment, as far as live blocks lie.
    ///
    /// - Parameters:
    ///   - segment: Its index.
    ///   - visit: Called with the place and the print of each live block of a record.
    /// - Returns: The headers that are there, and those that are not.
    private func walkLog(
        _ segment: Int,
        _ visit: (_ location: UInt64, _ print: UInt64) -> Void
    ) -> SegmentWalk {
        var walk = SegmentWalk()
        var location = claims.location(ofSegment: segment)
        let end = claims.location(ofSegment: segment + 1)
        var probe = location..<location
        var last: BatchHeader?
        var isLost = false
        while claims.containsAny(location..<end) {
            let errno = fetch(location, end, &probe)
            let block = probeRegion(location, probe)
            if errno == 0, let header = BatchHeader.decode(block),
                isBatch(header, at: location, end, after: last)
            {
                if isLost { walk.lost[walk.lost.count - 1].end = location }
                isLost = false
                last = header
                walk.headerCount += 1
                visitRecords(header, block, visit)
                location += 1 + UInt64(header.payloadBlockCount)
                continue
            }
            // The blocks behind it may be payload or the next batch: that one says where it lies.
            if !isLost { walk.lost.append(LostHeader(location: location, end: end, errno: errno)) }
            isLost = true
            location += 1
        }
        return walk
    }

    /// Whether a header is of the log: what was written to its segment before lies behind its
    /// last batch, of older lives or with lower numbers.
    private func isBatch(
        _ header: BatchHeader,
        at location: UInt64,
        _ end: UInt64,
        after last: BatchHeader?
    ) -> Bool {
        guard header.location == location, header.identity == superblock?.identity.low,
            UInt64(header.payloadBlockCount) < end - location
        else { return false }
        guard let last else { return true }
        return header.incarnation >= last.incarnation && header.sequence > last.sequence
    }

    private func fetch(_ location: UInt64, _ end: UInt64, _ probe: inout Range<UInt64>) -> Int32 {
        guard !probe.contains(location) else { return 0 }
        probe = location..<min(end, location + StoreCheck.probeBlockCount)
        let region = arena.region.slice(1 << 20, probe.count * 4096)
        if read(location * 4096, region) == 0 { return 0 }
        let errno = read(location * 4096, region.slice(0, 4096))
        probe = location..<(errno == 0 ? location + 1 : location)
        return errno
    }

    private func probeRegion(_ location: UInt64, _ probe: Range<UInt64>) -> ByteRegion {
        arena.region.slice((1 << 20) + Int(location - probe.lowerBound) * 4096, 4096)
    }

    private func visitRecords(
        _ header: BatchHeader,
        _ block: ByteRegion,
        _ visit: (_ location: UInt64, _ print: UInt64) -> Void
    ) {
        let records = block.suffix(from: BatchHeader.recordsOffset)
        for record in header.records(in: block) {
            let kind = record.header.kind
            guard kind == .data || kind == .relocate || kind == .mapPage else { continue }
            let layer = record.header.layer.rawValue
            let owner = owners.owner(of: layer)
            let stride = Int(RecordHeader.tailByteCountPerBlock(kind))
            for position in 0..<Int(record.header.blockCount) {
                let location = header.location + 1 + UInt64(record.payloadIndex + position)
                guard claims.contains(location) else { continue }
                let tail = record.tailOffset + position * stride
                let place = record.header.firstBlock + UInt64(position)
                var entry = MapEntry(
                    location: location,
                    crc: records.load(tail, as: UInt32.self),
                    sequence: 0
                )
                guard kind != .mapPage else {
                    let level = record.header.level
                    visit(location, MapPrint.page(layer, level: level, index: place, entry))
                    continue
                }
                let sequence =
                    kind == .relocate
                    ? records.load(tail + 12, as: UInt64.self) : record.header.sequence
                entry = MapEntry(location: location, crc: entry.crc, sequence: sequence)
                visit(location, MapPrint.block(owner, place, entry))
            }
        }
    }

    // MARK: - Deviations

    /// What the log says of some segments, place by place.
    private struct CloseLook {
        /// By segment; ``MapPrint/none`` where no record names the place.
        var prints: [Int: [UInt64]] = [:]
        /// Stands for a place whose header is lost, which was noted.
        static var unknown: UInt64 { 2 }
        /// Pages walked over: each once, though two name it.
        var pages: BlockClaims
    }

    /// Finds the blocks of which the log says something else than the map.
    private mutating func lookClosely(_ segments: [Int]) {
        guard let superblock else { return }
        let count = max(1, Int(StoreCheck.closeBlockCountMax / claims.segmentBlockCount))
        for start in stride(from: 0, to: segments.count, by: count) {
            guard report.problems.count < StoreCheckReport.problemCountMax else {
                report.problemCount += segments.count - start
                return
            }
            var look = CloseLook(pages: BlockClaims(superblock))
            for segment in segments[start..<min(segments.count, start + count)] {
                look.prints[segment] = logPrints(segment)
            }
            for layer in manifest.layers where !layer.root.isAbsent {
                comparePage(
                    &look,
                    layer.id.rawValue,
                    level: layer.rootLevel,
                    index: 0,
                    layer.root
                )
            }
        }
    }

    private func logPrints(_ segment: Int) -> [UInt64] {
        let first = claims.location(ofSegment: segment)
        var prints = [UInt64](repeating: MapPrint.none, count: Int(claims.segmentBlockCount))
        let walk = walkLog(segment) { prints[Int($0 - first)] = $1 }
        for header in walk.lost {
            for location in header.location..<header.end {
                prints[Int(location - first)] = CloseLook.unknown
            }
        }
        return prints
    }

    private mutating func comparePage(
        _ look: inout CloseLook,
        _ layer: UInt64,
        level: UInt8,
        index: UInt64,
        _ link: MapEntry
    ) {
        guard case .taken = look.pages.take(link.location) else { return }
        if deviates(look, link, MapPrint.page(layer, level: level, index: index, link)) {
            let offset = link.location * 4096
            note(.pageNotInLog(layer: layer, level: level, index: index, offset: offset))
        }
        let region = arena.region.slice(4096 * (1 + Int(level)), 4096)
        guard read(link.location * 4096, region) == 0, region.crc32c() == link.crc else { return }
        let owner = owners.owner(of: layer)
        for position in 0..<MapEntry.countPerPage {
            let entry = region.mapEntry(position)
            guard level > 0 ? !entry.isAbsent : entry.isData else { continue }
            let child = index << MapEntry.pageShift | UInt64(position)
            if level > 0 {
                comparePage(&look, layer, level: level - 1, index: child, entry)
            } else if deviates(look, entry, MapPrint.block(owner, child, entry)) {
                let offset = entry.location * 4096
                note(.blockNotInLog(layer: layer, block: child, offset: offset))
            }
        }
    }

    private func deviates(_ look: CloseLook, _ entry: MapEntry, _ print: UInt64) -> Bool {
        guard let segment = claims.segment(of: entry.location), let log = look.prints[segment]
        else { return false }
        let place = Int(entry.location - claims.location(ofSegment: segment))
        return log[place] != print && log[place] != CloseLook.unknown
    }
}
