"""The common part of the producers that tests/fault tortures: what they submit, and their log.

The log has a line for each submit that is settled, `S ID TASK N`, and for each result, `R ID OUTCOME
JSON`. Every line is written before the next record is looked at: what was acknowledged to a process that is
killed is in its log, or nobody relies on it.
"""
import argparse
import json
import os
import random
import signal
import sys
import time
import uuid

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "examples", "producers", "python"))
from selinon_producer import Producer  # noqa: E402

FLOW_EVERY, VARIANTS = 40, 6  # as in load.mjs and load.c


def variant(n, flows):
    """`v` of the arguments of the flow of number n: what happens in it."""
    return n // FLOW_EVERY // len(flows) % VARIANTS


def choose(n, flows=()):
    """(name, arguments, whether it is a flow, whether to wait for all of it) of number n; load.mjs and load.c
    choose the same. With `flows` every FLOW_EVERY-th is one of them."""
    which = n // FLOW_EVERY
    if flows and n % FLOW_EVERY == FLOW_EVERY - 1:
        return flows[which % len(flows)], {"n": n, "v": variant(n, flows)}, True, which % 5 == 0
    return *choose_task(n), False, False


def choose_task(n):
    kind = n % 20
    if kind == 17:
        return "fails", {"n": n}
    if kind == 18:
        return "hesitates", {"n": n}
    if kind >= 14:
        return "square", {"n": n, "sleep": (n % 50) / 1000}
    return "square", {"n": n}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--broker", required=True)
    parser.add_argument("--log", required=True)
    parser.add_argument("--level", default="commit")
    parser.add_argument("--rate", type=int, default=500, help="submits a second")
    parser.add_argument("--window", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0, help="number of the first task")
    parser.add_argument("--flows", type=lambda text: text.split(","), default=(), help="also these")
    options = parser.parse_args()
    is_stopping = []
    signal.signal(signal.SIGTERM, lambda *_: is_stopping.append(True))
    out = os.open(options.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    names, lines = {}, []

    def settled(id_):
        task, n = names.pop(id_)
        lines.append(f"S {uuid.UUID(bytes=id_)} {task} {n}\n")

    def write():
        if lines:
            os.write(out, "".join(lines).encode())
            lines.clear()

    producer = Producer(options.broker, name="python", on_settled=settled,
                        log=lambda text: print(f"{time.time():.3f} {text}", file=sys.stderr, flush=True))
    begin, n = time.monotonic(), 0
    rng = random.Random(options.first)
    while not is_stopping or producer.waiting or producer.unsettled:
        room = options.window - len(producer.waiting) - producer.unsettled
        due = int((time.monotonic() - begin) * options.rate) - n
        if is_stopping:
            due = 0
        elif due > options.window:
            begin += due / options.rate  # it was stopped: no flood afterwards
        for _ in range(min(due, room, 1 + rng.randrange(200))):
            task, args, is_flow, wait_all = choose(options.first + n, options.flows)
            id_ = producer.submit(task, args, level=options.level, flow=is_flow, wait_all=wait_all)
            names[id_] = task, options.first + n
            n += 1
        for result in producer.poll(0.005):
            lines.append(f"R {uuid.UUID(bytes=result.id)} {result.outcome} {json.dumps(result.value)}\n")
        write()
    producer.close()
    print(f"{n} submitted", file=sys.stderr)


if __name__ == "__main__":
    main()
