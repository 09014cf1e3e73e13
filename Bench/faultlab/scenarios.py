"""The scenarios. `run.client` attaches and loads; a scenario returns the client that is looked at in the end."""

import os
import subprocess
import time

from .checker import now
from .client import FLUSHED, MIXED, WRITES, Mix
from .cluster import Trouble, call
from .runner import scenario

GAP_LIMIT, TAKEOVER_LIMIT, START_LIMIT = 0.050, 2.0, 5.0
# Bytes of a resync for each byte written meanwhile.
RESYNC_LIMIT = 1.2


# -- nothing wrong


@scenario("quiet", "no fault at all: what the checker and the machine make of a healthy volume")
def quiet(run):
    client = run.client()
    run.wait(4)
    run.settle(client)
    run.wait(2)
    return client


# -- a replica


def gap_around(run, client, fault, name):
    """The longest gap before a fault, and from it on, at queue depth 4."""
    run.wait(3)
    run.measure("gap before", client.gap(now() - 2_500_000_000))
    begin = now()
    fault()
    run.wait(3)
    run.measure(name, client.gap(begin), GAP_LIMIT, strict=False)


@scenario("kill-replica", "kill -9 a replica's node; started again after 3 s", arguments={"mix": MIXED})
@scenario("kill-replica-writethrough", "the same, writethrough", durability="writethrough", arguments={"mix": MIXED})
@scenario("kill-replica-gap", "4 KiB random writes, four at a time: gap when a replica's node is killed", arguments={"mix": WRITES})
def kill_replica(run, mix):
    client = run.client(mix=mix)
    gap_around(run, client, run.nodes["n2"].kill, "gap at kill")
    run.settle(client)
    run.nodes["n2"].start()
    run.measure("complete again", run.cluster.wait_complete())
    run.wait(1)
    return client


@scenario("freeze-replica", "SIGSTOP a replica's node for 6 s", arguments={"mix": MIXED})
@scenario("freeze-replica-writethrough", "the same, writethrough", durability="writethrough", arguments={"mix": MIXED})
@scenario("freeze-replica-gap", "4 KiB random writes, four at a time: gap when a replica's node is frozen", arguments={"mix": WRITES})
def freeze_replica(run, mix):
    client = run.client(mix=mix)
    gap_around(run, client, run.nodes["n2"].freeze, "gap at freeze")
    run.settle(client)
    run.wait(2)
    run.nodes["n2"].thaw()
    run.measure("complete again", run.cluster.wait_complete())
    return client


def received(program):
    """Bytes that a program has got over the TCP connections that it has now."""
    listing = subprocess.run(["ss", "-tinpHO"], capture_output=True, text=True, check=True).stdout
    words = [line.split() for line in listing.splitlines() if f"pid={program.pid}," in line]
    return sum(int(word.split(":")[1]) for line in words for word in line if word.startswith("bytes_received:"))


@scenario("resync-bytes", "a replica's node is away for 10 s of random writes: bytes that bring it back, for each that was written",
          part=64, arguments={"away": True})
@scenario("resync-bytes-frozen", "the same, frozen", part=64, arguments={"away": False})
def resync_bytes(run, away):
    client = run.client(mix=WRITES)
    run.wait(2)
    if away:
        run.nodes["n2"].kill()
    else:
        run.nodes["n2"].freeze()
    before = client.starts["write"]
    run.wait(10)
    run.settle(client, again=False)
    written = (client.starts["write"] - before) * 4096
    had = 0
    if away:
        run.nodes["n2"].start()
    else:
        had = received(run.nodes["n2"])
        run.nodes["n2"].thaw()
    run.measure("complete again", run.cluster.wait_complete())
    run.measure("bytes for each written", (received(run.nodes["n2"]) - had) / written, RESYNC_LIMIT, unit="")
    client.begin()
    run.wait(1)
    return client


@scenario("return-to-window", "a replica's node returns when some 25 MiB of the primary's window wait for it, and nobody writes")
def return_to_window(run):
    client = run.client(mix=Mix(write=100, fua=0, zero=0, trim=0, flush=0, whole=100, blocks=64, connections=2, rate=70))
    run.wait(1)
    run.nodes["n2"].kill()
    run.wait(2)
    run.settle(client, again=False)
    run.nodes["n2"].start()
    run.measure("complete again", run.cluster.wait_complete(20), 10)
    return client


@scenario("flap-replica", "a replica's node is killed and started again five times, faster than it can catch up")
def flap_replica(run):
    client = run.client()
    for _ in range(5):
        run.nodes["n2"].kill()
        run.wait(run.random.uniform(0.2, 0.8))
        run.nodes["n2"].start()
        run.wait(run.random.uniform(0.1, 1.2))
    run.settle(client)
    return client


@scenario("flap-freeze", "a replica's node is frozen and thawed twelve times")
def flap_freeze(run):
    client = run.client()
    for _ in range(12):
        run.nodes["n3"].freeze()
        run.wait(run.random.uniform(0.1, 1.4))
        run.nodes["n3"].thaw()
        run.wait(run.random.uniform(0.05, 0.5))
    run.settle(client)
    return client


