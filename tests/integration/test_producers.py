#!/usr/bin/python3
"""The producers of examples/producers, against the vectors and a broker that makes trouble.

    test_producers.py [unittest's options] [Vectors | PythonTrouble | NodeTrouble]

SEL_NODE_PRODUCER names a folder in which the Node example is put with its node_modules; without it,
or if they cannot be fetched, those tests are skipped and say why.
"""
import collections
import json
import os
import subprocess
import sys
import unittest
import uuid

try:
    import msgpack
    import zmq  # noqa: F401
except ImportError as error:
    print(f"skipped: {error}; needs Debian's python3-zmq and python3-msgpack")
    sys.exit(77)

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
VECTORS = os.path.join(ROOT, "proto", "vectors")
sys.path[:0] = [os.path.join(ROOT, "examples", "producers", "python"), os.path.join(ROOT, "tests", "support")]
import node_producer  # noqa: E402
import selinon_producer as producer  # noqa: E402

NODE = os.environ.get("SEL_NODE_PRODUCER")
NO_NODE = node_producer.prepare(NODE) if NODE else "SEL_NODE_PRODUCER is not set"
PYTHON_COMMAND = [sys.executable, os.path.join(ROOT, "examples", "producers", "python", "selinon_producer.py")]
NODE_COMMAND = ["node", os.path.join(NODE or "", "cli.mjs")]
MESSAGES = {"HELLO": 1, "WELCOME": 2, "DATA": 3, "ERROR": 4, "GOODBYE": 5, "REDIRECT": 7}
KINDS = {"QUEUE": 1, "SUBMIT": 2, "REFUSED": 3, "RESULT": 4, "CANCEL": 8, "WATCH": 11}
TAGS = {"task": 1, "countdown": 2, "not_before": 3, "expiry": 5, "idempotency_key": 6, "selective": 14}


TROUBLES = ("drop_in", "drop_out", "repeat", "gap", "forget", "restart", "goodbye", "hang", "full")


def vectors():
    for name in sorted(os.listdir(VECTORS)):
        if name.endswith(".json"):
            with open(os.path.join(VECTORS, name), encoding="utf-8") as stream:
                vector = json.load(stream)
            yield vector, bytes.fromhex(vector["hex"])


def of_messages(*names):
    return [(v, f) for v, f in vectors() if v.get("json", {}).get("message") in names]


class Vectors(unittest.TestCase):
    def test_messages_of_a_broker_are_read(self):
        seen = 0
        for vector, frame in of_messages("WELCOME", "ERROR", "GOODBYE", "REDIRECT"):
            with self.subTest(vector["name"]):
                kind, head, body = producer.decode(frame)
                meaning = dict(vector["json"])
                self.assertEqual(kind, MESSAGES[meaning.pop("message")])
                self.assertIsNone(head)
                for key, value in meaning.items():
                    got = str(uuid.UUID(bytes=body[key])) if key == "broker" else body[key]
                    self.assertEqual(got, value, key)
                seen += 1
        self.assertGreaterEqual(seen, 7)

    def test_records_are_read(self):
        seen = 0
        for vector, frame in of_messages("DATA"):
            with self.subTest(vector["name"]):
                meaning = vector["json"]
                kind, head, body = producer.decode(frame)
                names = ("flags", "count", "session", "first", "ack", "settled", "credit_records", "credit_bytes")
                for key, value in zip(names, head[1:]):
                    if key != "count":
                        self.assertEqual(value, meaning.get(key, 0), key)
                records, size = producer.split(body, head[1 + names.index("count")])
                self.assertEqual(kind, producer.DATA)
                self.assertEqual(size, len(body))
                self.assertEqual(len(records), len(meaning["records"]))
                for got, want in zip(records, meaning["records"]):
                    self.assertEqual(got[1], want.get("flags", 0))
                    self.assertEqual(got[2], uuid.UUID(want["id"]).bytes if "id" in want else bytes(16))
                    self.assertEqual(got[3:], (want.get("code", 0), want.get("handle", 0),
                                               bytes.fromhex(want.get("payload", ""))))
                    seen += 1
        self.assertGreaterEqual(seen, 15)

    def test_records_are_written(self):
        seen = 0
        for vector, frame in of_messages("DATA"):
            meaning = vector["json"]
            fields = {tag for r in meaning["records"] for tag in r.get("fields", {})}
            if (vector.get("decode_only") or not fields <= set(TAGS)
                    or not {r["type"] for r in meaning["records"]} <= {"QUEUE", "SUBMIT", "CANCEL", "WATCH"}
                    or any("handle" in r for r in meaning["records"])):
                continue
            with self.subTest(vector["name"]):
                records = b"".join(map(self.write, meaning["records"]))
                numbers = {k: v for k, v in meaning.items() if k not in ("message", "records")}
                self.assertEqual(producer.encode_data(count=len(meaning["records"]), records=records, **numbers), frame)
                seen += 1
        self.assertGreaterEqual(seen, 6)

    @staticmethod
    def write(meaning):
        values = meaning.get("fields", {})
        fields = b""
        if values:
            seconds = {k: values[k] / 1e6 for k in ("countdown", "not_before", "expiry") if k in values}
            selective = msgpack.unpackb(bytes.fromhex(values["selective"])) if "selective" in values else None
            fields = producer.submit_fields(values["task"], key=values.get("idempotency_key"), selective=selective, **seconds)
        return producer.record(KINDS[meaning["type"]], uuid.UUID(meaning.get("id", str(uuid.UUID(int=0)))).bytes,
                               bytes.fromhex(meaning.get("payload", "")), fields, meaning.get("queue", 0),
                               meaning.get("priority", 128), meaning.get("level", 0), meaning.get("flags", 0))

    def test_maps_are_written(self):
        for name in ("hello-smallest", "hello-producer", "goodbye"):
            vector, frame = next((v, f) for v, f in vectors() if v["name"] == name)
            kind, _, body = msgpack.unpackb(frame)
            with self.subTest(name):
                self.assertEqual(producer.encode_plain(kind, body), frame)
                self.assertEqual(kind, MESSAGES[vector["json"]["message"]])

    def test_what_a_broker_must_not_send_is_refused(self):
        seen = 0
        for vector, frame in vectors():
            prefix = vector["name"].split("-")[0]
            if "refused" not in vector or "record" in vector or prefix in ("hello", "beat", "query", "reply"):
                continue
            with self.subTest(vector["name"]), self.assertRaises(producer.Malformed):
                if vector["name"] == "message-type-long":  # whoever reads any msgpack reads this too
                    raise producer.Malformed
                _, head, body = producer.decode(frame)
                producer.split(body, head[2])
            seen += 1
        self.assertGreaterEqual(seen, 20)

    @unittest.skipIf(NO_NODE, NO_NODE)
    def test_node_reads_and_writes_the_same(self):
        subprocess.run(["node", os.path.join(NODE, "vectors.test.mjs"), VECTORS], check=True, timeout=60)


