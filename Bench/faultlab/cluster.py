"""Clusters to break: `volctl dev up` in a directory of its own, or programs started by hand in network namespaces."""

import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request

from .network import Network


class Trouble(Exception):
    """A scenario cannot go on."""


class Program:
    """One process: its command line, its pid, its log."""

    def __init__(self, name, command, pid, log, environment):
        self.name, self.command, self.pid, self.log, self.environment = name, command, pid, log, environment
        self.process = None
        self.frozen = False

    def alive(self):
        if self.pid is None:
            return False
        if self.process is not None:
            return self.process.poll() is None
        try:
            with open(f"/proc/{self.pid}/stat") as file:
                return file.read().rsplit(")", 1)[1].split()[0] != "Z"
        except OSError:
            return False

    def signal(self, number):
        if self.alive():
            os.kill(self.pid, number)

    def wait_gone(self, seconds=10.0):
        end = time.monotonic() + seconds
        while self.alive() and time.monotonic() < end:
            time.sleep(0.002)
        return not self.alive()

    def kill(self):
        self.signal(signal.SIGKILL)
        self.wait_gone()
        self.frozen = False

    def terminate(self):
        self.signal(signal.SIGTERM)
        if not self.wait_gone(10):
            raise Trouble(f"{self.name} did not stop within 10 s of SIGTERM")

    def freeze(self):
        self.signal(signal.SIGSTOP)
        self.frozen = True

    def thaw(self):
        self.signal(signal.SIGCONT)
        self.frozen = False

    def start(self, command=None):
        if self.alive():
            return
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(command or self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            start_new_session=True, env=self.environment)
        self.pid = self.process.pid


