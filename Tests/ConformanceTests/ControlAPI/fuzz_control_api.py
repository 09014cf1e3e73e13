#!/usr/bin/env python3
"""Fuzzes the control API with schemathesis, against Docs/openapi.yaml.

Starts volmeta and volnode from --bin on free loopback ports in a temporary directory, runs
schemathesis with all its checks (statuses, schemas, headers, rejected bad input, accepted good
input, resources gone after deletion), and stops both. schemathesis comes from PyPI into a virtual
environment that --venv keeps for the next run.

    Tests/ConformanceTests/ControlAPI/fuzz_control_api.py --bin .build/debug

Exit codes: 0 nothing found, 1 findings or a service that died, 2 wrong usage.
"""

import argparse
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

SCHEMATHESIS = "schemathesis==4.32.5"
START_SECONDS_MAX = 20
STOP_SECONDS_MAX = 15
RUN_SECONDS_MAX = 1200
REPOSITORY = pathlib.Path(__file__).resolve().parents[3]

# 422 tells a well-formed wish that this build does not serve, or an idempotency key that was used
# for another request; the schema cannot say either, so it is no rejection of good input.
CONFIGURATION = """
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "401", "403", "404", "409", "422"]
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def schemathesis(venv):
    """The program in the virtual environment, installed when it is missing."""
    program = venv / "bin" / "schemathesis"
    if not program.exists():
        subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
        pip = [str(venv / "bin" / "pip"), "install", "--quiet", SCHEMATHESIS]
        subprocess.run(pip, check=True, timeout=600)
    return program


def wait_until(what, condition):
    deadline = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < deadline:
        try:
            if condition():
                return
        except (OSError, ValueError, urllib.error.URLError):
            pass
        time.sleep(0.1)
    raise SystemExit(f"fuzz_control_api: {what} did not happen in {START_SECONDS_MAX} s")


def get(url):
    with urllib.request.urlopen(url, timeout=5) as answer:
        return json.load(answer)


def bounded_schema(directory):
    """The OpenAPI file without endless answers: a followed stream would only meet the time limit."""
    text = (REPOSITORY / "Docs" / "openapi.yaml").read_text()
    pattern = r"- \{ name: follow, in: query.*\n"
    bounded, count = re.subn(pattern, "\n", text)
    if count != 1:
        raise SystemExit("fuzz_control_api: Docs/openapi.yaml has no parameter 'follow' to bound")
    path = directory / "openapi.yaml"
    path.write_text(bounded)
    return path


class Cluster:
    """volmeta and one volnode, started here and stopped here."""

    def __init__(self, binaries, directory):
        self.binaries = binaries
        self.directory = directory
        self.processes = []
        self.url = f"http://127.0.0.1:{free_port()}"

    def start(self):
        listen = self.url.removeprefix("http://")
        self.spawn("volmeta", "run", "--data", self.directory / "meta", "--listen", listen)
        wait_until("volmeta serves", lambda: get(self.url + "/v1/health")["status"] == "ok")
        store = self.directory / "store.img"
        format_command = [self.binaries / "volnode", "format", store, "--size", "1GiB"]
        subprocess.run([str(part) for part in format_command], check=True, timeout=60)
        self.spawn(
            "volnode", "run", "--name", "n1", "--store", store,
            "--listen-nbd", f"127.0.0.1:{free_port()}",
            "--admin", f"127.0.0.1:{free_port()}", "--meta", self.url,
        )
        wait_until("volnode registers", lambda: get(self.url + "/v1/health")["nodes_up"] == 1)

    def spawn(self, *command):
        log = open(self.directory / f"{command[0]}.log", "wb")
        line = [str(self.binaries / command[0])] + [str(part) for part in command[1:]]
        self.processes.append((command[0], subprocess.Popen(line, stdout=log, stderr=log)))

    def stop(self):
        """Stops both; returns the names of those that had died or did not stop."""
        bad = [name for name, process in self.processes if process.poll() is not None]
        for name, process in reversed(self.processes):
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(STOP_SECONDS_MAX)
                except subprocess.TimeoutExpired:
                    process.kill()
                    bad.append(f"{name} (did not stop)")
        return bad


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", type=pathlib.Path, default=REPOSITORY / ".build" / "debug")
    parser.add_argument("--url", help="fuzz a service that runs already, and start nothing")
    parser.add_argument("--max-examples", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--venv", type=pathlib.Path, default=REPOSITORY / ".build" / "schemathesis"
    )
    arguments = parser.parse_args()
    arguments.bin = arguments.bin.resolve()
    arguments.venv = arguments.venv.absolute()
    for name in () if arguments.url else ("volmeta", "volnode"):
        if not os.access(arguments.bin / name, os.X_OK):
            print(f"fuzz_control_api: no {name} in {arguments.bin}; build it first with "
                  f"'swift build --product {name}'", file=sys.stderr)
            return 2
    program = schemathesis(arguments.venv)
    directory = pathlib.Path(tempfile.mkdtemp(prefix="cairn-fuzz-"))
    cluster = Cluster(arguments.bin, directory)
    status = 1
    try:
        if not arguments.url:
            cluster.start()
        configuration = directory / "schemathesis.toml"
        configuration.write_text(CONFIGURATION)
        command = [
            str(program), "--config-file", str(configuration),
            "run", str(bounded_schema(directory)), "--url", arguments.url or cluster.url,
            "--checks", "all", "--max-examples", str(arguments.max_examples),
            "--seed", str(arguments.seed), "--request-timeout", "30",
            # A made-up registration of our node points the service at nothing, and the 503 that
            # follow are right; the fuzzer in the process's own tests covers the route.
            "--exclude-operation-id", "registerNode",
        ]
        print("+", " ".join(command), flush=True)
        # It leaves a report where it runs.
        status = subprocess.run(command, cwd=directory, timeout=RUN_SECONDS_MAX).returncode
    finally:
        bad = cluster.stop()
    if status == 0 and not bad:
        shutil.rmtree(directory)
        return 0
    for name in bad:
        print(f"fuzz_control_api: {name} died", file=sys.stderr)
    print(f"fuzz_control_api: logs are kept in {directory}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
