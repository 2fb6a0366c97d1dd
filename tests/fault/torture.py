#!/usr/bin/python3
"""Torture: a cluster of real processes under load, killed, stopped and cut off at random, then healed.

    torture.py --programs DIR --modules DIR --load FILE [--seconds 60] [--seed N] [--deeds kill-broker,...]

`--seed` replays the schedule of deeds (what is done to whom, when; not how the processes are scheduled).
At the end: all acknowledged tasks have one final result and the right one, all acknowledged flows came to what
the engine alone comes to, everybody has answered, nothing is left at the broker but results, its memory and
descriptors are bounded. What ran more than once is told, and with
deeds that allow none (`--once`) is an error: cut connections make nothing run again (`all`), nor does a broker
that dies, but for tries of tasks that were not acknowledged yet and ended by asking for another (`ends`).
"""
import argparse
import collections
import json
import os
import random
import signal
import sys
import threading
import time
import uuid

try:
    import msgpack  # noqa: F401
    import zmq  # noqa: F401
except ImportError as error:
    print(f"skipped: {error}; needs Debian's python3-zmq and python3-msgpack")
    sys.exit(77)

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [HERE, os.path.join(ROOT, "tests", "support"), os.path.join(ROOT, "examples", "producers", "python")]
import node_producer  # noqa: E402
from cluster import Cluster, Failure, expected, show, wait_for  # noqa: E402
from flows import FLOWS, RETRIED, Oracle, differences, outcome_of, read_log  # noqa: E402
from load import variant  # noqa: E402
from proxy import Hub  # noqa: E402
from selinon_producer import Producer  # noqa: E402

# A deed, how often it is drawn, and what it is done to.
DEEDS = {
    "kill-broker": (3, "broker"), "stop-broker": (2, "broker"),
    "kill-worker": (4, "worker"), "kill-supervisor": (1, "worker"), "kill-group": (2, "worker"),
    "stop-worker": (4, "worker"), "drain-worker": (1, "worker"),
    "kill-producer": (3, "producer"), "stop-producer": (3, "producer"),
    "cut": (6, "line"), "cut-midst": (6, "line"), "half": (4, "line"), "stall": (4, "line"), "refuse": (3, "line"),
}
LEASE = 3.0        # seconds, unless --lease; a stall beyond it makes tasks run again
PRODUCERS = (("python", "commit"), ("c", "interval"), ("node", "commit"), ("c", "commit"), ("python", "interval"))
NUMBERS = 200000   # for each producer process: their squares fit into 53 bits


