// load.py for the Node producer: load.mjs PRODUCER_MODULE --broker ... (see there)
import { openSync, writeSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";

const text = { type: "string" };
const { values, positionals } = parseArgs({ allowPositionals: true, options: { broker: text, log: text, level: text, rate: text,
                                                                               window: text, first: text, flows: text } });
const { Producer } = await import(pathToFileURL(positionals[0]));
const rate = Number(values.rate ?? 500), window = Number(values.window ?? 2000), first = Number(values.first ?? 0);
let isStopping = false;
process.on("SIGTERM", () => (isStopping = true));
const out = openSync(values.log, "a"); // whoever sees it may send SIGTERM

const flowEvery = 40, variants = 6, flows = values.flows?.split(",");

function choose(n) {
  const which = Math.floor(n / flowEvery);
  if (flows && n % flowEvery === flowEvery - 1)
    return [flows[which % flows.length], { n, v: Math.floor(which / flows.length) % variants }, { flow: true, waitAll: which % 5 === 0 }];
  const kind = n % 20;
  if (kind === 17) return ["fails", { n }];
  if (kind === 18) return ["hesitates", { n }];
  return ["square", kind >= 14 ? { n, sleep: (n % 50) / 1000 } : { n }];
}

const dashes = (id) => id.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
const plain = (_, value) => (typeof value === "bigint" ? Number(value) : value);
const write = (kind, id, rest) => writeSync(out, `${kind} ${dashes(id)} ${rest}\n`);
const producer = new Producer(values.broker, { name: "node", log: (line) => console.error(`${Date.now() / 1000} ${line}`) });
let underWay = 0, n = 0, begin = performance.now();

function submit() {
  const number = first + n++, [task, args, more] = choose(number);
  const { id, settled, result } = producer.submit(task, args, { level: values.level ?? "commit", ...more });
  underWay++;
  settled.then(() => write("S", id, `${task} ${number}`), () => {});
  result.then((value) => write("R", id, `finished ${JSON.stringify(value, plain)}`),
              (error) => write("R", id, `${error.outcome} ${JSON.stringify(error.value ?? { class: error.name, message: error.message }, plain)}`))
    .then(() => underWay--);
}

while (!isStopping || underWay > 0 || producer.unsettled > 0) {
  const due = Math.floor(((performance.now() - begin) * rate) / 1000) - n;
  if (due > window) begin += (due * 1000) / rate; // it was stopped: no flood afterwards
  if (!isStopping)
    for (let i = Math.min(due, window - underWay); i > 0; i--) submit();
  await new Promise((resolve) => setTimeout(resolve, 5));
}
await producer.close();
console.error(`${n} submitted`);
process.exit(0);
