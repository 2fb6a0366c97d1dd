#!/usr/bin/env python3
"""Makes the test vectors of the wire protocol, from PROTOCOL.md and not from the code.

    make.py          writes NAME.json beside itself
    make.py --check  says what differs, ends with 1 if anything does

Needs nothing but Python's own library; what it has of msgpack is what the protocol uses.
"""
import json
import os
import struct
import sys
import uuid

HERE = os.path.dirname(os.path.abspath(__file__))
MESSAGES = {"HELLO": 1, "WELCOME": 2, "DATA": 3, "ERROR": 4, "GOODBYE": 5, "BEAT": 6, "REDIRECT": 7,
            "QUERY": 8, "REPLY": 9}
RECORDS = {"QUEUE": 1, "SUBMIT": 2, "REFUSED": 3, "RESULT": 4, "TASK": 5, "DONE": 6, "RETURN": 7,
           "CANCEL": 8, "CANCELLED": 9, "WANT": 10, "WATCH": 11, "DECIDE": 12, "STATE": 13, "EVENTS": 14,
           "ENDED": 15, "LIVE": 16, "VOID": 17}
FIELDS = {"task": 1, "countdown": 2, "not_before": 3, "deadline": 4, "expiry": 5,
          "idempotency_key": 6, "ordering_key": 7, "limit_key": 8, "trace": 9, "content_type": 10,
          "namespace": 11, "root": 12, "parent": 13, "selective": 14, "run": 15,
          "flow": 16}
ID = "0198f3c2-7b1c-7001-8000-4a0000000007"
ID2 = "0198f3c2-7b1d-7001-8000-4a0000000008"
PEER = "8d1f2b54-9a3e-4c77-b6d0-52e1c09f7a11"
BROKER = "3c5e7a90-1122-4b33-8c44-d55e66f77a88"
SESSION = (3 << 32) | 17


def decision():
    """The payload of a DECIDE: the end of run 3 was used, four runs of a task start, and a sub-flow."""
    def start(ordinal, count, flags, args, parents, fields, child):
        return struct.pack("<IIHHIIHHQQ", ordinal, count, 1, flags, args, parents, len(fields), 0, 0, 0) + child + fields
    fields = [struct.pack("<BBH", 1, 0, len(name)) + name for name in (b"Resize", b"publish")]
    starts = start(10, 4, 0, 0, 1, fields[0], bytes(16)) + start(14, 1, 1, 2, 0, fields[1], uuid.UUID(ID2).bytes)
    blobs = [b"parents", b"\x81\xa1a\x01"]
    events = b"events"
    head = struct.pack("<IIIIIIIIQII", 5, 0, 1, len(blobs), 2, len(events), 0, 0, 0, 0, 0)
    return head + struct.pack("<I", 3) + struct.pack("<II", *map(len, blobs)) + starts + b"".join(blobs) + events


# ---- msgpack, shortest forms ----

def pack(value):
    if value is None:
        return b"\xc0"
    if isinstance(value, bool):
        return b"\xc3" if value else b"\xc2"
    if isinstance(value, int):
        return pack_int(value)
    if isinstance(value, float):
        return b"\xcb" + struct.pack(">d", value)
    if isinstance(value, str):
        data = value.encode()
        return sized(len(data), 0xa0, 32, 0xd9) + data
    if isinstance(value, bytes):
        return sized(len(value), None, 0, 0xc4) + value
    if isinstance(value, list):
        return sized(len(value), 0x90, 16, 0xdb) + b"".join(map(pack, value))
    if isinstance(value, dict):
        pairs = b"".join(pack(k) + pack(v) for k, v in value.items())
        return sized(len(value), 0x80, 16, 0xdd) + pairs
    raise TypeError(value)