@scenario("alternate-replicas", "both replicas' nodes are killed in turn, each after the other is whole again")
def alternate(run):
    client = run.client()
    for name in ("n2", "n3", "n2"):
        run.wait(1)
        run.nodes[name].kill()
        run.wait(1)
        run.nodes[name].start()
        run.cluster.wait_gone_from("complete", name, 1)
        run.cluster.wait_complete()
    run.settle(client)
    return client


@scenario("kill-during-resync", "a replica's node is killed again while it is filled")
def kill_during_resync(run):
    client = run.client()
    run.wait(1)
    for pause in (0.25, 0.5, 0.9):
        run.nodes["n2"].kill()
        run.wait(2)
        run.nodes["n2"].start()
        run.wait(pause)
    run.nodes["n2"].kill()
    run.settle(client)
    run.nodes["n2"].start()
    run.cluster.wait_complete()
    return client


@scenario("kill-source-of-resync", "a replica comes back, and the other one's node is killed while it is filled; both return")
def kill_source(run):
    client = run.client()
    run.wait(1)
    run.nodes["n2"].kill()
    run.wait(3)
    run.nodes["n2"].start()
    run.wait(0.4)
    run.nodes["n3"].kill()
    run.wait(0.2)
    run.serving(client, now(), "answer without n3", START_LIMIT)
    run.wait(1)
    run.settle(client)
    run.nodes["n3"].start()
    return client


@scenario("kill-primary-during-resync", "the primary's node is killed while a replica is filled; it comes back")
def kill_primary_during_resync(run):
    client = run.client()
    run.wait(1)
    run.nodes["n2"].kill()
    run.wait(3)
    run.nodes["n2"].start()
    run.wait(0.4)
    begin = now()
    run.nodes["n1"].kill()
    run.nodes["n1"].start()
    # n2 has not all, and n1 forgot: two of three lost memory.
    run.wait(0.05)
    run.history.memory_lost(begin)
    run.serving(client, now(), "first answer", 15)
    run.wait(1)
    run.settle(client)
    return client


@scenario("kill-two-replicas", "both replicas' nodes are killed: I/O waits, without an error, and goes on")
def kill_two_replicas(run):
    client = run.client()
    run.wait(2)
    for name in ("n2", "n3"):
        run.nodes[name].signal(9)
    for name in ("n2", "n3"):
        run.nodes[name].kill()
    run.wait(3)
    begin = now()
    for name in ("n2", "n3"):
        run.nodes[name].start()
    run.serving(client, begin, "first answer after the start", START_LIMIT)
    run.wait(1)
    run.settle(client)
    return client


@scenario("freeze-two-replicas", "both replicas' nodes are frozen for 4 s: I/O waits, without an error, and goes on")
def freeze_two_replicas(run):
    client = run.client()
    run.wait(2)
    for name in ("n2", "n3"):
        run.nodes[name].freeze()
    run.wait(4)
    begin = now()
    for name in ("n2", "n3"):
        run.nodes[name].thaw()
    run.serving(client, begin, "first answer after the thaw", START_LIMIT)
    run.wait(1)
    run.settle(client)
    return client


# -- the primary


def restart_primary(run, client, wait=0.0):
    run.nodes["n1"].kill()
    run.wait(wait)
    begin = now()
    run.nodes["n1"].start()
    took = run.serving(client, begin, "first answer after the start", START_LIMIT)
    run.history.fence(moment=begin + int(took * 1e9))


@scenario("kill-primary-restart", "the primary's node is killed and started again; the client comes back by the same URI")
@scenario("kill-primary-restart-writethrough", "the same, writethrough", durability="writethrough")
def kill_primary_restart(run):
    client = run.client()
    for _ in range(2):                     # A third death within 30 s would be a quarantine.
        run.wait(1.5)
        restart_primary(run, client, 0.3)
        run.settle(client)
        # Two memories must not be lost at once: everybody remembers again.
        run.cluster.wait_complete()
    return client


@scenario("kill-primary-quarantine", "the primary's node dies three times within 30 s: not served until the host attaches again")
def kill_primary_quarantine(run):
    client = run.client()
    for _ in range(3):
        run.wait(1)
        run.nodes["n1"].kill()
        begin = now()
        run.nodes["n1"].start()
        took = client.wait_answer(begin, 4)
        run.measure("answer", took)
        if took is not None:
            run.cluster.wait_complete()
    begin = now()
    client.uri, _ = run.cluster.attach("h1")
    run.serving(client, begin, "answer after attaching again", START_LIMIT)
    run.wait(1)
    run.settle(client)
    return client


@scenario("kill-primary-attach", "the primary's node is killed, another host attaches with --force through another node", arguments={})
@scenario("kill-primary-attach-writethrough", "the same, writethrough", durability="writethrough")
def kill_primary_attach(run):
    old = run.client("h1", "n1", WRITES)
    run.wait(2)
    begin = now()
    run.nodes["n1"].kill()
    new = run.take_over("h2", "n2", old, WRITES)
    run.serving(new, begin, "first write after the kill", TAKEOVER_LIMIT)
    run.wait(1)
    run.settle(new, MIXED)
    old.stop()
    run.nodes["n1"].start()
    run.cluster.wait_complete()
    return new


