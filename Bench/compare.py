#!/usr/bin/python3
"""Cairn beside other NBD servers and beside the device itself, in one session.

    Bench/compare.py [--programs .build/release] [--scratch DIR] [--runtime S] [--rounds N]
                     [--output Docs/benchmarks/nbd.md] [--only PATTERN] [--servers NAME,...]

All servers run at once, idle but for the one that is measured; every round measures each of
them once (A B C, A B C, ...), so that the machine's moods hit all alike. Figures are medians of
the rounds; ratios are medians of the rounds' own ratios, with their spread.
"""

import argparse
import fnmatch
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time

import measure
import servers


class Workload:
    """One kind of load, for all servers or some."""

    def __init__(self, name, arguments, transports=("unix", "tcp"), only=None, peers=None,
                 small=False):
        self.name = name
        self.arguments = arguments.split()
        self.transports = transports
        self.only = only                    # names of servers; None: all
        self.peers = peers                  # other arguments for all but cairn
        self.small = small                  # over 64 MiB: fits every cache

    def arguments_for(self, server):
        if server.name != "cairn" and server.name != "device" and self.peers is not None:
            return self.peers.split()
        return self.arguments


WORKLOADS = [
    Workload("4 KiB random read, QD1", "--rw randread --iodepth 1"),
    Workload("4 KiB random read, QD32", "--rw randread --iodepth 32"),
    Workload("4 KiB random read, 4xQD32", "--rw randread --iodepth 128 --connections 4"),
    # Before the random writes: a log keeps blocks in the order of their writing, and a volume
    # that was overwritten at random is read at random.
    Workload("1 MiB sequential read, QD4", "--rw read --bs 1M --iodepth 4"),
    Workload("1 MiB sequential write, QD4", "--rw write --bs 1M --iodepth 4"),
    Workload("4 KiB random write, QD1", "--rw randwrite --iodepth 1"),
    Workload("4 KiB random write, QD32", "--rw randwrite --iodepth 32"),
    Workload("4 KiB random write, 4xQD32", "--rw randwrite --iodepth 128 --connections 4"),
    Workload("4 KiB durable random write, QD1 (FUA; peers: flush after each)",
             "--rw randwrite --iodepth 1 --sync 1", peers="--rw randwrite --iodepth 1 --fsync 1"),
    Workload("4 KiB durable random write, QD32 (FUA; peers: flush after each)",
             "--rw randwrite --iodepth 32 --sync 1",
             peers="--rw randwrite --iodepth 32 --fsync 1"),
    Workload("4 KiB durable random write, QD32 (FUA everywhere)",
             "--rw randwrite --iodepth 32 --sync 1"),
    Workload("4 KiB random read of 64 MiB in memory, 4xQD32",
             "--rw randread --iodepth 128 --connections 4 --size 64M",
             only=("cairn", "nbdkit memory", "nbdkit", "nbd-server"), small=True),
]


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    parser.add_argument("--programs", default=os.path.join(root, ".build/release"))
    parser.add_argument("--scratch", default="/var/tmp", help="where the files go: the disk measured")
    parser.add_argument("--size", type=int, default=4096, help="MiB per file (default 4096)")
    parser.add_argument("--runtime", type=float, default=5, help="seconds per measurement")
    parser.add_argument("--ramp", type=float, default=1, help="seconds before each measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", action="append", help="workloads by pattern")
    parser.add_argument("--transport", choices=("unix", "tcp"))
    parser.add_argument("--servers", help="comma-separated names")
    parser.add_argument("--output", help="Markdown file to write; a .json goes beside it")
    parser.add_argument("--quick", action="store_true", help="under three minutes: fewer, shorter")
    options = parser.parse_args(arguments)
    if options.quick:
        options.size, options.runtime, options.ramp, options.rounds = 512, 1.0, 0.3, 2
        options.transport = options.transport or "unix"
        options.servers = options.servers or "cairn,qemu-nbd,device"
    return options


def choose(options):
    """The servers and workloads that were asked for and can run here."""
    classes = [servers.RawFile, servers.Cairn, servers.QEMU, servers.NBDServer, servers.NBDKit,
               servers.NBDKitMemory]
    wanted = options.servers.split(",") if options.servers else None
    chosen = [c for c in classes if servers.is_installed(c) and (not wanted or c.name in wanted)]
    for c in classes:
        if c not in chosen and not wanted:
            print(f"not installed, left out: {c.name}", file=sys.stderr)
    workloads = [w for w in WORKLOADS if not options.only
                 or any(fnmatch.fnmatch(w.name, f"*{p}*") for p in options.only)]
    return chosen, workloads


def takes_part(server, workload, transport):
    if workload.only and server.name not in workload.only:
        return False
    if isinstance(server, servers.NBDKitMemory):
        return workload.small
    if isinstance(server, servers.RawFile):
        return transport == "unix" and "--connections" not in workload.arguments
    return True