def sized(n, fix, fix_end, first):
    """The head of a text, bin, list or map. `first` is the code of the form with one byte, which lists
    and maps do not have."""
    if fix is not None and n < fix_end:
        return bytes([fix | n])
    if n < 256 and first not in (0xdb, 0xdd):
        return bytes([first, n])
    if n < 65536:
        return bytes([first + 1]) + struct.pack(">H", n)
    return bytes([first + 2]) + struct.pack(">I", n)


def pack_int(value):
    if -32 <= value < 0:
        return struct.pack("b", value)
    if 0 <= value < 128:
        return bytes([value])
    for code, form, low, high in ((0xcc, ">B", 0, 2**8), (0xcd, ">H", 0, 2**16), (0xce, ">I", 0, 2**32),
                                  (0xcf, ">Q", 0, 2**64), (0xd0, ">b", -2**7, 0), (0xd1, ">h", -2**15, 0),
                                  (0xd2, ">i", -2**31, 0), (0xd3, ">q", -2**63, 0)):
        if low <= value < high:
            return bytes([code]) + struct.pack(form, value)
    raise ValueError(value)


def bin32(data):
    return b"\xc6" + struct.pack(">I", len(data)) + data


# ---- the tables of PROTOCOL.md ----

def plain(kind, body):
    return b"\x93" + bytes([MESSAGES[kind]]) + b"\xc0" + pack(body)


def head(version=1, flags=0, count=0, session=SESSION, first=1, ack=0, settled=0, credit_records=0,
         credit_bytes=0):
    return struct.pack("<HHIQQQQQQ", version, flags, count, session, first, ack, settled, credit_records,
                       credit_bytes)


def data(head_bytes, body, form=bin32):
    return b"\x93\x03" + pack(head_bytes) + form(body)


def field_bytes(name, value):
    if name in ("countdown",):
        return struct.pack("<Q", value)
    if name in ("not_before", "deadline", "expiry"):
        return struct.pack("<q", value)
    if name in ("root", "parent"):
        return uuid.UUID(value).bytes
    if name in ("trace", "selective", "run") or name not in FIELDS:
        return bytes.fromhex(value)
    return value.encode()


def fields(values):
    out = b""
    for name, value in values.items():
        content = field_bytes(name, value)
        out += struct.pack("<BBH", FIELDS.get(name) or int(name), 0, len(content)) + content
    return out


def record(r, more_header=b"", raw_fields=None, size=None, units=None, fields_size=None):
    content = fields(r.get("fields", {})) if raw_fields is None else raw_fields
    payload = bytes.fromhex(r.get("payload", ""))
    units = 6 + len(more_header) // 8 if units is None else units
    n = 48 + len(more_header) + len(content) + len(payload) if size is None else size
    kind = RECORDS[r["type"]] if isinstance(r["type"], str) else r["type"]
    fixed = struct.pack("<IBBH16sHBBIQIHH", n, kind, units, r.get("flags", 0),
                        uuid.UUID(r["id"]).bytes if "id" in r else bytes(16), r.get("queue", 0),
                        r.get("priority", 128), r.get("level", 0), r.get("code", 0), r.get("handle", 0),
                        len(content) if fields_size is None else fields_size, r.get("try", 0),
                        r.get("delivery", 0))
    return fixed + more_header + content + payload


def beat(b, form=bin32):
    fixed = struct.pack("<16sIIQQQ", uuid.UUID(b["peer"]).bytes, b.get("inc", 0), 0, b["count"], b["turns"],
                        b["mono_us"])
    return b"\x93\x06" + pack(fixed) + form(bytes.fromhex(b["progress"]))


def held(tasks):
    return b"".join(struct.pack("<16sQHHI", uuid.UUID(t["id"]).bytes, t["handle"], t.get("try", 0),
                                t.get("delivery", 0), 1 if t.get("ended") or t.get("overflow") else 0) for t in tasks)


# ---- vectors ----

VECTORS = []


def good(name, frame, meaning, decode_only=False):
    entry = {"name": name, "hex": frame.hex(), "json": meaning}
    if decode_only:
        entry["decode_only"] = True
    VECTORS.append(entry)


