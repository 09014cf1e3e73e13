"""A client of a volume: random requests over several connections, each recorded in a History."""

import bisect
import collections
import errno
import gc
import random
import select
import threading
import time

import nbd

from .checker import SECTOR, now, stamp

# What a request ends with when its connection does: nobody knows whether it happened.
CONNECTION_ENDED = {errno.ENOTCONN, errno.ESHUTDOWN, errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED}


class Mix:
    """How often what is asked for; the rest is reads."""

    def __init__(self, write=50, fua=4, zero=4, trim=4, flush=1, whole=60, blocks=8, depth=8, connections=2, rate=700):
        self.write, self.fua, self.zero, self.trim, self.flush = write, fua, zero, trim, flush
        self.whole, self.blocks, self.depth, self.connections, self.rate = whole, blocks, depth, connections, rate


MIXED = Mix()
# What the longest gap is measured with: 4 KiB random writes, four at a time.
WRITES = Mix(write=100, fua=0, zero=0, trim=0, flush=0, whole=100, blocks=1, depth=4, connections=1, rate=1500)
FLUSHED = Mix(write=50, fua=10, zero=4, trim=4, flush=6)


class Connection:
    def __init__(self, client, uri):
        self.client, self.uri = client, uri
        self.handle = nbd.NBD()
        self.pending = {}
        self.opened = False
        self.born = time.monotonic()
        try:
            self.handle.set_strict_mode(0)
            self.handle.set_uri_allow_local_file(False)
            self.handle.aio_connect_uri(uri)
            self.failed = False
        except nbd.Error as error:
            client.last_error = str(error)
            self.failed = True

    @property
    def dead(self):
        return self.failed or self.handle.aio_is_dead() or self.handle.aio_is_closed()

    @property
    def ready(self):
        return not self.failed and (self.handle.aio_is_ready() or self.handle.aio_is_processing())

    def step(self, readable, writable):
        try:
            direction = self.handle.aio_get_direction()
            if readable and direction & 1:
                self.handle.aio_notify_read()
            elif writable and direction & 2:
                self.handle.aio_notify_write()
        except nbd.Error as error:
            self.client.last_error = str(error)
            if not self.pending and not self.ready:
                self.failed = True

    def close(self):
        """Gives up what has no answer."""
        self.pending.clear()
        self.handle = None


