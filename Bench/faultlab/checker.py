"""What clients saw, and whether a disk could have shown it.

Knows nothing of Cairn: operations with the time of their invocation and of their answer go in, violations come out.

Every sector (512 bytes) is a register. What is written to it names its run, its sector and the operation, so that
a value belongs to one operation; only zeroes have many. The history of a register is cut into *lives* at each loss of all memory.

Within a life the register must be linearizable, over all clients: with values that are written once that is exactly so when
(Gibbons and Korach, *Testing shared memories*) the zones of the values do not conflict. The zone of a value lies between
the first answer that proves it was there and the last invocation that still found it.

An operation without an answer happened, or will until its *deadline* (never after a fence), or does not. One that failed
is treated like it. From one life to the next a register keeps a value that no durable write had
certainly overwritten: durable is what FUA promised, what a flush covered that was sent after its answer, and everything of a
writethrough volume.
"""

import itertools
import struct
import time

SECTOR = 512
INFINITY = 1 << 62
MAGIC = 0xCA12FA17
_HEADER = struct.Struct(">IIQQ8s")


def now():
    return time.monotonic_ns()


def stamp(run, sector, op):
    return _HEADER.pack(MAGIC, run, sector, op, b"stamped!") * (SECTOR // _HEADER.size)


def decode(run, first, data):
    """The values of sectors from `first` on, and what is wrong with those that have none."""
    values, wrong = [], []
    unpack = _HEADER.unpack_from
    for index in range(len(data) // SECTOR):
        piece = data[index * SECTOR:(index + 1) * SECTOR]
        magic, its_run, sector, op, _ = unpack(piece)
        if magic == MAGIC and its_run == run and sector == first + index and piece == piece[:32] * 16:
            values.append(op)
        elif not piece.strip(b"\0"):
            values.append(0)
        else:
            values.append(-1)
            what = ("torn" if piece != piece[:32] * 16 else "foreign") if magic != MAGIC or piece != piece[:32] * 16 \
                else f"of sector {sector} (misplaced)" if its_run == run else "of another run"
            wrong.append(f"sector {first + index}: bytes that are {what}: {piece[:32].hex()}")
    return values, wrong


class Op:
    """A request that changes sectors."""
    __slots__ = ("id", "client", "kind", "first", "count", "fua", "start", "end", "deadline", "errno", "durable")

    def __init__(self, id, client, kind, first, count, fua):
        self.id, self.client, self.kind, self.first, self.count, self.fua = id, client, kind, first, count, fua
        self.start, self.end, self.deadline, self.errno, self.durable = now(), None, INFINITY, 0, INFINITY

    @property
    def last_moment(self):
        """When it has happened at the latest, if it happens."""
        return self.end if self.end is not None else self.deadline

    def text(self, origin):
        def at(moment):
            return f"{(moment - origin) / 1e6:.1f}" if moment is not None and moment < INFINITY else "never"
        return (f"op {self.id} of {self.client}: {self.kind}{'+FUA' if self.fua else ''} sectors {self.first}+{self.count} "
                f"sent {at(self.start)} ms, answered {at(self.end)}"
                + (f", errno {self.errno}" if self.errno else "")
                + (f", fenced {at(self.deadline)}" if self.end is None and self.deadline < INFINITY else "")
                + (f", durable {at(self.durable)}" if self.durable < INFINITY else ""))


class History:
    """What all clients of one volume did and saw."""

    def __init__(self, run, sectors, writethrough=False):
        self.run, self.sectors, self.writethrough = run, sectors, writethrough
        self.origin = now()
        self.ids = itertools.count(1)
        self.ops = {}
        self.reads = []                # (start, end, first, values)
        self.flushes = []              # (start, end)
        self.wrong = []                # bytes that nobody wrote
        self.losses = []               # (start, end) of each loss of all memory

    def begin(self, client, kind, first, count, fua):
        op = Op(next(self.ids), client, kind, first, count, fua)
        self.ops[op.id] = op
        return op

    def fence(self, client=None, moment=None):
        """What `client` (everybody) sent until now and has no answer to has happened or never will."""
        moment = moment or now()
        for op in self.ops.values():
            if op.end is None and op.deadline == INFINITY and op.start <= moment and client in (None, op.client):
                op.deadline = moment

    def saw(self, start, first, data):
        values, wrong = decode(self.run, first, data)
        self.reads.append((start, now(), first, values))
        self.wrong += wrong
        return values

    def memory_lost(self, start, end=None):
        """All replicas lost their memory between two moments: what was not flushed may be gone."""
        end = end or now()
        self.fence(moment=end)
        self.losses.append((start, end))

    # -- judging

    def _harden(self):
        limits = [start for start, _ in self.losses] + [INFINITY]
        acked = sorted((op for op in self.ops.values() if op.end is not None and not op.errno), key=lambda op: op.end)
        for op in acked:
            if op.fua or self.writethrough:
                op.durable = op.end
        flushes = sorted(self.flushes)
        position, earliest = len(flushes), INFINITY
        for op in reversed(acked):
            while position and flushes[position - 1][0] > op.end:
                position -= 1
                earliest = min(earliest, flushes[position][1])
            op.durable = min(op.durable, earliest)
        return limits

    def violations(self, limit=20):
        """What no disk could have shown, in words."""
        self._harden()
        found = list(self.wrong)
        by_sector = {}
        for op in self.ops.values():
            for sector in range(op.first, op.first + op.count):
                by_sector.setdefault(sector, ([], []))[0].append(op)
        for start, end, first, values in self.reads:
            for index, value in enumerate(values):
                if value >= 0:
                    by_sector.setdefault(first + index, ([], []))[1].append((start, end, value))
        for sector in sorted(by_sector):
            ops, reads = by_sector[sector]
            trouble = self._judge(sector, ops, reads)
            if trouble:
                found.append(f"sector {sector}: {trouble}")
        return found[:limit], len(found)

    def _judge(self, sector, ops, reads):
        """The lives of one register."""
        block = sector // 8 * 8

        def binds(op):
            # NBD lets a server ignore a trim; ours does so with the parts of blocks, and with nothing else.
            return op.kind != "trim" or (op.first <= block and block + 8 <= op.first + op.count)
        inherited = {0}
        starts = [0] + [end for _, end in self.losses]
        ends = [start for start, _ in self.losses] + [INFINITY]
        for life, (begin, end) in enumerate(zip(starts, ends)):
            following = starts[life + 1] if life + 1 < len(starts) else INFINITY
            mine = [op for op in ops if begin <= op.start < following]
            seen = [read for read in reads if begin <= read[0] < following]
            trouble = self._judge_life(mine, seen, begin, inherited, binds)
            if trouble:
                return trouble + (f" (life {life + 1})" if self.losses else "")
            # What the next life may begin with.
            if life + 1 < len(starts):
                shown = {value for _, _, value in seen} & inherited
                known = shown if len(shown) == 1 and not (shown == {0} and any(op.kind != "write" for op in mine)) else inherited
                floor = max((op.start for op in mine if op.durable <= end and op.end <= end and binds(op)), default=None)
                legal = set() if floor is not None else set(known)
                for op in mine:
                    if floor is None or op.errno or op.last_moment >= floor:
                        legal.add(op.id if op.kind == "write" else 0)
                inherited = legal
        return None

    def _judge_life(self, ops, reads, begin, inherited, binds):
        text = self._value_text
        clusters = {}                  # value -> [first end, last start, start of the write, whether certain, op]
        zeroes = []
        for op in ops:
            certain = op.end is not None and not op.errno
            limit = op.end if certain else INFINITY if op.errno else op.deadline
            cluster = [limit, op.start, op.start, certain and binds(op), op]
            if op.kind == "write":
                clusters[op.id] = cluster
            else:
                zeroes.append(cluster)
        zero_reads = []
        for start, end, value in reads:
            if value == 0:
                zero_reads.append((start, end))
                continue
            cluster = clusters.get(value)
            if cluster is None:
                if value not in inherited:
                    return f"shows {text(value)}, which may not be there; may be: {self._values_text(inherited, ops)}"
                cluster = clusters[value] = [begin, -1, -1, True, self.ops[value]]
            if end < cluster[2]:
                return f"shows {text(value)} before it was sent"
            cluster[0] = min(cluster[0], end)
            cluster[1] = max(cluster[1], start)
            cluster[3] = True
        initial = [begin, -1, -1, False, None]
        candidates = zeroes + ([initial] if 0 in inherited else [])
        certain = [cluster for cluster in list(clusters.values()) + zeroes if cluster[3]]
        for start, end in zero_reads:
            legal = [z for z in candidates if z[2] < end and not any(
                c is not z and c[2] > z[0] and c[0] < start for c in certain)]
            if not legal:
                blame = max((c for c in certain if c[0] < start and c[4]), key=lambda c: c[0], default=None)
                return (f"shows zeroes, read {(start - self.origin) / 1e6:.1f} ms, though there was "
                        + (text(blame[4].id) if blame else "something"))
            if len(legal) == 1:
                z = legal[0]
                z[0], z[1], z[3] = min(z[0], end), max(z[1], start), True
        zones = [c for c in list(clusters.values()) + candidates if c[3]]
        forward = sorted((c for c in zones if c[0] < c[1]), key=lambda c: c[0])
        for left, right in zip(forward, forward[1:]):
            if right[0] < left[1]:
                return (f"two values were there at once or came back: {self._zone_text(left)}; {self._zone_text(right)}")
        for inner in zones:
            if inner[0] >= inner[1] and inner[1] >= 0:
                for outer in forward:
                    if outer[0] < inner[1] and inner[0] < outer[1]:
                        return f"a value was not there, or was undone: {self._zone_text(inner)}; shown instead: {self._zone_text(outer)}"
        return None

    def _value_text(self, value):
        return "zeroes" if not value else self.ops[value].text(self.origin) if value in self.ops else f"op {value}, unknown"

    def _values_text(self, values, ops):
        return "; ".join(self._value_text(value) for value in sorted(values)[-6:]) or "nothing"

    def _zone_text(self, zone):
        def at(moment):
            return f"{(moment - self.origin) / 1e6:.1f}" if moment < INFINITY else "never"
        what = zone[4].text(self.origin) if zone[4] else "the zeroes of the beginning"
        return f"[{what}; there from {at(zone[0])} ms, last asked for and found {at(zone[1])} ms]"
