#!/usr/bin/python3
"""Single faults, one at a time, with real processes.

    trials.py TRIAL --programs DIR --modules DIR --load FILE

The trials are the functions below that begin with `trial_`; each says what it proves.
"""
import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import uuid

try:
    import msgpack
    import zmq  # noqa: F401
except ImportError as error:
    print(f"skipped: {error}; needs Debian's python3-zmq and python3-msgpack")
    sys.exit(77)

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [HERE, os.path.join(ROOT, "examples", "producers", "python")]
from cluster import Cluster, Failure, show, wait_for  # noqa: E402
from crowd import Crowd  # noqa: E402
from selinon_producer import Producer  # noqa: E402

MIB = 1 << 20
FAST = ("--lease", "1s", "--beat", "200ms")
SMALL_FLOW_MAX = 3.0  # seconds; one whose dispatcher dies waits for a lease


def need(condition, text):
    if not condition:
        raise Failure(text)


def pump(producers, condition, seconds, what=None):
    """Lets producers work until the condition holds; its value. With `what` it must hold in time."""
    until = time.monotonic() + seconds
    out = []
    while not condition():
        if time.monotonic() > until:
            need(what is None, f"{seconds} s were not enough: {what}")
            break
        for producer in producers:
            out += producer.poll(0.02)
    return out


def counts(cluster):
    status = cluster.status()
    return {**status, **status.get("counts", {})}


def all_finished(results, count, what):
    need(len(results) == count, f"{len(results)} results of {count}: {what}")
    bad = [r for r in results if r.outcome != "finished"]
    need(not bad, f"{what}: {bad[:3]}")


# ---- a full disk ----

def full_disk(cluster, *settings):
    """Submits at level commit until the broker takes no more, then makes room by running tasks."""
    cluster.start_broker(*FAST, *settings)
    body = {"n": 1, "text": "x" * 10000}
    with Producer(cluster.listen) as producer:
        acknowledged = []
        producer.on_settled = acknowledged.append
        for _ in range(40):
            producer.submit_many("square", [body] * 100, level="commit")
            pump([producer], lambda: not producer.unsettled, 0.5)
            if counts(cluster)["full"]:
                break
        need(counts(cluster)["full"], "it took 40 MB: that proves nothing")
        need("journal.full" in cluster.broker.log(), "the log does not say that the journal is full")
        before = len(acknowledged)
        pump([producer], lambda: False, 3)
        need(len(acknowledged) <= before + 100, f"{len(acknowledged) - before} were acknowledged when it was full")
        need(producer.unsettled, "all is settled though nothing more is taken")
        need(cluster.broker.is_alive(), "the broker has died of it")
        shown = counts(cluster)
        need(shown["queued"] >= before - 1, f"{before} were acknowledged, {shown['queued']} are queued")
        cluster.broker.kill()  # what was acknowledged is on the disk, and a full disk is no obstacle to a start
        port = cluster.listen.rsplit(":", 1)[1]
        cluster.start_broker(*FAST, "--listen", f"tcp://127.0.0.1:{port}", *settings)
        worker = cluster.start_worker("worker", endpoint=f"tcp://127.0.0.1:{port}")
        total = len(producer.waiting) + len(producer.finished)
        results = pump([producer], lambda: not producer.waiting and not producer.unsettled, 120, "it goes on when there is room")
        all_finished(results, total, "after there was room")
        wait_for("the broker says that there is room again", lambda: not counts(cluster)["full"], 70)
    need(worker.stop() == 0, "the worker does not end in order")
    need(cluster.broker.stop() == 0, "the broker does not end in order")
    show("full disk", acknowledged_before=before, all=total)


def trial_journal_limit(cluster):
    """The journal's own limit: acks stop, a clear error, nothing acknowledged is lost, it goes on."""
    full_disk(cluster, "--journal-size-max", "16MiB", "--journal-reserve", "4MiB", "--journal-compact-min", "1MiB")