def bad(name, frame, refused, why, number=None):
    entry = {"name": name, "hex": frame.hex(), "refused": refused, "why": why}
    if number:
        entry["record"] = number
    VECTORS.append(entry)


def good_map(name, kind, body, meaning=None, **options):
    shown = {"message": kind}
    shown.update(meaning or {})
    for key, value in body.items():
        shown.setdefault(key, value)
    good(name, plain(kind, body), shown, **options)


def good_data(name, records, head_values=None, **options):
    values = dict(session=SESSION, first=1)
    values.update(head_values or {})
    body = b"".join(map(record, records))
    shown = {"message": "DATA", "records": records}
    shown.update({k: v for k, v in values.items() if v})
    good(name, data(head(count=len(records), **values), body), shown, **options)


def bad_data(name, records, refused, why, number=None, **values):
    count = values.pop("count", len(records))
    bad(name, data(head(count=count, **values), b"".join(records)), refused, why, number)


SUBMIT = {"type": "SUBMIT", "id": ID, "queue": 1, "fields": {"task": "echo"}, "payload": pack([1]).hex()}
TASK = {"type": "TASK", "id": ID, "queue": 2, "priority": 200, "level": 3, "handle": 0x1122334455667788,
        "try": 1, "delivery": 2, "fields": {"task": "echo"}, "payload": pack({"a": 1}).hex()}
ALL_FIELDS = {"task": "resize", "countdown": 1500000, "not_before": 1767225600000000,
              "deadline": 1767225700000000, "expiry": -1, "idempotency_key": "order-17",
              "ordering_key": "user-5", "limit_key": "smtp",
              "trace": "4bf92f3577b34da6a3ce929d0e0e473600f067aa0ba902b701", "content_type": "application/json",
              "namespace": "shop", "root": ID2, "parent": ID}


