"""Histories with known verdicts: the checker must find what is planted, and nothing else."""

import random

from .checker import History, Op, stamp


class Script:
    """A history of one sector, by hand; times are small numbers."""

    def __init__(self, writethrough=False):
        self.history = History(1, 8, writethrough)
        self.history.origin = 0

    def write(self, start, end, kind="write", fua=False, count=1, errno=0, client="a"):
        op = Op(next(self.history.ids), client, kind, 0, count, fua)
        op.start, op.end, op.errno = start, end if not errno else None, errno
        self.history.ops[op.id] = op
        return op

    def read(self, start, end, op):
        self.history.reads.append((start, end, 0, [op.id if op else 0]))

    def flush(self, start, end):
        self.history.flushes.append((start, end))

    def fence(self, moment, client="a"):
        self.history.fence(client, moment)

    def loss(self, start, end):
        self.history.memory_lost(start, end)

    @property
    def is_good(self):
        return self.history.violations()[1] == 0


def _verdicts():
    def case(name, good, writethrough=False):
        def register(function):
            script = Script(writethrough)
            function(script)
            results.append((name, script.is_good == good))
        return register
    results = []

    @case("what was written is read", True)
    def _(s):
        a = s.write(10, 20)
        s.read(30, 40, a)

    @case("an answered write is lost", False)
    def _(s):
        s.write(10, 20)
        s.read(30, 40, None)

    @case("an older value comes back", False)
    def _(s):
        a, _ = s.write(10, 20), s.write(30, 40)
        s.read(50, 60, a)

    @case("writes that overlap in time may end either way", True)
    def _(s):
        a, _ = s.write(10, 40), s.write(20, 30)
        s.read(50, 60, a)

    @case("a value flips", False)
    def _(s):
        a, b = s.write(10, 40), s.write(20, 30)
        s.read(50, 60, a)
        s.read(70, 80, b)
        s.read(90, 95, a)

    @case("a read from the future", False)
    def _(s):
        a = s.write(50, 60)
        s.read(10, 20, a)

    @case("an unanswered write may be there", True)
    def _(s):
        a = s.write(10, None)
        s.read(30, 40, a)

    @case("or not", True)
    def _(s):
        s.write(10, None)
        s.read(30, 40, None)

    @case("or appear later", True)
    def _(s):
        a = s.write(10, None)
        s.read(30, 40, None)
        s.read(50, 60, a)

    @case("but not go again", False)
    def _(s):
        a = s.write(10, None)
        s.read(30, 40, a)
        s.read(50, 60, None)

    @case("a fenced write appears after the new client's first read", False)
    def _(s):
        a = s.write(10, None)
        s.fence(20)
        s.read(30, 40, None)
        s.read(50, 60, a)

    @case("a fenced write undoes the new client's", False)
    def _(s):
        a = s.write(10, None)
        s.fence(20)
        s.write(30, 40, client="b")
        s.read(50, 60, a)

    @case("a fenced write that happened before the fence", True)
    def _(s):
        a = s.write(10, None)
        s.fence(20)
        s.read(30, 40, a)

    @case("an old client reads what the new one has overwritten", False)
    def _(s):
        a = s.write(10, 20)
        s.fence(25)
        b = s.write(30, 40, client="b")
        s.read(50, 60, b)
        s.read(70, 80, a)

    @case("zeroes are there", True)
    def _(s):
        s.write(10, 20)
        s.write(30, 40, "zero")
        s.read(50, 60, None)

    @case("zeroes are not there", False)
    def _(s):
        a = s.write(10, 20)
        s.write(30, 40, "zero")
        s.read(50, 60, a)

    @case("the trim of part of a block may be ignored", True)
    def _(s):
        a = s.write(10, 20)
        s.write(30, 40, "trim")
        s.read(50, 60, a)

    @case("that of a whole one may not", False)
    def _(s):
        a = s.write(10, 20)
        s.write(30, 40, "trim", count=8)
        s.read(50, 60, a)

    @case("a failed write may be there or not, and come late", True)
    def _(s):
        a = s.write(10, None, errno=5)
        s.read(30, 40, None)
        s.read(50, 60, a)

    @case("after a loss of memory what was not flushed may be gone", True)
    def _(s):
        s.write(10, 20)
        s.loss(30, 40)
        s.read(50, 60, None)

    @case("what was flushed may not", False)
    def _(s):
        s.write(10, 20)
        s.flush(22, 25)
        s.loss(30, 40)
        s.read(50, 60, None)

    @case("nor a write with FUA", False)
    def _(s):
        s.write(10, 20, fua=True)
        s.loss(30, 40)
        s.read(50, 60, None)

    @case("nor anything of a writethrough volume", False, True)
    def _(s):
        s.write(10, 20)
        s.loss(30, 40)
        s.read(50, 60, None)

    @case("a flush that was sent before the answer covers nothing", True)
    def _(s):
        s.write(10, 20)
        s.flush(15, 25)
        s.loss(30, 40)
        s.read(50, 60, None)

    @case("a value under the flushed one comes back", False)
    def _(s):
        a, _ = s.write(2, 4), s.write(10, 20)
        s.flush(22, 25)
        s.loss(30, 40)
        s.read(50, 60, a)

    @case("a value above the flushed one is there", True)
    def _(s):
        s.write(2, 4, fua=True)
        b = s.write(10, 20)
        s.loss(30, 40)
        s.read(50, 60, b)

    @case("what a loss left must stay", False)
    def _(s):
        a = s.write(10, 20)
        s.loss(30, 40)
        s.read(50, 60, a)
        s.read(70, 80, None)

    @case("also through the next loss, when it was flushed since", False)
    def _(s):
        a = s.write(10, 20)
        s.loss(30, 40)
        s.read(50, 60, None)
        s.flush(61, 62)
        s.loss(70, 80)
        s.read(90, 95, a)

    @case("an unanswered write comes after the loss of everything", False)
    def _(s):
        a = s.write(10, None)
        s.loss(30, 40)
        s.read(50, 60, None)
        s.read(70, 80, a)
    return results


def _random_registers(count=300):
    """Registers that are right by construction: every operation takes effect at a moment within its time."""
    bad = []
    for seed in range(count):
        chance = random.Random(seed)
        script = Script()
        history, moments = script.history, []
        for _ in range(30):
            moment = chance.uniform(100, 1000)
            moments.append((moment, moment - chance.uniform(0, 80), moment + chance.uniform(0, 80), chance.random()))
        value = 0
        for moment, start, end, kind in sorted(moments):
            if kind < 0.35:
                value = script.write(start, end if chance.random() < 0.8 else None).id
            elif kind < 0.5:
                script.write(start, end, "zero")
                value = 0
            else:
                history.reads.append((start, end, 0, [value]))
        if not script.is_good:
            bad.append(seed)
    return bad


def run():
    """What the checker judges wrongly, in words."""
    wrong = [f"misjudged: {name}" for name, right in _verdicts() if not right]
    wrong += [f"a register that is right is not taken for it: seed {seed}" for seed in _random_registers()]
    data = stamp(1, 5, 9)
    history = History(1, 8)
    for piece, first, name in ((data, 4, "misplaced"), (data[:256] + bytes(256), 5, "torn"), (stamp(2, 5, 9), 5, "another run's"),
                               (b"x" * 512, 5, "foreign")):
        before = len(history.wrong)
        history.saw(1, first, piece)
        if len(history.wrong) != before + 1:
            wrong.append(f"misjudged: bytes that are {name}")
    if history.saw(1, 5, data) != [9]:
        wrong.append("misjudged: bytes that are right")
    return wrong
