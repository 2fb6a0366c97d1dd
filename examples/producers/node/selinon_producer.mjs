// A producer for Selinon over the raw protocol: proto/PROTOCOL.md, a DEALER socket and msgpack.
//
//   const producer = new Producer("tcp://127.0.0.1:5711");
//   const task = producer.submit("WordCount", {path: "a.txt"}, {level: "commit"});
//   await task.settled;                  // it is safe at its level
//   console.log(await task.result);      // or throws TaskError
//   await producer.close();
//
// `cli.mjs` is the same as a command. Needs npm's zeromq 6 and @msgpack/msgpack.
import { randomBytes } from "node:crypto";
import { hostname } from "node:os";
import { decode as unpack, encode as pack } from "@msgpack/msgpack";
import { Dealer } from "zeromq";

export const Message = { HELLO: 1, WELCOME: 2, DATA: 3, ERROR: 4, GOODBYE: 5, REDIRECT: 7 };
export const Kind = { QUEUE: 1, SUBMIT: 2, REFUSED: 3, RESULT: 4, CANCEL: 8, WATCH: 11 };
export const LEVELS = { default: 0, memory: 1, interval: 2, commit: 3 };
export const ANSWER = 1, RESEND = 2; // flags of a head
export const QUIET = 0x0001, FLOW = 0x0100, ALL = 0x0200; // of a SUBMIT; ALL of a WATCH too
const MUST_UNDERSTAND = 0xff00;
const UNKNOWN_SESSION = 3, FULL = 7, DRAINING = 10;
const HEAD_SIZE = 56, RECORD_SIZE = 48, PREFIX_SIZE = 4 + HEAD_SIZE + 5;
const MESSAGE_MAX = 1 << 20; // bytes of records in one DATA: well below 4 MiB
const WINDOW_RECORDS = 65536, WINDOW_BYTES = 16 << 20; // what may come beyond what has arrived
const ACK_AFTER_MS = 5; // acks wait so long for records to go with
const BEAT_BEFORE_WELCOME_MS = 1000; // WELCOME says the true one
const PAUSE_FIRST_MS = 100, PAUSE_MAX_MS = 5000; // before connecting anew
const REFUSED_PAUSE_MS = 500; // before a SUBMIT is sent again that the broker had no room for

export class Malformed extends Error {} // something that PROTOCOL.md does not allow

// What `result` throws. `outcome`: failed, cancelled, refused, or lost: the producer was closed. `value`:
// all that is known of a failure or cancellation; of a flow also its nodes.
export class TaskError extends Error {
  constructor(outcome, name, message, value) {
    super(message);
    this.outcome = outcome;
    this.value = value;
    this.name = name;
  }
}

// ---- frames ----

export function encodePlain(type, body) {
  return Buffer.from(pack([type, null, body], { useBigInt64: true }));
}

export function encodeData({ session, first = 1, records = [], flags = 0, ack = 0, settled = 0,
                             creditRecords = 0, creditBytes = 0 }) {
  const size = records.reduce((sum, record) => sum + record.length, 0);
  const out = Buffer.alloc(PREFIX_SIZE);
  out.set([0x93, Message.DATA, 0xc4, HEAD_SIZE]); // [3, bin of 56 bytes, ...
  let at = out.writeUInt16LE(1, 4);
  at = out.writeUInt16LE(flags, at);
  at = out.writeUInt32LE(records.length, at);
  for (const number of [session, first, ack, settled, creditRecords, creditBytes])
    at = out.writeBigUInt64LE(BigInt(number), at);
  out[at++] = 0xc6; // ... bin 32]
  out.writeUInt32BE(size, at);
  return Buffer.concat([out, ...records], PREFIX_SIZE + size);
}

