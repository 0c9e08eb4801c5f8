// The developer page: up to five clients side by side, a form that pushes to them, and the gateway's counters.
// One file of its length, because a page without a build step pays for every further module with a request and a route.

import { Client, now } from "./goim.js";
import { $, Law, count, element, errorWords, line, milliseconds, namedWords, resultWords, say, sum, sumNamed, total } from "./kit.js";

const LOBBY = "demo://lobby";
const CLIENTS_MAX = 5;
const MESSAGES_MAX = 100;
const BURST = 100;
const STATS_MS = 1_000;
const STATS_TIMEOUT_MS = 3_000;
const SPARK_SAMPLES = 60;
const SPARK = { width: 118, height: 32 };
const TEXT_CHARS_MAX = 2_000;
const BYTES_SHOWN_MAX = 24;

const clock = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
const utf8 = new TextDecoder("utf-8", { fatal: true });

/** A number that cannot collide with another page's: keys are `page-<this>-<n>`. */
const pageName = Math.random().toString(36).slice(2, 6).padEnd(4, "0");

const gateway = await addresses();
const cards = [];

/** What the counters said before: deliveries per second, the last answer. */
const rates = new Array(SPARK_SAMPLES).fill(0);
const law = new Law();
let last = null;

/** Where the gateway listens; its own word, else the ports of `halley --dev`. */
async function addresses() {
  const fallback = {
    websocket: `ws://${location.hostname}:3102/sub`,
    tcp: `${location.hostname}:3101`,
    api: location.origin,
  };
  try {
    const answer = await fetch("dev.json");
    const told = answer.ok ? Object.entries(await answer.json()).filter(([, address]) => address) : [];
    return { ...fallback, ...Object.fromEntries(told) };
  } catch {
    return fallback;
  }
}

function start() {
  for (const name of ["tcp", "websocket", "api"]) $(`address-${name}`).textContent = gateway[name];
  startPush();
  $("client-add").onclick = () => addCard().focus();
  addCard();
  pollStats();
}

// ---- Clients ----

/** One client and its card. */
class Card {
  #root = $("card").content.firstElementChild.cloneNode(true);
  #messages = [];
  #fresh = 0;
  #total = 0;
  #drawing = false;
  #countdown = 0;

  constructor(number) {
    this.number = number;
    // Odd and even clients are two members: pushing to a member shows that it reaches all of its connections.
    const identity = { mid: 1 + ((number - 1) % 2), key: `page-${pageName}-${number}`, room_id: LOBBY };
    this.client = new Client(gateway.websocket, identity, {
      changed: () => this.#draw(),
      arrived: (op, body) => this.#arrived(op, body),
    });
    this.#root.dataset.client = number;
    this.#find("h3").textContent = `Client ${number}`;
    this.#find(".retry").onclick = () => this.client.open();
    this.#find(".remove").onclick = () => this.#remove();
    this.#find(".kick").onclick = () => this.#kick();
    this.#find(".key").onclick = () => aim("key", this.client.identity.key);
    this.#find(".member").onclick = () => aim("member", this.client.identity.mid);
    this.#find(".join").onsubmit = (event) => this.#join(event);
    this.#find(".identity").onsubmit = (event) => this.#identify(event);
    this.#find("summary").onclick = () => this.#fillIdentity();
    $("client-add").before(this.#root);
    this.client.open();
  }

  focus() {
    this.#find(".join input").focus();
  }

  #find(selector) {
    return this.#root.querySelector(selector);
  }

