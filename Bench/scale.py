#!/usr/bin/python3
"""How Cairn behaves when things get large: snapshots, clones, restarts, fill levels.

    Bench/scale.py [--programs .build/release] [--scratch DIR] [--only PATTERN] [--quick]
                   [--output Docs/benchmarks/scale.md]

Each section starts a node of its own, on a store of its own, and says what it measured, how
often, and with what spread.
"""

import argparse
import fnmatch
import http.client
import json
import os
import shutil
import sys
import tempfile
import time

import measure
import servers


class Node(servers.Cairn):
    """A volnode whose API this script calls."""

    def __init__(self, options, name, store_mib, arguments=(), preallocate="allocate"):
        super().__init__(options.folder, 0, options, arguments, name=name)
        self.store_mib = store_mib
        self.preallocate = preallocate
        self.next_id = 1_000_000
        self.connection = None

    def prepare(self):
        measure.run([self.volnode, "format", self.file, "--size", f"{self.store_mib}MiB",
                     "--preallocate", self.preallocate])

    def start(self):
        self.connection = None
        self.launch([
            self.volnode, "run", "--name", "bench", "--store", self.file,
            "--listen-nbd", f"127.0.0.1:{self.port}", "--listen-nbd-unix", self.socket_path,
            "--admin", f"127.0.0.1:{self.admin_port}", *self.arguments])
        self.wait_until_serving()

    @property
    def pid(self):
        return self.processes[0].pid

    def call(self, method, path, body=None):
        """One request of the node API, over one connection that is kept."""
        limit = time.monotonic() + 30
        while True:
            try:
                if self.connection is None:
                    self.connection = http.client.HTTPConnection("127.0.0.1", self.admin_port, timeout=60)
                data = json.dumps(body) if body is not None else None
                headers = {"Content-Type": "application/json"} if data else {}
                self.connection.request(method, path, data, headers)
                answer = self.connection.getresponse()
                text = answer.read()
                break
            except ConnectionError:
                self.connection = None
                if time.monotonic() > limit:
                    raise
                time.sleep(0.02)
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {text.decode()}")
        return json.loads(text) if text else {}

    def create(self, name, byte_count, durability="writeback"):
        self.next_id += 1
        volume = self.next_id
        self.call("POST", "/v1/volumes", {
            "id": volume, "name": name, "byte_count": byte_count, "durability": durability,
            "logical_block_byte_count": 512, "descriptor": ""})
        self.export(volume)
        return volume

    def export(self, volume):
        self.call("PATCH", f"/v1/volumes/{volume}", {"access": "read_write"})

    def snapshot(self, volume, name):
        self.call("POST", f"/v1/volumes/{volume}/snapshots", {"name": name})

    def clone(self, volume, snapshot, name):
        self.next_id += 1
        clone = self.next_id
        self.call("POST", f"/v1/volumes/{volume}/snapshots/{snapshot}/clones", {
            "id": clone, "name": name, "durability": "writeback", "descriptor": ""})
        return clone

    def bench(self, export, *arguments):
        uri = f"nbd+unix:///{export}?socket={self.socket_path}"
        return measure.volbench(self.options, uri, list(arguments), [self.pid])

    def resident_mib(self):
        """Resident memory now and at its highest, in MiB."""
        values = {}
        with open(f"/proc/{self.pid}/status") as file:
            for line in file:
                if line.startswith(("VmRSS", "VmHWM")):
                    values[line[:5]] = int(line.split()[1]) / 1024
        return values["VmRSS"], values["VmHWM"]

    def written_bytes(self):
        """Bytes that the node sent to the disk since it started."""
        with open(f"/proc/{self.pid}/io") as file:
            for line in file:
                if line.startswith("write_bytes"):
                    return int(line.split()[1])
        return 0


def timed(action):
    start = time.monotonic()
    action()
    return 1000 * (time.monotonic() - start)


def spread(values):
    return f"{measure.median(values):.2f} ms ({min(values):.2f}-{max(values):.2f})"


# Sections: each returns Markdown.

