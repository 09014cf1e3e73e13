#!/usr/bin/python3
"""Cairn beside every peer that is installed: starts the servers, has volbench measure, stops them.

    Bench/report [--quick] [--programs .build/release] [--scratch DIR] [--output FILE.md]
                 [--servers NAME,...]

volbench takes the figures, judges them, draws the plots and writes the report; see
Docs/volbench.md. All servers run at once, idle but for the one that is measured.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile

import measure
import servers

CLASSES = [servers.Cairn, servers.NBDKitMemory, servers.NBDKit, servers.NBDServer, servers.QEMU,
           servers.QCOW2, servers.RBD, servers.RawFile]


def parse(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    parser.add_argument("--programs", default=os.path.join(root, ".build/release"))
    parser.add_argument("--scratch", default="/var/tmp", help="where the files go: the disk measured")
    parser.add_argument("--size", type=int, default=2048, help="MiB per file")
    parser.add_argument("--seconds", type=float, default=2, help="per workload, server and round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--servers", help="comma-separated names")
    parser.add_argument("--output", default="REPORT.md", help="the report; plots go beside it")
    parser.add_argument("--quick", action="store_true", help="under three minutes: does it work?")
    options = parser.parse_args(arguments)
    if options.quick:
        options.size, options.seconds, options.rounds = 256, 0.3, 4
    return options


def notes(running, missing, folder):
    """Markdown: who serves, in which version, by which command."""
    lines = ["## Servers", "", "Each serves a file of its own over a unix socket; `device` is such a file itself.",
             "nbdkit and nbd-server go through the page cache: what they have read or written once, they",
             "have in memory, and a write that is not flushed is a copy to it.", ""]
    for server in running:
        lines.append(f"- {server.name}: {server.version() or 'O_DIRECT, io_uring'}")
    if missing:
        lines += ["", f"Not installed, left out: {', '.join(missing)}."]
    lines += ["", "```sh"]
    lines += [" ".join([os.path.basename(command[0])] + command[1:]).replace(folder, "$DIR")
              for server in running for command in server.commands]
    return "\n".join(lines + ["```", ""])


def measure_all(options, running, path):
    """One run of volbench over all of them."""
    command = [os.path.join(options.programs, "volbench"),
               "--suite=" + ("quick" if options.quick else "basic"), f"--suite-runtime={options.seconds}",
               f"--rounds={options.rounds}", f"--report={options.output}", f"--notes={path}", "--compare"]
    command += [f"{server.name}={server.uri('unix')}" for server in running]
    for server in running:
        command += [f"--server-pid={server.name}={pid}" for pid in server.pids("unix")]
    print(" ".join(command), flush=True)
    return subprocess.run(command).returncode


def main():
    options = parse(sys.argv[1:])
    wanted = options.servers.split(",") if options.servers else None
    chosen = [c for c in CLASSES if servers.is_installed(c) and (not wanted or c.name in wanted)]
    missing = [c.name for c in CLASSES if not servers.is_installed(c)]
    folder = tempfile.mkdtemp(prefix="cairn-bench-", dir=options.scratch)
    os.makedirs(os.path.dirname(os.path.abspath(options.output)), exist_ok=True)
    running = []
    try:
        for server_class in chosen:
            server = server_class(folder, options.size << 20, options)
            server.prepare()
            running.append(server)
            server.start()
        # A volume, and memory, are empty until they are written.
        for server in running:
            if isinstance(server, (servers.Cairn, servers.NBDKitMemory)):
                measure.volbench(options, server.uri("unix"), [
                    "--rw", "write", "--bs", "1M", "--iodepth", "8", "--size", "100%"])
        path = os.path.join(folder, "notes.md")
        with open(path, "w") as file:
            file.write(notes(running, missing, folder))
        return measure_all(options, running, path)
    finally:
        for server in running:
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