  #join(event) {
    event.preventDefault();
    const input = this.#find(".join input");
    const room = input.value.trim();
    if (room) this.client.join(room);
    input.value = "";
  }

  #fillIdentity() {
    for (const [name, value] of Object.entries(this.client.identity)) this.#find(`[name=${name}]`).value = value;
  }

  #identify(event) {
    event.preventDefault();
    const form = new FormData(event.target);
    const room = form.get("room_id").trim();
    this.client.rooms.delete(room);
    this.client.identity = { mid: Number(form.get("mid")), key: form.get("key"), room_id: room };
    this.client.open();
    this.#find("details").open = false;
  }

  async #kick() {
    const key = encodeURIComponent(this.client.identity.key);
    await ask(`v1/connections/${key}?reason=from%20the%20page`, { method: "DELETE" });
  }

  #remove() {
    this.client.end();
    clearInterval(this.#countdown);
    this.#root.remove();
    cards.splice(cards.indexOf(this), 1);
    drawShared();
    $("client-add").focus();
  }

  #arrived(op, body) {
    this.#total += 1;
    this.#fresh = Math.min(this.#fresh + 1, MESSAGES_MAX);
    this.#messages.unshift(readMessage(op, body));
    if (this.#messages.length > MESSAGES_MAX) this.#messages.pop();
    this.#draw();
  }

  /** Draws at the next frame, once, however much happens before it. */
  #draw() {
    if (this.#drawing) return;
    this.#drawing = true;
    requestAnimationFrame(() => {
      this.#drawing = false;
      this.#drawState();
      this.#drawRooms();
      this.#drawMessages();
      drawShared();
    });
  }

  #drawState() {
    const { client } = this;
    const state = this.#find(".state");
    this.#root.dataset.logins = client.logins;
    state.dataset.phase = client.phase;
    this.#find(".retry").hidden = client.phase !== "waiting" && client.phase !== "ended";
    this.#find(".kick").disabled = client.phase !== "open";
    say(this.#find(".key"), client.identity.key);
    say(this.#find(".member"), String(client.identity.mid));
    say(this.#find(".trip"), client.roundTripMs === null ? "–" : milliseconds(client.roundTripMs));
    say(this.#find(".online"), client.online === null || !client.identity.room_id ? "–" : count.format(client.online));
    clearInterval(this.#countdown);
    this.#drawPhase(state);
    if (client.phase === "waiting") this.#countdown = setInterval(() => this.#drawPhase(state), 250);
  }

  #drawPhase(state) {
    const { phase, why, retryAt, logins } = this.client;
    const seconds = Math.max(1, Math.ceil((retryAt - performance.now()) / 1000));
    say(state, {
      connecting: logins ? "reconnecting…" : "connecting…",
      open: "open",
      waiting: `${why}, reconnecting in ${seconds} s`,
      ended: why,
    }[phase]);
  }

  #drawRooms() {
    const { identity, rooms } = this.client;
    const all = [...(identity.room_id ? [[identity.room_id, "login room"]] : []), ...rooms];
    const wanted = JSON.stringify(all);
    const list = this.#find(".chips");
    if (list.dataset.shown === wanted) return;
    list.dataset.shown = wanted;
    list.replaceChildren(...all.map(([room, state]) => this.#chip(room, state)));
  }

  #chip(room, state) {
    const chip = element("li", "chip", "");
    chip.dataset.room = room;
    chip.dataset.state = state;
    const target = element("button", "aim", room);
    target.title = "Push to this room";
    target.onclick = () => aim("room", room);
    const leave = element("button", "leave", "×");
    leave.ariaLabel = leave.title = `Leave ${room}`;
    leave.onclick = () => this.client.leave(room);
    for (const button of [target, leave]) button.type = "button";
    chip.append(target);
    if (state !== "joined") chip.append(element("small", "", state));
    chip.append(leave);
    return chip;
  }

  #drawMessages() {
    if (this.#fresh === 0) return;
    const list = this.#find(".messages");
    list.prepend(...this.#messages.slice(0, this.#fresh).map(messageRow));
    this.#fresh = 0;
    while (list.children.length > MESSAGES_MAX) list.lastElementChild.remove();
    const latencies = this.#messages.map((message) => message.latencyMs).filter(Number.isFinite).sort((a, b) => a - b);
    const median = latencies.length ? ` · median ${milliseconds(latencies[latencies.length >> 1])}` : "";
    say(this.#find(".tally"), `${count.format(this.#total)} arrived${median}`);
  }
}

/** What a push says: this page's own JSON, else text, else bytes. */
function readMessage(op, body) {
  const at = now();
  const message = { op, at, text: "", to: "", latencyMs: null };
  try {
    message.text = utf8.decode(body);
  } catch {
    const shown = [...body.subarray(0, BYTES_SHOWN_MAX)].map((byte) => byte.toString(16).padStart(2, "0")).join(" ");
    message.text = `${body.length} bytes: ${shown}${body.length > BYTES_SHOWN_MAX ? " …" : ""}`;
    return message;
  }
  try {
    const own = JSON.parse(message.text);
    if (typeof own.text === "string" && Number.isFinite(own.sent_at)) {
      Object.assign(message, { text: own.text, to: String(own.to ?? ""), latencyMs: Math.max(0, at - own.sent_at) });
    }
  } catch {
    // Not JSON: somebody else's text, shown as it is.
  }
  message.text = message.text.slice(0, TEXT_CHARS_MAX);
  return message;
}

function messageRow({ op, at, text, to, latencyMs }) {
  const row = element("li", "", "");
  row.append(
    element("span", "text", text || "(empty)"),
    element("span", "latency", latencyMs === null ? "" : milliseconds(latencyMs)),
    element("span", "about", to ? `op ${op} · ${to}` : `op ${op}`),
    element("span", "time", clock.format(at)),
  );
  return row;
}

function addCard() {
  let number = 1;
  while (cards.some((card) => card.number === number)) number += 1;
  const card = new Card(number);
  cards.push(card);
  drawShared();
  return card;
}

/** What depends on all clients: the add button, the names that the push form suggests. */
function drawShared() {
  $("client-add").hidden = cards.length >= CLIENTS_MAX;
  say($("client-room"), `${cards.length} of ${CLIENTS_MAX}`);
  const names = suggestions(target());
  if ($("push-names").dataset.shown === names.join("\n")) return;
  $("push-names").dataset.shown = names.join("\n");
  $("push-names").replaceChildren(...names.map((name) => new Option(name)));
}

function suggestions(kind) {
  const of = {
    room: ({ identity, rooms }) => [identity.room_id, ...rooms.keys()],
    key: ({ identity }) => [identity.key],
    member: ({ identity }) => [String(identity.mid)],
    all: () => [],
  }[kind];
  return [...new Set(cards.flatMap((card) => of(card.client)))].filter(Boolean);
}

// ---- Push ----

function target() {
  return $("push-form").elements.target.value;
}

function startPush() {
  const form = $("push-form");
  form.onsubmit = (event) => {
    event.preventDefault();
    push(1);
  };
  form.oninput = drawPush;
  for (const radio of form.elements.target) {
    radio.onchange = () => {
      $("push-name").value = suggestions(target())[0] ?? "";
      drawPush();
      drawShared();
    };
  }
  $("push-burst").onclick = () => form.reportValidity() && push(BURST);
  for (const box of document.querySelectorAll(".curl")) {
    box.querySelector("button").onclick = (event) => copy(box.querySelector("pre"), event.target);
  }
  // Where the clients stand below, an open fold would push them out of sight.
  $("curls").open = matchMedia("(min-width: 60rem)").matches;
  aim("room", LOBBY);
}

/** Points the push form at somebody. */
function aim(kind, name) {
  $(`target-${kind}`).checked = true;
  $("push-name").value = name;
  drawPush();
  drawShared();
}

/** The form as the body of `POST /v1/push` without its payload, and in words. */
function readForm() {
  const kind = target();
  const name = $("push-name").value;
  return {
    operation: Number($("push-operation").value),
    target: { room: { room: name }, key: { keys: [name] }, member: { members: [Number(name)] }, all: { all: true } }[kind],
    words: kind === "all" ? "all" : `${kind} ${name}`,
  };
}

function drawPush() {
  const kind = target();
  const { operation, target: body } = readForm();
  const input = $("push-name");
  $("push-name-row").hidden = kind === "all";
  input.disabled = kind === "all";
  input.pattern = kind === "member" ? "\\d{1,15}" : ".*";
  say($("push-name-label"), { room: "Room", key: "Key", member: "Member", all: "" }[kind]);
  const filtered = kind !== "room" && operation !== 1000;
  say($("push-hint"), filtered ? "The clients here accept operation 1000 only. Pushes to a room reach them with any." : "");
  const text = $("push-text").value;
  const job = JSON.stringify({ target: body, operation, payload: { text } });
  const query = goimQuery(kind, input.value, operation);
  sayCurl("curl-halley", [`curl ${gateway.api}/v1/push`, "-H 'content-type: application/json'", `-d ${quote(job)}`]);
  sayCurl("curl-goim", [`curl ${quote(`${gateway.api}/goim/push/${query}`)}`, `--data-raw ${quote(text)}`]);
  $("curl-goim").hidden = query === null;
}

function sayCurl(id, parts) {
  say($(id).querySelector("pre"), parts.join(" \\\n  "));
}

/** goim's address of the same target; null for a room without a type, or operation 0, which goim cannot name. */
function goimQuery(kind, name, operation) {
  const part = encodeURIComponent;
  if (kind === "key") return `keys?operation=${operation}&keys=${part(name)}`;
  if (kind === "member") return `mids?operation=${operation}&mids=${part(name)}`;
  if (operation === 0) return null;
  if (kind === "all") return `all?operation=${operation}`;
  const [, type, room] = /^(.+?):\/\/(.+)$/s.exec(name) ?? [];
  return type ? `room?operation=${operation}&type=${part(type)}&room=${part(room)}` : null;
}

/** One word for a shell. */
function quote(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

async function copy(pre, button) {
  try {
    await navigator.clipboard.writeText(pre.textContent);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(pre);
    button.textContent = "Selected";
  }
  setTimeout(() => (button.textContent = "Copy"), 1_500);
}

/** Pushes `times` messages in one request. */
async function push(times) {
  const { words, ...job } = readForm();
  const text = $("push-text").value;
  const sent_at = now();
  const jobs = Array.from({ length: times }, (_, at) => ({
    ...job,
    payload: { json: { text: times === 1 ? text : `${text} ${at + 1}`, to: words, sent_at } },
  }));
  const answer = await ask("v1/push", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(times === 1 ? jobs[0] : jobs),
  });
  if (answer) say($("push-result"), `${resultWords(answer.results)}, answered in ${milliseconds(now() - sent_at)}`);
}

/** Asks the API; what goes wrong is said under the push form, and the answer is null. */
async function ask(path, request) {
  const result = $("push-result");
  try {
    const answer = await fetch(path, request);
    const text = await answer.text();
    result.dataset.bad = String(!answer.ok);
    if (answer.ok) return text ? JSON.parse(text) : {};
    say(result, `${answer.status}: ${errorWords(text)}`);
  } catch {
    result.dataset.bad = "true";
    say(result, "The gateway does not answer");
  }
  return null;
}

// ---- Gateway ----

async function pollStats() {
  try {
    const answer = await fetch("v1/stats", { signal: AbortSignal.timeout(STATS_TIMEOUT_MS) });
    if (!answer.ok) throw new Error(String(answer.status));
    drawStats((await answer.json()).shards);
    drawGateway("open", "serving");
  } catch {
    last = null;
    drawGateway("waiting", "does not answer, asking again");
  }
  setTimeout(pollStats, STATS_MS);
}

function drawGateway(phase, words) {
  $("gateway-state").dataset.phase = phase;
  say($("gateway-state"), words);
}

function drawStats(shards) {
  const reasons = sumNamed(shards, "dropped");
  for (const name of ["connections", "offered", "sent", "queued"]) say($(`stat-${name}`), count.format(sum(shards, name)));
  say($("stat-dropped"), count.format(total(reasons)));
  $("drop-reasons").hidden = total(reasons) === 0;
  say($("drop-reasons"), `dropped: ${namedWords(reasons)}`);
  const { holds, words } = law.judge(shards);
  $("law-state").dataset.holds = holds;
  say($("law-state"), words);
  drawRate(sum(shards, "sent"));
}

function drawRate(sent) {
  const at = performance.now();
  // Counters that went back belong to a gateway that was started again.
  const rate = last && sent >= last.sent ? ((sent - last.sent) * 1000) / (at - last.at) : 0;
  last = { sent, at };
  rates.push(rate);
  rates.shift();
  say($("stat-rate"), count.format(Math.round(rate)));
  const path = line(rates, SPARK_SAMPLES, SPARK, Math.max(1, ...rates));
  $("spark-line").setAttribute("d", path);
  $("spark-area").setAttribute("d", `${path}V${SPARK.height}H0Z`);
}

start();
