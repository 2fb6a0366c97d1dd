"""Thousands of producers in one process, over zmtp.py and the Python example's encoding: each says HELLO,
submits within its credit, and counts what becomes of it."""
import os
import time

import zmtp
from selinon_producer import (ANSWER, DATA, ERROR, HELLO, QUIET, REFUSED, RESULT, SUBMIT, WELCOME, LEVELS, Outbox, decode,
                              encode_data, encode_plain, new_ids, record, split, submit_fields)


class Member:
    def __init__(self, crowd):
        self.crowd, self.outbox = crowd, Outbox()
        self.session = self.arrived = self.arrived_bytes = 0
        self.peer = zmtp.Peer(crowd.loop, crowd.address, self.on_message, self.on_end)
        self.peer.send(encode_plain(HELLO, {"v": [1, 1], "role": "producer", "peer": os.urandom(16), "n": 1, "name": "crowd",
                                            "queues": ["celery"]}))

    def submit(self, task, payload, level, quiet=False):
        self.outbox.due.append(record(SUBMIT, new_ids(1)[0], payload, submit_fields(task), queue=1, level=LEVELS[level],
                                      flags=QUIET if quiet else 0))

    def say(self, ask=False):
        while True:
            first, count, records = self.outbox.take()
            if not count and not ask:
                return
            self.peer.send(encode_data(self.session, first, count, records, ANSWER if ask else 0, self.arrived, self.arrived,
                                       self.arrived + 1000, self.arrived_bytes + (4 << 20)))
            ask = False
            if not count:
                return

    def leave(self):
        """In order; without this, `vanish`."""
        self.peer.send(encode_plain(5, {"session": self.session, "reason": "goes away"}))

    def vanish(self):
        self.peer.close()

    def on_message(self, _, message):
        kind, head, body = decode(message)
        crowd = self.crowd
        if kind == WELCOME:
            self.session = body["session"]
            self.outbox.grant(body["credit_records"], body["credit_bytes"])
            crowd.welcomed += 1
            self.say(ask=True)
        elif kind == DATA:
            _, _, count, _, first, ack, settled, credit_records, credit_bytes = head
            self.outbox.ack(ack)
            self.outbox.grant(credit_records, credit_bytes)
            crowd.settled += len(self.outbox.settle(settled))
            for what, _, _, _, _, _ in split(body, count)[0] if count and first == self.arrived + 1 else ():
                crowd.finished += what == RESULT
                crowd.refused += what == REFUSED
            if count and first == self.arrived + 1:
                self.arrived += count
                self.arrived_bytes += len(body)
                self.say(ask=True)
            else:
                self.say()
        elif kind == ERROR:
            crowd.errors.append(body)

    def on_end(self, _):
        self.crowd.cut += 1


class Crowd:
    def __init__(self, address):
        self.address, self.loop = address, zmtp.Loop()
        self.members, self.errors = [], []
        self.welcomed = self.settled = self.finished = self.refused = self.cut = 0

    def grow(self, count):
        new = [Member(self) for _ in range(count)]
        self.members += new
        return new

    def turn(self, condition, seconds):
        """Goes on until the condition holds; whether it does."""
        until = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > until:
                return False
            self.loop.turn(0.05)
        return True

    def flush(self):
        self.turn(lambda: not any(m.peer.out for m in self.members if m.peer.socket.fileno() >= 0), 10)

    def close(self):
        self.loop.close()
        self.members.clear()