@scenario("freeze-primary-attach", "the primary's node is frozen with writes in its socket, taken over, and thawed: none may show",
          arguments={"reads": False})
@scenario("freeze-primary-stale-reads", "the same, with reads in its socket: none may be answered with what was overwritten",
          arguments={"reads": True})
@scenario("freeze-primary-attach-writethrough", "the same with writes, writethrough", durability="writethrough", arguments={"reads": False})
def freeze_primary_attach(run, reads):
    mix = Mix(write=10, fua=0, zero=0, trim=0, flush=0, depth=32) if reads else Mix(write=100, fua=5, depth=32, rate=1500)
    old = run.client("h1", "n1", mix, reconnect=True)
    run.wait(2)
    begin = now()
    run.nodes["n1"].freeze()
    new = run.take_over("h2", "n2", old, WRITES)
    run.serving(new, begin, "first write after the freeze", TAKEOVER_LIMIT)
    run.wait(2)
    run.settle(new, MIXED)
    answered = len(old.completions)
    moment = now()
    run.nodes["n1"].thaw()
    run.wait(2)
    run.settle(new)
    late = len([at for at in old.completions[answered:] if at > moment])
    run.note(f"{late} answers to the old client after the thaw")
    old.stop()
    return new


@scenario("freeze-primary-short", "the primary's node is frozen for 3 s, with nobody else interested")
def freeze_primary_short(run):
    client = run.client()
    for seconds in (0.5, 1.5, 3.0):
        run.wait(1)
        run.nodes["n1"].freeze()
        run.wait(seconds)
        begin = now()
        run.nodes["n1"].thaw()
        run.serving(client, begin, f"answer after {seconds:g} s", START_LIMIT)
    run.wait(1)
    run.settle(client)
    return client


@scenario("freeze-primary-long", "the primary's node is frozen until the metadata service finds it dead; then the host attaches again")
def freeze_primary_long(run):
    client = run.client()
    run.wait(2)
    run.nodes["n1"].freeze()
    run.wait(14)
    run.note(f"primary {run.cluster.show().get('primary')} after 14 s")
    run.nodes["n1"].thaw()
    run.wait(2)
    shown = run.cluster.show()
    run.note(f"primary {shown.get('primary')} after the thaw, {len(client.connections)} connections")
    uri, node = run.cluster.attach("h1")
    run.note(f"the host is sent to {node}")
    client.uri = uri
    run.serving(client, now(), "answer after attaching again", START_LIMIT)
    run.wait(1)
    run.settle(client)
    return client


@scenario("kill-during-takeover", "the node that takes over is killed while it does; the third takes over")
def kill_during_takeover(run):
    old = run.client("h1", "n1")
    run.wait(2)
    begin = now()
    run.nodes["n1"].kill()
    attach = run.in_background(lambda: run.cluster.attach("h2", "n2", force=True, timeout=30))
    run.wait(run.random.uniform(0.02, 0.7))
    run.nodes["n2"].kill()
    run.history.memory_lost(begin)          # Two of three lost their memory.
    run.nodes["n1"].start()
    outcome = attach()
    run.note(f"the attachment in between: {'done' if 'value' in outcome else str(outcome.get('error'))[-90:]}")
    begin = now()
    new = run.take_over("h3", "n3", old)
    run.serving(new, begin, "first answer of the third", 15)
    run.wait(1)
    run.nodes["n2"].start()
    run.settle(new)
    old.stop()
    return new


@scenario("rotate-attach", "hosts take the volume from each other through all nodes, with load from all of them")
def rotate(run):
    client = run.client("h1", "n1")
    for step in range(9):
        run.wait(run.random.uniform(0.3, 0.9))
        begin = now()
        new = run.take_over(f"h{step + 2}", f"n{(step + 1) % 3 + 1}", client)
        run.serving(new, begin, f"takeover {step + 1}", TAKEOVER_LIMIT)
        client.stop()
        client = new
    run.settle(client)
    return client


@scenario("attach-back-and-forth", "two hosts take the volume from each other, one after the other, without waiting for anything")
def back_and_forth(run):
    client = run.client("h1", "n1")
    for step in range(12):
        new = run.take_over(f"k{step}", f"n{step % 2 + 2}", client)
        run.wait(run.random.uniform(0.0, 0.2))
        client.stop()
        client = new
    run.serving(client, now(), "answer to the last", START_LIMIT)
    run.settle(client)
    return client


@scenario("kill-primary-and-replica", "the primary's and a replica's node are killed at once and return")
def kill_primary_and_replica(run):
    client = run.client(mix=FLUSHED)
    run.wait(2)
    begin = now()
    for name in ("n1", "n2"):
        run.nodes[name].signal(9)
    for name in ("n1", "n2"):
        run.nodes[name].kill()
    run.wait(1)
    run.history.memory_lost(begin)
    begin = now()
    for name in ("n1", "n2"):
        run.nodes[name].start()
    run.serving(client, begin, "first answer after the start", 15)
    run.wait(1)
    run.settle(client)
    return client


