"""One run of one scenario: its cluster, its clients, its result."""

import gc
import os
import random
import shutil
import threading
import time

from .checker import History, now
from .client import Client, MIXED
from .cluster import DevCluster, NetCluster, Trouble

SCENARIOS = {}


class Scenario:
    def __init__(self, function, name, text, options):
        self.function, self.name, self.text = function, name, text
        self.nodes = options.pop("nodes", 3)
        self.replicas = options.pop("replicas", 3)
        self.durability = options.pop("durability", "writeback")
        self.net = options.pop("net", False)
        self.prepare = options.pop("prepare", None)
        self.audit = options.pop("audit", True)
        self.errors = options.pop("errors", False)
        self.part_mib = options.pop("part", 16)
        self.arguments = options.pop("arguments", {})
        assert not options, options


def scenario(name, text, **options):
    """Registers a function as a scenario."""
    def register(function):
        SCENARIOS[name] = Scenario(function, name, text, dict(options))
        return function
    return register


class Run:
    """What a scenario's function works with."""

    def __init__(self, scenario, options, seed):
        self.scenario, self.options, self.seed = scenario, options, seed
        self.random = random.Random(f"{scenario.name} {seed}")
        self.directory = os.path.join(options.scratch, f"{os.getpid()}-{scenario.name}")
        shutil.rmtree(self.directory, ignore_errors=True)
        self.cluster = (NetCluster if scenario.net else DevCluster)(options.programs, self.directory, scenario.nodes)
        self.sectors = scenario.part_mib << 11
        self.clients, self.problems, self.notes, self.measures = [], [], [], []
        self.history = None
        self.begun = time.monotonic()

    # -- what scenarios call

    @property
    def nodes(self):
        return self.cluster.nodes

    @property
    def meta(self):
        return self.cluster.meta

    def note(self, text):
        self.notes.append(text)

    def problem(self, text):
        self.problems.append(f"{text} (at {time.monotonic() - self.begun:.1f} s)")

    def measure(self, name, value, limit=None, unit="s", strict=True):
        """A figure; beyond its limit it is a problem, or, not strictly, only said to be."""
        self.measures.append({"name": name, "value": value, "limit": limit, "unit": unit,
                              "met": limit is None or (value is not None and value <= limit)})
        if limit is not None and strict and (value is None or value > limit):
            self.problem(f"{name}: {'never' if value is None else f'{value:.3f} {unit}'}, limit {limit} {unit}")

    def up(self):
        self.cluster.up()
        self.cluster.create(64 << 20, self.scenario.replicas, self.scenario.durability, node="n1")
        self.history = History(self.seed & 0xFFFFFFFF, self.sectors, self.scenario.durability == "writethrough")

    def client(self, host="h1", via="n1", mix=MIXED, force=False, load=True, reconnect=True):
        uri, _ = self.cluster.attach(host, via, force)
        client = Client(host, self.history, uri, mix, self.seed, reconnect=reconnect)
        self.clients.append(client)
        if load:
            client.begin()
        return client

    def wait(self, seconds):
        time.sleep(seconds)

    def settle(self, client, mix=None, seconds=20.0, again=True):
        """Ends the load, looks at every sector, and goes on."""
        if not client.pause(seconds):
            self.problem(f"requests of {client.name} had no answer within {seconds:.0f} s: {client.last_error}")
            raise Trouble("I/O hangs")
        if not client.verify(seconds):
            self.problem(f"{client.name} could not read every sector within {seconds:.0f} s: {client.last_error} {dict(client.errors)}")
            raise Trouble("reading hangs")
        if again:
            client.begin(mix)

    def serving(self, client, since, name, limit=None, seconds=30.0, strict=True):
        """The time from `since` to the next answer to `client`."""
        took = client.wait_answer(since, seconds)
        self.measure(name, took, limit, strict=strict)
        if took is None:
            self.problem(f"{client.name} has no answer {seconds:.0f} s after {name}: {client.last_error}")
            raise Trouble("I/O hangs")
        return took

    def take_over(self, host, via, old=None, mix=MIXED, timeout=30):
        """A forced attachment; from its end on the old client's writes are out. Returns the new client."""
        begin = now()
        uri, _ = self.cluster.attach(host, via, force=True, timeout=timeout)
        if old:
            self.history.fence(old.name)
            old.expect_no_more(begin)
        client = Client(host, self.history, uri, mix, self.seed)
        self.clients.append(client)
        return client.begin()

    def in_background(self, function):
        """Runs beside the scenario; call what is returned to wait for it."""
        outcome = {}

        def work():
            try:
                outcome["value"] = function()
            except Exception as error:
                outcome["error"] = error
        thread = threading.Thread(target=work, daemon=True)
        thread.start()

        def join(seconds=40.0):
            thread.join(seconds)
            if thread.is_alive():
                raise Trouble("something in the background did not end")
            return outcome
        return join

    def kill_all(self, seconds=0.0):
        """Kills every node at once: all memory is lost."""
        begin = now()
        for program in self.nodes.values():
            program.signal(9)
        for program in self.nodes.values():
            program.kill()
        if seconds:
            self.wait(seconds)
        # Answers that were on their way are the clients' once more; then nothing can come of the old life.
        self.wait(0.05)
        self.history.memory_lost(begin)

    def audit(self, client):
        """Every sector once more through every node: all replicas must say the same."""
        client.stop()
        for node in self.cluster.show().get("replicas", []):
            if node in self.nodes and not self.nodes[node].alive():
                continue
            auditor = Client(f"audit-{node}", self.history, self.cluster.attach(f"audit-{node}", node, force=True)[0], MIXED, self.seed)
            self.history.fence()
            self.clients.append(auditor)
            if not auditor.verify(15):
                self.problem(f"the part could not be read through {node}: {auditor.last_error} {dict(auditor.errors)}")
            auditor.stop()

    # -- the run

    def execute(self):
        trouble = None
        try:
            if self.scenario.prepare:
                self.scenario.prepare(self)
            self.up()
            self.begun = time.monotonic()
            self.history.origin = now()
            last = self.scenario.function(self, **self.scenario.arguments)
            if last is not None:
                self.settle(last, again=False)
                if self.scenario.audit:
                    if self.scenario.replicas > 1:
                        self.cluster.wait_complete(25)
                    self.audit(last)
        except Trouble as error:
            trouble = str(error)
            self.problem(f"could not go on: {error}")
        except Exception as error:
            trouble = f"{type(error).__name__}: {error}"
            self.problem(f"the scenario broke: {trouble}")
            if self.options.traceback:
                raise
        finally:
            seconds = time.monotonic() - self.begun
            for client in self.clients:
                client.stop()
            errors = {}
            for client in self.clients:
                for name, number in client.errors.items():
                    errors[name] = errors.get(name, 0) + number
            # Before it is decided what is kept.
            if errors and not self.scenario.errors:
                self.problems.append(f"requests ended with errors: {errors}")
            for program in self.cluster.all_programs():
                if program.pid and not program.alive() and getattr(program, "expected", None) is None:
                    self._look_for_crash(program)
            keep = self.options.keep and (self.problems or self.options.keep == "always")
            left = []
            try:
                self.cluster.stop_everything()
                left = self.cluster.left()
            finally:
                self._save_logs()
                self.cluster.down(keep)
        if left:
            self.problem(f"processes that did not end: {left}")
        gc.enable()                     # Clients switch it off: its pauses would be taken for gaps.
        violations, count = self.history.violations() if self.history else ([], 0)
        return {
            "name": self.scenario.name, "text": self.scenario.text, "seed": self.seed, "seconds": round(seconds, 1),
            "gap": round(max([client.longest_gap() for client in self.clients] + [0.0]), 3),
            "operations": sum(len(client.completions) for client in self.clients),
            "unanswered": sum(client.unanswered for client in self.clients),
            "errors": errors, "measures": self.measures, "notes": self.notes,
            "violations": count, "violation_texts": violations, "problems": self.problems,
            "passed": not count and not self.problems,
        }

    def _look_for_crash(self, program):
        try:
            with open(program.log, "rb") as file:
                file.seek(max(0, os.path.getsize(program.log) - 8192))
                tail = file.read().decode(errors="replace")
        except OSError:
            return
        if "Fatal error" in tail or "Crash" in tail or "Precondition" in tail:
            lines = [line for line in tail.splitlines() if "Fatal error" in line or "Precondition" in line]
            self.problem(f"{program.name} crashed: {' '.join(lines)[:400]}")

    def _save_logs(self):
        if not (self.problems and self.options.logs):
            return
        target = os.path.join(self.options.logs, f"{self.scenario.name}-{self.seed}")
        os.makedirs(target, exist_ok=True)
        for program in self.cluster.all_programs():
            if os.path.exists(program.log):
                shutil.copy(program.log, target)
