"""A broker for the tests of producers: it follows PROTOCOL.md to the letter, loses and repeats
messages as a seed draws, and complains about everything that a producer does wrong.

It is no broker: tasks and flows end at once with their arguments as result, selective flows with
what they say there. The frames are made by
proto/vectors/make.py, so that no code of what is tested is in here. It writes its endpoint, serves
until its standard input ends, and then writes what it has seen as one JSON object.
"""
import argparse
import collections
import json
import os
import random
import select
import struct
import sys
import time
import uuid

import msgpack
import zmq

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "proto", "vectors"))
import make  # noqa: E402

BROKER = uuid.UUID("3c5e7a90-1122-4b33-8c44-d55e66f77a88")
RECORD = struct.Struct("<IBBH16sHBBIQIHH")
BEAT_US = 60000
QUIET, FLOW, ALL = 0x0001, 0x0100, 0x0200  # flags
SELECTIVE = 14                             # a field
TROUBLES = ("drop_in", "drop_out", "repeat", "gap", "forget", "restart", "goodbye", "hang", "full")


class Session:
    def __init__(self, number, identity):
        self.number, self.identity = number, identity
        self.arrived = self.arrived_bytes = self.settled = 0
        self.credit_records = self.credit_bytes = 0         # that we gave
        self.kept = collections.deque()                     # our records that are not settled
        self.first_kept = 1
        self.acked = self.acked_bytes = self.sent = self.sent_bytes = 0
        self.may_records = self.may_bytes = 0               # that the producer gave
        self.gap_told = None
        self.is_due = self.must_resend = False
        self.heard_at = self.granted_at = 0
        self.queues = {}
        self.tasks = []                                     # (when, id) that end then