# -- everything


@scenario("kill-all", "kill -9 of all nodes: flushed writes are there, and serving within 5 s")
@scenario("kill-all-writethrough", "the same, writethrough: all that was answered is there", durability="writethrough")
def kill_all(run):
    client = run.client(mix=FLUSHED)
    for _ in range(2):
        run.wait(2)
        run.kill_all(0.2)
        begin = now()
        for program in run.nodes.values():
            program.start()
        run.serving(client, begin, "first answer after the start", START_LIMIT)
        run.settle(client)
    return client


@scenario("kill-everything", "kill -9 of all nodes and of the metadata service")
def kill_everything(run):
    client = run.client(mix=FLUSHED)
    run.wait(2)
    run.meta.kill()
    run.kill_all()
    begin = now()
    run.meta.start()
    for program in run.nodes.values():
        program.start()
    run.serving(client, begin, "first answer after the start", START_LIMIT)
    run.wait(1)
    run.settle(client)
    return client


@scenario("kill-all-twice", "kill -9 of all nodes, and again while they take over")
def kill_all_twice(run):
    client = run.client(mix=FLUSHED)
    run.wait(2)
    run.kill_all()
    for pause in (0.15, 0.5, 0.9):
        for program in run.nodes.values():
            program.start()
        run.wait(pause)
        run.kill_all()
    begin = now()
    for program in run.nodes.values():
        program.start()
    # Three deaths in a row are a quarantine, which an attachment ends.
    end = time.monotonic() + 10
    while True:
        answer = run.cluster.volctl("attach", run.cluster.volume, "--host", "h1", check=False)
        if "error" not in answer or time.monotonic() > end:
            break
        run.wait(0.1)
    if "error" in answer:
        raise Trouble(f"attaching: {answer['error']}")
    client.uri = answer["nbd_unix_uri"]
    run.serving(client, begin, "first answer after the last start", START_LIMIT)
    run.wait(1)
    run.settle(client)
    return client


@scenario("kill-all-one-late", "kill -9 of all nodes; one of them comes back 5 s after the others")
def kill_all_one_late(run):
    client = run.client(mix=FLUSHED)
    run.wait(2)
    run.kill_all()
    begin = now()
    for name in ("n1", "n3"):
        run.nodes[name].start()
    run.serving(client, begin, "first answer with two", 20)
    run.wait(5)
    run.nodes["n2"].start()
    run.settle(client)
    return client


@scenario("freeze-all", "all nodes are frozen for 4 s and thawed one after the other")
def freeze_all(run):
    client = run.client()
    run.wait(2)
    for program in run.nodes.values():
        program.freeze()
    run.wait(4)
    begin = now()
    for program in run.nodes.values():
        program.thaw()
        run.wait(0.5)
    run.serving(client, begin, "first answer after the thaw", START_LIMIT)
    run.wait(1)
    run.settle(client)
    return client


@scenario("rolling-stop", "every node is stopped in order (SIGTERM) and started again, one after the other", arguments={"kill": False})
@scenario("rolling-kill", "every node is killed and started again, one after the other", arguments={"kill": True})
def rolling(run, kill):
    client = run.client()
    for name in ("n2", "n3", "n1"):
        run.wait(1)
        run.nodes[name].kill() if kill else run.nodes[name].terminate()
        begin = now()
        run.nodes[name].start()
        run.serving(client, begin, f"answer after the start of {name}", START_LIMIT)
        run.cluster.wait_gone_from("complete", name, 1)
        run.cluster.wait_complete()
    run.settle(client)
    return client


# -- the metadata service


@scenario("kill-meta", "the metadata service is killed: I/O goes on, also when it is back")
def kill_meta(run):
    client = run.client()
    run.wait(1)
    run.meta.kill()
    begin = now()
    run.wait(6)
    run.measure("gap without metadata", client.gap(begin), 1.0)
    run.settle(client)
    run.meta.start()
    run.wait(3)
    run.settle(client)
    run.cluster.wait_complete()
    return client


@scenario("freeze-meta", "the metadata service is frozen for 12 s")
def freeze_meta(run):
    client = run.client()
    run.wait(1)
    run.meta.freeze()
    begin = now()
    run.wait(12)
    run.measure("gap without metadata", client.gap(begin), 1.0)
    run.meta.thaw()
    run.wait(3)
    run.settle(client)
    return client


@scenario("kill-replica-without-meta", "a replica's node is killed and returns while the metadata service is down: it catches up all the same")
def kill_replica_without_meta(run):
    client = run.client()
    run.wait(1)
    run.meta.kill()
    run.nodes["n2"].kill()
    run.wait(2)
    run.nodes["n2"].start()
    run.wait(4)
    run.nodes["n3"].kill()                 # n2 must count by now: otherwise I/O waits.
    run.wait(0.2)
    run.serving(client, now(), "answer with n2 in place of n3", 15)
    run.nodes["n3"].start()
    run.wait(2)
    run.settle(client)
    run.meta.start()
    run.cluster.wait_complete()
    return client


