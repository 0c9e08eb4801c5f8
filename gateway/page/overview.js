// The console's first view: what the gateway does now, over the last minutes, and each shard of it.

import { Chart } from "./chart.js";
import { $, Law, compact, count, element, namedWords, row, say, sum, sumNamed, total } from "./kit.js";

const law = new Law();
let before = null;

const microseconds = (us) => (us >= 1000 ? `${(us / 1000).toFixed(us < 10_000 ? 1 : 0)}\u00a0ms` : `${Math.round(us)}\u00a0µs`);
const bytes = (n) => (n >= 1 << 20 ? `${(n / (1 << 20)).toFixed(1)} MiB` : n >= 1024 ? `${(n / 1024).toFixed(1)} KiB` : count.format(n));
const seconds = (s) => `${s < 10 ? s.toFixed(1) : Math.round(s)}\u00a0s`;

const charts = {
  connections: new Chart("Connections", compact),
  logins: new Chart("Logins per second", compact),
  deliveries: new Chart("Deliveries per second", compact),
  drops: new Chart("Dropped per second", compact),
  turn: new Chart("Turn of a shard, p99", microseconds),
  queued: new Chart("Deliveries queued", compact),
  lag: new Chart("Kafka lag, records", compact),
};

export function start() {
  $("charts").append(...Object.values(charts).map((chart) => chart.root));
  charts.lag.root.hidden = true;
}

/** Where the share `q` of a histogram by powers of two lies: bucket `i` ends at `2^i - 1`. Null if it is empty. */
function quantile(buckets, q) {
  let left = total(buckets) * q;
  if (left === 0) return null;
  const at = buckets.findIndex((n) => (left -= n) <= 0);
  return 2 ** Math.max(at, 0) - 1;
}

const difference = (now, then) => now.map((n, at) => n - then[at]);

/** What a shard did since the answer before: null if there is none, or the gateway began anew. */
function moved(now, then, secondsBetween) {
  if (!then || now.turns < then.turns || now.offered < then.offered) return null;
  const turns = difference(now.turn_us.buckets, then.turn_us.buckets);
  const runs = total(now.run_messages.buckets) - total(then.run_messages.buckets);
  return {
    deliveries: (now.sent - then.sent) / secondsBetween,
    drops: (total(now.dropped) - total(then.dropped)) / secondsBetween,
    turns: (now.turns - then.turns) / secondsBetween,
    turnBuckets: turns,
    p50: quantile(turns, 0.5),
    p99: quantile(turns, 0.99),
    run: runs ? (now.run_messages.sum - then.run_messages.sum) / runs : null,
  };
}

/** Draws an answer of `/v1/stats`; null: there was none. */
export function draw(stats) {
  const at = Date.now();
  if (!stats) {
    before = null;
    for (const chart of Object.values(charts)) chart.add(null, at);
    return;
  }
  const { shards } = stats;
  const between = before ? Math.max(0.001, (at - before.at) / 1000) : 0;
  const moves = shards.map((shard, index) => moved(shard, before?.shards[index], between));
  const known = moves.every(Boolean);
  const logins = total(stats.logins);
  charts.logins.add(known ? (logins - before.logins) / between : null, at);
  before = { at, shards, logins };
  const sumMoved = (field) => (known ? moves.reduce((all, move) => all + move[field], 0) : null);
  charts.connections.add(sum(shards, "connections"), at);
  charts.deliveries.add(sumMoved("deliveries"), at);
  charts.drops.add(sumMoved("drops"), at);
  charts.turn.add(known ? Math.max(0, ...moves.map((move) => move.p99 ?? 0)) : null, at);
  charts.queued.add(sum(shards, "queued"), at);
  drawLaw(shards);
  drawReasons(stats);
  drawKafka(stats, at);
  $("shards").replaceChildren(...shards.map((shard, index) => shardRow(index, shard, moves[index])));
}

function drawLaw(shards) {
  const { holds, words } = law.judge(shards);
  $("law-state").dataset.holds = holds;
  say($("law-state"), words);
  for (const term of ["offered", "sent", "queued"]) say($(`law-${term}`), count.format(sum(shards, term)));
  say($("law-dropped"), count.format(total(sumNamed(shards, "dropped"))));
}

function drawReasons({ shards, logins }) {
  const lines = [
    ["Dropped", namedWords(sumNamed(shards, "dropped"))],
    ["Connections ended", namedWords(sumNamed(shards, "closes"))],
    ["Refused", namedWords(sumNamed(shards, "rejects"))],
    ["Logins", namedWords(logins)],
  ];
  $("reasons").replaceChildren(
    ...lines.map(([term, words]) => {
      const row = element("div", "", "");
      row.append(element("dt", "", term), element("dd", "", words || "none"));
      return row;
    }),
  );
}

function drawKafka({ kafka, kafka_source: source }, at) {
  $("kafka").hidden = !source;
  charts.lag.root.hidden = !source;
  if (!source) return;
  charts.lag.add(sum(kafka, "lag"), at);
  $("kafka-state").dataset.phase = source.state === "up" ? "open" : "waiting";
  say($("kafka-state"), source.detail ? `${source.state}: ${source.detail}` : source.state);
  $("partitions").replaceChildren(
    ...kafka.map(({ partition, position, end, lag, lag_seconds }) => row([partition, position, end, lag, lag_seconds === null ? "–" : seconds(lag_seconds)])),
  );
}

function shardRow(index, shard, move) {
  const rate = (value) => (move && value !== null ? compact(value) : "–");
  return row([
    index,
    shard.connections,
    rate(move?.deliveries),
    rate(move?.turns),
    move?.p50 == null ? "–" : microseconds(move.p50),
    move?.p99 == null ? "–" : microseconds(move.p99),
    move?.run == null ? "–" : move.run.toFixed(1),
    shard.queued,
    shard.blocked,
    bytes(shard.pinned_bytes),
  ]);
}
