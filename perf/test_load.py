#!/usr/bin/env python3
"""Tests of selinon-load against a broker and a worker: `test_load.py FOLDER-OF-PROGRAMS MODULES`.

Shows that it counts every task, and that it hides nothing: while the worker stands still, tasks go on
being due, and their latencies count from then (no coordinated omission)."""
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

BIN, MODULES = sys.argv[1:3]
QUEUES = ["bench"] + [f"bench-{i}" for i in range(1, 5)]
NODES = ("tasks: [{name: Noop, import: bench}, {name: Sleep, import: bench}]\n"
         "flows: []\n")


class Cluster:
    """A broker and a worker in a folder that goes with them."""

    def __enter__(self):
        self.folder = tempfile.mkdtemp(prefix="selinon-load-")
        self.processes = []
        ready = os.path.join(self.folder, "ready")
        nodes = os.path.join(self.folder, "nodes.yaml")
        with open(nodes, "w", encoding="utf-8") as stream:
            stream.write(NODES)
        try:
            self.start("selinon-broker", "--listen", "tcp://127.0.0.1:*", "--query",
                       "tcp://127.0.0.1:*", "--journal", "none", "--ready-file", ready)
            end = time.monotonic() + 30
            while not os.path.exists(ready) and time.monotonic() < end:
                time.sleep(0.02)
            with open(ready, encoding="utf-8") as stream:
                self.broker = dict(line.split() for line in stream)["listen"]
            self.worker = self.start("selinon-worker", "--broker", self.broker, "--queues", ",".join(QUEUES),
                                     "--nodes-definition", nodes, "--module-path", MODULES,
                                     "--threads", "1", "--no-supervisor")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        for process in reversed(self.processes):
            process.send_signal(signal.SIGCONT)
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self, program, *args):
        with open(os.path.join(self.folder, program), "w", encoding="utf-8") as log:
            process = subprocess.Popen([os.path.join(BIN, program), *args], stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def load(self, *args, while_it_runs=None):
        process = subprocess.Popen([os.path.join(BIN, "selinon-load"), *args, "--json", "--broker", self.broker],
                                   stdout=subprocess.PIPE)
        if while_it_runs:
            while_it_runs()
        out = process.communicate(timeout=120)[0]
        check(process.returncode == 0, f"selinon-load {args} ended with {process.returncode}")
        return json.loads(out)["rows"]


def check(is_right, what):
    if not is_right:
        sys.exit(f"test_load: {what}")


def check_all_finished(rows):
    for row in rows:
        check(row["due"] == row["submitted"] == row["finished"] > 0, f"not all have finished: {row}")


def test_even_arrivals_are_counted_exactly(cluster):
    rows = cluster.load("steady", "--rate", "2000", "--time", "1", "--even")
    check_all_finished(rows)
    check(len(rows) == 1 and rows[0]["due"] == 2000, f"2,000 tasks were due, not {rows}")


def test_a_standstill_is_in_the_latencies(cluster):
    def stand_still():
        time.sleep(0.5)
        cluster.worker.send_signal(signal.SIGSTOP)
        time.sleep(1)
        cluster.worker.send_signal(signal.SIGCONT)

    rows = cluster.load("steady", "--rate", "2000", "--time", "2", "--even",
                        while_it_runs=stand_still)
    check_all_finished(rows)
    # Of 4,000 tasks 2,000 are due in the second of standstill; one that waits for the ones before
    # would be late with one window only.
    check(rows[0]["max_ms"] > 500, f"no task waited for the worker: {rows}")
    check(rows[0]["p90_ms"] > 250, f"tasks that were due meanwhile are left out: {rows}")


def test_every_scenario_ends_with_all_results(cluster):
    for args in (["ramp", "--rate", "500", "--rate-max", "2000", "--steps", "3", "--time", "0.9"],
                 ["soak", "--rate", "1000", "--time", "0.9", "--report", "0.3"],
                 ["payloads", "--rate", "300", "--time", "1.2"],
                 ["slow", "--rate", "300", "--time", "1", "--work-max", "200"],
                 ["mixed", "--rate", "2000", "--time", "1"],
                 ["steady", "--producers", "50", "--rate", "1000", "--time", "0.5"]):
        check_all_finished(cluster.load(*args))


def test_a_broker_that_is_not_there_is_an_error():
    process = subprocess.run([os.path.join(BIN, "selinon-load"), "steady", "--time", "0.1", "--broker", "nonsense"],
                             check=False, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    check(process.returncode == 1 and process.stderr, "an endpoint that is none was taken")


with Cluster() as the_cluster:
    test_even_arrivals_are_counted_exactly(the_cluster)
    test_a_standstill_is_in_the_latencies(the_cluster)
    test_every_scenario_ends_with_all_results(the_cluster)
test_a_broker_that_is_not_there_is_an_error()
print("4 passed, 0 failed")
