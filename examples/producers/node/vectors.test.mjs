// vectors.test.mjs FOLDER: what a producer needs of proto/vectors, read and written.
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { decode as unpack } from "@msgpack/msgpack";
import { Kind, Malformed, Message, decode, decodeRecords, encodeData, encodePlain, encodeRecord } from "./selinon_producer.mjs";

const PLAIN = ["WELCOME", "ERROR", "GOODBYE", "REDIRECT"], WRITTEN = ["QUEUE", "SUBMIT", "CANCEL", "WATCH"];
const WORKERS = { TASK: 5, DONE: 6, RETURN: 7, CANCELLED: 9, WANT: 10, DECIDE: 12, STATE: 13, EVENTS: 14, ENDED: 15, LIVE: 16, VOID: 17 };
const seen = { plain: 0, read: 0, written: 0, refused: 0 };
const hex = (id) => id?.replaceAll("-", "");

function number(value) {
  const bytes = Buffer.alloc(8);
  bytes.writeBigInt64LE(BigInt(value));
  return bytes;
}

function fieldsOf(meaning) {
  const out = {};
  for (const [name, value] of Object.entries(meaning)) {
    if (name === "task") out[1] = Buffer.from(value);
    else if (name === "countdown") out[2] = number(value);
    else if (name === "not_before") out[3] = number(value);
    else if (name === "expiry") out[5] = number(value);
    else if (name === "idempotency_key") out[6] = Buffer.from(value);
    else if (name === "selective") out[14] = Buffer.from(value, "hex");
    else return null;
  }
  return out;
}

function readPlain(meaning, frame) {
  const { type, head, body } = decode(frame);
  const { message, ...values } = meaning;
  assert.equal(type, Message[message]);
  assert.equal(head, null);
  for (const [key, value] of Object.entries(values)) {
    const got = key === "broker" ? Buffer.from(body[key]).toString("hex") : body[key];
    const want = key === "broker" ? hex(value) : value;
    if (typeof got === "bigint") assert.equal(Number(got), want, key);
    else assert.deepEqual(got, want, key);
  }
  seen.plain++;
}

function readData(meaning, frame) {
  const { type, head, body } = decode(frame);
  assert.equal(type, Message.DATA);
  for (const [name, key] of Object.entries({ flags: "flags", first: "first", ack: "ack", settled: "settled",
                                             creditRecords: "credit_records", creditBytes: "credit_bytes" }))
    assert.equal(head[name], meaning[key] ?? 0, name);
  assert.equal(Number(head.session), meaning.session ?? 0);
  const records = decodeRecords(body, head.count);
  assert.equal(records.length, meaning.records.length);
  records.forEach((got, i) => {
    const want = meaning.records[i];
    assert.equal(got.type, { ...Kind, ...WORKERS }[want.type]);
    assert.equal(got.id, hex(want.id) ?? "0".repeat(32));
    assert.deepEqual([got.flags, got.code, got.level, got.handle, got.payload.toString("hex")],
                     [want.flags ?? 0, want.code ?? 0, want.level ?? 0, Number(want.handle ?? 0), want.payload ?? ""]);
    seen.read++;
  });
}

function writeData({ records, ...meaning }, frame) {
  const encoded = records.map((r) => encodeRecord({ ...r, type: Kind[r.type], id: hex(r.id), fields: fieldsOf(r.fields ?? {}),
                                                    payload: Buffer.from(r.payload ?? "", "hex") }));
  const numbers = { flags: meaning.flags };
  Object.entries({ session: "session", first: "first", ack: "ack", settled: "settled", creditRecords: "credit_records",
                   creditBytes: "credit_bytes" }).forEach(([name, key], i) => {
    numbers[name] = frame.readBigUInt64LE(12 + 8 * i); // JSON's numbers in JavaScript do not hold all of it
    assert.equal(Number(numbers[name]), meaning[key] ?? 0, key);
  });
  assert.equal(encodeData({ ...numbers, records: encoded }).toString("hex"), frame.toString("hex"));
  seen.written++;
}

for (const file of readdirSync(process.argv[2]).filter((name) => name.endsWith(".json"))) {
  const vector = JSON.parse(readFileSync(join(process.argv[2], file), "utf8"));
  const frame = Buffer.from(vector.hex, "hex"), meaning = vector.json;
  try {
    if (PLAIN.includes(meaning?.message)) readPlain(meaning, frame);
    if (meaning?.message === "DATA") {
      readData(meaning, frame);
      if (!vector.decode_only && meaning.records.every((r) => WRITTEN.includes(r.type) && !r.handle && fieldsOf(r.fields ?? {})))
        writeData(meaning, frame);
    }
    if (["hello-smallest", "hello-producer", "goodbye"].includes(vector.name)) {
      const [type, , body] = unpack(frame, { useBigInt64: true });
      assert.equal(encodePlain(type, body).toString("hex"), vector.hex);
    }
    if (vector.refused && !vector.record && !/^(hello|beat|query|reply|message-type-long)/.test(vector.name)) {
      assert.throws(() => {
        const { head, body } = decode(frame);
        decodeRecords(body, head.count);
      }, Malformed);
      seen.refused++;
    }
  } catch (error) {
    error.message = `${vector.name}: ${error.message}`;
    throw error;
  }
}
console.log(JSON.stringify(seen));
assert(seen.plain >= 7 && seen.read >= 15 && seen.written >= 6 && seen.refused >= 20);