@scenario("kill-primary-without-meta", "the primary's node is killed while the metadata service is down; served when that is back")
def kill_primary_without_meta(run):
    client = run.client()
    run.wait(1)
    run.meta.kill()
    run.nodes["n1"].kill()
    run.wait(1)
    run.nodes["n1"].start()
    run.wait(3)
    begin = now()
    run.meta.start()
    run.serving(client, begin, "answer after metadata are back", 10)
    run.wait(1)
    run.settle(client)
    return client


# -- numbers of replicas


@scenario("one-replica-kill", "one replica: kill -9 and back; flushed writes are there", replicas=1, arguments={"count": 1})
@scenario("one-replica-kill-writethrough", "the same, writethrough", replicas=1, durability="writethrough", arguments={"count": 1})
def one_replica(run, count):
    client = run.client(mix=FLUSHED)
    for _ in range(2):
        run.wait(1.5)
        begin = now()
        run.nodes["n1"].kill()
        run.wait(0.05)
        run.history.memory_lost(begin)
        begin = now()
        run.nodes["n1"].start()
        run.serving(client, begin, "answer after the start", START_LIMIT)
        run.settle(client)
    return client


@scenario("two-replicas-kill", "two replicas: one node is killed; I/O waits, without an error or a loss, and goes on", replicas=2)
def two_replicas(run):
    client = run.client()
    other = next(name for name in run.cluster.replica_states() if name != "n1")
    run.wait(2)
    run.nodes[other].kill()
    run.wait(3)
    begin = now()
    run.nodes[other].start()
    run.serving(client, begin, "answer after the start", START_LIMIT)
    run.wait(1)
    run.settle(client)
    return client


@scenario("two-replicas-primary-kill", "two replicas: the primary's node is killed and returns", replicas=2)
def two_replicas_primary(run):
    client = run.client()
    run.wait(2)
    restart_primary(run, client, 0.5)
    run.wait(1)
    run.settle(client)
    return client


# -- four nodes


@scenario("primary-without-replica", "the primary is on a node that has no replica, which is killed; another one takes over", nodes=4)
def primary_without_replica(run):
    free = next(name for name in run.nodes if name not in run.cluster.show()["replicas"])
    old = run.client("h1", free)
    run.wait(2)
    begin = now()
    run.nodes[free].kill()
    new = run.take_over("h2", "n1", old)
    run.serving(new, begin, "first answer after the kill", TAKEOVER_LIMIT)
    run.wait(1)
    run.settle(new)
    old.stop()
    return new


@scenario("freeze-primary-without-replica", "the same, frozen and thawed", nodes=4)
def freeze_primary_without_replica(run):
    free = next(name for name in run.nodes if name not in run.cluster.show()["replicas"])
    old = run.client("h1", free)
    run.wait(2)
    begin = now()
    run.nodes[free].freeze()
    new = run.take_over("h2", "n1", old)
    run.serving(new, begin, "first answer after the freeze", TAKEOVER_LIMIT)
    run.wait(1)
    run.settle(new)
    run.nodes[free].thaw()
    run.wait(1.5)
    old.stop()
    return new


