"""A network of namespaces whose every link can be cut, slowed or made lossy, each way for itself.

Each namespace has a TUN device; one process carries the packets between them. So it needs neither netem nor a packet filter of
the kernel, and a cut is what a pulled cable is: packets vanish, nobody is told.

    /usr/bin/python3 network.py NAMESPACE ...      orders come on standard input, one JSON list a line
"""

import ctypes
import fcntl
import heapq
import json
import os
import random
import select
import struct
import subprocess
import sys
import time

MTU = 9000
CLONE_NEWNET = 0x40000000
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000


def address(index):
    return f"10.201.7.{index + 1}"


def carry(namespaces, seed=0):
    """The process between the devices."""
    libc = ctypes.CDLL(None, use_errno=True)
    devices, rules, chance = [], {}, random.Random(seed)
    for namespace in namespaces:
        with open(f"/run/netns/{namespace}") as target:
            if libc.setns(target.fileno(), CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "setns")
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH", b"lab0", IFF_TUN | IFF_NO_PI))
        devices.append(fd)
    by_address = {bytes(int(part) for part in address(index).split(".")): index for index in range(len(devices))}
    poll = select.poll()
    for fd in devices + [0]:
        poll.register(fd, select.POLLIN)
    index_of = {fd: index for index, fd in enumerate(devices)}
    print("ready", flush=True)
    delayed, count, orders = [], 0, b""
    while True:
        wait = max(0, (delayed[0][0] - time.monotonic()) * 1000) if delayed else None
        for fd, _ in poll.poll(wait):
            if fd == 0:
                piece = os.read(0, 65536)
                if not piece:
                    return
                orders += piece
                *lines, orders = orders.split(b"\n")
                for line in lines:
                    source, target, cut, delay, loss = json.loads(line)
                    rules[source, target] = (cut, delay, loss)
                continue
            source = index_of[fd]
            for _ in range(32):
                try:
                    packet = os.read(fd, 65536)
                except OSError:
                    break
                target = by_address.get(packet[16:20]) if packet[0] >> 4 == 4 else None
                if target is None:
                    continue
                cut, delay, loss = rules.get((source, target), (False, 0, 0))
                if cut or (loss and chance.random() < loss):
                    continue
                if delay:
                    count += 1
                    heapq.heappush(delayed, (time.monotonic() + delay, count, target, packet))
                else:
                    send(devices[target], packet)
        moment = time.monotonic()
        while delayed and delayed[0][0] <= moment:
            _, _, target, packet = heapq.heappop(delayed)
            send(devices[target], packet)


def send(fd, packet):
    try:
        os.write(fd, packet)
    except OSError:
        pass                            # The device's queue is full, or it is down: lost, as on a wire.


class Network:
    """Makes the namespaces, removes them, and changes their links. Ends are named."""

    def __init__(self, ends):
        self.ends = list(ends)
        self.prefix = f"cairn{os.getpid()}"
        self.process = None
        self.made = []

    def namespace(self, end):
        return f"{self.prefix}-{end}"

    def address(self, end):
        return address(self.ends.index(end))

    def up(self):
        for end in self.ends:
            subprocess.run(["ip", "netns", "add", self.namespace(end)], check=True)
            self.made.append(end)
        self.process = subprocess.Popen(
            ["/usr/bin/python3", os.path.abspath(__file__), *[self.namespace(end) for end in self.ends]],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        if self.process.stdout.readline().strip() != b"ready":
            raise RuntimeError("the network did not start; it needs root and /dev/net/tun")
        for end in self.ends:
            for command in (["link", "set", "lo", "up"], ["link", "set", "lab0", "mtu", str(MTU), "up"],
                            ["address", "add", f"{self.address(end)}/24", "dev", "lab0"]):
                subprocess.run(["ip", "-n", self.namespace(end), *command], check=True)

    def command(self, end):
        return ["ip", "netns", "exec", self.namespace(end)]

    def link(self, source, target, cut=False, delay=0.0, loss=0.0, both=True):
        """What happens to packets from `source` to `target` from now on."""
        pairs = [(source, target)] + ([(target, source)] if both else [])
        for a, b in pairs:
            order = [self.ends.index(a), self.ends.index(b), cut, delay, loss]
            self.process.stdin.write(json.dumps(order).encode() + b"\n")
        self.process.stdin.flush()

    def isolate(self, end, cut=True):
        for other in self.ends:
            if other != end:
                self.link(end, other, cut=cut)

    def down(self):
        if self.process:
            self.process.stdin.close()
            try:
                self.process.wait(3)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for end in self.made:
            subprocess.run(["ip", "netns", "del", self.namespace(end)], capture_output=True)
        self.made = []


if __name__ == "__main__":
    carry(sys.argv[1:])
