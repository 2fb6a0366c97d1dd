#!/usr/bin/python3
"""A producer for Selinon over the raw protocol: proto/PROTOCOL.md, a DEALER socket and msgpack.

    selinon_producer.py submit TASK [--count N] [--args JSON] [--level commit] [--broker tcp://...]
    selinon_producer.py submit --flow FLOW [--all] [--selective TASK,TASK] ...
    selinon_producer.py watch ID...

As a class, for one thread:

    with Producer("tcp://127.0.0.1:5711") as producer:
        task = producer.submit("WordCount", {"path": "a.txt"}, level="commit")
        for result in producer.results():           # until nothing is waited for
            print(result.id, result.outcome, result.value)

Nothing happens behind your back: whoever waits for anything calls `poll`, `flush` or `results`, at
least every second or so. Needs Debian's python3-zmq and python3-msgpack.
"""
import argparse
import json
import os
import random
import socket as hosts
import struct
import sys
import time
import uuid
from collections import deque, namedtuple

import msgpack
import zmq

HELLO, WELCOME, DATA, ERROR, GOODBYE, BEAT, REDIRECT, QUERY, REPLY = range(1, 10)
QUEUE, SUBMIT, REFUSED, RESULT, TASK, DONE, RETURN, CANCEL, CANCELLED, WANT, WATCH = range(1, 12)
ANSWER, RESEND, MUST_UNDERSTAND = 0x0001, 0x0002, 0xff00  # flags of a head
QUIET, FLOW, ALL = 0x0001, 0x0100, 0x0200                 # flags of a SUBMIT; ALL of a WATCH too
LEVELS = {"default": 0, "memory": 1, "interval": 2, "commit": 3}
OUTCOMES = {0: "finished", 1: "failed", 4: "cancelled"}
UNKNOWN_SESSION, FULL, DRAINING = 3, 7, 10                # codes of errors
FIELD_TASK, FIELD_COUNTDOWN, FIELD_NOT_BEFORE, FIELD_EXPIRY, FIELD_KEY, FIELD_SELECTIVE = 1, 2, 3, 5, 6, 14

HEAD = struct.Struct("<HHIQQQQQQ")        # version flags count session first ack settled credits
RECORD = struct.Struct("<IBBH16sHBBIQIHH")
FIELD = struct.Struct("<BBH")
HEADER_UNITS = RECORD.size // 8
LEAST = {WELCOME: {"v": 1, "n": 1, "session": 1, "record_max": 4096, "lease_us": 1, "beat_us": 1, "level": 1,
                   "level_max": 1, "ack": 0, "credit_records": 0, "credit_bytes": 0},
         ERROR: {"code": 1}, GOODBYE: {"session": 1}}  # numbers that must be there
DATA_PREFIX = b"\x93\x03\xc4\x38"         # [3, bin of 56 bytes, ...
MESSAGE_MAX = 1 << 20                     # bytes of records in one DATA: well below 4 MiB
WINDOW_RECORDS, WINDOW_BYTES = 65536, 16 << 20  # what the broker may send beyond what has arrived
ACK_AFTER = 0.005                         # acks wait so long for records to go with
BEAT_BEFORE_WELCOME = 1.0                 # seconds; WELCOME says the true one
PAUSE_FIRST, PAUSE_MAX = 0.1, 5.0         # before connecting anew


class Refused(Exception):
    """The broker will never have us; the text says why."""


class Malformed(Exception):
    """Something that PROTOCOL.md does not allow."""


class Result(namedtuple("Result", "id outcome payload")):
    """`outcome`: finished, failed, cancelled or refused; `value`: the result, or a map {class,
    message}."""
    __slots__ = ()

    @property
    def value(self):
        if self.outcome == "refused":
            return {"class": "Refused", "message": self.payload.decode()}
        return msgpack.unpackb(self.payload) if self.payload else None


# ---- frames ----

def encode_plain(kind, body):
    return msgpack.packb([kind, None, body])


def encode_data(session, first=1, count=0, records=b"", flags=0, ack=0, settled=0,
                credit_records=0, credit_bytes=0):
    head = HEAD.pack(1, flags, count, session, first, ack, settled, credit_records, credit_bytes)
    return b"".join((DATA_PREFIX, head, b"\xc6", struct.pack(">I", len(records)), records))


