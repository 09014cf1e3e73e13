"""The servers under comparison: started on files of one folder, stopped by their own pid."""

import os
import random
import shutil
import signal
import socket
import subprocess
import time

START_SECONDS_MAX = 60


def free_port():
    """A loopback port that nobody listens on, and that no outgoing connection is given."""
    for _ in range(100):
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                return port
            except OSError:
                continue
    raise SystemExit("no free port between 20000 and 32000")


def drop_file_cache(path):
    """Takes a file's clean pages out of the page cache, so that reads reach the disk."""
    with open(path, "rb") as file:
        os.fdatasync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def write_out(path, byte_count):
    """Makes a file whose every block was written once: unwritten extents cost a journal commit."""
    if os.path.exists(path) and os.path.getsize(path) == byte_count:
        return
    block = os.urandom(1 << 20)
    with open(path, "wb") as file:
        for _ in range(byte_count >> 20):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())


class Server:
    """One server process with a unix socket and a TCP port, over one file."""

    name = "server"
    export = ""
    has_fua = True
    runs_tcp_and_unix = True

    def __init__(self, folder, byte_count, options):
        self.folder = os.path.join(folder, self.name.replace(" ", "-"))
        os.makedirs(self.folder, exist_ok=True)
        self.byte_count = byte_count
        self.options = options
        self.socket_path = os.path.join(self.folder, "s")
        self.port = free_port()
        self.processes = []
        self.commands = []
        self.file = os.path.join(self.folder, "disk.img")

    def prepare(self):
        """Makes the data that is served."""
        write_out(self.file, self.byte_count)

    def launch(self, command, log="log"):
        """Starts one process of the server."""
        self.commands.append(command)
        output = open(os.path.join(self.folder, log), "ab")
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        self.processes.append(process)
        return process

    def start(self):
        raise NotImplementedError

    def wait_until_serving(self):
        """Waits until the unix socket (and the port) accept."""
        limit = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < limit:
            for process in self.processes:
                if process.poll() is not None:
                    with open(os.path.join(self.folder, "log"), errors="replace") as log:
                        raise SystemExit(f"{self.name} ended at start:\n{log.read()[-2000:]}")
            try:
                with socket.socket(socket.AF_UNIX) as probe:
                    probe.connect(self.socket_path)
                if not self.runs_tcp_and_unix:
                    return
                with socket.create_connection(("127.0.0.1", self.port), 1):
                    return
            except OSError:
                time.sleep(0.02)
        raise SystemExit(f"{self.name} does not serve after {START_SECONDS_MAX} s")

    def uri(self, transport):
        """The URI for volbench."""
        if transport == "tcp":
            return f"nbd://127.0.0.1:{self.port}/{self.export}"
        return f"nbd+unix:///{self.export}?socket={self.socket_path}"

    def pids(self, transport):
        """The processes that serve this transport."""
        return [process.pid for process in self.processes]

    def before_run(self):
        """Called before each measurement."""

    def stop(self):
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)
        self.processes = []

    def kill(self):
        for process in self.processes:
            process.kill()
            process.wait(10)
        self.processes = []

    def version(self):
        return ""


def first_line(command):
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=20)
        return (result.stdout or result.stderr).splitlines()[0].strip()
    except (OSError, IndexError, subprocess.TimeoutExpired):
        return "not installed"


class Cairn(Server):
    """A volnode without a control plane, over a store file that was written out."""

    name = "cairn"
    export = "bench"

    def __init__(self, folder, byte_count, options, arguments=(), name=None, store_factor=2.0):
        if name:
            self.name = name
        super().__init__(folder, byte_count, options)
        self.arguments = list(arguments)
        self.store_factor = store_factor
        self.admin_port = free_port()
        self.volnode = os.path.join(options.programs, "volnode")

    def prepare(self):
        if os.path.exists(self.file):
            os.unlink(self.file)
        store = int(self.byte_count * self.store_factor) & ~((1 << 20) - 1)
        subprocess.run(
            [self.volnode, "format", self.file, "--size", f"{store >> 20}MiB",
             "--preallocate", "write"],
            check=True, stdout=subprocess.DEVNULL)

    def start(self):
        self.launch([
            self.volnode, "run", "--name", "bench", "--store", self.file,
            "--listen-nbd", f"127.0.0.1:{self.port}", "--listen-nbd-unix", self.socket_path,
            "--admin", f"127.0.0.1:{self.admin_port}",
            "--volume", f"bench={self.byte_count >> 20}MiB", *self.arguments])
        self.wait_until_serving()

    def version(self):
        return first_line([self.volnode, "--version"])


class QEMU(Server):
    """qemu-nbd on a raw file, O_DIRECT and io_uring: one process per transport."""

    name = "qemu-nbd"

    def start(self):
        common = ["qemu-nbd", "--persistent", "--shared=0", "--format=raw", "--cache=none",
                  "--aio=io_uring", "--discard=unmap"]
        self.launch(common + [f"--socket={self.socket_path}", self.file])
        # Two processes may not lock one image: the second serves its own copy.
        other = self.file + ".tcp"
        write_out(other, self.byte_count)
        self.launch(common + ["--bind=127.0.0.1", f"--port={self.port}", other])
        self.wait_until_serving()

    def pids(self, transport):
        return [self.processes[1 if transport == "tcp" else 0].pid]

    def version(self):
        return first_line(["qemu-nbd", "--version"])


