#!/usr/bin/env python3
"""libselinon as others meet it: installed, found by pkg-config, linked to the example, run.

    test_install.py BUILD CC FLAGS BROKER WORKER

Ends with 77 (skipped) if there is no pkg-config.
"""
import os
import shutil
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.path.join(HERE, "..", "..", "examples", "producers", "c", "producer.c")
WAIT_S = 60


def run(args, **more):
    done = subprocess.run(args, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more)
    if done.returncode:
        sys.exit(f"{' '.join(args)}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def find(root, name):
    for at, _, files in os.walk(root):
        if name in files:
            return os.path.join(at, name)
    sys.exit(f"{name} was not installed")


def check_symbols(library):
    out = run(["nm", "-D", "--defined-only", library])
    names = [line.split()[-1] for line in out.splitlines()]
    foreign = [name for name in names if not name.startswith("sel_client_")]
    if foreign or "sel_client_open" not in names:
        sys.exit(f"{library}: shows {foreign or 'nothing'}")


def start(args, folder, log):
    return subprocess.Popen(args, cwd=folder, stdin=subprocess.DEVNULL,
                            stdout=subprocess.DEVNULL, stderr=open(os.path.join(folder, log), "w"))


def endpoint_of(folder, broker):
    ready = os.path.join(folder, "ready")
    end = time.monotonic() + WAIT_S
    while time.monotonic() < end and broker.poll() is None:
        if os.path.exists(ready):
            for line in open(ready):
                if line.startswith("listen "):
                    return line.split()[1]
        time.sleep(0.01)
    sys.exit("no broker: " + open(os.path.join(folder, "broker.log")).read())


def use(program, endpoint, env):
    out = run([program, endpoint, "Echo", '{"text": "hello", "n": [1, 2.5]}', "20"], env=env,
              timeout=WAIT_S)
    if "20 finished, 0 failed, 0 cancelled, 0 refused" not in out or \
            '"node_args":{"text":"hello","n":[1,2.5]}' not in out:
        sys.exit(f"{program} said: {out}")
    for count in ("1", "20"):
        out = run([program, "--flow", endpoint, "one", "7", count], env=env, timeout=WAIT_S)
        if f"{count} finished, 0 failed, 0 cancelled, 0 refused" not in out or '"finished_nodes":{"Echo":[' not in out:
            sys.exit(f"{program} --flow said: {out}")


def run_programs(folder, programs, env, broker_program, worker_program):
    with open(os.path.join(folder, "nodes.yaml"), "w") as nodes:
        nodes.write("tasks:\n  - {name: Echo, import: exec, command: [cat]}\nflows: [one]\n")
    with open(os.path.join(folder, "flows.yaml"), "w") as flows:
        flows.write("flow-definitions:\n  - {name: one, edges: [{from: null, to: Echo}]}\n")
    broker = start([broker_program, "--listen", "tcp://127.0.0.1:*", "--query", "tcp://127.0.0.1:*",
                    "--ready-file", "ready", "--journal", "none"], folder, "broker.log")
    worker = None
    try:
        endpoint = endpoint_of(folder, broker)
        worker = start([worker_program, "-n", "nodes.yaml", "-f", "flows.yaml", "-b", endpoint, "-t", "1",
                        "--no-supervisor"], folder, "worker.log")
        for program in programs:
            use(program, endpoint, env)
    except (SystemExit, subprocess.TimeoutExpired):
        for log in ("broker.log", "worker.log"):
            print(f"{log}:\n{open(os.path.join(folder, log)).read()}", file=sys.stderr)
        raise
    finally:
        for process in (worker, broker):
            if process:
                process.terminate()
                process.wait(WAIT_S)


def main(build, cc, flags, broker, worker):
    if not shutil.which("pkg-config"):
        print("skipped: no pkg-config")
        return 77
    with tempfile.TemporaryDirectory(prefix="selinon-test-") as folder:
        prefix = os.path.join(folder, "installed")
        run(["cmake", "--install", build, "--prefix", prefix, "--component", "libselinon"])
        library, archive = find(prefix, "libselinon.so"), find(prefix, "libselinon.a")
        check_symbols(library)
        env = dict(os.environ, PKG_CONFIG_PATH=os.path.dirname(find(prefix, "selinon.pc")),
                   LD_LIBRARY_PATH=os.path.dirname(library))
        told = run(["pkg-config", "--cflags", "--libs", "selinon"], env=env).split()
        static = run(["pkg-config", "--cflags", "--libs", "--static", "selinon"], env=env).split()
        static = [archive if word == "-lselinon" else word for word in static]
        common = [cc, "-std=c11", "-Wall", "-Wextra", "-Werror", *flags.split(), SOURCE]
        programs = [os.path.join(folder, name) for name in ("shared", "static")]
        run([*common, "-o", programs[0], *told])
        run([*common, "-o", programs[1], *static])
        if "libselinon" in run(["ldd", programs[1]], env=env):
            sys.exit("the second program uses the shared library too")
        run_programs(folder, programs, env, broker, worker)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