def decode(frame):
    """(type, head, body): `head` is the tuple of HEAD for a DATA and else None."""
    try:
        kind, head, body = msgpack.unpackb(frame)
        if kind == DATA:
            head = HEAD.unpack(head)
            if head[0] != 1 or head[1] & MUST_UNDERSTAND:
                raise Malformed("a version or flag that we do not speak")
            if head[4] == 0 or head[4] + head[2] >= 1 << 64 or head[6] > head[5] or not isinstance(body, bytes):
                raise Malformed("DATA: numbers that cannot be")
        elif kind not in range(HELLO, REPLY + 1) or head is not None or not isinstance(body, dict):
            raise Malformed("neither DATA nor a message with a map")
        else:
            body = check(kind, body)
    except (ValueError, TypeError, struct.error, msgpack.UnpackException) as error:
        raise Malformed(str(error)) from error
    return kind, head, body


def split(records, count, skip=0):
    """The records of a DATA after the first `skip`, each (type, flags, id, code, handle, payload), and
    the size of them all."""
    at, end, begin, out, unpack = 0, len(records), 0, [], RECORD.unpack_from
    try:
        for i in range(count):
            size, kind, units, flags, id_, _, _, _, code, handle, fields, _, _ = unpack(records, at)
            payload = at + units * 8 + fields
            at += size
            if payload > at or at > end or units < HEADER_UNITS:
                raise Malformed("a record with sizes that cannot be")
            if i < skip:
                begin = at
            else:
                out.append((kind, flags, id_, code, handle, records[payload:at]))
    except struct.error as error:
        raise Malformed("a record that is cut") from error
    if at != end:
        raise Malformed("bytes behind the last record")
    return out, end - begin


def check(kind, body):
    """The map of a message from the broker, without nulls and with what may be missing."""
    body = {k: v for k, v in body.items() if v is not None}
    if kind == WELCOME:
        body = {"resumed": False, "ack": 0, "credit_records": 0, "credit_bytes": 0, **body}
    for key, low in LEAST.get(kind, {}).items():
        if not isinstance(body.get(key), int) or body[key] < low:
            raise Malformed(f"no {key}, or one that cannot be")
    if kind == WELCOME:
        if not isinstance(body.get("broker"), bytes) or len(body["broker"]) != 16:
            raise Malformed("no id of the broker")
        if body["v"] != 1 or body["level"] > body["level_max"]:
            raise Malformed("a version or level that cannot be")
    if kind == REDIRECT and not body.get("endpoints"):
        raise Malformed("no endpoints")
    return body


def record(kind, id_=bytes(16), payload=b"", fields=b"", queue=0, priority=128, level=0, flags=0):
    return RECORD.pack(RECORD.size + len(fields) + len(payload), kind, HEADER_UNITS, flags, id_, queue,
                       priority, level, 0, 0, len(fields), 0, 0) + fields + payload


def encode_fields(values):
    """`values`: {tag: bytes}."""
    return b"".join(FIELD.pack(tag, 0, len(values[tag])) + values[tag] for tag in sorted(values))


def submit_fields(task, countdown=None, not_before=None, expiry=None, key=None, selective=None):
    """Times: `countdown` in seconds, the others seconds since 1970. `selective`: of a flow, a map as in
    PROTOCOL.md, "Flows"."""
    values = {FIELD_TASK: task.encode()}
    if countdown is not None:
        values[FIELD_COUNTDOWN] = struct.pack("<Q", int(countdown * 1e6))
    if not_before is not None:
        values[FIELD_NOT_BEFORE] = struct.pack("<q", int(not_before * 1e6))
    if expiry is not None:
        values[FIELD_EXPIRY] = struct.pack("<q", int(expiry * 1e6))
    if key is not None:
        values[FIELD_KEY] = key.encode()
    if selective is not None:
        values[FIELD_SELECTIVE] = msgpack.packb(selective)
    return encode_fields(values)