def plain_vectors():
    peer, broker = uuid.UUID(PEER).bytes, uuid.UUID(BROKER).bytes
    good_map("hello-smallest", "HELLO", {"v": [1, 1], "role": "producer", "peer": peer, "n": 1}, {"peer": PEER})
    good_map("hello-producer", "HELLO",
             {"v": [1, 3], "role": "producer", "peer": peer, "inc": 4, "n": 2, "name": "shop-1:4711",
              "broker": broker, "session": SESSION, "ack": 99, "queues": ["celery", "schnell-\u00fc"]},
             {"peer": PEER, "broker": BROKER})
    tasks = [{"id": ID, "handle": 7, "try": 1, "delivery": 1}, {"id": ID2, "handle": 2**64 - 1, "ended": True}]
    good_map("hello-worker", "HELLO",
             {"v": [1, 1], "role": "worker", "peer": peer, "inc": 1, "n": 1, "name": "w1", "broker": broker,
              "session": SESSION, "ack": 5, "queues": ["a", "b", "c"], "serves": [1, 3], "slots": 256, "window": 512,
              "held": held(tasks), "events": [1, 2], "config": 12, "digest": bytes(range(32))},
             {"peer": PEER, "broker": BROKER, "held": tasks, "digest": bytes(range(32)).hex()})
    dead = [{"id": ID, "handle": 7, "try": 1, "delivery": 1, "overflow": True}, {"id": ID2, "handle": 8}]
    good_map("hello-worker-crashed", "HELLO",
             {"v": [1, 1], "role": "worker", "peer": peer, "inc": 2, "n": 1, "queues": ["a"], "slots": 1,
              "held": held(tasks), "crashed": held(dead)},
             {"peer": PEER, "held": tasks, "crashed": dead})
    good_map("hello-worker-serves-nothing", "HELLO",
             {"v": [1, 1], "role": "worker", "peer": peer, "n": 1, "queues": ["a"], "serves": [], "slots": 1},
             {"peer": PEER})
    good("hello-unknown-keys", plain("HELLO", {"new": [1, {"x": None}], "v": [1, 1], "peer": peer, "name": None,
                                               "role": "producer", "n": 1}),
         {"message": "HELLO", "v": [1, 1], "role": "producer", "peer": PEER, "n": 1}, decode_only=True)
    welcome = {"v": 1, "n": 1, "broker": broker, "session": SESSION, "resumed": True, "ack": 70,
               "credit_records": 1070, "credit_bytes": 2**33, "record_max": 1052672, "lease_us": 10000000,
               "beat_us": 1000000, "level": 3, "level_max": 3, "shard": 5}
    good_map("welcome-resumed", "WELCOME", welcome, {"broker": BROKER})
    new = {k: v for k, v in welcome.items() if k not in ("resumed", "ack", "shard")}
    good_map("welcome-new", "WELCOME", new, {"broker": BROKER})
    good_map("error-version", "ERROR", {"code": 2, "text": "this broker speaks 1 to 1, not 7 to 9", "n": 3, "v": [1, 1]})
    good_map("error-unknown-session", "ERROR", {"code": 3, "retry": True, "wait_us": 250000, "close": True, "at": 12})
    good_map("error-newer-code", "ERROR", {"code": 4000000000})
    good_map("goodbye", "GOODBYE", {"session": SESSION, "reason": "drained"})
    good_map("redirect", "REDIRECT", {"shard": 2, "endpoints": ["tcp://a:7411", "tcp://[::1]:7411"]})
    good_map("query", "QUERY", {"n": 1, "what": "queues", "args": {"name": "celery"}})
    good_map("query-without-args", "QUERY", {"n": 0, "what": "status"})
    good_map("reply", "REPLY", {"n": 1, "more": True, "body": [{"name": "celery", "waiting": 12}]})
    good_map("reply-error", "REPLY", {"n": 2**64 - 1, "code": 6, "text": "no query is called 'quark'"})
    b = {"peer": PEER, "inc": 1, "count": 9, "turns": 123456, "mono_us": 987654321, "progress": "00017fff"}
    good("beat", beat(b), dict(message="BEAT", **b))
    good("beat-short-bin", beat(b, pack), dict(message="BEAT", **b), decode_only=True)
    good("beat-no-slots", beat(dict(b, progress="")), dict(message="BEAT", **dict(b, progress="")))

    ok = {"v": [1, 1], "role": "producer", "peer": peer, "n": 1}
    for name, change, refused, why in (
            ("no-versions", {"v": None}, "malformed", "v is missing"),
            ("versions-not-two", {"v": [1]}, "malformed", "a range has two ends"),
            ("versions-backwards", {"v": [2, 1]}, "malformed", "lowest above highest"),
            ("role-unknown", {"role": "boss"}, "malformed", "no such role"),
            ("role-number", {"role": 1}, "malformed", "a role is text"),
            ("peer-short", {"peer": peer[:15]}, "malformed", "an id has 16 bytes"),
            ("peer-text", {"peer": PEER}, "malformed", "an id is bin"),
            ("n-negative", {"n": -1}, "malformed", "numbers are not negative"),
            ("n-missing", {"n": None}, "malformed", "n is missing"),
            ("name-long", {"name": "x" * 256}, "too large", "at most 255 bytes"),
            ("inc-large", {"inc": 2**32}, "malformed", "32 bits"),
            ("queue-empty", {"queues": [""]}, "malformed", "a name has 1 to 255 bytes"),
            ("queue-number", {"queues": ["a", 7]}, "malformed", "names are text"),
            ("queues-many", {"queues": ["q"] * 4097}, "too large", "at most 4096"),
            ("held-odd", {"role": "worker", "held": bytes(33)}, "malformed", "32 bytes each"),
            ("crashed-odd", {"role": "worker", "crashed": bytes(31)}, "malformed", "32 bytes each"),
            ("crashed-many", {"role": "worker", "crashed": bytes(65 * 32)}, "too large", "at most 64"),
            ("serves-zero", {"role": "worker", "queues": ["a"], "serves": [0]}, "malformed", "numbers begin at 1"),
            ("serves-large", {"role": "worker", "serves": [65536]}, "malformed", "16 bits"),
            ("slots-many", {"role": "worker", "slots": 65537}, "malformed", "at most 65536"),
            ("digest-long", {"role": "worker", "digest": bytes(65)}, "too large", "at most 64 bytes")):
        bad("hello-" + name, plain("HELLO", {**ok, **change}), refused, why)
    bad("hello-many-keys", plain("HELLO", {**ok, **{f"k{i}": i for i in range(61)}}), "too large", "at most 64 keys are read")
    bad("hello-no-map", b"\x93\x01\xc0" + pack([1]), "malformed", "the body is a map")
    bad("hello-head-not-nil", b"\x93\x01\x01" + pack(ok), "malformed", "the head is nil")
    bad("hello-cut", plain("HELLO", ok)[:-3], "malformed", "ends within the map")
    bad("hello-bytes-behind", plain("HELLO", ok) + b"\xc0", "malformed", "one value, and nothing behind it")
    bad("hello-not-utf8", plain("HELLO", ok).replace(b"producer", b"prod\xffcer"), "malformed", "text is UTF-8")
    bad("hello-huge-list", b"\x93\x01\xc0\x81\xa1v\xdd\xff\xff\xff\xff", "malformed", "a list that the message cannot hold")
    bad("welcome-no-session", plain("WELCOME", {**new, "session": 0}), "malformed", "0 is no session")
    bad("welcome-level-default", plain("WELCOME", {**new, "level": 0}), "malformed", "the default has a level")
    bad("welcome-level-max-below", plain("WELCOME", {**new, "level_max": 2}), "malformed", "below the default")
    bad("welcome-record-max-small", plain("WELCOME", {**new, "record_max": 4095}), "malformed", "at least 4096")
    bad("error-no-code", plain("ERROR", {"text": "?"}), "malformed", "code is missing")
    bad("goodbye-no-session", plain("GOODBYE", {"reason": "?"}), "malformed", "session is missing")
    bad("redirect-nowhere", plain("REDIRECT", {"shard": 1, "endpoints": []}), "malformed", "at least one endpoint")
    bad("query-no-what", plain("QUERY", {"n": 1}), "malformed", "what is missing")
    bad("query-args-list", plain("QUERY", {"n": 1, "what": "x", "args": [1]}), "malformed", "args is a map")
    bad("reply-no-n", plain("REPLY", {"body": 1}), "malformed", "n is missing")
    bad("beat-cut", beat(b)[:-1], "malformed", "the body ends behind the message")
    bad("beat-head-short", b"\x93\x06" + pack(bytes(47)) + bin32(b""), "malformed", "the head has 48 bytes")
    bad("beat-many-slots", b"\x93\x06" + pack(bytes(48)) + bin32(bytes(65537)), "too large", "at most 65536 slots")
    for name, frame, why in (("empty", b"", "no message"), ("map", b"\x83\x01\xc0\x80", "a message is a list"),
                             ("list-of-two", b"\x92\x01\xc0\xc0", "of three"), ("type-0", b"\x93\x00\xc0\x80", "no such type"),
                             ("type-10", b"\x93\x0a\xc0\x80", "no such type"),
                             ("type-long", b"\x93\xcc\x01\xc0\x80", "the shortest form")):
        bad("message-" + name, frame, "malformed", why)