def snapshot_and_clone(options):
    """Snapshot and clone latency whatever the size"""
    repeats = 5 if options.quick else 20
    node = Node(options, "latency", 4096)
    rows = []
    with running(node):
        for label, byte_count, written_mib in [
                ("1 GiB, empty", 1 << 30, 0), ("1 GiB, 256 MiB written", 1 << 30, 256),
                ("100 GiB, 1 GiB written", 100 << 30, 256 if options.quick else 1024),
                ("16 TiB, 64 MiB scattered", 16 << 40, 0)]:
            name = "v" + str(byte_count >> 30) + "-" + str(written_mib)
            volume = node.create(name, byte_count)
            if written_mib:
                node.bench(name, "--rw", "write", "--bs", "1M", "--iodepth", "4", "--runtime", "300",
                           "--number_ios", str(written_mib))
            elif byte_count > 1 << 40:
                node.bench(name, "--rw", "randwrite", "--iodepth", "32", "--runtime", "60",
                           "--number_ios", "16384")
            snapshots, clones = [], []
            for index in range(repeats):
                snapshots.append(timed(lambda: node.snapshot(volume, f"s{index}")))
                clones.append(timed(lambda: node.clone(volume, f"s{index}", f"{name}-c{index}")))
            rows.append([label, spread(snapshots), spread(clones)])
    return (f"Through the node's HTTP API, {repeats} of each; the answer comes when the change is "
            "durable.\n\n" + measure.table(["volume", "snapshot, median (range)", "clone"], rows))


def deep_reads(options):
    """Reads through 1,000 snapshots and through none"""
    count = 100 if options.quick else 1000
    size = 256 << 20
    node = Node(options, "deep", 4096, ["--cache-memory", "4MiB"])
    with running(node):
        flat = node.create("flat", size)
        deep = node.create("deep", size)
        for name in ("flat", "deep"):
            node.bench(name, "--rw", "write", "--bs", "1M", "--iodepth", "4", "--runtime", "300",
                       "--number_ios", "256")
        del flat
        for index in range(count):
            node.snapshot(deep, f"s{index}")
            node.bench("deep", "--rw", "randwrite", "--iodepth", "8", "--runtime", "30",
                       "--number_ios", "16", "--randseed", str(index))
        rows, ratios = [], []
        for round_index in range(2 if options.quick else 5):
            result = {}
            for name in ("flat", "deep"):
                arguments = ["--rw", "randread", "--iodepth", "32", "--ramp_time", "1", "--runtime",
                             "1" if options.quick else "3", "--randseed", str(round_index)]
                result[name] = node.bench(name, *arguments)
            ratios.append(result["deep"]["iops"] / result["flat"]["iops"])
            rows.append([round_index + 1] + [
                f"{measure.si(result[n]['iops'])} / "
                f"{result[n]['serverCPUMicrosecondsPerOperation']:.2f}" for n in ("flat", "deep")])
    return (f"{count} snapshots with 16 writes between each; 4 KiB random reads, QD32, the two "
            "volumes in turns.\n\n"
            + measure.table(["round", "no snapshot: IOPS / CPU us", f"{count} snapshots"], rows)
            + f"\n\nThrough {count} snapshots at {measure.median(ratios):.2f} of none "
            f"({min(ratios):.2f}-{max(ratios):.2f}).")


def many_clones(options):
    """1,000 clones of one image, opened at once"""
    import nbd
    count = 100 if options.quick else 1000
    node = Node(options, "clones", 2048)
    with running(node):
        base = node.create("base", 1 << 30)
        node.bench("base", "--rw", "write", "--bs", "1M", "--runtime", "60", "--number_ios", "64")
        node.snapshot(base, "image")
        clone_times = []
        for index in range(count):
            clone_times.append(timed(lambda: node.export(node.clone(base, "image", f"c{index}"))))
        before = node.resident_mib()[0]
        handles, open_times, read_times = [], [], []
        for index in range(count):
            handle = nbd.NBD()
            open_times.append(timed(lambda: handle.connect_uri(
                f"nbd+unix:///c{index}?socket={node.socket_path}")))
            handles.append(handle)
        for handle in handles:
            read_times.append(timed(lambda: handle.pread(4096, 4 << 20)))
        for index, handle in enumerate(handles):
            handle.pwrite(index.to_bytes(8, "little") * 512, 4 << 20)
        wrong = sum(handle.pread(4096, 4 << 20)[:8] != index.to_bytes(8, "little")
                    for index, handle in enumerate(handles))
        after = node.resident_mib()[0]
        for handle in handles:
            handle.shutdown()
    return measure.table(["", "median (range)"], [
        ["clone and export", spread(clone_times)], ["open over NBD", spread(open_times)],
        ["first read", spread(read_times)],
        [f"{count} clones open: resident memory before and after", f"{before:.0f} / {after:.0f} MiB"],
        ["clones that read another's write", wrong]])