class Torture:
    def __init__(self, options, cluster, hub, node):
        self.options, self.cluster, self.hub, self.node = options, cluster, hub, node
        self.rng = random.Random(options.seed)
        self.workers, self.producers = [], []   # [name, proxy, process, ...]
        self.logs = []                          # paths, of all producer processes there were
        self.counts = collections.Counter()
        self.timers = []
        self.started = 0

    # ---- who takes part ----

    def start(self):
        self.start_broker()
        for i in range(self.options.workers):
            proxy = self.hub.new_proxy()
            self.workers.append([f"worker{i}", proxy, self.start_worker(f"worker{i}", proxy)])
        for i, (language, level) in enumerate(PRODUCERS[:self.options.producers]):
            if language == "node" and self.node is None:
                language = "python"
            entry = [f"{language}{i}", self.hub.new_proxy(), None, language, level, None]
            self.producers.append(entry)
            self.start_producer(entry)

    def start_broker(self):
        self.cluster.start_broker("--lease", f"{self.options.lease * 1000:.0f}ms", "--beat", "500ms", "--poison-max", "15", "--result-max", "10000000",
                                  "--result-bytes-max", "2GiB", "--memory-max", "4GiB", "--journal-compact-min", "4MiB",
                                  "--interval", "50ms", "--name", "tortured")
        self.hub.target = self.cluster.address

    def start_worker(self, name, proxy):
        """Threads run tasks and decide flows, or some do only this, or all only that."""
        more, threads = ["--drain-timeout", "5"], 1 + self.rng.randrange(2)
        if self.options.flows and name == "worker1":
            more += ["--dispatchers", "1"]
        elif self.options.flows and name == "worker2":
            more += ["--flows", "5"]
        return self.cluster.start_worker(name, proxy.endpoint, threads=threads, flows=bool(self.options.flows), more=more)

    def start_producer(self, entry):
        name, proxy, _, language, level, _ = entry
        log = os.path.join(self.cluster.folder, f"{name}.{self.started}.txt")
        command = {"python": [sys.executable, os.path.join(HERE, "load.py")], "c": [self.options.load],
                   "node": ["node", os.path.join(HERE, "load.mjs"), os.path.join(self.node or "", "selinon_producer.mjs")]}
        entry[2] = self.cluster.start(name, [
            *command[language], "--broker", proxy.endpoint, "--log", log, "--level", level, "--rate", str(self.options.rate),
            "--first", str(self.started * NUMBERS), *(["--flows", ",".join(self.options.flows)] if self.options.flows else [])])
        self.started += 1
        self.logs.append(log)
        entry[5] = log

    # ---- what is done to them ----

    def schedule(self):
        """[(when, deed, target, how long, number)]: all that is drawn, so that a seed replays it."""
        names = [d for d in (DEEDS if self.options.deeds is None else self.options.deeds) for _ in range(DEEDS[d][0])]
        out, at = [], 0.0
        if not names:
            return out
        while True:
            at += self.rng.expovariate(self.options.pace)
            if at >= self.options.seconds:
                return out
            deed = self.rng.choice(names)
            kind = DEEDS[deed][1]
            count = {"broker": 1, "worker": self.options.workers, "producer": self.options.producers,
                     "line": self.options.workers + self.options.producers}[kind]
            how_long = min(self.rng.expovariate(1.5), self.options.longest)
            out.append((at, deed, self.rng.randrange(count), how_long, self.rng.randrange(1, 20000)))

    def do(self, deed, target, how_long, number):
        self.counts[deed] += 1
        kind = DEEDS[deed][1]
        if kind == "line":
            self.do_line(deed, (self.workers + self.producers)[target][1], how_long, number)
        elif kind == "broker":
            self.do_broker(deed, how_long)
        else:
            self.do_process(deed, (self.workers if kind == "worker" else self.producers)[target], how_long)

    def do_line(self, deed, proxy, how_long, number):
        if deed == "cut":
            self.hub.cut(proxy)
        elif deed == "cut-midst":
            self.hub.cut_after(proxy, number)
        elif deed == "half":
            self.hub.half_close(proxy, number % 2 == 0)
        elif deed == "stall":
            self.hub.stall(proxy, how_long)
        else:
            self.hub.refuse(proxy, how_long)

    def do_broker(self, deed, how_long):
        if deed == "kill-broker":
            self.cluster.broker.kill()
            time.sleep(min(how_long, 0.5))
            self.start_broker()
        else:
            self.pause(self.cluster.broker, how_long, self.cluster.broker.members())

    def do_process(self, deed, entry, how_long):
        process = entry[2]
        members = process.members()
        if deed in ("stop-worker", "stop-producer"):
            self.pause(process, how_long, members[1:] or members)
            return
        if deed == "kill-worker":  # its supervisor starts it again
            process.send(signal.SIGKILL, members[1:])
            return
        if deed == "drain-worker":
            process.send(signal.SIGCONT)
            process.send(signal.SIGTERM, members[:1])
            wait_for(f"{entry[0]} ends after SIGTERM", lambda: not process.is_alive(), 30)
        elif deed == "kill-supervisor":
            process.send(signal.SIGKILL, members[:1])
            time.sleep(0.2)
        process.kill()
        self.cluster.forget(process)
        if deed == "kill-producer":
            self.start_producer(entry)
        else:
            entry[2] = self.start_worker(entry[0], entry[1])

    def pause(self, process, how_long, pids):
        process.send(signal.SIGSTOP, pids)
        timer = threading.Timer(how_long, process.send, (signal.SIGCONT, pids))
        timer.start()
        self.timers.append(timer)

    def rage(self):
        begin = time.monotonic()
        for at, deed, target, how_long, number in self.schedule():
            time.sleep(max(0.0, begin + at - time.monotonic()))
            if self.options.verbose:
                print(f"{time.monotonic() - begin:7.3f} {deed} {target} {how_long:.3f}", flush=True)
            self.do(deed, target, how_long, number)
            self.check_alive()
        time.sleep(max(0.0, begin + self.options.seconds - time.monotonic()))

    def check_alive(self):
        """Nobody dies but by our hand."""
        for entry in (*self.workers, *self.producers, ("broker", None, self.cluster.broker)):
            if not entry[2].is_alive():
                raise Failure(f"{entry[0]} has ended by itself with {entry[2].popen.returncode}")

    def heal(self):
        for timer in self.timers:
            timer.join()
        self.hub.heal()
        for entry in (*self.workers, *self.producers):
            entry[2].send(signal.SIGCONT)
        self.cluster.broker.send(signal.SIGCONT)

    # ---- how it ends ----

    def finish(self):
        """All producers get what they wait for, and end."""
        for entry in self.producers:
            wait_for(f"{entry[0]} listens to signals", lambda e=entry: os.path.exists(e[5]), 20)
            entry[2].popen.terminate()
        for entry in self.producers:
            wait_for(f"{entry[0]} has all its results", lambda p=entry[2]: not p.is_alive(), 90)
            if entry[2].popen.returncode != 0:
                raise Failure(f"{entry[0]} ends with {entry[2].popen.returncode}")
            self.cluster.forget(entry[2])

    def read_logs(self):
        """id: (task, n) of all that were acknowledged; id: (outcome, value) of all results."""
        settled, results = {}, {}
        for path in self.logs:
            if not os.path.exists(path):
                continue
            with open(path, encoding="utf-8") as stream:
                lines = stream.read().split("\n")
            for line in lines[:-1]:  # the last one is empty, or was cut by SIGKILL
                kind, id_, first, rest = line.split(" ", 3)
                if kind == "S":
                    settled[id_] = first, int(rest)
                elif id_ in results:
                    raise Failure(f"{id_} has two results: {results[id_]} and {first} {rest}")
                else:
                    results[id_] = first, json.loads(rest)
        return settled, results

    def watch(self, ids):
        """What the broker says now: id: (outcome, value)."""
        out = {}
        with Producer(self.cluster.listen, name="judge") as producer:
            left = list(ids)
            until = time.monotonic() + 90
            while left or producer.waiting:
                while left and len(producer.waiting) < 10000:
                    producer.watch(uuid.UUID(left.pop()).bytes)
                for result in producer.poll(0.1):
                    out[str(uuid.UUID(bytes=result.id))] = result.outcome, result.value
                if time.monotonic() > until:
                    raise Failure(f"{len(producer.waiting)} results do not come: "
                                  f"{[str(uuid.UUID(bytes=i)) for i in list(producer.waiting)[:3]]}")
        return out

    def judge(self):
        settled, results = self.read_logs()
        told = self.watch(settled)
        wrong = []
        for id_, (task, n) in settled.items():
            outcome, value = told[id_]
            if outcome == "refused":
                wrong.append(f"{id_} ({task} {n}) was acknowledged and is lost: {value}")
            elif task not in self.options.flows and not expected(task, n, outcome, value):
                wrong.append(f"{id_} ({task} {n}) ends wrongly: {outcome} {value}")
            elif id_ in results and results[id_] != (outcome, value):
                wrong.append(f"{id_} has two results: {results[id_]} and {(outcome, value)}")
        for id_, (outcome, value) in results.items():
            if outcome == "refused":
                wrong.append(f"{id_} was refused: {value}")
        if wrong:
            raise Failure(f"{len(wrong)} tasks are wrong:\n" + "\n".join(wrong[:20]))
        if len(settled) < 100 * self.options.producers:
            raise Failure(f"only {len(settled)} tasks were acknowledged: that proves nothing")
        return settled, told, len(results)

    def judge_flows(self, settled, told):
        """When all has ended, what nobody waited for too."""
        oracle = Oracle(self.options.programs, self.options.modules, self.cluster.folder)
        runs, begun = read_log(self.cluster.runs_path)
        wrong, count, run_count = [], 0, 0
        for id_, (flow, n) in settled.items():
            if flow not in self.options.flows:
                continue
            v = variant(n, self.options.flows)
            try:
                different = differences(outcome_of(*told[id_], runs[n]), oracle.outcome(flow, v))
            except (KeyError, TypeError) as error:
                different = f"{type(error).__name__} {error}: {told[id_]}"
            if different:
                wrong.append(f"{id_} ({flow}, n {n}, v {v}): {different}")
            count, run_count = count + 1, run_count + len(runs[n])
        if wrong:
            raise Failure(f"{len(wrong)} flows of {count} came to something else:\n" + "\n".join(wrong[:10]))
        again = [key for key, times in begun.items() if times > 1]
        wrong = again if self.options.once == "all" else [key for key in again if key[1] not in RETRIED] if self.options.once else []
        if wrong:
            raise Failure(f"{len(wrong)} runs of flows ran again: {wrong[:5]}")
        return {"flows": count, "runs": run_count, "ran_again": len(again), "outcomes": len(oracle.known)}

    def count_executions(self, settled):
        """How many tasks ran a try more than once: (the one that ended it, one that asked for another)."""
        ends, tries, never = [], [], []
        runs = self.cluster.executions()
        for id_, (task, _) in settled.items():
            if task in self.options.flows:
                continue
            last = 2 if task == "hesitates" else 0
            counts = collections.Counter(number for _, _, number, _ in runs.get(id_, ()))
            if counts[last] > 1:
                ends.append(id_)
            elif any(count > 1 for count in counts.values()):
                tries.append(id_)
            if sorted(counts) != list(range(last + 1)):
                never.append(id_)
        if never:
            raise Failure(f"{len(never)} tasks have results and never ran all their tries: {never[:5]}")
        wrong = ends + tries if self.options.once == "all" else ends if self.options.once == "ends" else []
        if wrong:
            raise Failure(f"{len(wrong)} tasks ran again: " + "; ".join(f"{i} {runs[i]}" for i in wrong[:5]))
        return len(ends), len(tries)

    def check_empty(self):
        """Nothing is left at the broker but results."""
        def is_empty():
            status = self.cluster.status()
            counts = status.get("counts", status)
            return all(counts[key] == 0 for key in ("queued", "waiting", "delivered"))
        wait_for("the broker has no open task", is_empty, 60)
        for state in ("held", "waiting", "queued", "running"):
            left = self.cluster.cli("flows", "--state", state)
            if left:
                raise Failure(f"{len(left)} flows are {state} when all have ended: {left[:3]}")

    def check_broker(self, fds_before):
        """All end in order, and leave nothing open."""
        for name, _, process in self.workers:
            status = process.stop(30)
            if status != 0:
                raise Failure(f"{name} ends with {status} after SIGTERM")
        wait_for("the broker has closed its connections", lambda: self.cluster.broker.fd_count() <= fds_before + 2, 20)
        if self.cluster.broker.stop() != 0:
            raise Failure("the broker does not end in order")

    def run(self):
        self.start()
        fds_before = self.cluster.broker.fd_count()  # some may have connected: then the check is the sharper
        time.sleep(0.5)
        self.rage()
        self.heal()
        begin = time.monotonic()
        self.finish()
        healed = time.monotonic() - begin
        settled, told, results = self.judge()
        ends, tries = self.count_executions(settled)
        self.check_empty()
        flows = self.judge_flows(settled, told) if self.options.flows else {}
        self.cluster.check_logs()
        memory, fds = self.cluster.broker.memory(), self.cluster.broker.fd_count()
        self.check_broker(fds)
        show("deeds", **self.counts)
        show("connections", **self.hub.counts)
        if flows:
            show("flows", **flows)
        show("torture", seed=self.options.seed, acknowledged=len(settled), results=results, ran_again=ends, tried_again=tries,
             producers=self.started, seconds_to_heal=round(healed, 1), broker_mib=memory >> 20,
             broker_fds=fds, fds_before=fds_before)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--programs", required=True)
    parser.add_argument("--modules", required=True)
    parser.add_argument("--load", required=True)
    parser.add_argument("--node", help="folder for the Node producer; none: it does not take part")
    parser.add_argument("--seconds", type=float, help="as long is it done; else SEL_FAULT_SECONDS, or 60 divided by --part")
    parser.add_argument("--part", type=int, default=1)
    parser.add_argument("--seed", type=int, default=int(os.environ.get("SEL_FAULT_SEED", "0")), help="0: a new one")
    parser.add_argument("--pace", type=float, default=2.0, help="deeds a second")
    parser.add_argument("--lease", type=float, default=LEASE, help="seconds; longer for --once, lest a busy machine lets one lapse")
    parser.add_argument("--longest", type=float, default=2 * LEASE, help="seconds that anything is stopped")
    parser.add_argument("--deeds", type=lambda text: text.split(",") if text else [], help=", ".join(DEEDS))
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--producers", type=int, default=len(PRODUCERS))
    parser.add_argument("--rate", type=int, default=300, help="submits a second of each producer")
    parser.add_argument("--flows", nargs="?", const=FLOWS, default=(), type=lambda text: tuple(text.split(",")),
                        help="some submits are one of these flows; without names: of all")
    parser.add_argument("--once", choices=["all", "ends"], help="no try may run again; or only the last one of a task")
    parser.add_argument("--keep", action="store_true", help="keep the folder")
    parser.add_argument("--verbose", action="store_true")
    options = parser.parse_args()
    options.seed = options.seed or random.randrange(1, 1 << 31)
    if options.seconds is None:
        options.seconds = float(os.environ.get("SEL_FAULT_SECONDS", 60 / options.part))
    print(f"seed {options.seed}: replay with --seed {options.seed}", flush=True)
    node = options.node
    if node:
        reason = node_producer.prepare(node)
        if reason:
            print(f"without Node: {reason}", flush=True)
            node = None
    hub = Hub()
    try:
        with Cluster(options.programs, options.modules, options.keep) as cluster:
            Torture(options, cluster, hub, node).run()
    except Failure as failure:
        print(f"FAILED (seed {options.seed}): {failure}")
        return 1
    finally:
        hub.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