def data_vectors():
    good_data("data-empty", [], dict(first=8, ack=7, settled=7, credit_records=1007, credit_bytes=2**24))
    good_data("data-answer-resend", [], dict(flags=3, first=2**63, ack=2**62, settled=2**61,
                                             credit_records=2**64 - 1, credit_bytes=2**64 - 1))
    good_data("data-flags-unknown", [], dict(flags=0x00fc))
    good_data("queue", [{"type": "QUEUE", "queue": 2, "payload": "celery".encode().hex()}])
    good_data("submit", [SUBMIT])
    bare = {k: v for k, v in SUBMIT.items() if k != "payload"}
    good_data("submit-no-payload", [bare])
    good_data("submit-quiet", [dict(SUBMIT, flags=1, priority=255, level=1)])
    good_data("submit-lowest", [dict(SUBMIT, priority=0, level=3)])
    good_data("submit-countdown", [dict(SUBMIT, fields={"task": "echo", "countdown": 2**40, "not_before": -5,
                                                        "idempotency_key": "k", "content_type": "text/plain"})])
    good_data("submit-all-fields", [dict(SUBMIT, fields=ALL_FIELDS)])
    good_data("submit-unknown-field", [dict(SUBMIT, fields={"task": "echo", "90": "0102", "127": ""})])
    good_data("refused", [{"type": "REFUSED", "id": ID, "code": 9, "handle": 12, "payload": b"queue 4 has no name".hex()}])
    good_data("refused-without-id", [{"type": "REFUSED", "code": 1, "handle": 3}])
    good_data("result", [{"type": "RESULT", "id": ID, "level": 3, "try": 1, "payload": pack({"words": 12}).hex()}])
    good_data("result-failure", [{"type": "RESULT", "id": ID, "code": 1,
                                  "payload": pack({"class": "FileNotFound", "message": "no such file"}).hex()}])
    good_data("task", [TASK])
    run = uuid.UUID(ID).bytes + struct.pack("<IIIHH", 2, 70000, 1, 3, 1)
    good_data("task-run", [dict(TASK, id="0198f3c2-7b1c-8abc-8000-4a0000000007", payload="90c0",
                                fields={"task": "echo", "run": run.hex(), "flow": "ingest"})])
    good_data("done", [{"type": "DONE", "id": ID, "handle": TASK["handle"], "try": 1, "delivery": 2, "payload": "c0"}])
    good_data("done-retry", [{"type": "DONE", "id": ID, "code": 2, "handle": 1, "fields": {"countdown": 5000000},
                              "payload": pack({"class": "E", "message": ""}).hex()}])
    good_data("return", [{"type": "RETURN", "id": ID, "code": 1, "handle": 9, "delivery": 65535, "try": 65535}])
    good_data("cancel", [{"type": "CANCEL", "id": ID, "handle": 5, "delivery": 1}])
    good_data("cancelled", [{"type": "CANCELLED", "id": ID, "handle": 5, "delivery": 1}])
    good_data("want", [{"type": "WANT", "queue": 3, "code": 1}, {"type": "WANT", "queue": 65535}])
    good_data("watch", [{"type": "WATCH", "id": ID2}])
    good_data("submit-flow", [dict(SUBMIT, flags=0x0300, fields={"task": "ingest",
                               "selective": pack({"tasks": ["Count"], "follow_subflows": True}).hex()})])
    about = {"id": ID, "handle": TASK["handle"], "try": 1, "delivery": 2}
    good_data("decide", [dict(about, type="DECIDE", payload=decision().hex()),
                         dict(about, type="DECIDE", flags=0x1000, payload=decision()[:100].hex()),
                         dict(about, type="DECIDE", payload=decision()[100:].hex()), {"type": "VOID"}])
    good_data("history", [dict(TASK, flags=0x0500), dict(about, type="STATE", code=7, flags=0x1000, payload="01"),
                          dict(about, type="STATE", code=7, payload="02"), dict(about, type="EVENTS", code=8, payload="03"),
                          dict(about, type="ENDED", handle=4, code=1, flags=0x2000, payload=pack({"class": "KeyError", "message": "a"}).hex()),
                          dict(about, type="ENDED", handle=5), dict(about, type="LIVE", code=8)])
    good_data("return-throttled", [dict(about, type="RETURN", code=3, fields={"countdown": 100000, "limit_key": "ingest"})])
    good_data("data-many", [{"type": "QUEUE", "queue": 1, "payload": "61"}, SUBMIT, dict(bare, id=ID2),
                            {"type": "WATCH", "id": ID}], dict(first=41, ack=3, settled=2, credit_records=5, credit_bytes=600))
    shown = {"message": "DATA", "session": SESSION, "first": 1, "records": [SUBMIT]}
    frame_head = head(count=1)
    good("data-body-bin8", data(frame_head, record(SUBMIT), pack), shown, decode_only=True)
    good("data-body-bin16", data(frame_head, record(SUBMIT), lambda b: b"\xc5" + struct.pack(">H", len(b)) + b), shown,
         decode_only=True)
    good("data-longer-header", data(frame_head, record(SUBMIT, more_header=b"newer..." * 3)), shown, decode_only=True)

    good_record = record(SUBMIT)
    bad("data-head-short", data(frame_head[:-1], good_record), "malformed", "the head has 56 bytes")
    bad("data-body-no-bin", b"\x93\x03" + pack(frame_head) + pack("text"), "malformed", "the body is bin")
    bad("data-cut", data(frame_head, good_record)[:-1], "malformed", "the body ends behind the message")
    bad("data-bytes-behind", data(frame_head, good_record) + b"\xc0", "malformed", "bytes behind the body")
    bad_data("data-version-0", [], "version", "version 1", version=0)
    bad_data("data-version-2", [], "version", "version 1", version=2)
    bad_data("data-must-understand", [], "unsupported", "bit 8 must be understood", flags=0x0100)
    bad_data("data-first-0", [], "malformed", "numbers begin at 1", first=0)
    bad_data("data-first-over", [good_record], "malformed", "the last number has more than 64 bits", first=2**64 - 1)
    bad_data("data-settled-above-ack", [], "malformed", "settled is at most ack", ack=1, settled=2)
    bad_data("data-count-small", [good_record] * 2, "malformed", "bytes behind the last record", count=1)
    bad_data("data-count-large", [good_record], "malformed", "cut", count=2)
    bad_data("data-count-huge", [], "malformed", "cut", count=2**32 - 1)
    bad_data("record-header-cut", [good_record[:47]], "malformed", "cut within the header", count=1)
    bad_data("record-size-0", [record(SUBMIT, size=0)], "malformed", "smaller than its header")
    bad_data("record-size-47", [record(SUBMIT, size=47)], "malformed", "smaller than its header")
    bad_data("record-size-over", [record(SUBMIT, size=4096)], "malformed", "ends behind the message")
    bad_data("record-size-huge", [record(SUBMIT, size=2**32 - 1)], "malformed", "ends behind the message")
    bad_data("record-header-small", [record(SUBMIT, units=5)], "malformed", "a header has 48 bytes at least")
    bad_data("record-header-over", [record(SUBMIT, units=255)], "malformed", "the header ends behind the record")
    bad_data("record-fields-over", [record(SUBMIT, fields_size=4096)], "malformed", "the fields end behind the record")

    watch = record({"type": "WATCH", "id": ID2})
    for name, wrong, refused, why in (
            ("type-0", record(dict(SUBMIT, type=0)), "unsupported", "no such type"),
            ("type-18", record(dict(SUBMIT, type=18)), "unsupported", "no such type"),
            ("must-understand", record(dict(SUBMIT, flags=0x8000)), "unsupported", "bit 15 must be understood"),
            ("field-must-understand", record(dict(SUBMIT, fields={"task": "echo", "128": "00"})), "unsupported",
             "fields from 128 on must be understood"),
            ("field-cut", record(SUBMIT, raw_fields=fields({"task": "echo"}) + b"\x02\x00\x08"), "malformed", "cut"),
            ("field-over", record(SUBMIT, raw_fields=b"\x01\x00\x05\x00echo"), "malformed", "ends behind the fields"),
            ("field-twice", record(SUBMIT, raw_fields=fields({"task": "echo"}) * 2), "malformed", "tags go up"),
            ("field-order", record(SUBMIT, raw_fields=fields({"countdown": 1, "task": "echo"})), "malformed", "tags go up"),
            ("field-0", record(SUBMIT, raw_fields=b"\x00\x00\x00\x00"), "malformed", "tags begin at 1"),
            ("countdown-short", record(SUBMIT, raw_fields=fields({"task": "e"}) + b"\x02\x00\x04\x00\x01\x00\x00\x00"),
             "malformed", "8 bytes"),
            ("trace-short", record(SUBMIT, raw_fields=fields({"task": "e", "trace": "00" * 24})), "malformed", "25 bytes"),
            ("task-empty", record(dict(SUBMIT, fields={"task": ""})), "malformed", "1 to 255 bytes"),
            ("flow-empty", record(dict(TASK, fields={"task": "echo", "flow": ""})), "malformed", "1 to 255 bytes"),
            ("run-short", record(dict(TASK, fields={"task": "echo", "run": "00" * 31})), "malformed", "32 bytes"),
            ("task-long", record(dict(SUBMIT, fields={"task": "x" * 256})), "malformed", "1 to 255 bytes"),
            ("task-not-utf8", record(SUBMIT, raw_fields=b"\x01\x00\x02\x00\xc3\x28"), "malformed", "text is UTF-8"),
            ("no-task", record(dict(SUBMIT, fields={})), "malformed", "a SUBMIT names its task"),
            ("no-id", record({k: v for k, v in SUBMIT.items() if k != "id"}), "malformed", "an id is not 0"),
            ("no-queue", record(dict(SUBMIT, queue=0)), "malformed", "0 is no queue"),
            ("level-4", record(dict(SUBMIT, level=4)), "unsupported", "no such level"),
            ("submit-code", record(dict(SUBMIT, code=1)), "unsupported", "a SUBMIT has no code"),
            ("done-code-4", record({"type": "DONE", "id": ID, "code": 4}), "unsupported", "no such outcome"),
            ("return-code-4", record({"type": "RETURN", "id": ID, "code": 4}), "unsupported", "no such reason"),
            ("want-code-2", record({"type": "WANT", "queue": 1, "code": 2}), "unsupported", "0 or 1"),
            ("want-no-queue", record({"type": "WANT", "code": 1}), "malformed", "0 is no queue"),
            ("queue-no-name", record({"type": "QUEUE", "queue": 1}), "malformed", "1 to 255 bytes"),
            ("queue-long-name", record({"type": "QUEUE", "queue": 1, "payload": "61" * 256}), "malformed", "1 to 255 bytes"),
            ("queue-not-utf8", record({"type": "QUEUE", "queue": 1, "payload": "ff"}), "malformed", "text is UTF-8")):
        bad_data("record-" + name, [watch, wrong, watch], refused, why, number=2)


def text_of(entry):
    return json.dumps(entry, indent=1, ensure_ascii=True) + "\n"


def main(check):
    plain_vectors()
    data_vectors()
    wanted = {entry["name"] + ".json": text_of(entry) for entry in VECTORS}
    assert len(wanted) == len(VECTORS), "two vectors of one name"
    there = {name for name in os.listdir(HERE) if name.endswith(".json")}
    wrong = sorted(there - set(wanted))
    for name, text in sorted(wanted.items()):
        path = os.path.join(HERE, name)
        old = None
        if name in there:
            with open(path, encoding="ascii") as stream:
                old = stream.read()
        if old == text:
            continue
        wrong.append(name)
        if not check:
            with open(path, "w", encoding="ascii") as stream:
                stream.write(text)
    for name in wrong:
        print(("differs: " if check else "written: ") + name if name in wanted else "not made by this: " + name)
    print(f"{len(wanted)} vectors")
    return 1 if wrong and check else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] == ["--check"]))