// {type, head, body}: `head` is an object for a DATA, whose `body` are its records; else `body` is
// the map.
export function decode(frame) {
  let message;
  try {
    message = unpack(frame, { useBigInt64: true });
  } catch (error) {
    throw new Malformed(error.message);
  }
  if (!Array.isArray(message) || message.length !== 3 || !(message[0] >= 1 && message[0] <= 9))
    throw new Malformed("no message");
  const [type, head, body] = message;
  if (type === Message.DATA)
    return { type, head: decodeHead(head, body), body: Buffer.from(body.buffer, body.byteOffset, body.length) };
  if (head !== null || typeof body !== "object" || body === null || Array.isArray(body))
    throw new Malformed("a message without a map");
  for (const key of Object.keys(body))
    if (body[key] === null) delete body[key];
  checkMap(type, body);
  return { type, head: null, body };
}

function decodeHead(bytes, body) {
  if (!(bytes instanceof Uint8Array) || bytes.length !== HEAD_SIZE || !(body instanceof Uint8Array))
    throw new Malformed("DATA without its head or body");
  const head = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  const [session, first, ack, settled, creditRecords, creditBytes] =
    [8, 16, 24, 32, 40, 48].map((at) => head.readBigUInt64LE(at));
  const flags = head.readUInt16LE(2), count = head.readUInt32LE(4);
  if (head.readUInt16LE(0) !== 1 || flags & MUST_UNDERSTAND)
    throw new Malformed("a version or flag that we do not speak");
  if (first === 0n || first + BigInt(count) >= 1n << 64n || settled > ack)
    throw new Malformed("DATA: numbers that cannot be");
  return { flags, count, session, first: Number(first), ack: Number(ack), settled: Number(settled),
           creditRecords: Number(creditRecords), creditBytes: Number(creditBytes) };
}

// The numbers that a map must have, and the least that each may be.
const LEAST = {
  [Message.WELCOME]: { v: 1, n: 1, session: 1, record_max: 4096, lease_us: 1, beat_us: 1, level: 1, level_max: 1 },
  [Message.ERROR]: { code: 1 },
  [Message.GOODBYE]: { session: 1 },
};

function checkMap(type, body) {
  for (const [key, least] of Object.entries(LEAST[type] ?? {}))
    if (!["number", "bigint"].includes(typeof body[key]) || body[key] < least)
      throw new Malformed(`no ${key}, or one that cannot be`);
  if (type === Message.WELCOME) {
    if (!(body.broker instanceof Uint8Array) || body.broker.length !== 16)
      throw new Malformed("no id of the broker");
    if (body.v !== 1 || body.level > body.level_max)
      throw new Malformed("a version or level that cannot be");
  }
  if (type === Message.REDIRECT && !body.endpoints?.length)
    throw new Malformed("no endpoints");
}

// `id` is 32 hexadecimal digits; `fields` an object of tag to bytes.
export function encodeRecord({ type, id = "0".repeat(32), flags = 0, queue = 0, priority = 128, level = 0,
                               fields = {}, payload = Buffer.alloc(0) }) {
  const parts = [];
  for (const tag of Object.keys(fields).map(Number).sort((a, b) => a - b)) {
    const start = Buffer.from([tag, 0, 0, 0]);
    start.writeUInt16LE(fields[tag].length, 2);
    parts.push(start, fields[tag]);
  }
  const fieldsSize = parts.reduce((sum, part) => sum + part.length, 0);
  const header = Buffer.alloc(RECORD_SIZE);
  header.writeUInt32LE(RECORD_SIZE + fieldsSize + payload.length, 0);
  header[4] = type;
  header[5] = RECORD_SIZE / 8;
  header.writeUInt16LE(flags, 6);
  header.write(id, 8, "hex");
  header.writeUInt16LE(queue, 24);
  header[26] = priority;
  header[27] = level;
  header.writeUInt32LE(fieldsSize, 40);
  return Buffer.concat([header, ...parts, payload]);
}