def moved_away(run, name, seconds=40.0):
    """Waits until a node that drains has no replica of the volume any more."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        shown = run.cluster.show()
        if name not in shown.get("replicas", [name]) and "move" not in shown:
            run.note(f"replicas are on {', '.join(shown['replicas'])}")
            return
        run.wait(0.1)
    shown = run.cluster.show()
    run.problem(f"{seconds:.0f} s after the drain: replicas {shown.get('replicas')}, move {shown.get('move')}")


def begin_drain(run, name):
    """Drains a node; returns the node that its replica moves to, as soon as that is known."""
    run.cluster.volctl("node", "drain", name)
    end = time.monotonic() + 10
    while time.monotonic() < end:
        shown = run.cluster.show()
        if "move" in shown:
            return shown["move"]["to"]
        if name not in shown["replicas"]:
            break
        time.sleep(0.02)
    run.note("the move was over before it was seen")
    return next(node for node in run.cluster.show()["replicas"] if node != name)


@scenario("drain", "a replica's node is drained under load: its replica moves, and the node is then killed", nodes=4)
@scenario("drain-writethrough", "the same, writethrough", nodes=4, durability="writethrough")
@scenario("drain-two-replicas", "the same with two replicas, where both are needed", nodes=3, replicas=2)
@scenario("drain-primary", "the node of the primary is drained: its replica moves, and it goes on serving", nodes=4, arguments={"name": "n1", "kill": False})
def drain(run, name="n2", kill=True):
    client = run.client()
    run.wait(1)
    begin_drain(run, name)
    moved_away(run, name)
    run.cluster.create(8 << 20, name="other", replicas=1)
    if name in run.cluster.show("other")["replicas"]:
        run.problem("a new volume is on a node that is draining")
    if kill:
        run.nodes[name].kill()
        run.wait(1)
        run.settle(client)
        run.nodes[name].start()
    run.cluster.wait_complete()
    run.settle(client)
    return client


@scenario("drain-kill-new", "the node that a replica moves to is killed in the middle and returns", nodes=4, arguments={"who": "new"})
@scenario("drain-kill-old", "the drained node is killed in the middle and returns", nodes=4, arguments={"who": "old"})
@scenario("drain-kill-other", "the node of the third replica is killed in the middle and returns", nodes=4, arguments={"who": "n3"})
@scenario("drain-freeze-new", "the node that a replica moves to is frozen for 3 s in the middle", nodes=4, arguments={"who": "new", "freeze": True})
@scenario("drain-freeze-old", "the drained node is frozen for 3 s in the middle", nodes=4, arguments={"who": "old", "freeze": True})
@scenario("drain-kill-meta", "the metadata service is killed in the middle of a move and started again", nodes=4, arguments={"who": "meta"})
def drain_fault(run, who, freeze=False):
    client = run.client()
    run.wait(2)
    new = begin_drain(run, "n2")
    program = run.cluster.meta if who == "meta" else run.nodes[{"new": new, "old": "n2"}.get(who, who)]
    if freeze:
        program.freeze()
        run.wait(3)
        program.thaw()
    else:
        program.kill()
        run.wait(1)
        program.start()
    moved_away(run, "n2")
    run.cluster.wait_complete()
    run.settle(client)
    return client


@scenario("drain-kill-primary", "the primary's node is killed in the middle of a move: another one takes over, and the move goes on", nodes=4)
def drain_kill_primary(run):
    old = run.client("h1", "n1")
    run.wait(2)
    begin_drain(run, "n2")
    begin = now()
    run.nodes["n1"].kill()
    new = run.take_over("h2", "n3", old)
    run.serving(new, begin, "first answer after the kill", TAKEOVER_LIMIT)
    run.nodes["n1"].start()
    moved_away(run, "n2")
    run.cluster.wait_complete()
    run.settle(new)
    old.stop()
    return new


@scenario("resize-node-down", "the volume grows while a replica's node is down")
def resize_node_down(run):
    client = run.client()
    run.wait(1)
    run.nodes["n2"].kill()
    answer = run.cluster.volctl("volume", "resize", run.cluster.volume, str(128 << 20), check=False, timeout=30)
    run.note(f"resize with n2 down: {answer['error']['code'] if 'error' in answer else 'done'}")
    run.wait(1)
    run.settle(client)
    run.nodes["n2"].start()
    run.wait(3)
    answer = run.cluster.volctl("volume", "resize", run.cluster.volume, str(128 << 20), check=False, timeout=30)
    if "error" in answer:
        run.problem(f"resize with all nodes up: {answer['error']}")
    elif run.cluster.show()["byte_count"] != 128 << 20:
        run.problem(f"the size is {run.cluster.show()['byte_count']}")
    run.cluster.wait_complete()
    run.settle(client)
    return client


@scenario("delete-node-down", "another volume is deleted while a node that has a replica of it is down; nothing of it is left")
def delete_node_down(run):
    client = run.client()
    run.cluster.create(32 << 20, name="other")
    run.wait(1)
    run.nodes["n3"].kill()
    answer = run.cluster.volctl("volume", "delete", "other", check=False, timeout=40)
    run.note(f"delete with n3 down: {answer['error']['code'] if 'error' in answer else 'done'}")
    run.settle(client)
    run.nodes["n3"].start()
    run.cluster.wait_complete()
    end, left = time.monotonic() + 12, None
    while time.monotonic() < end:
        if "error" in answer:
            answer = run.cluster.volctl("volume", "delete", "other", "--if-exists", check=False, timeout=40)
        strays = run.cluster.volctl("node", "strays", "n3", check=False).get("volumes", [])
        listed = [volume["name"] for volume in run.cluster.volctl("volume", "list").get("volumes", [])]
        left = {"strays": [stray["name"] for stray in strays], "volumes": [name for name in listed if name == "other"]}
        if not any(left.values()):
            break
        run.wait(0.5)
    if any(left.values()):
        run.problem(f"of the deleted volume there is left, 12 s after the node's return: {left}")
    return client


# -- disks


@scenario("full-file-system", "the file system below a replica's store fills up, and grows again",
          prepare=lambda run: run.cluster.small_file_system("n2", 24))
def full_file_system(run):
    client = run.client()
    run.wait(8)
    state = os.statvfs(f"{run.directory}/nodes/n2")
    run.note(f"{state.f_bavail * state.f_frsize >> 10} KiB free, n2 {run.cluster.replica_states().get('n2')}")
    run.settle(client)
    subprocess.run(["mount", "-o", "remount,size=2g", f"{run.directory}/nodes/n2"], check=True)
    run.measure("complete again", run.cluster.wait_complete(30))
    return client


def damage(run, name, count):
    """Overwrites `count` random pages of what a store's file holds, behind its first MiB."""
    path, page = run.cluster.stores[name], 4096
    with open(path, "r+b") as file:
        size, held, at = os.path.getsize(path), [], 1 << 20
        while at < size:
            try:
                begin = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:
                break
            end = os.lseek(file.fileno(), begin, os.SEEK_HOLE)
            held += range(-(-begin // page) * page, end - page + 1, page)
            at = end
        for position in run.random.sample(held, min(count, len(held))):
            os.pwrite(file.fileno(), run.random.randbytes(page), position)
        return min(count, len(held)), len(held)


@scenario("damaged-store", "200 pages of a replica's store are overwritten while its node is down: never wrong data, and no error",
          audit=False, errors=True, arguments={"count": 200})
@scenario("damaged-pages", "the same with 12 pages", audit=False, errors=True, arguments={"count": 12})
def damaged_store(run, count):
    client = run.client()
    run.wait(3)
    run.settle(client)
    run.nodes["n2"].kill()
    hit, held = damage(run, "n2", count)
    run.note(f"{hit} of {held} pages damaged")
    run.nodes["n2"].start()
    run.wait(3)
    run.note(f"n2 {'runs' if run.nodes['n2'].alive() else 'refused to start'}, states {run.cluster.replica_states()}")
    run.settle(client)
    if not run.nodes["n2"].alive():
        return client
    try:
        run.cluster.wait_complete(10)
    except Trouble as trouble:
        run.note(str(trouble))
    begin = now()
    new = run.take_over("h2", "n2", client)
    client.stop()
    took = new.wait_answer(begin, 15)
    run.note(f"through n2: first answer {'never' if took is None else f'{took:.2f} s'}")
    new.pause()
    ended = new.verify(15)
    if new.errors or not ended:
        run.problem(f"read through the damaged node: {'all read' if ended else 'not all could be read'}, errors {dict(new.errors)}")
    new.stop()
    last = run.take_over("h3", "n1", new)
    return last


@scenario("truncated-store", "a replica's store is cut to half while its node is down: others go on", audit=False)
def truncated_store(run):
    client = run.client()
    run.wait(3)
    run.nodes["n2"].kill()
    path = run.cluster.stores["n2"]
    os.truncate(path, os.path.getsize(path) // 2)
    run.nodes["n2"].start()
    run.wait(4)
    run.note(f"n2 {'runs' if run.nodes['n2'].alive() else 'refused to start'}, states {run.cluster.replica_states()}")
    run.settle(client)
    new = run.take_over("h2", "n3", client)
    client.stop()
    run.wait(1)
    return new


@scenario("wiped-store", "a replica's store is formatted anew while its node is down and comes back as lost: it must not count", audit=False)
def wiped_store(run):
    client = run.client()
    run.wait(2)
    run.settle(client)
    node, path = run.nodes["n2"], run.cluster.stores["n2"]
    node.kill()
    os.remove(path)
    subprocess.run([run.cluster.program("volnode"), "format", path, "--size", "1GiB"], check=True, capture_output=True)
    node.start()
    run.wait(1.5)
    run.note(f"with another store n2 {'runs' if node.alive() else 'refuses to start'}")
    node.kill()
    command, lost = list(node.command), None
    if "--identity" in command:
        at = command.index("--identity")
        lost = command[at + 1]
        del command[at:at + 2]
        command += ["--lost-store", lost]
    node.start(command)
    run.wait(4)
    run.note(f"as lost: n2 {'runs' if node.alive() else 'refuses to start'}, states {run.cluster.replica_states()}")
    run.settle(client)
    # The one that was emptied must not vouch for anything: without n1 nobody but n3 knows.
    begin = now()
    run.nodes["n1"].kill()
    join = run.in_background(lambda: run.take_over("h2", "n3", client))
    run.wait(3)
    run.nodes["n1"].start()
    outcome = join()
    if "error" in outcome:
        raise Trouble(f"taking over: {outcome['error']}")
    new = outcome["value"]
    run.serving(new, begin, "answer with n1 again", 20)
    client.stop()
    run.wait(1)
    return new


# -- the network


@scenario("net-quiet", "no fault, in network namespaces", net=True)
def net_quiet(run):
    client = run.client()
    run.wait(3)
    return client


@scenario("net-cut-replica", "a replica's node is cut off, both ways, for 5 s", net=True, arguments={"out": True, "into": True})
@scenario("net-cut-from-replica", "nothing comes from a replica's node for 5 s", net=True, arguments={"out": True, "into": False})
@scenario("net-cut-to-replica", "nothing reaches a replica's node for 5 s", net=True, arguments={"out": False, "into": True})
def net_cut(run, out, into):
    client = run.client(mix=WRITES)
    link = run.cluster.network.link

    def cut(value):
        for other in ("n1", "n3", "meta"):
            if out:
                link("n2", other, cut=value, both=False)
            if into:
                link(other, "n2", cut=value, both=False)
    gap_around(run, client, lambda: cut(True), "gap at the cut")
    run.settle(client, MIXED)
    run.wait(2)
    cut(False)
    run.measure("complete again", run.cluster.wait_complete())
    return client


@scenario("net-cut-primary-from-replicas", "the primary's node is cut off from both replicas for 4 s: I/O waits and goes on", net=True)
def net_cut_primary(run):
    client = run.client()
    run.wait(2)
    for other in ("n2", "n3"):
        run.cluster.network.link("n1", other, cut=True)
    run.wait(4)
    begin = now()
    for other in ("n2", "n3"):
        run.cluster.network.link("n1", other)
    run.serving(client, begin, "answer after the cut", START_LIMIT)
    run.wait(1)
    run.settle(client)
    return client


@scenario("net-isolate-primary", "the primary is cut off from everybody but its client, and taken over: it must not read or write any more", net=True,
          arguments={"healed": False})
@scenario("net-isolate-primary-healed", "the same, and the cut heals while the old client goes on", net=True, arguments={"healed": True})
def net_isolate_primary(run, healed):
    old = run.client("h1", "n1", Mix(write=40, depth=16))
    run.wait(2)
    begin = now()
    run.cluster.network.isolate("n1")
    new = run.take_over("h2", "n2", old, timeout=40)
    run.serving(new, begin, "first answer after the cut", TAKEOVER_LIMIT)
    run.wait(2)
    run.settle(new)
    if not healed:
        run.wait(3)
        old.stop()
    run.cluster.network.isolate("n1", cut=False)
    run.wait(3)
    run.settle(new)
    old.stop()
    return new


@scenario("net-cut-meta", "the primary's node is cut off from the metadata service alone for 15 s", net=True)
def net_cut_meta(run):
    client = run.client()
    run.wait(1)
    run.cluster.network.link("n1", "meta", cut=True)
    begin = now()
    run.wait(15)
    gap = client.gap(begin)
    run.measure("gap", gap)
    run.note(f"primary {run.cluster.show().get('primary')}")
    run.cluster.network.link("n1", "meta")
    run.wait(4)
    uri, node = run.cluster.attach("h1")
    run.note(f"the host is sent to {node}")
    client.uri = uri
    run.serving(client, now(), "answer after attaching again", START_LIMIT)
    run.settle(client)
    return client


@scenario("net-lossy", "5 % of all packets are lost for 8 s", net=True, arguments={"loss": 0.05})
@scenario("net-very-lossy", "20 % of all packets are lost for 8 s", net=True, arguments={"loss": 0.2})
def net_lossy(run, loss):
    client = run.client()
    run.wait(1)
    ends = run.cluster.network.ends
    for a in ends:
        for b in ends:
            if a < b:
                run.cluster.network.link(a, b, loss=loss)
    begin = now()
    run.wait(8)
    run.measure("gap", client.gap(begin))
    run.settle(client, seconds=30)
    for a in ends:
        for b in ends:
            if a < b:
                run.cluster.network.link(a, b)
    run.wait(1)
    return client


@scenario("net-slow", "every packet between nodes takes 50 ms for 8 s", net=True, arguments={"ends": ("n1", "n2", "n3")})
@scenario("net-slow-replica", "every packet to and from one replica's node takes 50 ms for 8 s: no matter", net=True, arguments={"ends": ("n2",)})
def net_slow(run, ends):
    client = run.client()
    run.wait(1)
    network = run.cluster.network
    for a in ends:
        for b in network.ends:
            if a != b:
                network.link(a, b, delay=0.05)
    begin = now()
    run.wait(8)
    run.measure("gap", client.gap(begin))
    run.settle(client)
    for a in ends:
        network.isolate(a, cut=False)
    return client


@scenario("net-half-open", "a replica's node dies while its link is cut, so that nobody hears of it, and comes back", net=True)
def net_half_open(run):
    client = run.client(mix=WRITES)

    def fault():
        run.cluster.network.isolate("n2")
        run.nodes["n2"].kill()
    gap_around(run, client, fault, "gap at the death")
    run.nodes["n2"].start()
    run.wait(1)
    run.cluster.network.isolate("n2", cut=False)
    run.settle(client, MIXED)
    run.cluster.wait_complete()
    return client


@scenario("net-flap", "the links of both replicas come and go in turn, each way for itself", net=True)
def net_flap(run):
    client = run.client()
    link = run.cluster.network.link
    for _ in range(20):
        a, b = run.random.choice([("n1", "n2"), ("n2", "n1"), ("n1", "n3"), ("n3", "n1"), ("n2", "n3")])
        link(a, b, cut=True, both=run.random.random() < 0.5)
        run.wait(run.random.uniform(0.05, 1.3))
        link(a, b)
        run.wait(run.random.uniform(0.0, 0.3))
    run.settle(client)
    return client


@scenario("net-takeover-chain", "the primary is cut off and taken over, three times round, each one healed after the next takeover", net=True)
def net_chain(run):
    client, at = run.client("h1", "n1"), 1
    for step in range(4):
        run.wait(1)
        following = at % 3 + 1
        begin = now()
        run.cluster.network.isolate(f"n{at}")
        new = run.take_over(f"h{step + 2}", f"n{following}", client, timeout=40)
        run.serving(new, begin, f"takeover {step + 1}", TAKEOVER_LIMIT, strict=False)
        run.cluster.network.isolate(f"n{at}", cut=False)
        run.wait(1.5)
        client.stop()
        client, at = new, following
        run.cluster.wait_complete()
    run.settle(client)
    return client