def measure_all(options, running, workloads):
    """All rounds; a list of results."""
    results = []
    for workload in workloads:
        for transport in workload.transports:
            if options.transport and transport != options.transport:
                continue
            for round_index in range(options.rounds):
                for server in running:
                    if not takes_part(server, workload, transport):
                        continue
                    arguments = workload.arguments_for(server) + [
                        "--runtime", str(options.runtime), "--ramp_time", str(options.ramp),
                        "--randseed", str(round_index + 1)]
                    if not workload.small:
                        server.before_run()
                    try:
                        document = measure.volbench(
                            options, server.uri(transport), arguments, server.pids(transport))
                    except RuntimeError as error:
                        print(f"{server.name}, {workload.name}: {error}", file=sys.stderr)
                        continue
                    document.update(workload=workload.name, transport=transport,
                                    server=server.name, round=round_index)
                    results.append(document)
                    print(f"{workload.name:60} {transport:5} {server.name:14} "
                          f"{document['iops']:10.0f} IOPS "
                          f"{document['serverCPUMicrosecondsPerOperation']:7.2f} us", flush=True)
    return results


def latency(document, point):
    kinds = document["latencyNanoseconds"]
    kind = kinds.get("read") or kinds.get("write")
    return kind[point] / 1000 if kind else 0.0


def summarise(results):
    """Markdown: one table per workload and transport."""
    keys = []
    for result in results:
        key = (result["workload"], result["transport"])
        if key not in keys:
            keys.append(key)
    sections = []
    for workload, transport in keys:
        here = [r for r in results if (r["workload"], r["transport"]) == (workload, transport)]
        names = list(dict.fromkeys(r["server"] for r in here))
        cairn = {r["round"]: r for r in here if r["server"] == "cairn"}
        rows = []
        for name in names:
            mine = [r for r in here if r["server"] == name]
            iops = [r["iops"] for r in mine]
            cpu = [r["serverCPUMicrosecondsPerOperation"] for r in mine]
            ratios = [cairn[r["round"]]["iops"] / r["iops"] for r in mine
                      if r["round"] in cairn and r["iops"] > 0]
            cpu_ratios = [
                r["serverCPUMicrosecondsPerOperation"]
                / cairn[r["round"]]["serverCPUMicrosecondsPerOperation"]
                for r in mine if r["round"] in cairn
                and cairn[r["round"]]["serverCPUMicrosecondsPerOperation"] > 0]
            is_other = name != "cairn" and ratios
            rows.append([
                name,
                f"{measure.si(measure.median(iops))} ±{measure.quartile_range(iops):.0f} %",
                f"{measure.median([r['bytesPerSecond'] for r in mine]) / 1e6:,.0f}",
                f"{measure.median([latency(r, 'p50') for r in mine]):,.0f}",
                f"{measure.median([latency(r, 'p99') for r in mine]):,.0f}",
                f"{measure.median([latency(r, 'p99.9') for r in mine]):,.0f}",
                f"{measure.median(cpu):.2f}" if name != "device" else "-",
                f"{measure.median([r['clientCPUMicrosecondsPerOperation'] for r in mine]):.2f}",
                f"{measure.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})" if is_other else "",
                f"{measure.median(cpu_ratios):.2f}" if is_other and name != "device" else "",
            ])
        sections.append(f"### {workload}, {transport}\n\n" + measure.table(
            ["server", "IOPS", "MB/s", "p50 us", "p99 us", "p99.9 us", "server CPU us/IO",
             "client CPU us/IO", "Cairn's IOPS to its", "its CPU to Cairn's"], rows))
    return "\n\n".join(sections)


def document(options, running, results, command, seconds):
    facts = measure.machine()
    lines = [
        "# Cairn beside other NBD servers", "",
        f"Written by `{command}` on {time.strftime('%Y-%m-%d')}, {seconds:.0f} s; "
        f"{options.rounds} interleaved rounds of {options.runtime:g} s after {options.ramp:g} s "
        f"of ramp, files of {options.size} MiB, client `volbench`.", "",
        f"Machine: {facts['cpu']}, {facts['cores']} cores, {facts['memory GiB']} GiB, kernel "
        f"{facts['kernel']}, load before {facts['load before']:.2f}; files on "
        f"{measure.file_system(options.scratch)}.", "",
        "IOPS are medians with half the quartile range; ratios are medians of each round's own "
        "ratio (least-most). `device` is the file itself with O_DIRECT and io_uring; its CPU is "
        "the client's. Servers and client share the machine's cores: read the ratios.", "",
        "Versions: " + "; ".join(f"{s.name}: {s.version()}" for s in running if s.version()) + ".",
        "", summarise(results), ""]
    return "\n".join(lines)


def main():
    options = parse(sys.argv[1:])
    classes, workloads = choose(options)
    started = time.monotonic()
    folder = tempfile.mkdtemp(prefix="cairn-bench-", dir=options.scratch)
    running = []
    try:
        for server_class in classes:
            server = server_class(folder, options.size << 20, options)
            server.prepare()
            running.append(server)
            server.start()
        # A volume is empty until it is written: fill Cairn's, so that reads reach the disk.
        for server in running:
            if isinstance(server, servers.Cairn):
                measure.volbench(options, server.uri("unix"), [
                    "--rw", "write", "--bs", "1M", "--iodepth", "8", "--runtime", "600",
                    "--number_ios", str(options.size)])
        results = measure_all(options, running, workloads)
        command = "Bench/" + " ".join([os.path.basename(sys.argv[0])] + sys.argv[1:])
        text = document(options, running, results, command, time.monotonic() - started)
        if options.output:
            with open(options.output, "w") as file:
                file.write(text)
            with open(os.path.splitext(options.output)[0] + ".json", "w") as file:
                json.dump(results, file, indent=1)
        else:
            print("\n" + text)
    finally:
        for server in running:
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