class QCOW2(Server):
    """qemu-nbd on a qcow2 image whose clusters were all written, over its unix socket."""

    name = "qemu-nbd qcow2"
    runs_tcp_and_unix = False

    def prepare(self):
        raw = self.file + ".raw"
        write_out(raw, self.byte_count)
        subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", "qcow2", raw, self.file], check=True)
        os.unlink(raw)

    def start(self):
        self.launch(["qemu-nbd", "--persistent", "--shared=0", "--format=qcow2", "--cache=none",
                     "--aio=io_uring", "--discard=unmap", f"--socket={self.socket_path}", self.file])
        self.wait_until_serving()

    def version(self):
        return first_line(["qemu-nbd", "--version"])


class RBD(QCOW2):
    """An image of a Ceph cluster that runs already, through qemu-nbd: CAIRN_BENCH_RBD=pool/image."""

    name = "ceph rbd"

    def prepare(self):
        pass

    def start(self):
        self.launch(["qemu-nbd", "--persistent", "--shared=0", "--format=raw", "--cache=none",
                     f"--socket={self.socket_path}", "rbd:" + os.environ["CAIRN_BENCH_RBD"]])
        self.wait_until_serving()

    def version(self):
        return first_line(["ceph", "--version"])


class NBDServer(Server):
    """The reference nbd-server; a process per connection, through the page cache."""

    name = "nbd-server"
    export = "bench"

    def __init__(self, folder, byte_count, options):
        super().__init__(folder, byte_count, options)
        self.daemon_pids = {}

    def start(self):
        # It listens on one kind of socket, and serves many clients only as a daemon.
        listeners = {"unix": f"unixsock = {self.socket_path}",
                     "tcp": f"listenaddr = 127.0.0.1\nport = {self.port}"}
        for transport, listener in listeners.items():
            path = os.path.join(self.folder, transport)
            with open(path, "w") as config:
                config.write(f"[generic]\n{listener}\n[bench]\nexportname = {self.file}\n"
                             "flush = true\nfua = true\n")
            command = ["nbd-server", "-C", path, "-p", path + ".pid"]
            self.commands.append(command)
            subprocess.run(command, check=True,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            self.daemon_pids[transport] = self.wait_for_pid(path + ".pid")
        self.wait_until_serving()

    @staticmethod
    def wait_for_pid(path):
        """The daemon's pid: it writes the file after its parent has ended."""
        limit = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < limit:
            if os.path.exists(path):
                with open(path) as file:
                    text = file.read().strip()
                if text:
                    return int(text)
            time.sleep(0.02)
        raise SystemExit("nbd-server wrote no pid file")

    def pids(self, transport):
        return [self.daemon_pids[transport]]

    def stop(self):
        for pid in self.daemon_pids.values():
            os.kill(pid, signal.SIGTERM)
        self.daemon_pids = {}

    def before_run(self):
        drop_file_cache(self.file)

    def version(self):
        return first_line(["nbd-server", "-V"])


class NBDKit(Server):
    """nbdkit's file plugin, through the page cache."""

    name = "nbdkit"

    def start(self):
        for arguments in (["--unix", self.socket_path], ["--ipaddr", "127.0.0.1", "--port", str(self.port)]):
            self.launch(["nbdkit", "--foreground", "--threads", "16", *arguments, "file", self.file])
        self.wait_until_serving()

    def pids(self, transport):
        return [self.processes[1 if transport == "tcp" else 0].pid]

    def before_run(self):
        drop_file_cache(self.file)

    def version(self):
        return first_line(["nbdkit", "--version"])


class NBDKitMemory(NBDKit):
    """nbdkit's memory plugin: what a server costs without a disk."""

    name = "nbdkit memory"

    def prepare(self):
        pass

    def before_run(self):
        pass

    def start(self):
        for arguments in (["--unix", self.socket_path], ["--ipaddr", "127.0.0.1", "--port", str(self.port)]):
            self.launch(["nbdkit", "--foreground", "--threads", "16", *arguments, "memory", str(self.byte_count)])
        self.wait_until_serving()


class RawFile(Server):
    """The file itself, O_DIRECT through io_uring: the device's own figures."""

    name = "device"

    def start(self):
        pass

    def uri(self, transport):
        return self.file

    def pids(self, transport):
        return []


def is_installed(server_class):
    if server_class is RBD:
        return "CAIRN_BENCH_RBD" in os.environ and shutil.which("qemu-nbd") is not None
    program = {QEMU: "qemu-nbd", QCOW2: "qemu-nbd", NBDServer: "nbd-server", NBDKit: "nbdkit", NBDKitMemory: "nbdkit"}
    return server_class not in program or shutil.which(program[server_class]) is not None