// The records of a DATA, each {type, flags, id, code, handle, level, size, payload}.
export function decodeRecords(bytes, count) {
  const out = [];
  let at = 0;
  for (; count > 0; count--) {
    if (at + RECORD_SIZE > bytes.length) throw new Malformed("a record that is cut");
    const size = bytes.readUInt32LE(at);
    const start = bytes[at + 5] * 8 + bytes.readUInt32LE(at + 40);
    if (bytes[at + 5] * 8 < RECORD_SIZE || start > size || at + size > bytes.length)
      throw new Malformed("a record with sizes that cannot be");
    out.push({ type: bytes[at + 4], flags: bytes.readUInt16LE(at + 6), id: bytes.toString("hex", at + 8, at + 24),
               level: bytes[at + 27], code: bytes.readUInt32LE(at + 28), handle: Number(bytes.readBigUInt64LE(at + 32)),
               size, payload: bytes.subarray(at + start, at + size) });
    at += size;
  }
  if (at !== bytes.length) throw new Malformed("bytes behind the last record");
  return out;
}

function submitFields(task, { countdown, notBefore, expiry, key, selective }) {
  const time = (value, write) => {
    const bytes = Buffer.alloc(8);
    bytes[write](BigInt(Math.round(value * 1e6)));
    return bytes;
  };
  const fields = { 1: Buffer.from(task) };
  if (countdown !== undefined) fields[2] = time(countdown, "writeBigUInt64LE"); // seconds
  if (notBefore !== undefined) fields[3] = time(notBefore, "writeBigInt64LE"); // since 1970
  if (expiry !== undefined) fields[5] = time(expiry, "writeBigInt64LE");
  if (key !== undefined) fields[6] = Buffer.from(key);
  if (selective !== undefined) fields[14] = Buffer.from(pack(selective)); // a map as in PROTOCOL.md, "Flows"
  return fields;
}

// A UUID of version 7, as 32 hexadecimal digits.
export function newId() {
  const bytes = randomBytes(16);
  bytes.writeUIntBE(Date.now(), 0, 6);
  bytes[6] = 0x70 | (bytes[6] & 0x0f);
  bytes[8] = 0x80 | (bytes[8] & 0x3f);
  return bytes.toString("hex");
}

const idOf = (record) => record.toString("hex", 8, 24);
const typeOf = (record) => record[4];

// ---- our half of the session ----

// Our records that are not settled, in order: the first has the number settled + 1, those up to
// `sent` were sent. settled <= acked <= sent <= sentEver.
class Outbox {
  constructor() {
    this.restart([]);
  }

  // A new session: these records get the numbers 1, 2, 3, ...
  restart(records) {
    this.records = records;
    this.head = 0; // records[head] is the first
    this.settled = this.acked = this.sent = this.sentEver = this.sentBytes = 0;
    this.creditRecords = this.creditBytes = 0;
  }

  get size() {
    return this.records.length - this.head;
  }

  all() {
    return this.records.slice(this.head);
  }

  put(record) {
    this.records.push(record);
  }

  // The one of that number, if it is kept.
  get(number) {
    return number > this.settled ? this.records[this.head + number - this.settled - 1] : undefined;
  }

  grant(records, bytes) {
    this.creditRecords = Math.max(this.creditRecords, records);
    this.creditBytes = Math.max(this.creditBytes, bytes);
  }

  ack(ack) {
    if (ack > this.sentEver) throw new Malformed("an ack of what was never sent");
    this.acked = Math.max(this.acked, ack);
    while (this.sent < ack) // they were due again, but had arrived
      this.sentBytes += this.get(++this.sent).length;
  }

  // The records that are decided now.
  settle(settled) {
    const end = this.head + Math.max(0, Math.min(settled, this.acked) - this.settled);
    const out = this.records.slice(this.head, end);
    this.settled += out.length;
    this.head = end;
    if (this.head > 4096 && this.head * 2 > this.records.length) {
      this.records = this.records.slice(this.head);
      this.head = 0;
    }
    return out;
  }

  // All after `number` is due again.
  rewind(number) {
    while (this.sent > number)
      this.sentBytes -= this.get(this.sent--).length;
  }

