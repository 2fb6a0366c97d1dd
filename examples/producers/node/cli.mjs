#!/usr/bin/env node
// Submits tasks and flows to a Selinon broker and waits for them; see usage.
import { parseArgs } from "node:util";
import { LEVELS, Producer } from "./selinon_producer.mjs";

const USAGE = `usage: cli.mjs submit TASK [OPTION...]
       cli.mjs watch ID... [OPTION...]
  --broker ENDPOINT    may be repeated [tcp://127.0.0.1:5711]
  --args JSON          arguments [null]
  --count N            how many of the same [1]
  --queue NAME         [celery]
  --level LEVEL        default, memory, interval or commit
  --priority N         0 to 255, larger first [128]
  --countdown SECONDS
  --key TEXT           idempotency key
  --flow               TASK is a flow
  --selective TASK,... of the flow only what leads to these tasks
  --all                wait also for what the flow did not wait for; also of watch
  --quiet              no results, only that they are safe
  --window N           how many may be under way [10000]
  --summary            one JSON object instead of results
  --verbose            say what the connection does`;

function options() {
  const text = { type: "string" }, flag = { type: "boolean" };
  const parsed = parseArgs({ allowPositionals: true, options: {
    broker: { type: "string", multiple: true }, args: text, count: text, queue: text, level: text, priority: text,
    countdown: text, key: text, flow: flag, selective: text, all: flag, quiet: flag, window: text, summary: flag, verbose: flag } });
  const [command, ...names] = parsed.positionals, { values } = parsed;
  const number = (name, otherwise) => {
    const value = Number(values[name] ?? otherwise);
    if (!Number.isFinite(value) || value < 0) throw new Error(`--${name}: not a number`);
    return value;
  };
  if (!["submit", "watch"].includes(command) || names.length === 0 || (command === "submit" && names.length > 1))
    throw new Error("what to do?");
  if (values.level && !(values.level in LEVELS)) throw new Error(`--level: ${Object.keys(LEVELS).join(", ")}`);
  if (command === "submit" && !values.flow && (values.all || values.selective))
    throw new Error("--all and --selective are for --flow");
  if (values.quiet && values.all) throw new Error("--quiet and --all exclude each other");
  return { command, names, ...values, waitAll: values.all,
           selective: values.selective === undefined ? undefined : { tasks: values.selective.split(",") },
           count: command === "submit" ? number("count", 1) : names.length,
           window: Math.max(1, number("window", 10000)), priority: number("priority", 128), queue: values.queue ?? "celery",
           countdown: values.countdown === undefined ? undefined : number("countdown"), args: JSON.parse(values.args ?? "null") };
}

const dashes = (id) => id.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");

async function run(producer, { command, names, count, args, window, summary, ...how }) {
  const outcomes = {};
  let underWay = 0, wake = () => {};
  const done = (id, outcome, value) => {
    outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
    underWay--;
    if (!summary && outcome !== "settled") console.log(`${dashes(id)} ${outcome} ${JSON.stringify(value ?? null)}`);
    wake();
  };
  for (let i = 0; i < count || underWay > 0; ) {
    for (; i < count && underWay < window; i++, underWay++) {
      const task = command === "submit" ? producer.submit(names[0], args, how) : producer.watch(names[i].replaceAll("-", ""), how);
      const failed = (error) => done(task.id, error.outcome, { class: error.name, message: error.message });
      if (how.quiet) task.settled.then(() => done(task.id, "settled"), failed);
      else task.result.then((value) => done(task.id, "finished", value), failed);
    }
    await new Promise((resolve) => (wake = resolve));
  }
  return outcomes;
}

let how;
try {
  how = options();
} catch (error) {
  console.error(`Error: ${error.message}\n${USAGE}`);
  process.exit(2);
}
const begin = performance.now();
const producer = new Producer(how.broker ?? ["tcp://127.0.0.1:5711"],
                              { queues: how.command === "submit" ? [how.queue] : [], log: how.verbose ? console.error : undefined });
const outcomes = await run(producer, how);
await producer.close();
const seconds = (performance.now() - begin) / 1000;
if (how.summary)
  console.log(JSON.stringify({ tasks: how.count, seconds: Number(seconds.toFixed(3)),
                               tasks_per_s: Math.round(how.count / seconds), ...outcomes }));
process.exit(Object.keys(outcomes).every((name) => name === "finished" || name === "settled") ? 0 : 1);