def fresh_clone(options):
    """First write to a fresh clone and the hundredth"""
    import nbd
    repeats = 5 if options.quick else 30
    node = Node(options, "fresh", 4096)
    with running(node):
        base = node.create("base", 1 << 30)
        node.bench("base", "--rw", "write", "--bs", "1M", "--iodepth", "4", "--runtime", "300",
                   "--number_ios", "512")
        node.snapshot(base, "image")
        first, hundredth, passes = [], [], []
        for index in range(repeats):
            node.export(node.clone(base, "image", f"c{index}"))
            handle = nbd.NBD()
            handle.connect_uri(f"nbd+unix:///c{index}?socket={node.socket_path}")
            times = [timed(lambda: handle.pwrite(os.urandom(4096), 4096 * (97 * n % 131072)))
                     for n in range(100)]
            first.append(times[0])
            hundredth.append(times[99])
            handle.shutdown()
        for index in range(3):
            node.export(node.clone(base, "image", f"p{index}"))
            iops = [node.bench(f"p{index}", "--rw", "randwrite", "--iodepth", "1", "--size", "512M",
                               "--runtime", "1.5", "--randseed", str(index))["iops"] for _ in range(2)]
            passes.append(iops[0] / iops[1])
    return measure.table(["", "median (range)"], [
        [f"first 4 KiB write to a fresh clone, {repeats} clones", spread(first)],
        ["its hundredth", spread(hundredth)],
        ["IOPS of the first pass over those of the second, QD1",
         f"{measure.median(passes):.2f} ({min(passes):.2f}-{max(passes):.2f})"]])


def restart(options):
    """Restart after kill -9 with 5 million scattered blocks"""
    blocks = 200_000 if options.quick else 5_000_000
    span_mib = 8 * blocks * 4096 // 4 >> 20      # twice the blocks: half of the span gets mapped
    draws = int(0.6931 * span_mib * 256)
    node = Node(options, "restart", int(span_mib * 0.75) + 1024)
    rows = []

    def killed(map_memory, label, extra):
        """Restarts the node `extra` writes after its last restart, which ended with a checkpoint."""
        if extra:
            node.bench("v", "--rw", "randwrite", "--norandommap", "--iodepth", "32", "--runtime", "600", "--randseed",
                       str(7 + extra), "--number_ios", str(extra))
        node.kill()
        if os.path.exists(node.socket_path):
            os.unlink(node.socket_path)
        seconds = timed(node.start) / 1000
        batches = node.call("GET", "/v1/stats")["counters"]["store.batches_replayed"]
        first = node.bench("v", "--rw", "randread", "--runtime", "30", "--number_ios", "1")
        rows.append([map_memory, label, f"{batches:,}", f"{seconds:.2f} s",
                     f"{first['latencyNanoseconds']['read']['max'] / 1e6:.1f} ms",
                     f"{node.resident_mib()[1]:.0f} MiB"])

    # With little memory few pages may be dirty, and checkpoints come often; with the default
    # their distance is that of the log, and so is what a restart repeats.
    node.arguments = ["--map-memory", "16MiB"]
    with running(node):
        node.create("v", span_mib << 20)
        started = time.monotonic()
        node.bench("v", "--rw", "randwrite", "--norandommap", "--iodepth", "128", "--connections", "4", "--runtime",
                   "3000", "--number_ios", str(draws))
        load_seconds = time.monotonic() - started
        killed("16 MiB", "right after the load", 0)
        for extra in (1_000, 100_000):
            killed("16 MiB", f"after {extra:,} more writes", extra)
        node.arguments = []
        killed("256 MiB", "with more memory from now on", 0)
        for extra in (0, 1_000, 4_000, 8_000, 16_000, 100_000):
            killed("256 MiB", f"after {extra:,} more writes", extra)
    return (f"{draws:,} random writes of 4 KiB over {span_mib >> 10} GiB leave about {blocks:,} "
            f"scattered blocks ({load_seconds:.0f} s with `--map-memory 16MiB`).\n\n"
            + measure.table(["--map-memory", "kill -9", "batches repeated", "serves after",
                             "first read", "highest memory"], rows))