  // The next records within the credit.
  take() {
    const out = [];
    for (let size = 0; this.sent < this.creditRecords; ) {
      const record = this.get(this.sent + 1);
      if (!record || this.sentBytes + record.length > this.creditBytes) break;
      size += record.length;
      if (out.length && size > MESSAGE_MAX) break;
      out.push(record);
      this.sent++;
      this.sentBytes += record.length;
    }
    this.sentEver = Math.max(this.sentEver, this.sent);
    return out;
  }
}

// ---- the producer ----

export class Producer {
  #endpoints; #name; #log;
  #peer = randomBytes(16);
  #queues = new Map();
  #waiting = new Map(); // id: the task of which a result is wanted
  #unsettled = new Map(); // id: the task that is not settled
  #refused = new Set(); // records that were refused and are not settled
  #later = []; // {at, record} that the broker had no room for
  #outbox = new Outbox();
  #socket = null;
  #isOpen = false; #isSending = false; #isClosing = false;
  #helloCount = 0; #connects = 0;
  #session = 0n; #broker = null;
  #arrived = 0; #arrivedBytes = 0; #toldArrived = 0; #gapTold = -1;
  #mustSay = false; #mustAnswer = false; #mustResend = false; #mustHello = false;
  #heardAt = 0; #saidAt = 0; #askedAt = 0; #helloAt = 0; #connectAt = 0;
  #beat = BEAT_BEFORE_WELCOME_MS; #recordMax = 4096;
  #pause = PAUSE_FIRST_MS;
  #timer = null; #soon = false;
  #idle = []; // who waits in flush()

