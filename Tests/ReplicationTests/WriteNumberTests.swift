import BlockCore
import Replication
import Testing

@Suite("Write numbers") struct WriteNumberTests {
    @Test("A number is its epoch and its counter")
    func parts_ofANumber_comeBack() {
        let number = WriteNumber(epoch: Epoch(7), counter: 42)
        #expect(number.epoch == Epoch(7))
        #expect(number.counter == 42)
        #expect(number.rawValue == 7 << 36 | 42)
        #expect("\(number)" == "7.42")
        let last = WriteNumber(epoch: WriteNumber.epochMax, counter: WriteNumber.counterMax)
        #expect(last.rawValue == (1 << 56) - 1)
        #expect(last.isValid)
        #expect(!WriteNumber(rawValue: 1 << 56).isValid)
    }

    @Test("Numbers of later epochs are greater")
    func order_ofNumbers_isByEpochThenCounter() {
        let numbers = [(0, 0), (0, 1), (1, 0), (1, 9), (2, 1)].map {
            WriteNumber(epoch: Epoch($0.0), counter: UInt64($0.1))
        }
        #expect(numbers.shuffled().sorted() == numbers)
    }

    @Test("Ranges within the largest volume are valid, others are not")
    func range_beyondTheLargestVolume_isInvalid() {
        #expect(BlockRange.blockCountMax << 12 == 64 << 40)
        let last = BlockRange.blockCountMax - 1
        #expect(BlockRange(first: last, count: 1).isValid)
        #expect(!BlockRange(first: last, count: 2).isValid)
        #expect(!BlockRange(first: 0, count: 0).isValid)
        #expect(!BlockRange(first: .max, count: .max).isValid)
        #expect(!BlockRange(first: last, count: .max).isValid)
    }

    @Test("Both kinds of zeroes are no bytes")
    func zeroes_ofBothKinds_haveNoBytes() {
        #expect(!PayloadID.zeroes.hasBytes)
        #expect(!PayloadID.allocatedZeroes.hasBytes)
        #expect(PayloadID(2).hasBytes)
    }
}

@Suite("Lineages") struct LineageTests {
    private func number(_ epoch: UInt64, _ counter: UInt64) -> WriteNumber {
        WriteNumber(epoch: Epoch(epoch), counter: counter)
    }

    private func lineage(_ ends: [(UInt64, UInt64)], of epoch: UInt64) throws -> Lineage {
        let ends = ends.map { number($0.0, $0.1) }
        return try #require(Lineage(checking: ends, of: Epoch(epoch)))
    }

    @Test("A replica that is behind has the common point at its end")
    func commonPoint_ofAReplicaBehind_isItsEnd() throws {
        let own = try lineage([(0, 0)], of: 1)
        let other = try lineage([(0, 0), (1, 9)], of: 2)
        #expect(own.commonPoint(end: number(1, 5), with: other) == number(1, 5))
    }

    @Test("What goes beyond the lineage is not common")
    func commonPoint_ofAReplicaAhead_isTheLineagesEnd() throws {
        let own = try lineage([(0, 0)], of: 1)
        let other = try lineage([(0, 0), (1, 9)], of: 2)
        #expect(own.commonPoint(end: number(1, 12), with: other) == number(1, 9))
    }

    @Test("An epoch that came to nothing is not common")
    func commonPoint_afterALostEpoch_isBeforeIt() throws {
        let own = try lineage([(0, 0), (1, 7)], of: 2)
        let other = try lineage([(0, 0), (1, 5), (3, 2)], of: 4)
        #expect(own.commonPoint(end: number(2, 30), with: other) == number(1, 5))
    }

    @Test("Without a step in common everything is missing")
    func commonPoint_tooLongAway_isZero() throws {
        var other = Lineage.origin
        for epoch in 0...UInt64(Lineage.stepCountMax) {
            other = other.continued(from: number(epoch, 1))
        }
        #expect(other.ends.count == Lineage.stepCountMax)
        #expect(Lineage.origin.commonPoint(end: .zero, with: other) == .zero)
    }

    @Test("What is not ascending, or not of the past, is refused")
    func lineage_absurd_isRefused() {
        let epoch = Epoch(3)
        #expect(Lineage(checking: [number(3, 1)], of: epoch) == nil)
        #expect(Lineage(checking: [number(1, 1), number(1, 2)], of: epoch) == nil)
        #expect(Lineage(checking: [number(2, 1), number(1, 2)], of: epoch) == nil)
        #expect(Lineage(checking: [WriteNumber(rawValue: .max)], of: epoch) == nil)
        #expect(Lineage(checking: [number(1, 1), number(2, 2)], of: epoch) != nil)
    }
}