class Client(threading.Thread):
    """One host's use of a volume."""

    def __init__(self, name, history, uri, mix=MIXED, seed=0, first=0, sectors=None, reconnect=True):
        super().__init__(daemon=True)
        self.name, self.history, self.uri, self.mix, self.reconnect = name, history, uri, mix, reconnect
        self.random = random.Random(f"{name} {seed}")
        self.first, self.sectors = first, sectors or history.sectors
        self.connections = []
        self.loading, self.stopping = False, False
        self.windows = []               # when there was load
        self.sweep = collections.deque()
        self.sweeping = 0
        self.completions = []           # moments of all answers
        self.starts = {"write": 0, "read": 0, "zero": 0, "trim": 0, "flush": 0}
        self.errors = collections.Counter()
        self.unanswered = 0
        self.opened = 0
        self.last_error = ""
        self.next_open = 0.0
        self.tokens, self.refilled = 0.0, time.monotonic()

    # -- for the scenario's thread

    def begin(self, mix=None):
        if mix:
            self.mix = mix
        self.windows.append([now(), None])
        self.loading = True
        if not self.is_alive():
            gc.disable()
            self.start()
        return self

    def pause(self, seconds=15.0):
        """Sends no more, and waits for the answers; whether all came."""
        self._end_window()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if not any(connection.pending for connection in self.connections):
                return True
            time.sleep(0.005)
        return False

    def _end_window(self):
        if self.loading:
            self.loading = False
            self.windows[-1][1] = self.windows[-1][1] or now()

    def longest_gap(self):
        """The longest time between two answers while there was load, in seconds."""
        first = self.completions[0] if self.completions else 0
        return max((self.gap(max(start, first), end) for start, end in self.windows if end is None or end > first), default=0.0)

    def expect_no_more(self, since):
        """Its volume was taken: what it waits for from now on is no gap."""
        if self.loading:
            self.windows[-1][1] = min(since, self.windows[-1][1] or since)

    def verify(self, seconds=20.0):
        """Reads every sector; whether that came to an end. What was read is judged with the rest."""
        if not self.is_alive():
            self.loading = False
            gc.disable()
            self.start()
        step = 256
        wanted = [(at, min(step, self.first + self.sectors - at)) for at in range(self.first, self.first + self.sectors, step)]
        self.sweeping = len(wanted)
        self.sweep.extend(wanted)
        end = time.monotonic() + seconds
        while self.sweeping > 0 and time.monotonic() < end:
            time.sleep(0.005)
        done = self.sweeping <= 0
        self.sweep.clear()
        return done

    def wait_answer(self, since, seconds):
        """How long after `since` (ns) the first answer came, in seconds, or None."""
        end = time.monotonic() + seconds
        while True:
            position = bisect.bisect_right(self.completions, since)
            if position < len(self.completions):
                return (self.completions[position] - since) / 1e9
            if time.monotonic() > end:
                return None
            time.sleep(0.002)

    def stop(self):
        self._end_window()
        self.stopping = True
        if self.is_alive():
            self.join(5)
        for connection in self.connections:
            self.unanswered += len(connection.pending)
        self.connections = []

    def gap(self, start=0, end=None):
        """The longest time between two answers, in seconds; the edges of the interval count."""
        end = end or now()
        moments = [start] if start else []
        moments += [moment for moment in self.completions if start <= moment <= end] + [end]
        return max((b - a for a, b in zip(moments, moments[1:])), default=0) / 1e9

    # -- the client's thread

    def run(self):
        while not self.stopping:
            self._open()
            for connection in self.connections:
                if connection.ready:
                    self._send(connection)
            self._poll()

    def _open(self):
        for connection in list(self.connections):
            if connection.dead or (not connection.ready and time.monotonic() - connection.born > 5):
                self.unanswered += len(connection.pending)
                connection.close()
                self.connections.remove(connection)
                self.next_open = time.monotonic() + 0.02
        if not self.reconnect and self.opened >= self.mix.connections:
            return
        while len(self.connections) < self.mix.connections and time.monotonic() >= self.next_open:
            connection = Connection(self, self.uri)
            self.opened += 1
            if connection.failed:
                self.next_open = time.monotonic() + 0.02
                return
            self.connections.append(connection)

    def _poll(self):
        poll = select.poll()
        by_fd = {}
        for connection in self.connections:
            if connection.dead:
                continue
            try:
                direction = connection.handle.aio_get_direction()
                fd = connection.handle.aio_get_fd()
            except nbd.Error:
                connection.failed = True
                continue
            by_fd[fd] = connection
            poll.register(fd, (select.POLLIN if direction & 1 else 0) | (select.POLLOUT if direction & 2 else 0))
        for fd, events in poll.poll(2):
            by_fd[fd].step(events & (select.POLLIN | select.POLLHUP | select.POLLERR), events & (select.POLLOUT | select.POLLHUP | select.POLLERR))

    def _allowed(self):
        if not self.mix.rate:
            return True
        moment = time.monotonic()
        self.tokens = min(self.tokens + (moment - self.refilled) * self.mix.rate, 32.0)
        self.refilled = moment
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True

    def _send(self, connection):
        depth = max(self.mix.depth // self.mix.connections, 1)
        while self.sweep and len(connection.pending) < depth:
            try:
                first, count = self.sweep.popleft()
            except IndexError:
                break
            self._read(connection, first, count, swept=True)
        while self.loading and len(connection.pending) < depth and connection.ready and self._allowed():
            self._random(connection)

    def _random(self, connection):
        mix, chance = self.mix, self.random.random() * 100
        if self.random.random() * 100 < mix.whole:
            count = 8 * self.random.randint(1, mix.blocks)
            first = self.first + self.random.randrange((self.sectors - count) // 8 + 1) * 8
        else:
            count = self.random.randint(1, 8 * mix.blocks)
            first = self.first + self.random.randrange(self.sectors - count + 1)
        if chance < mix.write:
            self._change(connection, "write", first, count, self.random.random() * 100 < mix.fua)
        elif chance < mix.write + mix.zero:
            self._change(connection, "zero", first, count, False)
        elif chance < mix.write + mix.zero + mix.trim:
            self._change(connection, "trim", first, count, False)
        elif chance < mix.write + mix.zero + mix.trim + mix.flush:
            self._flush(connection)
        else:
            self._read(connection, first, count)

    def _issue(self, connection, token, send):
        """Sends; `connection.pending` holds what must live until the answer."""
        connection.pending[token] = True
        try:
            send()
        except nbd.Error as error:
            # It may have been sent in part: without an answer it stays open.
            self.last_error = str(error)
            connection.pending.pop(token, None)
            return False
        return True

    def _ended(self, connection, token, code):
        """Books an answer; whether it is one, and no error."""
        connection.pending.pop(token, None)
        if code in CONNECTION_ENDED or (code and (connection.handle is None or connection.dead)):
            self.unanswered += 1
            return False
        self.completions.append(now())
        if code:
            self.errors[errno.errorcode.get(code, str(code))] += 1
        return not code

    def _change(self, connection, kind, first, count, fua):
        op = self.history.begin(self.name, kind, first, count, fua)
        self.starts[kind] += 1
        flags = nbd.CMD_FLAG_FUA if fua else 0

        def ended(code):
            code = code.value if hasattr(code, "value") else code
            if self._ended(connection, op.id, code):
                op.end = now()
            elif code and code not in CONNECTION_ENDED:
                op.errno = code
            return 1
        if kind == "write":
            data = b"".join(stamp(self.history.run, sector, op.id) for sector in range(first, first + count))
            buffer = nbd.Buffer.from_bytearray(bytearray(data))
            self._issue(connection, op.id, lambda: connection.handle.aio_pwrite(buffer, first * SECTOR, ended, flags))
        elif kind == "zero":
            self._issue(connection, op.id, lambda: connection.handle.aio_zero(count * SECTOR, first * SECTOR, ended, flags))
        else:
            self._issue(connection, op.id, lambda: connection.handle.aio_trim(count * SECTOR, first * SECTOR, ended, flags))

    def _read(self, connection, first, count, swept=False):
        buffer = nbd.Buffer(count * SECTOR)
        start, token = now(), ("r", next(self.history.ids))
        self.starts["read"] += 1

        def ended(code):
            code = code.value if hasattr(code, "value") else code
            if self._ended(connection, token, code):
                self.history.saw(start, first, bytes(buffer.to_bytearray()))
                if swept:
                    self.sweeping -= 1
            elif swept:
                self.sweep.append((first, count))
            return 1
        if not self._issue(connection, token, lambda: connection.handle.aio_pread(buffer, first * SECTOR, ended)) and swept:
            self.sweep.append((first, count))

    def _flush(self, connection):
        start, token = now(), ("f", next(self.history.ids))
        self.starts["flush"] += 1

        def ended(code):
            code = code.value if hasattr(code, "value") else code
            if self._ended(connection, token, code):
                self.history.flushes.append((start, now()))
            return 1
        self._issue(connection, token, lambda: connection.handle.aio_flush(ended))