def new_ids(count):
    """UUIDs of version 7 that follow each other."""
    upper = (time.time_ns() // 1000000) << 16 | 7 << 12 | random.getrandbits(12)
    lower = 2 << 62 | random.getrandbits(61)
    return [(upper << 64 | lower + i).to_bytes(16, "big") for i in range(count)]


# ---- our half of the session ----

class Outbox:
    """Our records: `kept` are sent and not settled, `due` are to be sent, in order of their numbers.
    settled <= acked <= sent, and sent_bytes is the size of all records from 1 to `sent`."""

    def __init__(self):
        self.kept, self.due = deque(), deque()
        self.restart()

    def restart(self, records=()):
        """A new session: `records` will be the first."""
        self.kept.clear()
        self.due = deque(records)
        self.settled = self.acked = self.sent = self.sent_ever = self.sent_bytes = 0
        self.credit_records = self.credit_bytes = 0

    def grant(self, records, size):
        self.credit_records = max(self.credit_records, records)
        self.credit_bytes = max(self.credit_bytes, size)

    def ack(self, ack):
        if ack > self.sent_ever:
            raise Malformed("an ack of what was never sent")
        self.acked = max(self.acked, ack)
        late = [self.due.popleft() for _ in range(ack - self.sent)]  # due again, but had arrived
        self._note_sent(late, sum(map(len, late)))

    def settle(self, settled):
        """The records that are decided now."""
        settled = min(settled, self.acked)
        out = [self.kept.popleft() for _ in range(settled - self.settled)]
        self.settled = max(self.settled, settled)
        return out

    def rewind(self):
        """All after the ack is due again."""
        self.take_back(self.sent - self.acked)

    def take_back(self, count):
        """The last `count` that were taken are due again."""
        for _ in range(count):
            r = self.kept.pop()
            self.due.appendleft(r)
            self.sent -= 1
            self.sent_bytes -= len(r)

    def take(self):
        """(number of the first, count, bytes) of the next records within the credit."""
        due, out, size = self.due, [], 0
        bytes_left, records_left = self.credit_bytes - self.sent_bytes, self.credit_records - self.sent
        while due and len(out) < records_left:
            n = size + len(due[0])
            if n > bytes_left or (n > MESSAGE_MAX and out):
                break
            size = n
            out.append(due.popleft())
        first = self.sent + 1
        self._note_sent(out, size)
        return first, len(out), b"".join(out)

    def _note_sent(self, records, size):
        self.kept.extend(records)
        self.sent += len(records)
        self.sent_bytes += size
        self.sent_ever = max(self.sent_ever, self.sent)


# ---- the producer ----

class Producer:
    def __init__(self, *endpoints, queues=("celery",), name=None, on_settled=None, log=None):
        """`on_settled(id)` is called when a SUBMIT has reached its level; `log(text)` for what an
        operator may want to know."""
        self.endpoints = list(endpoints)
        self.peer = os.urandom(16)
        self.name = name or f"{hosts.gethostname()}:{os.getpid()}"
        self.queues = {queue: i + 1 for i, queue in enumerate(queues)}
        self.on_settled, self.log = on_settled, log or (lambda text: None)
        self.waiting = {}      # {id: flags of its WATCH}: a result is wanted; in the order of submits
        self.quiet = set()     # ids of which none is wanted and that are not settled
        self.refused = set()   # numbers of records that were refused and are not settled
        self.outbox = Outbox()
        self.later = deque()   # (when, record) that the broker had no room for
        self.finished = []     # results that `poll` has not handed out
        self.hello_count = self.connects = 0
        self.session, self.broker = 0, None
        self.is_open = False
        self.arrived = self.arrived_bytes = 0
        self.told_arrived, self.gap_told = 0, None
        self.must_say = self.must_answer = self.must_resend = self.is_blocked = False
        self.said_at = self.asked_at = 0.0
        self.beat, self.record_max = BEAT_BEFORE_WELCOME, 4096
        self.pause = PAUSE_FIRST
        self.socket = None
        self.context = zmq.Context()
        self._connect(time.monotonic())

    # ---- what users call ----

    def submit(self, task, args=None, **options):
        """The id of the new task, 16 bytes. Options: queue, level, priority, quiet, countdown,
        not_before, expiry, key; flow, wait_all, selective: see run_flow."""
        return self.submit_many(task, [args], **options)[0]

    def run_flow(self, flow, args=None, wait_all=False, selective=None, **options):
        """As submit, for a flow. `wait_all`: the result comes when also all has ended that the flow did
        not wait for; `selective`: {"tasks": [...], ...}."""
        return self.submit(flow, args, flow=True, wait_all=wait_all, selective=selective, **options)

    def submit_many(self, task, all_args, queue="celery", level="default", priority=128, quiet=False,
                    packed=False, flow=False, wait_all=False, **times_and_key):
        """One task for each of `all_args` (`packed`: these are msgpack already). They are sent by
        `poll`; how many there may be is yours to bound (len(producer.waiting))."""
        if queue not in self.queues:
            self.queues[queue] = len(self.queues) + 1
            self.outbox.due.append(record(QUEUE, payload=queue.encode(), queue=self.queues[queue]))
        fields = submit_fields(task, **times_and_key)
        tail = RECORD.pack(0, 0, 0, 0, bytes(16), self.queues[queue], priority, LEVELS[level], 0, 0,
                           len(fields), 0, 0)[24:] + fields
        watch = ALL if wait_all else 0
        flags = (QUIET if quiet else watch) | (FLOW if flow else 0)
        ids, size = new_ids(len(all_args)), RECORD.size + len(fields)
        append, pack, begin = self.outbox.due.append, msgpack.packb, struct.Struct("<IBBH").pack
        for id_, args in zip(ids, all_args):
            payload = args if packed else pack(args)
            if size + len(payload) > self.record_max and self.is_open:
                raise ValueError(f"arguments of {len(payload)} bytes are too large for this broker")
            append(b"".join((begin(size + len(payload), SUBMIT, HEADER_UNITS, flags), id_, tail, payload)))
        if quiet:
            self.quiet.update(ids)
        else:
            self.waiting.update(dict.fromkeys(ids, watch))
        return ids

    def watch(self, id_, wait_all=False):
        """Waits for a task or flow that somebody else submitted."""
        self.waiting[id_] = ALL if wait_all else 0
        self.outbox.due.append(record(WATCH, id_, flags=self.waiting[id_]))

    def cancel(self, id_):
        self.outbox.due.append(record(CANCEL, id_))

    @property
    def unsettled(self):
        """Records that the broker may not have for good."""
        return len(self.outbox.kept) + len(self.outbox.due) + len(self.later)

    def poll(self, timeout=0.0):
        """Sends what is due, takes what has come, waits for at most `timeout` seconds until anything
        is finished or settled. A list of Results."""
        until = time.monotonic() + timeout
        unsettled = self.unsettled
        while True:
            now = time.monotonic()
            self._receive_all(now)
            due_at = self._turn(now)
            if self.finished or self.unsettled < unsettled or now >= until:
                out, self.finished = self.finished, []
                return out
            self._sleep(max(0.0, min(due_at, until) - now))

    def results(self, timeout=None):
        """Results as they come, until nothing is waited for or `timeout` seconds are over."""
        until = None if timeout is None else time.monotonic() + timeout
        while self.waiting or self.finished:
            left = 1.0 if until is None else until - time.monotonic()
            if left <= 0:
                return
            yield from self.poll(min(left, 1.0))

    def flush(self, timeout=None):
        """Until all is settled; results that come meanwhile are kept. False: not in time."""
        until = None if timeout is None else time.monotonic() + timeout
        kept = []
        while self.unsettled and (until is None or time.monotonic() < until):
            kept += self.poll(0.1)
        self.finished = kept + self.finished
        return not self.unsettled

    def close(self):
        """Says GOODBYE; call `flush` before. What is unsettled now may be lost."""
        if self.socket is None:
            return
        if self.is_open:
            self._send(encode_plain(GOODBYE, {"session": self.session, "reason": "closed"}))
        self.socket.close(linger=1000)
        self.socket, self.is_open = None, False
        self.context.term()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # ---- the connection ----

    def _connect(self, now):
        if self.socket is not None:
            self.socket.close(linger=0)
        self.socket = self.context.socket(zmq.DEALER)
        self.socket.maxmsgsize = 4 << 20
        self.socket.connect(self.endpoints[self.connects % len(self.endpoints)])
        self.connects += 1
        self.is_open, self.connect_at, self.heard_at = False, None, now
        self._hello(now)

    def _break(self, why, now, wait=0.0):
        """Closes the connection; `_turn` makes a new one after a pause."""
        self.log(f"connection lost: {why}")
        self.socket.close(linger=0)
        self.socket, self.is_open = None, False
        self.connect_at = now + max(wait, self.pause * random.uniform(0.5, 1.0))
        self.pause = min(self.pause * 2, PAUSE_MAX)

    def _hello(self, now):
        self.is_open = False
        self.hello_count += 1
        self.hello_at = now
        body = {"v": [1, 1], "role": "producer", "peer": self.peer, "n": self.hello_count,
                "name": self.name[:255]}
        if self.session:
            body.update(broker=self.broker, session=self.session, ack=self.arrived)
        body["queues"] = list(self.queues)
        self._send(encode_plain(HELLO, body))

    def _send(self, frame):
        try:
            self.socket.send(frame, zmq.NOBLOCK)
            return True
        except zmq.Again:
            return False

    def _sleep(self, seconds):
        if self.socket is None:
            time.sleep(seconds)
        else:
            self.socket.poll(int(seconds * 1000) + 1,
                             zmq.POLLIN | zmq.POLLOUT if self.is_blocked else zmq.POLLIN)

    # ---- what comes ----

    def _receive_all(self, now):
        for _ in range(64):  # others want their turn
            if self.socket is None:
                return
            try:
                frame = self.socket.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            self.heard_at = now
            try:
                self._receive(*decode(frame), now)
            except Malformed as error:
                self._break(f"the broker sent {error}", now)

    def _receive(self, kind, head, body, now):
        if kind == DATA:
            if self.is_open and head[3] == self.session:
                self._on_data(*head, body)
        elif kind == WELCOME:
            if not self.is_open and body["n"] == self.hello_count:
                self._on_welcome(body)
        elif kind == ERROR:
            self._on_error(body, now)
        elif kind == GOODBYE:
            if self.is_open and body["session"] == self.session:
                self._break("the broker says goodbye", now)
        elif kind == REDIRECT:
            self.endpoints = body["endpoints"]
            self._connect(now)

    def _on_welcome(self, body):
        self.beat, self.record_max = body["beat_us"] / 1e6, body["record_max"]
        self.broker, self.session = body["broker"], body["session"]
        if not body["resumed"]:
            self._restart()
        self.outbox.ack(body["ack"])
        self.outbox.rewind()
        self.outbox.grant(body["credit_records"], body["credit_bytes"])
        self.told_arrived, self.gap_told = 0, None
        self.is_open = self.must_say = True
        self.pause = PAUSE_FIRST

    def _restart(self):
        """A new session: WATCH for what was settled, and what was not settled again."""
        self.arrived = self.arrived_bytes = 0
        later = {r[8:24] for _, r in self.later}
        kept = [r for i, r in enumerate((*self.outbox.kept, *self.outbox.due), self.outbox.settled + 1)
                if r[4] != WATCH and r[8:24] not in later and i not in self.refused
                and (r[4] != SUBMIT or r[8:24] in self.waiting or r[8:24] in self.quiet)]
        self.refused.clear()
        later.update(r[8:24] for r in kept)
        watches = [record(WATCH, id_, flags=flags) for id_, flags in self.waiting.items() if id_ not in later]
        self.outbox.restart(watches + kept)

    def _on_error(self, body, now):
        code, text = body["code"], f"error {body['code']}: {body.get('text', '')}"
        if not self.is_open:  # only an answer to our last HELLO counts
            if body.get("n") != self.hello_count:
                return
            if not body.get("retry"):
                raise Refused(text)
            self._break(text, now, body.get("wait_us", 0) / 1e6)
        elif code == UNKNOWN_SESSION or body.get("close"):
            self.log(text)
            self._hello(now)
        else:
            self.log(text)  # about one record that is no SUBMIT, or a matter of taste

    def _on_data(self, _version, flags, count, _session, first, ack, settled, credit_records,
                 credit_bytes, records):
        """Steps 1 to 7 of PROTOCOL.md, "Numbers, acks, sending again"; 1 is done."""
        box = self.outbox
        box.ack(ack)
        box.grant(credit_records, credit_bytes)
        if flags & RESEND and ack >= box.acked:
            box.rewind()
        skip = self.arrived + 1 - first  # so many are here already
        if skip < 0:
            if flags & ANSWER or self.gap_told != self.arrived:
                self.gap_told, self.must_resend = self.arrived, True
            return
        if count > skip:
            new, size = split(records, count, skip)
            self.arrived += len(new)
            self.arrived_bytes += size
            self._take(new)
        self._settle(settled)
        if flags & ANSWER:
            self.must_answer = True

    def _take(self, records):
        waiting, finished = self.waiting, self.finished
        for kind, flags, id_, code, handle, payload in records:
            if kind == RESULT and not flags & MUST_UNDERSTAND:
                if waiting.pop(id_, None) is not None:  # else it came in an earlier session too
                    finished.append(Result(id_, OUTCOMES.get(code, "failed"), payload))
            elif kind == REFUSED and not flags & MUST_UNDERSTAND:
                self._on_refused(id_, code, handle, payload)
            elif kind != QUEUE:
                self.log(f"a record of type {kind} with flags {flags:#x} is not understood")

    def _on_refused(self, id_, code, handle, payload):
        """What was refused is still kept: `settled` comes behind its REFUSED."""
        at = handle - self.outbox.settled - 1
        is_kept = 0 <= at < len(self.outbox.kept) and self.outbox.kept[at][8:24] == id_
        if is_kept:
            self.refused.add(handle)
        if is_kept and code in (FULL, DRAINING):
            self.later.append((time.monotonic() + 0.5, self.outbox.kept[at]))
        elif id_ in self.waiting or id_ in self.quiet:
            self.waiting.pop(id_, None)
            self.quiet.discard(id_)
            self.finished.append(Result(id_, "refused", payload))

    def _settle(self, settled):
        first = self.outbox.settled + 1
        decided = self.outbox.settle(settled)
        if not (self.on_settled or self.quiet or self.refused):
            return
        for number, r in enumerate(decided, first):
            if number in self.refused:
                self.refused.discard(number)
            elif r[4] == SUBMIT:
                self.quiet.discard(r[8:24])
                if self.on_settled:
                    self.on_settled(r[8:24])

    # ---- what goes, and when ----

    def _turn(self, now):
        """Says what is to be said; when to be called again."""
        if self.socket is None:
            if now < self.connect_at:
                return self.connect_at
            self._connect(now)
        expects = bool(self.waiting or self.unsettled)
        if not expects and self.is_open:
            self.heard_at = now  # silence counts from when something is waited for
        elif now - self.heard_at > 3 * self.beat:
            self._break(f"nothing heard for {now - self.heard_at:.1f} s", now)
            return self.connect_at
        if not self.is_open:
            if now - self.hello_at >= self.beat:
                self._hello(now)
            return self.hello_at + self.beat
        while self.later and self.later[0][0] <= now:
            self.outbox.due.append(self.later.popleft()[1])
        self._say(now, expects)
        due_at = self.asked_at + self.beat if expects else now + self.beat
        if self.arrived > self.told_arrived:
            due_at = min(due_at, self.said_at + ACK_AFTER)
        return min(due_at, self.later[0][0]) if self.later else due_at

    def _say(self, now, expects):
        while True:
            first, count, records = self.outbox.take()
            owes = self.arrived - self.told_arrived
            if not (count or self.must_say or self.must_answer or self.must_resend):
                if now - self.asked_at < self.beat or not expects:
                    if owes == 0 or (owes < WINDOW_RECORDS // 2 and now - self.said_at < ACK_AFTER):
                        return
            flags = RESEND if self.must_resend else 0
            if expects and now - self.asked_at >= self.beat:
                self.asked_at, self.gap_told = now, None  # the answer shows a gap that is still there
                flags |= ANSWER
            frame = encode_data(self.session, first, count, records, flags, self.arrived, self.arrived,
                                self.arrived + WINDOW_RECORDS, self.arrived_bytes + WINDOW_BYTES)
            self.is_blocked = not self._send(frame)
            if self.is_blocked:  # the queue of the socket is full
                self.outbox.take_back(count)
                return
            self.must_say = self.must_answer = self.must_resend = False
            self.said_at, self.told_arrived = now, self.arrived


# ---- the command ----

def show(result):
    print(uuid.UUID(bytes=result.id), result.outcome,
          json.dumps(result.value, ensure_ascii=False, default=repr), flush=True)


def run(producer, options):
    """Submits and waits; how many of each outcome."""
    args = [msgpack.packb(json.loads(options.args))]
    left = options.count if options.command == "submit" else 0
    for text in getattr(options, "ids", ()):
        producer.watch(uuid.UUID(text).bytes, options.all)
    of_flow = {}
    if options.command == "submit" and options.flow:
        of_flow = {"flow": True, "wait_all": options.all,
                   "selective": {"tasks": options.selective.split(",")} if options.selective else None}
    outcomes = {}
    while left or producer.waiting or producer.unsettled:
        batch = min(left, 1000, options.window - len(producer.waiting) - len(producer.quiet))
        if batch > 0 and len(producer.outbox.due) < 4000:
            producer.submit_many(options.task, args * batch, packed=True, queue=options.queue,
                                 level=options.level, priority=options.priority, quiet=options.quiet,
                                 countdown=options.countdown, key=options.key, **of_flow)
            left -= batch
        for result in producer.poll(0 if left and batch > 0 else 0.1):
            outcomes[result.outcome] = outcomes.get(result.outcome, 0) + 1
            if not options.summary:
                show(result)
    return outcomes


def main():
    parser = argparse.ArgumentParser(description="Submits tasks and flows to a Selinon broker.")
    commands = parser.add_subparsers(dest="command", required=True)
    submit = commands.add_parser("submit", help="submit a task and wait for its result")
    watch = commands.add_parser("watch", help="wait for tasks that were submitted before")
    for each in (submit, watch):
        each.add_argument("--broker", action="append", metavar="ENDPOINT", help="may be repeated")
        each.add_argument("--summary", action="store_true", help="one JSON object instead of results")
        each.add_argument("--verbose", action="store_true", help="say what the connection does")
        each.add_argument("--all", action="store_true", help="flows: wait also for what they did not wait for")
    submit.add_argument("task")
    submit.add_argument("--flow", action="store_true", help="it is a flow")
    submit.add_argument("--selective", metavar="TASK,...", help="of the flow only what leads to these tasks")
    submit.add_argument("--args", default="null", metavar="JSON")
    submit.add_argument("--count", type=int, default=1, help="how many of the same")
    submit.add_argument("--queue", default="celery")
    submit.add_argument("--level", default="default", choices=LEVELS)
    submit.add_argument("--priority", type=int, default=128, help="0 to 255, larger first")
    submit.add_argument("--countdown", type=float, metavar="SECONDS")
    submit.add_argument("--key", help="idempotency key")
    submit.add_argument("--quiet", action="store_true", help="no results, only that they are safe")
    submit.add_argument("--window", type=int, default=50000, help="how many may be under way")
    watch.add_argument("ids", nargs="+", metavar="ID")
    watch.set_defaults(args="null", window=0)
    options = parser.parse_args()
    if options.command == "submit" and not options.flow and (options.all or options.selective):
        parser.error("--all and --selective are for --flow")
    if options.command == "submit" and options.quiet and options.all:
        parser.error("--quiet and --all exclude each other")
    queues = [options.queue] if options.command == "submit" else []
    log = (lambda text: print(text, file=sys.stderr)) if options.verbose else None
    begin = time.monotonic()
    try:
        with Producer(*(options.broker or ["tcp://127.0.0.1:5711"]), queues=queues, log=log) as producer:
            outcomes = run(producer, options)
    except (Refused, ValueError) as error:
        sys.exit(f"Error: {error}")
    seconds = time.monotonic() - begin
    if options.summary:
        count = options.count if options.command == "submit" else len(options.ids)
        print(json.dumps({"tasks": count, "seconds": round(seconds, 3),
                          "tasks_per_s": round(count / seconds), **outcomes}))
    return 0 if set(outcomes) <= {"finished"} else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