  constructor(endpoints, { queues = ["celery"], name, log = () => {} } = {}) {
    this.#endpoints = [endpoints].flat();
    this.#name = name ?? `${hostname()}:${process.pid}`;
    this.#log = log;
    queues.forEach((queue, i) => this.#queues.set(queue, i + 1));
    this.#wake();
  }

  get waiting() {
    return this.#waiting.size;
  }

  get unsettled() {
    return this.#unsettled.size;
  }

  // {id, settled, result}: two promises, both rejected with TaskError if the task is refused; there is
  // no `result` with `quiet`. Options: queue, level, priority, quiet, countdown, notBefore,
  // expiry, key.
  submit(name, args = null, { queue = "celery", level = "default", priority = 128, quiet = false, flow = false,
                              waitAll = false, ...more } = {}) {
    if (!this.#queues.has(queue)) {
      this.#queues.set(queue, this.#queues.size + 1);
      this.#outbox.put(encodeRecord({ type: Kind.QUEUE, queue: this.#queues.get(queue), payload: Buffer.from(queue) }));
    }
    const id = newId();
    const flags = (quiet ? QUIET : 0) | (flow ? FLOW : 0) | (waitAll ? ALL : 0);
    const record = encodeRecord({ type: Kind.SUBMIT, id, flags, queue: this.#queues.get(queue), priority,
                                  level: LEVELS[level], fields: submitFields(name, more), payload: Buffer.from(pack(args)) });
    if (this.#isOpen && record.length > this.#recordMax)
      throw new RangeError(`arguments of ${record.length} bytes are too large for this broker`);
    const task = this.#newTask(id, quiet, waitAll);
    this.#unsettled.set(id, task);
    this.#outbox.put(record);
    this.#wake();
    return task.handle;
  }

  // The same for a flow. `waitAll`: the result comes when also all has ended that the flow did not
  // wait for; `selective`: {tasks: [...], ...}.
  runFlow(name, args = null, options = {}) {
    return this.submit(name, args, { ...options, flow: true });
  }

  // Waits for a task or flow that somebody else submitted: {id, result}.
  watch(id, { waitAll = false } = {}) {
    this.#outbox.put(encodeRecord({ type: Kind.WATCH, id, flags: waitAll ? ALL : 0 }));
    this.#wake();
    return this.#newTask(id, false, waitAll).handle;
  }

  cancel(id) {
    this.#outbox.put(encodeRecord({ type: Kind.CANCEL, id }));
    this.#wake();
  }

  // Until everything is settled.
  async flush() {
    while (!this.#isClosing && (this.#outbox.size || this.#later.length))
      await new Promise((resolve) => this.#idle.push(resolve));
  }

  // Flush, then GOODBYE. Who still waits for results gets an error.
  async close() {
    await this.flush();
    this.#isClosing = true;
    clearTimeout(this.#timer);
    while (this.#isSending)
      await new Promise((resolve) => setImmediate(resolve));
    if (this.#isOpen)
      await this.#socket.send(encodePlain(Message.GOODBYE, { session: this.#session, reason: "closed" }));
    if (this.#socket) {
      this.#socket.linger = 1000;
      this.#socket.close();
    }
    this.#fail(new TaskError("lost", "Closed", "the producer was closed"));
  }

  #newTask(id, quiet, waitAll) {
    const task = { handle: { id }, waitAll };
    task.handle.settled = new Promise((settle, refuse) => Object.assign(task, { settle, refuse }));
    task.handle.settled.catch(() => {}); // nobody need wait for it
    if (!quiet) {
      task.handle.result = new Promise((resolve, reject) => Object.assign(task, { resolve, reject }));
      task.handle.result.catch(() => {});
      this.#waiting.set(id, task);
    }
    return task;
  }

  // The end of all that is under way.
  #fail(error) {
    for (const task of this.#unsettled.values()) task.refuse(error);
    for (const task of this.#waiting.values()) task.reject(error);
    for (const resolve of this.#idle.splice(0)) resolve();
    this.#unsettled.clear();
    this.#waiting.clear();
  }

  // ---- the connection ----

  #connect(now) {
    this.#socket = new Dealer({ linger: 0, maxMessageSize: 4 << 20 });
    this.#socket.connect(this.#endpoints[this.#connects++ % this.#endpoints.length]);
    this.#heardAt = now;
    this.#mustHello = true;
    this.#read(this.#socket).catch((error) => this.#log(error.message));
  }

  async #read(socket) {
    for await (const [frame] of socket) {
      if (socket !== this.#socket) return;
      const now = performance.now();
      this.#heardAt = now;
      try {
        this.#receive(decode(frame), now);
      } catch (error) {
        if (!(error instanceof Malformed)) throw error;
        this.#break(`the broker sent: ${error.message}`, now);
      }
      this.#wake();
    }
  }

  // Closes the connection; #turn makes a new one after a pause.
  #break(why, now, waitMs = 0) {
    this.#log(`connection lost: ${why}`);
    this.#socket.close();
    this.#socket = null;
    this.#isOpen = false;
    this.#connectAt = now + Math.max(waitMs, this.#pause * (0.5 + Math.random() / 2));
    this.#pause = Math.min(this.#pause * 2, PAUSE_MAX_MS);
  }

  #hello(now) {
    this.#isOpen = this.#mustHello = false;
    this.#helloAt = now;
    const body = { v: [1, 1], role: "producer", peer: this.#peer, n: ++this.#helloCount, name: this.#name.slice(0, 80) };
    if (this.#session) Object.assign(body, { broker: this.#broker, session: this.#session, ack: this.#arrived });
    body.queues = [...this.#queues.keys()];
    return encodePlain(Message.HELLO, body);
  }

  // ---- what comes ----

  #receive({ type, head, body }, now) {
    if (type === Message.DATA) {
      if (this.#isOpen && head.session === this.#session) this.#onData(head, body);
    } else if (type === Message.WELCOME) {
      if (!this.#isOpen && Number(body.n) === this.#helloCount) this.#onWelcome(body);
    } else if (type === Message.ERROR) {
      this.#onError(body, now);
    } else if (type === Message.GOODBYE) {
      if (this.#isOpen && BigInt(body.session) === this.#session) this.#break("the broker says goodbye", now);
    } else if (type === Message.REDIRECT) {
      this.#endpoints = body.endpoints;
      this.#break("the broker sends us elsewhere", now);
    }
  }

  #onWelcome(body) {
    this.#beat = Number(body.beat_us) / 1000;
    this.#recordMax = Number(body.record_max);
    this.#broker = body.broker;
    this.#session = BigInt(body.session);
    if (!body.resumed) this.#restart();
    this.#outbox.ack(Number(body.ack ?? 0));
    this.#outbox.rewind(this.#outbox.acked);
    this.#outbox.grant(Number(body.credit_records ?? 0), Number(body.credit_bytes ?? 0));
    this.#toldArrived = 0;
    this.#gapTold = -1;
    this.#isOpen = this.#mustSay = true;
    this.#pause = PAUSE_FIRST_MS;
  }

  // A new session: WATCH for what was settled, and what was not settled again.
  #restart() {
    const later = new Set(this.#later.map(({ record }) => idOf(record)));
    const kept = this.#outbox.all().filter((record) => typeOf(record) !== Kind.WATCH && !later.has(idOf(record)) &&
      !this.#refused.has(record) && (typeOf(record) !== Kind.SUBMIT || this.#unsettled.has(idOf(record))));
    for (const record of kept) later.add(idOf(record));
    const watches = [...this.#waiting].filter(([id]) => !later.has(id))
      .map(([id, task]) => encodeRecord({ type: Kind.WATCH, id, flags: task.waitAll ? ALL : 0 }));
    this.#arrived = this.#arrivedBytes = 0;
    this.#refused.clear();
    this.#outbox.restart([...watches, ...kept]);
  }

  #onError(body, now) {
    const code = Number(body.code), text = `error ${code}: ${body.text ?? ""}`;
    if (!this.#isOpen) { // only an answer to our last HELLO counts
      if (Number(body.n ?? 0) !== this.#helloCount) return;
      this.#break(text, now, body.retry ? Number(body.wait_us ?? 0) / 1000 : 1e9);
      if (!body.retry) {
        this.#isClosing = true; // the broker will never have us
        this.#fail(new TaskError("refused", "Refused", text));
      }
    } else {
      this.#log(text);
      if (code === UNKNOWN_SESSION || body.close) {
        this.#isOpen = false;
        this.#mustHello = true;
      }
    }
  }

  // Steps 1 to 7 of PROTOCOL.md, "Numbers, acks, sending again"; 1 is done.
  #onData(head, bytes) {
    const box = this.#outbox;
    box.ack(head.ack);
    box.grant(head.creditRecords, head.creditBytes);
    if (head.flags & RESEND && head.ack >= box.acked) box.rewind(box.acked);
    const skip = this.#arrived + 1 - head.first; // so many are here already
    if (skip < 0) {
      if (head.flags & ANSWER || this.#gapTold !== this.#arrived) {
        this.#gapTold = this.#arrived;
        this.#mustResend = true;
      }
      return;
    }
    for (const record of decodeRecords(bytes, head.count).slice(skip)) {
      this.#arrived++;
      this.#arrivedBytes += record.size;
      this.#take(record);
    }
    for (const record of box.settle(head.settled)) this.#onSettled(record);
    if (head.flags & ANSWER) this.#mustAnswer = true;
  }

  #take({ type, flags, id, code, handle, payload }) {
    if (flags & MUST_UNDERSTAND || ![Kind.QUEUE, Kind.REFUSED, Kind.RESULT].includes(type))
      return this.#log(`a record of type ${type} with flags ${flags} is not understood`);
    const task = this.#waiting.get(id);
    if (type === Kind.RESULT && task) { // else it came in an earlier session too
      this.#waiting.delete(id);
      const value = payload.length ? unpack(payload) : null;
      if (code === 0) task.resolve(value);
      else task.reject(new TaskError(code === 4 ? "cancelled" : "failed", value?.class ?? "Error", value?.message ?? "", value));
    } else if (type === Kind.REFUSED) {
      this.#onRefused(id, code, this.#outbox.get(handle), payload.toString());
    }
  }

  // What was refused (`record`) is still kept: `settled` comes behind its REFUSED.
  #onRefused(id, code, record, text) {
    const isKept = record !== undefined && idOf(record) === id;
    if (isKept) this.#refused.add(record);
    if (isKept && (code === FULL || code === DRAINING)) {
      this.#later.push({ at: performance.now() + REFUSED_PAUSE_MS, record: Buffer.from(record) });
      return;
    }
    const error = new TaskError("refused", "Refused", text);
    this.#unsettled.get(id)?.refuse(error);
    this.#waiting.get(id)?.reject(error);
    this.#unsettled.delete(id);
    this.#waiting.delete(id);
  }

  #onSettled(record) {
    const id = idOf(record);
    if (this.#refused.delete(record) || typeOf(record) !== Kind.SUBMIT) return;
    this.#unsettled.get(id)?.settle();
    this.#unsettled.delete(id);
  }

  // ---- what goes, and when ----

  // #turn at the end of this turn of the event loop: what was submitted in it goes together.
  #wake() {
    if (this.#soon || this.#isClosing) return;
    this.#soon = true;
    setImmediate(() => {
      this.#soon = false;
      this.#turn();
    });
  }

  #turn() {
    if (this.#isClosing || this.#isSending) return;
    const now = performance.now();
    if (!this.#outbox.size && !this.#later.length)
      for (const resolve of this.#idle.splice(0)) resolve();
    const frame = this.#next(now);
    if (frame) {
      this.#isSending = true;
      const sent = () => {
        this.#isSending = false;
        this.#wake();
      };
      this.#socket.send(frame).then(sent, sent); // it fails when the socket is closed: said again
    }
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#turn(), Math.min(Math.max(1, this.#dueAt() - now), 1000));
  }

  // The next frame to send, if any.
  #next(now) {
    if (!this.#socket) {
      if (now < this.#connectAt) return null;
      this.#connect(now);
    }
    const expects = this.#expects();
    if (!expects && this.#isOpen) {
      this.#heardAt = now; // silence counts from when something is waited for
    } else if (now - this.#heardAt > 3 * this.#beat) {
      this.#break(`nothing heard for ${now - this.#heardAt} ms`, now);
      return null;
    }
    if (!this.#isOpen)
      return this.#mustHello || now - this.#helloAt >= this.#beat ? this.#hello(now) : null;
    while (this.#later.length && this.#later[0].at <= now)
      this.#outbox.put(this.#later.shift().record);
    return this.#say(now, expects);
  }

  #say(now, expects) {
    const first = this.#outbox.sent + 1, records = this.#outbox.take();
    const owes = this.#arrived - this.#toldArrived, asks = expects && now - this.#askedAt >= this.#beat;
    if (!records.length && !this.#mustSay && !this.#mustAnswer && !this.#mustResend && !asks &&
        (owes === 0 || (owes < WINDOW_RECORDS / 2 && now - this.#saidAt < ACK_AFTER_MS)))
      return null;
    const flags = (asks ? ANSWER : 0) | (this.#mustResend ? RESEND : 0);
    if (asks) {
      this.#askedAt = now;
      this.#gapTold = -1; // the answer shows a gap that is still there
    }
    this.#mustSay = this.#mustAnswer = this.#mustResend = false;
    this.#saidAt = now;
    this.#toldArrived = this.#arrived;
    return encodeData({ session: this.#session, first, records, flags, ack: this.#arrived, settled: this.#arrived,
                        creditRecords: this.#arrived + WINDOW_RECORDS, creditBytes: this.#arrivedBytes + WINDOW_BYTES });
  }

  // Whether anything is waited for.
  #expects() {
    return this.#waiting.size > 0 || this.#outbox.size > 0 || this.#later.length > 0;
  }

  // When to look again if nothing happens.
  #dueAt() {
    if (!this.#socket) return this.#connectAt;
    if (!this.#isOpen) return this.#helloAt + this.#beat;
    const ack = this.#arrived > this.#toldArrived ? this.#saidAt + ACK_AFTER_MS : Infinity;
    const ask = this.#expects() ? this.#askedAt + this.#beat : Infinity;
    const at = Math.min(ask, ack);
    return this.#later.length ? Math.min(at, this.#later[0].at) : at;
  }
}
