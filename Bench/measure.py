"""Runs volbench, and turns what it says into medians, spreads and tables."""

import json
import os
import platform
import statistics
import subprocess


def volbench(options, uri, arguments, pids=()):
    """One measurement; returns volbench's JSON document."""
    command = [os.path.join(options.programs, "volbench"), uri, "--json", *arguments]
    if "--runtime" in arguments:
        # Until the time or the number of operations is over, however small the disk.
        command.append("--time_based")
    for pid in pids:
        command += ["--server-pid", str(pid)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=900)
    if result.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{result.stdout}{result.stderr}")
    return json.loads(result.stdout)


def median(values):
    return statistics.median(values) if values else 0.0


def quartile_range(values):
    """The middle half, as half its width relative to the median, in percent."""
    if len(values) < 4:
        low, high = (min(values), max(values)) if values else (0, 0)
    else:
        quartiles = statistics.quantiles(values, n=4)
        low, high = quartiles[0], quartiles[2]
    middle = median(values)
    return 100 * (high - low) / 2 / middle if middle else 0.0


def machine():
    """What the figures depend on besides the software."""
    model = "unknown"
    with open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    with open("/proc/meminfo") as file:
        memory = int(file.readline().split()[1]) >> 20
    return {
        "cpu": model, "cores": os.cpu_count(), "memory GiB": memory,
        "kernel": platform.release(), "load before": os.getloadavg()[0],
    }


def file_system(path):
    """The file system and device that hold `path`."""
    result = subprocess.run(
        ["findmnt", "--noheadings", "--output", "FSTYPE,SOURCE,OPTIONS", "--target", path],
        capture_output=True, text=True)
    return " ".join(result.stdout.split()) or "unknown"


def si(value):
    """1234567 as 1,234,567."""
    return f"{value:,.0f}"


def table(header, rows):
    """A Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(str(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def run(command):
    """Runs a command that must succeed, quietly."""
    result = subprocess.run(command, capture_output=True, text=True, timeout=900)
    if result.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{result.stdout}{result.stderr}")