def trial_disk_full(cluster):
    """The same with a file system that is full: a small one in memory, where the test may mount."""
    os.makedirs(cluster.journal)
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", cluster.journal], check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        print(f"skipped: a file system cannot be mounted here: {done.stdout.strip()}")
        return 77
    try:
        full_disk(cluster, "--journal-reserve", "4MiB", "--journal-compact-min", "1MiB")
    finally:
        for process in cluster.processes:
            process.kill()
        subprocess.run(["umount", cluster.journal], check=True)
    return 0


# ---- a damaged journal ----

def starts(cluster):
    """(True, tasks) or (False, what it says)."""
    process = cluster.start_broker(wait=False)
    ready = os.path.join(cluster.folder, "ready")
    wait_for("it starts or ends", lambda: os.path.exists(ready) or not process.is_alive(), 30)
    if process.is_alive():
        cluster.wait_ready()
        tasks = counts(cluster)["queued"]
        process.kill()
        return True, tasks
    need(process.popen.returncode == 1, f"it ends with {process.popen.returncode}: {process.log()[-500:]}")
    return False, process.log().strip().split("\n")[-1]


def trial_damage(cluster):
    """Flipped bytes, cut and missing files: refused by name, or harmless; never silently wrong."""
    count, rng = 3000, random.Random(7)
    cluster.start_broker()
    with Producer(cluster.listen) as producer:
        producer.submit_many("square", [{"n": i, "text": "y" * 300} for i in range(count)], level="commit")
        need(producer.flush(30), "the submits are not settled")
    cluster.broker.kill()
    whole = os.path.join(cluster.folder, "whole")
    shutil.copytree(cluster.journal, whole)
    data, files = "data.mdb", [(os.path.getsize(os.path.join(whole, name)), name) for name in os.listdir(whole)]
    need(starts(cluster) == (True, count), "it does not start with an undamaged journal")
    harmless = refused = 0

    def damage(what, name, change):
        nonlocal harmless, refused
        shutil.rmtree(cluster.journal)
        shutil.copytree(whole, cluster.journal)
        path = os.path.join(cluster.journal, name)
        change(path)
        is_started, said = starts(cluster)
        if is_started:
            need(said == count, f"{name}: {what}: it starts, and has {said} tasks of {count}")
            harmless += 1
        else:
            need(cluster.journal in said, f"{name}: {what}: the error does not name the journal: {said}")
            refused += 1

    def flip(path, at):
        with open(path, "r+b") as stream:
            stream.seek(at)
            old = stream.read(1)[0]
            stream.seek(at)
            stream.write(bytes([old ^ (1 << rng.randrange(8))]))

    size = os.path.getsize(os.path.join(whole, data))
    for _ in range(40):
        at = rng.randrange(size)
        damage(f"byte {at} of {size} is changed", data, lambda path, at=at: flip(path, at))
    for size, name in files:
        for part in sorted({0, 1, size // 3, size // 2, size - 4096, size - 1}):
            if 0 <= part < size:
                damage(f"cut to {part} of {size} bytes", name, lambda path, part=part: os.truncate(path, part))
    damage("is missing", data, os.remove)
    damage("is something else", data, lambda path: open(path, "wb").write(b"no journal\n" * 5000))
    need(refused >= 10, f"only {refused} were refused")
    show("damage", refused=refused, harmless=harmless, files=len(files))


# ---- tasks that kill ----

def trial_poison(cluster):
    """A task that kills its worker ends with WorkerLost after the limit; the innocent beside it finish."""
    cluster.start_broker(*FAST, "--poison-max", "3")
    workers = [cluster.start_worker(f"worker{i}") for i in range(2)]
    with Producer(cluster.listen) as producer:
        innocent = producer.submit_many("square", [{"n": i, "sleep": 0.3} for i in range(300)], level="commit")
        bad = producer.submit("crashes", {}, level="commit")
        results = {r.id: r for r in pump([producer], lambda: not producer.waiting, 60, "all get a result")}
        need(results[bad].outcome == "failed" and results[bad].value["class"] == "WorkerLost", f"the poison: {results[bad]}")
        all_finished([results[i] for i in innocent], 300, "the innocent")
        runs = len(cluster.executions()[str(uuid.UUID(bytes=bad))])
        need(runs == 3, f"it ran {runs} times")
    need("task.lost" in cluster.broker.log(), "the log does not tell of it")
    for worker in workers:
        need(worker.stop() == 0, "a worker does not end in order")
    show("poison", runs=runs)


def trial_overflow(cluster):
    """A stack overflow fails the task with StackOverflow at its first run; the others do not notice."""
    cluster.start_broker(*FAST, "--poison-max", "3")
    cluster.start_worker("worker")
    with Producer(cluster.listen) as producer:
        innocent = producer.submit_many("square", [{"n": i, "sleep": 0.3} for i in range(100)], level="commit")
        bad = producer.submit("overflows", {}, level="commit")
        results = {r.id: r for r in pump([producer], lambda: not producer.waiting, 60, "all get a result")}
        need(results[bad].outcome == "failed" and results[bad].value["class"] == "StackOverflow", f"{results[bad]}")
        all_finished([results[i] for i in innocent], 100, "the innocent")
        runs = len(cluster.executions()[str(uuid.UUID(bytes=bad))])
        need(runs == 1, f"it ran {runs} times")
    show("overflow", runs=runs)


# ---- flows whose nodes or functions kill ----

def run_flows(producer, flow, count, **more):
    """Submits so many; their ids."""
    return [producer.run_flow(flow, {"n": n, "v": 0, **more}, level="commit") for n in range(count)]


def executions_of(cluster, task):
    """{id of a run: how often it was begun}, of runs of this task in flows."""
    runs = {}
    with open(cluster.runs_path, encoding="ascii") as stream:
        for line in stream:
            if line.split()[3] == task:
                runs[line.split()[1]] = runs.get(line.split()[1], 0) + 1
    return runs


def trial_lost_run(cluster):
    """A node that kills its worker fails with WorkerLost after the limit: the flow takes the fallback for it, or
    fails if it has none. Other flows finish."""
    cluster.start_broker(*FAST, "--poison-max", "3")
    workers = [cluster.start_worker(f"worker{i}", flows=True) for i in range(2)]
    with Producer(cluster.listen) as producer:
        innocent = run_flows(producer, "small", 100)
        rescued, = run_flows(producer, "lost", 1)
        failing, = run_flows(producer, "crashing", 1)
        results = {r.id: r for r in pump([producer], lambda: not producer.waiting, 60, "all flows end")}
        all_finished([results[i] for i in innocent], 100, "the innocent")
        nodes = results[rescued].value["finished_nodes"]
        need(results[rescued].outcome == "finished" and sorted(nodes) == ["First", "Last", "Rescue"], f"{results[rescued].value}")
        value = results[failing].value
        need(results[failing].outcome == "failed" and list(value["failed_nodes"]) == ["Crashes"], f"{value}")
        need("WorkerLost" in value["message"], f"{value}")
        runs = executions_of(cluster, "Crashes")
        need(list(runs.values()) == [3, 3], f"they ran so often: {runs}")
    need("task.lost" in cluster.broker.log(), "the log does not tell of it")
    for worker in workers:
        need(worker.stop() == 0, "a worker does not end in order")
    show("lost run", **value)


def trial_lost_dispatcher(cluster):
    """A function that kills whoever decides: the flow fails with DispatcherLost, the others go on and finish."""
    cluster.start_broker(*FAST, "--poison-max", "3")
    for i in range(2):
        cluster.start_worker(f"worker{i}", flows=True, more=["--dispatchers", "1"])
    with Producer(cluster.listen) as producer:
        innocent = run_flows(producer, "ring", 100)
        bad = run_flows(producer, "crashing_each", 2)
        innocent += run_flows(producer, "ring", 100)
        results = {r.id: r for r in pump([producer], lambda: not producer.waiting, 90, "all flows end")}
        all_finished([results[i] for i in innocent], 200, "the innocent")
        for i in bad:
            need(results[i].outcome == "failed" and results[i].value["class"] == "DispatcherLost", f"{results[i]} {results[i].value}")
        twice = {name: runs for name in ("Last", "Second") for runs in [executions_of(cluster, name)] if max(runs.values()) > 1 + 6}
        need(not twice, f"{twice}")
    show("lost dispatcher", **results[bad[0]].value)


def trial_overflowing_run(cluster):
    """A node whose stack overflows fails with StackOverflow at its first run; the flow takes the fallback."""
    cluster.start_broker(*FAST, "--poison-max", "3")
    cluster.start_worker("worker", flows=True)
    with Producer(cluster.listen) as producer:
        innocent = run_flows(producer, "small", 100)
        bad, = run_flows(producer, "overflowing", 1)
        results = {r.id: r for r in pump([producer], lambda: not producer.waiting, 60, "all flows end")}
        all_finished([results[i] for i in innocent], 100, "the innocent")
        need(sorted(results[bad].value["finished_nodes"]) == ["First", "Rescue"], f"{results[bad].value}")
        runs = executions_of(cluster, "Overflows")
        need(list(runs.values()) == [1], f"it ran so often: {runs}")
    show("overflowing run", **results[bad].value["finished_nodes"])


# ---- large flows ----

class Meanwhile:
    """One small flow after the other; how long each takes says whether anything holds others up."""

    def __init__(self, cluster):
        self.producer = Producer(cluster.listen, name="meanwhile")
        self.seconds, self.begin, self.n = [], None, 0

    def poll(self, timeout):
        if self.begin is None:
            self.begin, self.n = time.monotonic(), self.n + 1
            self.producer.run_flow("small", {"n": self.n, "v": 0}, level="commit")
        for result in self.producer.poll(timeout):
            all_finished([result], 1, "a small flow")
            self.seconds.append(time.monotonic() - self.begin)
            self.begin = None
        return []


class Large:
    """A cluster where two processes decide, and a flow of many nodes that nobody runs before `run` is called."""

    def __init__(self, cluster, count=100000):
        self.cluster, self.count = cluster, count
        cluster.start_broker(*FAST)
        self.endpoint = "tcp://127.0.0.1:" + cluster.listen.rsplit(":", 1)[1]
        self.deciders = {f"decides{i}": cluster.start_worker(f"decides{i}", flows=True, more=["--dispatchers", "1", "-Q", "celery"])
                         for i in range(2)}
        self.bulk = None
        self.meanwhile = Meanwhile(cluster)
        pump([self.meanwhile], lambda: len(self.meanwhile.seconds) >= 10, 30, "small flows end")
        self.meanwhile.seconds.clear()
        self.producer, self.begin = Producer(self.endpoint), time.monotonic()
        self.id = None
        self.submit()

    def submit(self):
        """A large flow, and what is asked for from now on is of this one."""
        self.id = self.producer.run_flow("large", {"n": 1, "v": 0, "count": self.count}, level="commit")
        pump([self.producer], lambda: not self.producer.unsettled, 10, "the flow is settled")

    def look(self):
        return self.cluster.query("flow", id=str(uuid.UUID(bytes=self.id)))

    def wait_started(self):
        pump([self.producer, self.meanwhile], lambda: self.look()["open"] == self.count, 120, "all is started")

    def run(self):
        self.bulk = self.cluster.start_worker("bulk", flows=True, slots=1000, window=8192, endpoint=self.endpoint,
                                              more=["--flows", "0", "-Q", "bulk"])

    def wait_ended(self, part):
        pump([self.producer, self.meanwhile], lambda: self.look()["open"] <= self.count * (1 - part), 120, "runs end")

    def decider(self):
        return self.deciders[self.look()["owner"].split("/")[0]]

    def stop_decision(self):
        """Lets those who decide go on by fractions of a millisecond, until between the first start and the last one;
        then kills who it was. How many were started: all, if we came too late."""
        members = {process: process.members()[1:] for process in self.deciders.values()}

        def send(number, among):
            for process in among:
                process.send(number, members[process])

        def is_under_way():
            send(signal.SIGCONT, members)
            time.sleep(0.0003)
            send(signal.SIGSTOP, members)
            time.sleep(0.005)  # what it has sent arrives
            return self.look()["open"]
        started = wait_for("it decides", is_under_way, 60, pause=0)
        victim = self.decider()
        send(signal.SIGKILL, [victim])
        send(signal.SIGCONT, [process for process in members if process is not victim])
        return started

    def kill_decider(self):
        """The worker process; its supervisor starts another."""
        process = self.decider()
        process.send(signal.SIGKILL, process.members()[1:])

    def kill_broker(self):
        self.cluster.broker.kill()
        self.cluster.start_broker(*FAST, "--listen", self.endpoint)

    def finish(self):
        results = pump([self.producer, self.meanwhile], lambda: not self.producer.waiting, 300, "the large flows end")
        seconds = time.monotonic() - self.begin
        for result in results:
            need(result.outcome == "finished" and result.value["finished_nodes"] == self.count, f"{result.outcome} {result.value}")
        self.producer.close()
        self.meanwhile.producer.close()
        for worker in (*self.deciders.values(), self.bulk):
            wait_for(f"{worker.name} lives again", lambda w=worker: len(w.members()) > 1, 60)  # a supervisor alone ends with an error
            need(worker.is_alive() and worker.stop() == 0, f"{worker.name} does not end in order")
        need(self.cluster.broker.stop() == 0, "the broker does not end in order")
        took = sorted(self.meanwhile.seconds)
        need(took[-1] < SMALL_FLOW_MAX * self.cluster.patience, f"small flows were held up: {took[-5:]} s")
        lapsed = [line for line in self.cluster.broker.log().split("\n") if "session.lapsed" in line and "bulk" in line]
        need(not lapsed, f"heartbeats were held up: {lapsed}")
        return {"flows": len(results), "nodes": self.count, "seconds": round(seconds, 1), "small_flows": len(took),
                "small_median_ms": round(took[len(took) // 2] * 1000), "small_worst_ms": round(took[-1] * 1000)}


def trial_large_flow(cluster):
    """The broker is killed in the middle of a flow of 100,000 nodes: it ends all the same, with each node once."""
    large = Large(cluster, 100000 // cluster.part)
    large.wait_started()
    large.run()
    large.wait_ended(0.3)
    large.kill_broker()
    large.wait_ended(0.6)
    large.kill_broker()
    show("large flow", **large.finish())


def trial_large_decision(cluster):
    """A dispatcher is killed in the middle of a decision of 100,000 starts, and another one while they end."""
    large = Large(cluster)  # whole: a smaller decision is over too soon to be stopped
    started = large.stop_decision()
    for _ in range(20):  # a decision takes a few milliseconds
        if started < large.count:
            break
        large.submit()
        started = large.stop_decision()
    need(started < large.count, "no decision was stopped before its end: that proves nothing")
    large.wait_started()
    large.run()
    large.wait_ended(0.4)
    large.kill_decider()
    show("large decision", started_before=started, **large.finish())


def trial_million_nodes(cluster):
    """A flow of a million nodes, started by one decision: its dispatcher is killed in the middle; nobody is held up."""
    large = Large(cluster, 1000000 // cluster.part)
    large.wait_started()
    large.run()
    large.wait_ended(0.5)
    large.kill_decider()
    show("million nodes", **large.finish())


# ---- what is lost, is told ----

def trial_memory_level(cluster):
    """Level memory and a broker that dies: what workers hold ends well, the rest is refused; none is silent."""
    count = 1000
    cluster.start_broker(*FAST)
    port = cluster.listen.rsplit(":", 1)[1]
    cluster.start_worker("worker", slots=20, window=50)
    with Producer(cluster.listen) as producer:
        producer.submit_many("square", [{"n": i, "sleep": 1.5} for i in range(count)], level="memory")
        need(producer.flush(20), "the submits are not settled")
        wait_for("tasks run", lambda: len(cluster.executions()) >= 20, 10)
        cluster.broker.kill()
        cluster.start_broker(*FAST, "--listen", f"tcp://127.0.0.1:{port}")
        results = pump([producer], lambda: not producer.waiting, 60, "all are told something")
        finished = [r for r in results if r.outcome == "finished"]
        refused = [r for r in results if r.outcome == "refused"]
        need(len(results) == count and len(finished) + len(refused) == count, f"{len(results)} results: {results[:3]}")
        need(20 <= len(finished) <= 100, f"{len(finished)} of those that the worker had have ended well")
    again = [runs for runs in cluster.executions().values() if len(runs) > 1]
    need(not again, f"ran again: {again[:3]}")
    show("memory level", finished=len(finished), refused=len(refused))


# ---- too much ----

def trial_million(cluster):
    """A million submits to a cluster without workers end in back-pressure, in bounded memory; then all run."""
    limit = 96 * MIB
    cluster.start_broker("--memory-max", str(limit) + "B", "--journal", "none")
    with Producer(cluster.listen) as producer:
        payload = msgpack.packb({"n": 1, "text": "z" * 200})
        for _ in range(1000):
            producer.submit_many("nothing", [payload] * 1000, level="memory", packed=True)
            producer.poll()
        top = 0
        last, since = -1, time.monotonic()
        while time.monotonic() - since < 3:
            producer.poll(0.05)
            top = max(top, cluster.broker.memory())
            if producer.unsettled != last:
                last, since = producer.unsettled, time.monotonic()
        shown = counts(cluster)
        need(producer.unsettled > 100000, f"it took all but {producer.unsettled}: that proves nothing")
        need(top < 1.3 * limit + 64 * MIB, f"memory_max is {limit >> 20} MiB, it has taken {top >> 20} MiB")
        begin = time.monotonic()
        cluster.status()
        need(time.monotonic() - begin < 1, "it is slow to answer")
        worker = cluster.start_worker("worker", slots=1000, window=16384)
        results = pump([producer], lambda: not producer.waiting, 120, "all are run")
        all_finished(results, 1000000, "a million")
        top = max(top, cluster.broker.memory())
        need(top < 1.3 * limit + 64 * MIB, f"memory_max is {limit >> 20} MiB, it has taken {top >> 20} MiB")
    need(worker.stop() == 0 and cluster.broker.stop() == 0, "they do not end in order")
    show("million", accepted=shown["queued"], held_back=1000000 - shown["queued"], top_mib=top >> 20)


def trial_crowd(cluster):
    """Ten thousand producers come, submit and go, half of them without a word: nothing leaks."""
    cluster.start_broker(*FAST)
    cluster.start_worker("worker")
    seen = []
    for wave in range(20):
        crowd = Crowd(cluster.address)
        for member in crowd.grow(500):
            member.submit("nothing", b"\x80", "commit")
        need(crowd.turn(lambda: crowd.settled >= 500 and crowd.finished >= 500, 60),
             f"wave {wave}: {crowd.welcomed} welcomed, {crowd.settled} settled, {crowd.finished} finished, {crowd.errors[:2]}")
        need(not crowd.errors and not crowd.refused and not crowd.cut, f"{crowd.errors[:3]} {crowd.refused} {crowd.cut}")
        for member in crowd.members[::2]:
            member.leave()
        crowd.flush()
        crowd.close()
        if wave % 5 == 4:  # those without a word are forgotten when their lease ends
            wait_for("all are forgotten", lambda: counts(cluster)["producers"] == 0, 20)
            seen.append((cluster.broker.fd_count(), cluster.broker.memory()))
    need(seen[-1][0] <= seen[0][0] + 3, f"descriptors: {[fds for fds, _ in seen]}")  # a query's may yet be open
    need(seen[-1][1] <= seen[0][1] + 6 * MIB, f"MiB after each five waves: {[m >> 20 for _, m in seen]}")
    show("crowd", producers=10000, fds=[fds for fds, _ in seen], mib=[round(memory / MIB, 1) for _, memory in seen])


def trial_large(cluster):
    """Ten thousand producers at once, each with three large submits, and no worker: back-pressure, bounded memory.

    Beside memory_max there is what each connection costs, and what connections have read ahead."""
    limit, ahead, size, count = 256 * MIB, 64 * MIB, 100000, 10000
    cluster.start_broker("--lease", "60s", "--memory-max", str(limit) + "B", "--payload-memory", "16MiB",
                         "--journal-size-max", "16GiB")
    payload = msgpack.packb(b"p" * size)
    crowd, top = Crowd(cluster.address), 0
    for _ in range(count // 500):
        crowd.grow(500)
        need(crowd.turn(lambda: crowd.welcomed >= len(crowd.members), 60), f"{crowd.welcomed} of {len(crowd.members)} are welcome")
    idle = cluster.broker.memory()
    need(idle < count * 48 * 1024, f"{count} idle connections take {idle >> 20} MiB")
    for i, member in enumerate(crowd.members):
        for _ in range(3):
            member.submit("nothing", payload, "memory", quiet=True)
        member.say()
        if i % 200 == 0:
            crowd.loop.turn(0)
            top = max(top, cluster.broker.memory())
    last, since = -1, time.monotonic()
    while time.monotonic() - since < 3:
        crowd.loop.turn(0.1)
        top = max(top, cluster.broker.memory())
        if crowd.settled != last:
            last, since = crowd.settled, time.monotonic()
    shown = counts(cluster)
    need(shown["queued"] < 3 * count, f"it took {shown['queued']} of {3 * count}: that proves nothing")
    need(top - idle < 1.25 * limit + ahead, f"memory_max is {limit >> 20} MiB, it has taken {(top - idle) >> 20} MiB more")
    need(crowd.cut == 0, f"{crowd.cut} connections were cut")
    cluster.start_worker("worker")
    need(crowd.turn(lambda: counts(cluster)["queued"] == 0, 120), "what it took is not run")
    with Producer(cluster.listen) as producer:
        producer.submit("square", {"n": 3})
        all_finished(list(producer.results(20)), 1, "afterwards")
    crowd.close()
    show("large", offered=3 * count, taken=shown["queued"], refused=crowd.refused, idle_mib=idle >> 20,
         top_mib=top >> 20,
         open=cluster.broker.fd_count())


TRIALS = {name[6:].replace("_", "-"): value for name, value in list(globals().items()) if name.startswith("trial_")}


def main():
    parser = argparse.ArgumentParser(description="Single faults with real processes.")
    parser.add_argument("trial", choices=TRIALS)
    parser.add_argument("--programs", required=True)
    parser.add_argument("--modules", required=True)
    parser.add_argument("--load", help="not used: all tests of this folder are given the same")
    parser.add_argument("--patience", type=int, default=1, help="times may be so many times as long: sanitizers are slow")
    parser.add_argument("--part", type=int, default=1, help="large flows have one node in so many")
    parser.add_argument("--keep", action="store_true", help="keep the folder")
    options = parser.parse_args()
    signal.alarm(580)
    try:
        with Cluster(options.programs, options.modules, options.keep) as cluster:
            cluster.patience, cluster.part = options.patience, options.part
            status = TRIALS[options.trial](cluster) or 0
            if options.trial not in ("poison", "overflow", "lost-run", "lost-dispatcher", "overflowing-run"):  # wrong on purpose
                cluster.check_logs()
            return status
    except Failure as failure:
        print(f"FAILED: {failure}")
        return 1


if __name__ == "__main__":
    sys.exit(main())
