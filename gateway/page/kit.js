// What the developer page and the console share: elements, numbers in words, sums over shards, and lines of charts.

export const $ = (id) => document.getElementById(id);
export const count = new Intl.NumberFormat("en");
const short = new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 });

/** An answer that unequal terms of the law are forgiven: counters are read while shards run. */
const UNEQUAL_MAX = 2;

export function element(tag, className, text) {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

/** Sets a text only when it changes: screen readers and selections stay undisturbed. */
export function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export const compact = (number) => (Math.abs(number) < 10_000 ? count.format(Math.round(number)) : short.format(number));

export const milliseconds = (ms) => `${ms.toFixed(ms < 100 ? 1 : 0)}\u00a0ms`;

/** The sentence in an answer that is an error. */
export function errorWords(text) {
  try {
    const { error, message } = JSON.parse(text);
    return String(error?.message ?? message ?? error ?? text);
  } catch {
    return text.slice(0, 200);
  }
}

/** A push's results: how many connections each went to, or its place in Kafka, or that the queue was full. */
export function resultWords(results) {
  if (results.every((result) => result.offset !== undefined)) return `${count.format(results.length)} accepted by Kafka`;
  const taken = results.filter((result) => result.dispatched !== undefined);
  const refused = taken.length < results.length ? `, ${count.format(results.length - taken.length)} found a full queue` : "";
  const connections = Math.max(0, ...taken.map((result) => result.dispatched));
  if (connections === 0) return `Nobody is there${refused}`;
  const what = results.length === 1 ? "Dispatched" : `${count.format(taken.length)} messages dispatched`;
  return `${what} to ${count.format(connections)} ${connections === 1 ? "connection" : "connections"}${refused}`;
}

/** Adds what several shards counted under the same names. */
export function sumNamed(shards, field) {
  const sums = {};
  for (const shard of shards) {
    for (const [name, n] of Object.entries(shard[field])) sums[name] = (sums[name] ?? 0) + n;
  }
  return sums;
}

export const sum = (shards, field) => shards.reduce((total, shard) => total + shard[field], 0);
export const total = (named) => Object.values(named).reduce((all, n) => all + n, 0);

/** The names that counted something, most first: `slow-newest 12, closed 3`. */
export function namedWords(named) {
  const some = Object.entries(named).filter(([, n]) => n > 0).sort(([, a], [, b]) => b - a);
  return some.map(([name, n]) => `${name} ${count.format(n)}`).join(", ");
}

/** A row of a table: its first cell heads it. */
export function row(cells) {
  const made = element("tr", "", "");
  made.append(
    ...cells.map((cell, at) => {
      const node = element(at ? "td" : "th", "", typeof cell === "number" ? count.format(cell) : cell);
      if (at === 0) node.scope = "row";
      return node;
    }),
  );
  return made;
}

/** Whether every delivery is accounted for, over several answers. */
export class Law {
  #unequal = 0;

  /** `holds` is "yes", "no" or, while it cannot be said, "unknown"; `off` is by how many deliveries. */
  judge(shards) {
    const off = shards.reduce((sum, { offered, sent, dropped, queued }) => sum + Math.abs(offered - sent - queued - total(dropped)), 0);
    this.#unequal = off === 0 ? 0 : this.#unequal + 1;
    const holds = off === 0 ? "yes" : this.#unequal > UNEQUAL_MAX ? "no" : "unknown";
    return { holds, off, words: { yes: "yes", no: `no, off by ${count.format(off)}`, unknown: "counting" }[holds] };
  }
}

/** The path of a line through the values, the last one at the right edge of a box so wide and high; gaps where a value is null. */
export function line(values, slots, { width, height }, top) {
  const step = width / (slots - 1);
  let path = "";
  let drawing = false;
  values.forEach((value, at) => {
    if (value === null) {
      drawing = false;
      return;
    }
    const x = width - (values.length - 1 - at) * step;
    const y = height - 1 - (value / top) * (height - 2);
    path += `${drawing ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`;
    drawing = true;
  });
  return path;
}
