"""A cluster of real processes for the tests: a broker on a journal, workers, and what they are asked."""
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time

import msgpack
import zmq

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
NODES = os.path.join(HERE, "flows", "nodes.yaml")  # of flows
DEFINITIONS = os.path.join(HERE, "flows", "flows.yaml")
TASKS = ("square", "fails", "hesitates", "nothing", "crashes", "overflows")


# What sanitizers, assertions, and the runtimes of the producers write when something is wrong.
BAD = re.compile(r"(.*Sanitizer|.*runtime error:|.*[Aa]ssertion|Traceback \(|.*Unhandled)(.*\n){0,12}")


class Failure(Exception):
    """The test has failed; the text says why."""


def wait_for(what, condition, seconds, pause=0.02):
    """The first true value of `condition`, which is asked for every `pause` seconds."""
    until = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > until:
            raise Failure(f"{seconds} s were not enough: {what}")
        time.sleep(pause)


class Process:
    """A program in a session of its own, its output in a file."""

    def __init__(self, name, command, folder, environment=None):
        self.name, self.command = name, command
        self.log_path = os.path.join(folder, name + ".log")
        with open(self.log_path, "ab") as log:
            self.popen = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder,
                                          start_new_session=True, env={**os.environ, **(environment or {})})

    @property
    def pid(self):
        return self.popen.pid

    def is_alive(self):
        return self.popen.poll() is None

    def members(self):
        """All processes of the session, the first one first: a supervisor's worker has a process group of its own."""
        found = []
        for name in os.listdir("/proc"):
            if name.isdigit():
                try:
                    with open(f"/proc/{name}/stat", encoding="ascii", errors="replace") as stream:
                        fields = stream.read().rsplit(")", 1)[1].split()
                except OSError:
                    continue
                if int(fields[3]) == self.pid and fields[0] != "Z":
                    found.append(int(name))
        return sorted(found, key=lambda pid: (pid != self.pid, pid))

    def send(self, number, pids=None):
        for pid in self.members() if pids is None else pids:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass

    def kill(self):
        self.send(signal.SIGKILL)
        self.popen.wait()
        self.send(signal.SIGKILL)  # what the first one may have started meanwhile

    def stop(self, seconds=30):
        """SIGTERM to the first process; its exit status."""
        self.popen.terminate()
        try:
            return self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self.send(signal.SIGABRT)
            raise Failure(f"{self.name} does not end {seconds} s after SIGTERM") from None

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as stream:
            return stream.read()

    def fd_count(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def memory(self):
        """RssAnon in bytes."""
        with open(f"/proc/{self.pid}/status", encoding="ascii") as stream:
            return int(re.search(r"RssAnon:\s+(\d+)", stream.read()).group(1)) * 1024


class Cluster:
    """`programs`: the folder with selinon-broker, selinon-worker; `modules`: that with fault_tasks.so."""

    def __init__(self, programs, modules, keep=False, parent=None):
        self.programs, self.modules, self.keep = programs, modules, keep
        self.folder = tempfile.mkdtemp(prefix="selinon-fault-", dir=parent)
        self.journal = os.path.join(self.folder, "journal")
        self.executions_path = os.path.join(self.folder, "executions")
        self.runs_path = os.path.join(self.folder, "runs")  # of flows, see flows.py
        self.broker = None
        self.processes = []
        self.listen = self.query_endpoint = None
        self.patience = 1  # limits of time are so many times as long
        self.part = 1  # large flows have one node in so many
        self.context = zmq.Context()
        self.nodes = os.path.join(self.folder, "nodes.yaml")
        with open(self.nodes, "w", encoding="ascii") as stream:
            stream.write("flows: []\ntasks:\n")
            stream.writelines(f"  - {{name: {name}, import: fault_tasks}}\n" for name in TASKS)

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        for process in self.processes:
            process.kill()
        self.context.destroy(linger=0)
        if kind and not self.keep:
            for process in self.processes:
                print(f"--- {process.name}: {' '.join(process.command)}\n{process.log()[-3000:]}")
        if self.keep:
            print("kept:", self.folder)
        else:
            shutil.rmtree(self.folder, ignore_errors=True)

    def program(self, name):
        return os.path.join(self.programs, name)

    def start(self, name, command, environment=None):
        process = Process(name, command, self.folder, environment)
        self.processes.append(process)
        return process

    def forget(self, process):
        """It is dead, and its log no longer of interest."""
        self.processes.remove(process)

    def check_logs(self):
        """No sanitizer and no assertion has anything to say, not even in processes that were started again."""
        for name in sorted(os.listdir(self.folder)):
            if name.endswith(".log"):
                with open(os.path.join(self.folder, name), encoding="utf-8", errors="replace") as stream:
                    found = BAD.search(stream.read())
                if found:
                    raise Failure(f"{name}: {found.group(0)}")

    # ---- the broker ----

    def start_broker(self, *settings, wait=True):
        ready = os.path.join(self.folder, "ready")
        if os.path.exists(ready):
            os.remove(ready)
        if self.broker in self.processes:
            self.processes.remove(self.broker)
        self.broker = self.start("broker", [
            self.program("selinon-broker"), "--listen", "tcp://127.0.0.1:*", "--query", "tcp://127.0.0.1:*", "--journal",
            self.journal, "--ready-file", ready, *settings])
        if wait:
            self.wait_ready()
        return self.broker

    def wait_ready(self, seconds=60):
        def look():
            if not self.broker.is_alive():
                raise Failure(f"the broker has ended with {self.broker.popen.returncode}")
            try:
                with open(os.path.join(self.folder, "ready"), encoding="ascii") as stream:
                    return dict(line.split() for line in stream)
            except FileNotFoundError:
                return None
        found = wait_for("the broker is ready", look, seconds)
        self.listen, self.query_endpoint = found["listen"], found["query"]

    @property
    def address(self):
        return "127.0.0.1", int(self.listen.rsplit(":", 1)[1])

    def query(self, what, seconds=10, **args):
        """The body of the broker's answer."""
        with self.context.socket(zmq.DEALER) as socket:
            socket.linger = 0
            socket.connect(self.query_endpoint)
            socket.send(msgpack.packb([8, None, {"n": 1, "what": what, "args": args}]))
            if not socket.poll(int(seconds * 1000)):
                raise Failure(f"the broker does not answer to '{what}' in {seconds} s")
            kind, _, body = msgpack.unpackb(socket.recv())
        if kind != 9 or body.get("code"):
            raise Failure(f"the broker answers to '{what}' with {body}")
        return body["body"]

    def status(self):
        return self.query("status")

    # ---- workers ----

    def start_worker(self, name, endpoint=None, threads=1, slots=64, window=256, flows=False, more=()):
        """With `flows` it knows all of tests/fault/flows, and else nothing but bare tasks."""
        configuration = ["-n", NODES, "-f", DEFINITIONS] if flows else ["-n", self.nodes]
        command = [self.program("selinon-worker"), "--broker", endpoint or self.listen, *configuration,
                   "--module-path", self.modules, "-t", str(threads), "-s", str(slots), "-w", str(window), "--name", name, *more]
        return self.start(name, command, {"SEL_FAULT_LOG": self.executions_path, "SEL_FAULT_FLOW_LOG": self.runs_path,
                                          "SEL_FAULT_RESULTS": os.path.join(self.folder, "results")})

    def cli(self, *words):
        """What selinon-cli prints with --json."""
        done = subprocess.run([self.program("selinon-cli"), *words, "--broker", self.query_endpoint, "--json"], timeout=60,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode:
            raise Failure(f"selinon-cli {' '.join(words)} ends with {done.returncode}: {done.stderr}")
        return json.loads(done.stdout)

    def executions(self):
        """id: a list of (task, pid, try, mono_us), in the order of their beginnings."""
        out = {}
        try:
            with open(self.executions_path, encoding="ascii") as stream:
                for line in stream:
                    id_, task, pid, number, mono_us = line.split()
                    out.setdefault(id_, []).append((task, int(pid), int(number), int(mono_us)))
        except FileNotFoundError:
            pass
        return out


def expected(task, n, outcome, value):
    """Whether this is a right result of the task with {n}."""
    if task == "fails":
        return outcome == "failed" and value.get("message") == f"task {n}"
    return outcome == "finished" and value.get("n") == n and value.get("square") == n * n


def show(title, **numbers):
    print(f"{title}: {json.dumps(numbers)}", flush=True)