class FakeBroker:
    def __init__(self, seed, *troubles, rate=0.02):
        command = [sys.executable, os.path.join(HERE, "fake_broker.py"), "--seed", str(seed), "--rate", str(rate)]
        for trouble in troubles:
            command += ["--trouble", trouble]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.endpoint = self.process.stdout.readline().strip()

    def finish(self):
        """What it has seen."""
        out, _ = self.process.communicate("end\n", timeout=30)
        return json.loads(out)


class Trouble:
    COUNT = 3000
    COMMAND = None  # of the producer

    def run_command(self, command, seed, *troubles, rate=0.02, more=()):
        broker = FakeBroker(seed, *troubles, rate=rate)
        try:
            done = subprocess.run([*command, "submit", "echo", "--args", '{"n": 7}', "--count", str(self.COUNT), "--broker",
                                   broker.endpoint, "--window", "500", *more], stdout=subprocess.PIPE, text=True, timeout=100)
        finally:
            seen = broker.finish()
        self.assertEqual(done.returncode, 0)
        self.assertEqual(seen["complaints"], [])
        return done.stdout.splitlines(), seen

    def check(self, command, *troubles, rate=0.02, happened=(), more=(), value=None):
        counts = collections.Counter()
        for seed in range(1, 9):  # at least two, and until each trouble has happened
            if seed > 2 and all(counts[what] for what in (*troubles, *happened)):
                break
            with self.subTest(seed=seed, troubles=troubles):
                lines, seen = self.run_command(command, seed, *troubles, rate=rate, more=more)
                self.assertEqual(len(lines), self.COUNT)
                ids = set()
                for line in lines:
                    id_, outcome, got = line.split(" ", 2)
                    ids.add(id_)
                    self.assertEqual((outcome, json.loads(got)), ("finished", value or {"n": 7}))
                self.assertEqual(len(ids), self.COUNT)
                self.assertEqual(seen["ids"], self.COUNT)
                if not troubles: # else it may be lost
                    self.assertEqual(seen["goodbyes"], 1)
                del seen["complaints"]
                counts.update(seen)
        for what in (*troubles, *happened):
            self.assertGreater(counts[what], 0, what)

    def check_all(self, command):
        self.check(command)
        self.check(command, "drop_in", "drop_out", "repeat", "gap", rate=0.05, happened=("resends", "gaps"))
        self.check(command, "forget", "restart", "goodbye", rate=0.03, happened=("WATCH",))
        self.check(command, "hang", rate=0.05, happened=("resumed",))
        self.check(command, "full", rate=0.05)
        self.check(command, *TROUBLES, rate=0.015)

    def check_quiet(self, command):
        for troubles in ((), ("drop_in", "gap", "restart", "full")):
            lines, seen = self.run_command(command, 3, *troubles, more=["--quiet"])
            self.assertEqual(lines, [])
            self.assertEqual(seen["ids"], self.COUNT)
            self.assertEqual(seen.get("WATCH", 0), 0)

    def check_flows(self, command):
        """That a flow's end is wanted after detached work is said again to a broker that forgot."""
        lines, seen = self.run_command(command, 1, more=["--flow"])
        self.assertEqual((len(lines), seen["flows"], seen["alls"]), (self.COUNT, self.COUNT, 0))
        self.check(command, "forget", "restart", "full", rate=0.03, happened=("WATCH", "flows", "alls"),
                   more=["--flow", "--all", "--selective", "A,B"], value={"tasks": ["A", "B"]})

    def test_runs_flows(self):
        self.check_flows(self.COMMAND)

    def test_loses_and_repeats_nothing(self):
        self.check_all(self.COMMAND)

    def test_without_results(self):
        self.check_quiet(self.COMMAND)


class PythonTrouble(Trouble, unittest.TestCase):
    COMMAND = PYTHON_COMMAND


@unittest.skipIf(NO_NODE, NO_NODE)
class NodeTrouble(Trouble, unittest.TestCase):
    COMMAND = NODE_COMMAND


if __name__ == "__main__":
    unittest.main(verbosity=2)
