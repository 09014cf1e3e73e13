"""Scenarios with many attached volumes, each of which is written to all the time."""

import json
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import nbd

from .cluster import Trouble
from .runner import scenario

VOLUME_COUNT = 256
SERVED_LIMIT = 5.0
# Requests to the metadata service at once: hosts of a data centre do not wait for each other.
REQUEST_COUNT = 32


def ask(cluster, method, path, document):
    """One request to the metadata service."""
    request = urllib.request.Request(cluster.endpoint + path, json.dumps(document).encode(), {"Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())


class Disk:
    """One volume and the host that writes to it: block 0 holds the number of its last write."""

    def __init__(self, run, index):
        self.run, self.name, self.host, self.number = run, f"v{index}", f"h{index}", 0
        self.node, self.handle, self.served = None, None, 0.0

    def create(self):
        ask(self.run.cluster, "POST", "/v1/volumes", {"name": self.name, "byte_count": 4 << 20, "replicas": 3, "durability": "writeback"})

    def attach(self, via, force=False):
        answer = ask(self.run.cluster, "POST", f"/v1/volumes/{self.name}/attachments", {"host": self.host, "via": via, "force": force})
        self.node = answer["node"]
        self.handle = nbd.NBD()
        self.handle.connect_uri(answer.get("nbd_unix_uri") or answer["nbd_uri"])

    def write(self):
        """The next write; the moment of its answer is noted. Raises nbd.Error when the node is gone."""
        self.handle.pwrite((self.number + 1).to_bytes(8, "little") * 512, 0)
        self.number += 1
        self.served = time.monotonic()

    def read(self):
        return int.from_bytes(self.handle.pread(4096, 0)[:8], "little")


class Writers:
    """Threads that write to all disks in turn, and leave out those whose node is gone."""

    def __init__(self, disks, count=8):
        self.stopping, self.failed = False, set()
        self.threads = [threading.Thread(target=self._loop, args=(disks[first::count],), daemon=True) for first in range(count)]
        for thread in self.threads:
            thread.start()

    def _loop(self, disks):
        while not self.stopping:
            for disk in disks:
                if disk.name in self.failed:
                    continue
                try:
                    disk.write()
                except nbd.Error:
                    self.failed.add(disk.name)
            time.sleep(0.02)

    def stop(self):
        self.stopping = True
        for thread in self.threads:
            thread.join(30)


@scenario("kill-node-256", "a node dies that has a third of 256 volumes, all of them written to; hosts attach elsewhere")
def kill_node(run):
    client = run.client(via="n2")
    disks = [Disk(run, index) for index in range(VOLUME_COUNT)]
    pool = ThreadPoolExecutor(REQUEST_COUNT)
    begin = time.monotonic()
    list(pool.map(lambda disk: disk.create(), disks))
    list(pool.map(lambda item: item[1].attach(f"n{item[0] % 3 + 1}"), enumerate(disks)))
    run.measure("created and attached", time.monotonic() - begin)
    writers = Writers(disks)
    run.wait(3)
    begin = time.monotonic()
    run.nodes["n1"].kill()
    lost = [disk for disk in disks if disk.node == "n1"]
    kept = [disk for disk in disks if disk.node != "n1"]

    def move(disk):
        disk.attach(f"n{2 + disks.index(disk) % 2}", force=True)
        disk.write()

    list(pool.map(move, lost))
    run.measure("all attached elsewhere and written to", max(disk.served for disk in lost) - begin, SERVED_LIMIT)
    # One more round of all the others, whose replica on the node is gone.
    mark = time.monotonic()
    while any(disk.served < mark for disk in kept):
        if time.monotonic() - mark > 30:
            raise Trouble(f"{sum(disk.served < mark for disk in kept)} volumes hang that were attached elsewhere")
        time.sleep(0.01)
    run.measure("all others written to", max(disk.served for disk in kept) - begin, SERVED_LIMIT)
    writers.stop()
    unexpected = sorted(writers.failed - {disk.name for disk in lost})
    if unexpected:
        run.problem(f"writes failed on {len(unexpected)} volumes that other nodes serve: {unexpected[:5]}")
    wrong = [disk.name for disk in disks if disk.read() not in (disk.number, disk.number + 1)]
    if wrong:
        run.problem(f"{len(wrong)} volumes do not hold their last write: {wrong[:5]}")
    run.nodes["n1"].start()
    run.measure("complete again", run.cluster.wait_complete(60))
    return client