class Cluster:
    """The part that both kinds share. Nodes are n1, n2, …; `meta` is the metadata service."""

    volume = "vol"

    def __init__(self, programs, directory, nodes, store_size="1GiB"):
        self.programs, self.directory, self.count, self.store_size = os.path.abspath(programs), directory, nodes, store_size
        self.environment = dict(os.environ, XDG_CONFIG_HOME=f"{directory}/config")
        self.environment.pop("CAIRN_ENDPOINT", None)
        self.nodes, self.sockets, self.stores = {}, {}, {}
        self.meta = None
        self.mounts = []
        self.network = None
        os.makedirs(directory)

    def program(self, name):
        return os.path.join(self.programs, name)

    def volctl(self, *arguments, timeout=30, check=True):
        command = [self.program("volctl"), *arguments, *self.where(), "--json"]
        try:
            result = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=self.environment)
        except subprocess.TimeoutExpired:
            if check:
                raise Trouble(f"volctl {' '.join(arguments)}: no answer within {timeout} s")
            return {"error": {"code": "timeout", "message": f"no answer within {timeout} s"}}
        try:
            document = json.loads(result.stdout) if result.stdout.strip() else {}
        except ValueError:
            document = {}
        if result.returncode != 0 and check:
            raise Trouble(f"volctl {' '.join(arguments)}: {result.returncode} {json.dumps(document.get('error')) or result.stderr.strip()}")
        if result.returncode != 0 and "error" not in document:
            document["error"] = {"code": str(result.returncode), "message": result.stderr.strip()}
        return document

    def create(self, byte_count, replicas=3, durability="writeback", name=None, node=None):
        return self.volctl("volume", "create", name or self.volume, "--size", str(byte_count), "--replicas", str(replicas),
                           "--durability", durability, *(["--node", node] if node else []))

    def attach(self, host, via=None, force=False, name=None, timeout=30):
        answer = self.volctl("attach", name or self.volume, "--host", host, *(["--via", via] if via else []),
                             *(["--force"] if force else []), timeout=timeout)
        return answer.get("nbd_unix_uri") or answer["nbd_uri"], answer["node"]

    def show(self, name=None):
        return self.volctl("volume", "show", name or self.volume, check=False)

    def replica_states(self, name=None):
        return {replica["node"]: replica["state"] for replica in self.show(name).get("replica_states", [])}

    def wait_complete(self, seconds=25.0, nodes=None, name=None):
        """Waits until all replicas (those of `nodes`) are complete; how long it took."""
        begin = time.monotonic()
        while True:
            states = self.replica_states(name)
            if states and all(state == "complete" for node, state in states.items() if nodes is None or node in nodes):
                return time.monotonic() - begin
            if time.monotonic() - begin > seconds:
                raise Trouble(f"replicas are not complete after {seconds:.0f} s: {states}")
            time.sleep(0.1)

    def wait_gone_from(self, state, node, seconds=10.0):
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.replica_states().get(node) == state:
            time.sleep(0.1)

    def all_programs(self):
        return [program for program in [*self.nodes.values(), self.meta] if program]

    def stop_everything(self):
        for program in self.all_programs():
            program.thaw()
            program.signal(signal.SIGKILL)
        for program in self.all_programs():
            program.wait_gone(5)

    def left(self):
        """The processes that are still there."""
        return [program.pid for program in self.all_programs() if program.alive()]

    def down(self, keep=False):
        self.stop_everything()
        if self.network:
            self.network.down()
        for mount in reversed(self.mounts):
            subprocess.run(["umount", "-l", mount], capture_output=True)
        if not keep:
            shutil.rmtree(self.directory, ignore_errors=True)

    def small_file_system(self, node, mib):
        """Puts the node's directory on a file system of its own that fills up."""
        path = f"{self.directory}/nodes/{node}"
        os.makedirs(path, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m", "none", path], check=True)
        self.mounts.append(path)
        return path


class DevCluster(Cluster):
    def where(self):
        return ["--data", self.directory]

    def up(self):
        document = self.volctl("dev", "up", "--nodes", str(self.count), "--store-size", self.store_size, timeout=60)
        self.endpoint = document["endpoint"]
        self.meta = self._adopt("volmeta", document["meta"])
        for node in document["nodes"]:
            self.nodes[node["name"]] = self._adopt(node["name"], node)
            self.sockets[node["name"]], self.stores[node["name"]] = node["nbd_unix_path"], node["store"]

    def _adopt(self, name, entry):
        with open(f"/proc/{entry['pid']}/cmdline", "rb") as file:
            command = [part.decode() for part in file.read().split(b"\0")[:-1]]
        command[0] = self.program(os.path.basename(command[0]))
        return Program(name, command, entry["pid"], entry["log"], self.environment)

    def down(self, keep=False):
        if not self.nodes:
            # It failed on the way up: what it started is in its own records.
            self.volctl("dev", "down", timeout=30, check=False)
        super().down(keep)


class NetCluster(Cluster):
    """Each node, and the metadata service, in a network namespace of its own."""

    def where(self):
        return ["--endpoint", f"unix:{self.directory}/meta.sock"]

    def up(self):
        names = [f"n{index + 1}" for index in range(self.count)]
        self.network = Network(names + ["meta"])
        self.network.up()
        address = self.network.address
        endpoint = f"http://{address('meta')}:7400"
        self.meta = Program("volmeta", [
            *self.network.command("meta"), self.program("volmeta"), "run", "--data", f"{self.directory}/meta",
            "--listen", f"{address('meta')}:7400", "--unix", f"{self.directory}/meta.sock"],
            None, f"{self.directory}/volmeta.log", self.environment)
        self.meta.start()
        subprocess.run([self.program("volctl"), "certs", "create", "--out", f"{self.directory}/certs", *names],
                       check=True, capture_output=True)
        for name in names:
            home = f"{self.directory}/nodes/{name}"
            os.makedirs(home, exist_ok=True)
            self.stores[name], self.sockets[name] = f"{home}/store.img", f"{home}/nbd.sock"
            subprocess.run([self.program("volnode"), "format", self.stores[name], "--size", self.store_size],
                           check=True, capture_output=True)
            self.nodes[name] = Program(name, [
                *self.network.command(name), self.program("volnode"), "run", "--name", name, "--store", self.stores[name],
                "--listen-nbd", f"{address(name)}:10809", "--listen-nbd-unix", self.sockets[name],
                "--admin", f"{address(name)}:7401", "--listen-peer", f"{address(name)}:7402", "--meta", endpoint,
                "--peer-tls-certificates", f"{self.directory}/certs/{name}", "--map-memory", "32MiB"], None, f"{self.directory}/{name}.log", self.environment)
            self.nodes[name].start()
        end = time.monotonic() + 20
        while time.monotonic() < end:
            listed = self.volctl("node", "list", check=False).get("nodes", [])
            if sum(node.get("state") == "up" for node in listed) == self.count:
                return
            time.sleep(0.1)
        raise Trouble(f"the nodes did not register: {listed}")


def call(url, timeout=2.0):
    with urllib.request.urlopen(url, timeout=timeout) as answer:
        return json.loads(answer.read())