class Broker:
    def __init__(self, socket, rng, troubles, rate):
        self.socket, self.rng, self.troubles, self.rate = socket, rng, troubles, rate
        self.sessions = {}           # peer: Session
        self.numbers = 0
        self.results = {}            # id: payload; outlives restarts, as a journal does
        self.alls = {}               # id: whether a flow's end is wanted after detached work
        self.hello_counts = {}
        self.complaints, self.counts = [], collections.Counter()
        self.quiet_until = 0

    def complain(self, text):
        if len(self.complaints) < 20:
            self.complaints.append(text)

    def trouble(self, what):
        happens = what in self.troubles and self.rng.random() < self.rate
        self.counts[what] += happens
        return happens

    def send(self, identity, frame):
        if self.trouble("drop_out"):
            return
        for _ in range(2 if self.trouble("repeat") else 1):
            self.socket.send_multipart([identity, frame])

    def send_plain(self, identity, kind, **body):
        self.send(identity, make.plain(kind, body))

    # ---- what comes ----

    def receive(self, identity, frame, now):
        self.counts["frames"] += 1
        if self.trouble("drop_in"):
            return
        try:
            kind, head, body = msgpack.unpackb(frame)
        except ValueError as error:
            return self.complain(f"not msgpack: {error}")
        name = {v: k for k, v in make.MESSAGES.items()}.get(kind)
        if name == "HELLO":
            self.on_hello(identity, body, now)
        elif name == "DATA":
            self.on_data(identity, head, body, now)
        elif name == "GOODBYE":
            self.counts["goodbyes"] += 1
            self.sessions = {p: s for p, s in self.sessions.items() if s.number != body["session"]}
        else:
            self.complain(f"a producer does not say {name} ({kind})")

    def on_hello(self, identity, body, now):
        peer, n = body["peer"], body["n"]
        if body["role"] != "producer" or body["v"] != [1, 1] or len(peer) != 16:
            self.complain(f"HELLO {body}")
        if n <= self.hello_counts.get(peer, 0):
            self.complain(f"n went from {self.hello_counts[peer]} to {n}")
        self.hello_counts[peer] = n
        self.counts["hellos"] += 1
        session = self.sessions.get(peer)
        resumed = session is not None and body.get("session") == session.number and body["broker"] == BROKER.bytes
        if resumed:
            self.counts["resumed"] += 1
            session.identity = identity
            session.gap_told = None
            self.take_ack(session, body.get("ack", 0))
            session.sent = session.acked
            session.sent_bytes = session.acked_bytes
        else:
            self.numbers += 1
            session = self.sessions[peer] = Session(self.numbers << 32 | self.numbers, identity)
        for i, queue in enumerate(body.get("queues", [])):
            session.queues[i + 1] = queue
        session.heard_at = now
        self.grant(session)
        self.send_plain(identity, "WELCOME", v=1, n=n, broker=BROKER.bytes, session=session.number,
                        resumed=resumed, ack=session.arrived, credit_records=session.credit_records,
                        credit_bytes=session.credit_bytes, record_max=65536, lease_us=5000000, beat_us=BEAT_US,
                        level=3, level_max=3)

    def grant(self, session):
        session.credit_records = max(session.credit_records, session.arrived + 40)
        session.credit_bytes = max(session.credit_bytes, session.arrived_bytes + 66000)

    def take_ack(self, session, ack):
        sent = session.first_kept + len(session.kept) - 1
        if ack > sent:
            self.complain(f"acks {ack} of {sent}")
        session.acked_bytes += sum(len(session.kept[i - session.first_kept]) for i in range(session.acked + 1, ack + 1))
        session.acked = max(session.acked, ack)
        if session.sent < session.acked:
            session.sent, session.sent_bytes = session.acked, session.acked_bytes

    def on_data(self, identity, head, body, now):
        version, flags, count, number, first, ack, settled, credit_records, credit_bytes = struct.unpack(
            "<HHIQQQQQQ", head)
        session = next((s for s in self.sessions.values() if s.number == number and s.identity == identity), None)
        if session is None:
            return self.send_plain(identity, "ERROR", code=3, text="unknown session", retry=True)
        if version != 1 or flags > 3 or settled > ack or first == 0:
            self.complain(f"head: version {version} flags {flags} settled {settled} ack {ack} first {first}")
        session.heard_at = now
        self.take_ack(session, ack)
        session.may_records = max(session.may_records, credit_records)
        session.may_bytes = max(session.may_bytes, credit_bytes)
        if flags & 2 and ack >= session.acked:
            self.counts["resends"] += 1
            session.sent, session.sent_bytes = session.acked, session.acked_bytes
        if first > session.arrived + 1:
            self.counts["gaps"] += 1
            if flags & 1 or session.gap_told != session.arrived:
                session.gap_told = session.arrived
                session.must_resend = True
            return None
        self.take_records(session, body, first, count, now)
        while session.first_kept <= settled:
            session.kept.popleft()
            session.first_kept += 1
        if flags & 1 or count:
            session.is_due = True
        return None

    def take_records(self, session, body, first, count, now):
        at = 0
        for i in range(count):
            if at + RECORD.size > len(body):
                return self.complain("records that are cut")
            size = RECORD.unpack_from(body, at)[0]
            if first + i > session.arrived:
                session.arrived += 1
                session.arrived_bytes += size
                if session.arrived > session.credit_records or session.arrived_bytes > session.credit_bytes:
                    self.complain(f"record {session.arrived} is over the credit")
                self.take_record(session, body[at:at + size], now)
            else:
                self.counts["records_again"] += 1
            at += size
        if at != len(body):
            self.complain("bytes behind the records")
        return None

    def take_record(self, session, data, now):
        _, kind, units, flags, id_, queue, _, level, code, _, fields, _, _ = RECORD.unpack_from(data, 0)
        name = {v: k for k, v in make.RECORDS.items()}.get(kind)
        payload = data[units * 8 + fields:]
        self.counts[name] += 1
        if name == "QUEUE":
            session.queues[queue] = payload.decode()
        elif name == "SUBMIT":
            if queue not in session.queues or code or level > 3 or not fields:
                self.complain(f"SUBMIT: queue {queue} level {level} code {code} fields {fields}")
            if self.trouble("full"):
                return self.put(session, {"type": "REFUSED", "id": str(uuid.UUID(bytes=id_)), "code": 7,
                                          "handle": session.arrived, "payload": b"full".hex()})
            self.counts["duplicates"] += id_ in self.results
            self.take_flow(flags, id_)
            selective = self.field(data[units * 8:units * 8 + fields], SELECTIVE)
            self.results.setdefault(id_, payload if selective is None else selective)
            if not flags & QUIET:
                session.tasks.append((now + self.rng.random() * 0.02, id_))
        elif name == "WATCH":
            if bool(flags & ALL) != self.alls.get(id_, False):
                self.complain(f"WATCH with flags {flags:#x}: the SUBMIT said otherwise")
            if id_ in self.results:
                session.tasks.append((now, id_))
            else:
                self.complain("WATCH of a task that was never settled")
        else:
            self.complain(f"a producer does not send {name}")
        return None

    def take_flow(self, flags, id_):
        if flags & ~(QUIET | FLOW | ALL) or flags & (FLOW | ALL) == ALL or flags & (QUIET | ALL) == QUIET | ALL:
            self.complain(f"SUBMIT: flags {flags:#x}")
        if self.alls.setdefault(id_, bool(flags & ALL)) != bool(flags & ALL):
            self.complain("a second SUBMIT with other flags")
        self.counts["flows"] += bool(flags & FLOW)
        self.counts["alls"] += bool(flags & ALL)

    @staticmethod
    def field(fields, wanted):
        at = 0
        while at < len(fields):
            tag, _, size = struct.unpack_from("<BBH", fields, at)
            if tag == wanted:
                return fields[at + 4:at + 4 + size]
            at += 4 + size
        return None

    def put(self, session, record):
        session.kept.append(make.record(record))

    # ---- what goes ----

    def disturb(self, now):
        """After frames came."""
        if self.trouble("restart"):
            self.sessions.clear()
        for peer, session in list(self.sessions.items()):
            if self.trouble("forget"):
                del self.sessions[peer]
            elif self.trouble("goodbye"):
                self.send_plain(session.identity, "GOODBYE", session=session.number, reason="for a test")
                del self.sessions[peer]
        if self.trouble("hang"):
            self.quiet_until = now + 4 * BEAT_US / 1e6

    def say(self, session, now):
        due = [task for task in session.tasks if task[0] <= now]
        session.tasks = [task for task in session.tasks if task[0] > now]
        for _, id_ in due:
            self.put(session, {"type": "RESULT", "id": str(uuid.UUID(bytes=id_)), "level": 3,
                               "payload": self.results[id_].hex()})
        if now - session.granted_at > 0.005:
            session.granted_at = now
            self.grant(session)
            session.is_due = True
        out = []
        first = session.sent + 1
        while session.sent < session.first_kept + len(session.kept) - 1 and session.sent < session.may_records:
            data = session.kept[session.sent + 1 - session.first_kept]
            if session.sent_bytes + len(data) > session.may_bytes:
                break
            out.append(data)
            session.sent += 1
            session.sent_bytes += len(data)
        if not out and not session.is_due and not session.must_resend:
            return
        if out and self.trouble("gap"):
            return # these are lost, what comes after them shows it
        flags = 2 if session.must_resend else 0
        session.is_due = session.must_resend = False
        # A REFUSED must arrive before its record is settled: settled only what has no record before it.
        settled = session.arrived if session.acked == session.first_kept + len(session.kept) - 1 else session.settled
        session.settled = max(session.settled, settled)
        head = make.head(flags=flags, count=len(out), session=session.number, first=first, ack=session.arrived,
                         settled=session.settled, credit_records=session.credit_records,
                         credit_bytes=session.credit_bytes)
        self.send(session.identity, make.data(head, b"".join(out)))

    def serve(self, until):
        poller = zmq.Poller()
        poller.register(self.socket, zmq.POLLIN)
        while not until():
            poller.poll(2)
            now = time.monotonic()
            frames = list(self.frames())
            if now < self.quiet_until:
                continue
            for identity, frame in frames:
                self.receive(identity, frame, now)
            for session in self.sessions.values():
                self.say(session, now)
            if frames:
                self.disturb(now)

    def frames(self):
        try:
            while True:
                identity, *frames = self.socket.recv_multipart(zmq.NOBLOCK)
                if len(frames) != 1:
                    self.complain("a message of several frames")
                yield identity, frames[-1]
        except zmq.Again:
            pass


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float, default=0.02)
    parser.add_argument("--trouble", action="append", default=[], choices=TROUBLES)
    options = parser.parse_args()
    socket = zmq.Context.instance().socket(zmq.ROUTER)
    socket.linger = 0
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    print(f"tcp://127.0.0.1:{port}", flush=True)
    broker = Broker(socket, random.Random(options.seed), options.trouble, options.rate)
    broker.serve(lambda: bool(select.select([sys.stdin], [], [], 0)[0]))
    print(json.dumps({"complaints": broker.complaints, "ids": len(broker.results), **broker.counts}))


if __name__ == "__main__":
    main()