def write_amplification(options):
    """Write amplification at 50, 70, 80 and 90 % full"""
    store_mib = 1024 if options.quick else 4096
    rows = []
    for percent in (50, 70, 80, 90):
        node = Node(options, f"full{percent}", store_mib)
        with running(node):
            capacity = node.call("GET", "/v1/node")["space"]["capacity_byte_count"]
            size = int(capacity * percent / 100) >> 20 << 20
            node.create("v", size)
            node.bench("v", "--rw", "write", "--bs", "1M", "--iodepth", "4", "--runtime", "600",
                       "--number_ios", str(size >> 20))
            # Overwrite everything once before measuring: cleaning reaches its steady state.
            settle = size // 4096
            node.bench("v", "--rw", "randwrite", "--norandommap", "--iodepth", "32", "--runtime", "900", "--number_ios",
                       str(settle))
            before = node.written_bytes()
            result = node.bench("v", "--rw", "randwrite", "--norandommap", "--iodepth", "32", "--runtime", "900",
                                "--randseed", "5", "--number_ios", str(settle))
            written = node.written_bytes() - before
            client = result["operationCount"] * 4096
            rows.append([f"{percent} %", f"{written / client:.2f}", measure.si(result["iops"]),
                         f"{result['latencyNanoseconds']['write']['p99'] / 1e6:.1f} ms"])
        os.unlink(node.file)
    return (f"A store of {store_mib} MiB whose volume, written out, takes so much of its capacity; "
            "then random 4 KiB overwrites at QD32: as many as the volume has blocks to settle, as "
            "many again measured. Bytes to the disk from /proc/PID/io.\n\n"
            + measure.table(["full", "bytes to disk per byte written", "IOPS", "p99"], rows))


class running:
    """A node for the length of a `with`."""

    def __init__(self, node):
        self.node = node

    def __enter__(self):
        self.node.prepare()
        self.node.start()
        return self.node

    def __exit__(self, *_):
        self.node.stop()


SECTIONS = [snapshot_and_clone, deep_reads, many_clones, fresh_clone, restart, write_amplification]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    parser.add_argument("--programs", default=os.path.join(root, ".build/release"))
    parser.add_argument("--scratch", default="/var/tmp", help="where the stores go")
    parser.add_argument("--only", action="append", help="sections by pattern of their function")
    parser.add_argument("--quick", action="store_true", help="small: does it work?")
    parser.add_argument("--output", help="Markdown file to write")
    options = parser.parse_args()
    options.folder = tempfile.mkdtemp(prefix="cairn-scale-", dir=options.scratch)
    facts = measure.machine()
    command = "Bench/" + " ".join([os.path.basename(sys.argv[0])] + sys.argv[1:])
    parts = [f"# Cairn at scale\n\nWritten by `{command}` on {time.strftime('%Y-%m-%d')}: "
             f"{facts['cpu']}, {facts['cores']} cores, {facts['memory GiB']} GiB, kernel "
             f"{facts['kernel']}, load before {facts['load before']:.2f}; stores on "
             f"{measure.file_system(options.scratch)}."]
    failed = False
    try:
        for section in SECTIONS:
            if options.only and not any(fnmatch.fnmatch(section.__name__, f"*{p}*")
                                        for p in options.only):
                continue
            started = time.monotonic()
            try:
                text = section(options)
            except Exception as error:                      # the other sections still count
                text, failed = f"FAILED: {error}", True
            part = f"## {section.__doc__}\n\n{text}"
            print(f"\n{part}\n({time.monotonic() - started:.0f} s)", flush=True)
            parts.append(part)
        if options.output:
            with open(options.output, "w") as file:
                file.write("\n\n".join(parts) + "\n")
    finally:
        shutil.rmtree(options.folder, ignore_errors=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
