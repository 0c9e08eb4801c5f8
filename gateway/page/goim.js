// goim's client protocol over a browser WebSocket: packets, and a client that keeps one session alive.

const HEADER_BYTES = 16;
const HALLEY = -0x48410000;

/** Operations, as in docs/protocol.md. Negative ones are Halley's and need `"halley":1` in the login. */
export const OP = {
  heartbeat: 2,
  heartbeatReply: 3,
  login: 7,
  loginReply: 8,
  batch: 9,
  changeRoom: 12,
  changeRoomReply: 13,
  join: HALLEY - 1,
  joinReply: HALLEY - 2,
  leave: HALLEY - 3,
  leaveReply: HALLEY - 4,
  kick: HALLEY - 5,
};

const CLOSE_WORDS = {
  1000: "closed",
  1001: "the gateway went away",
  1002: "protocol error",
  1003: "a message of the wrong type",
  1006: "no connection to the gateway",
  1007: "text that is not UTF-8",
  1009: "a message too big",
  1012: "the gateway restarts",
  1013: "the gateway is short of memory, or could not ask the platform",
  4001: "the login came too late",
  4002: "login refused",
  4003: "no heartbeat for too long",
  4004: "replaced by a newer connection of this key",
  4005: "kicked",
  4006: "too slow",
  4007: "the grant expired",
  4008: "said too much at once",
};

/** Codes that a reconnect would only meet again, or answer by taking the key back. */
const FINAL_CODES = new Set([4002, 4004, 4005, 4007]);

const HEARTBEAT_MS = 5_000;
const ANSWER_MS_MAX = 8_000;
const BACKOFF_MS_MIN = 500;
const BACKOFF_MS_MAX = 10_000;

const encoder = new TextEncoder();
const decoder = new TextDecoder();

/** Milliseconds since 1970 with fractions, comparable between clients on one machine. */
export const now = () => performance.timeOrigin + performance.now();

/** One packet: 16 bytes of big-endian header (length, header length, version, operation, sequence), then the body. */
export function encode(op, seq, body = new Uint8Array()) {
  const bytes = new Uint8Array(HEADER_BYTES + body.length);
  const view = new DataView(bytes.buffer);
  view.setInt32(0, bytes.length);
  view.setInt16(4, HEADER_BYTES);
  view.setInt16(6, 1);
  view.setInt32(8, op);
  view.setInt32(12, seq);
  bytes.set(body, HEADER_BYTES);
  return bytes;
}

/** Every packet in `bytes`; throws where a length is wrong. Bodies are views, not copies. */
export function* packets(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  for (let at = 0; at < bytes.length; ) {
    if (bytes.length - at < HEADER_BYTES) throw new RangeError("a packet ends inside its header");
    const length = view.getInt32(at);
    if (view.getInt16(at + 4) !== HEADER_BYTES) throw new RangeError("a header length other than 16");
    if (length < HEADER_BYTES || at + length > bytes.length) throw new RangeError("a packet length beyond its message");
    yield {
      op: view.getInt32(at + 8),
      seq: view.getInt32(at + 12),
      body: bytes.subarray(at + HEADER_BYTES, at + length),
    };
    at += length;
  }
}

/** What a close code means, with the gateway's own text if it sent one. */
export function closeWords(code, text = "") {
  const words = CLOSE_WORDS[code] ?? "closed";
  return text && !words.includes(text) ? `${words}: ${text} (${code})` : `${words} (${code})`;
}

/**
 * One session. Its `phase` says what is in flight:
 * `connecting` the upgrade or the login reply, `open` nothing, `waiting` the next attempt at `retryAt`, `ended` nothing for good.
 *
 * `watcher.changed()` runs after any change of the session, `watcher.arrived(op, body)` for each push.
 */
export class Client {
  phase = "ended";
  why = "";
  retryAt = 0;
  logins = 0;
  roundTripMs = null;
  online = null;
  /** Further rooms: name → "joining", "joined", "leaving" or why not. They outlive the connection. */
  rooms = new Map();

  #url;
  #watcher;
  #socket = null;
  #seq = 0;
  #attempts = 0;
  #kickText = "";
  #asked = new Map();
  #retry = 0;
  #beat = 0;
  #deadline = 0;

  /** `identity` is `{mid, key, room_id}`; it may be replaced before `open()`. */
  constructor(url, identity, watcher) {
    this.#url = url;
    this.identity = identity;
    this.#watcher = watcher;
  }

  /** Starts over now, whatever the phase. */
  open() {
    this.#drop();
    this.phase = "connecting";
    this.#kickText = "";
    const socket = new WebSocket(this.#url);
    socket.binaryType = "arraybuffer";
    this.#socket = socket;
    // A socket that was dropped may still speak; only the current one is heard.
    const mine = (act) => (event) => socket === this.#socket && act(event);
    socket.onopen = mine(() => this.#login());
    socket.onmessage = mine((event) => this.#receive(event.data));
    socket.onclose = mine((event) => this.#lost(event.code, event.reason));
    this.#expectAnswer();
    this.#watcher.changed();
  }

  /** Ends the session for good. */
  end() {
    this.#drop();
    this.phase = "ended";
    this.why = closeWords(1000);
    this.#watcher.changed();
  }

  /** Joins a further room, now and after every reconnect, until `leave`. */
  join(room) {
    if (room === this.identity.room_id || this.rooms.get(room) === "joined") return;
    this.rooms.set(room, "joining");
    if (this.phase === "open") this.#ask(OP.join, room);
    this.#watcher.changed();
  }

  /** Leaves a further room, or the login room (which goim's change of room does). */
  leave(room) {
    const fromLogin = room === this.identity.room_id;
    if (fromLogin) this.identity = { ...this.identity, room_id: "" };
    else if (this.phase === "open" && this.rooms.get(room) === "joined") this.rooms.set(room, "leaving");
    else this.rooms.delete(room);
    if (this.phase === "open" && fromLogin) this.#ask(OP.changeRoom, "");
    if (this.phase === "open" && !fromLogin) this.#ask(OP.leave, room);
    this.#watcher.changed();
  }

  #login() {
    const login = { ...this.identity, platform: "web", accepts: [1000], halley: 1 };
    this.#ask(OP.login, JSON.stringify(login));
  }

  #ask(op, text = "") {
    this.#seq = (this.#seq + 1) & 0x7fffffff;
    this.#asked.set(this.#seq, { text, at: performance.now() });
    this.#socket.send(encode(op, this.#seq, encoder.encode(text)));
  }

  #heartbeat() {
    this.#ask(OP.heartbeat);
    this.#expectAnswer();
  }

  #expectAnswer() {
    clearTimeout(this.#deadline);
    this.#deadline = setTimeout(() => this.#lost(1006, "no answer"), ANSWER_MS_MAX);
  }

  #receive(data) {
    try {
      if (typeof data === "string") throw new TypeError("text instead of a packet");
      for (const packet of packets(new Uint8Array(data))) {
        // Pushes come inside a batch, replies as they are: a push may carry any operation.
        if (packet.op !== OP.batch) this.#reply(packet);
        else for (const push of packets(packet.body)) this.#watcher.arrived(push.op, push.body);
      }
    } catch (error) {
      this.#lost(1002, error.message);
    }
  }

  #reply({ op, seq, body }) {
    const asked = this.#asked.get(seq);
    this.#asked.delete(seq);
    const view = new DataView(body.buffer, body.byteOffset, body.byteLength);
    switch (op) {
      case OP.loginReply:
        this.#opened();
        break;
      case OP.heartbeatReply:
        clearTimeout(this.#deadline);
        this.online = view.getInt32(0);
        if (asked) this.roundTripMs = performance.now() - asked.at;
        break;
      case OP.changeRoomReply:
        break;
      case OP.joinReply:
        if (asked) this.#joined(asked.text, view.getInt32(0));
        break;
      case OP.leaveReply:
        if (asked && this.rooms.get(asked.text) === "leaving") this.rooms.delete(asked.text);
        break;
      case OP.kick:
        this.#kickText = decoder.decode(body.subarray(4));
        break;
      default:
        this.#watcher.arrived(op, body);
        return;
    }
    this.#watcher.changed();
  }

  #opened() {
    clearTimeout(this.#deadline);
    this.phase = "open";
    this.why = "";
    this.logins += 1;
    this.#attempts = 0;
    for (const room of this.rooms.keys()) {
      this.rooms.set(room, "joining");
      this.#ask(OP.join, room);
    }
    this.#heartbeat();
    this.#beat = setInterval(() => this.#heartbeat(), HEARTBEAT_MS);
  }

  #joined(room, status) {
    if (this.rooms.get(room) !== "joining") return;
    this.rooms.set(room, ["joined", "refused", "too many rooms", "room full"][status] ?? `status ${status}`);
  }

  #lost(code, text) {
    const why = closeWords(code, this.#kickText || text);
    this.#drop();
    for (const [room, state] of this.rooms) if (state === "leaving") this.rooms.delete(room);
    this.why = why;
    if (FINAL_CODES.has(code)) {
      this.phase = "ended";
    } else {
      const backoff = Math.min(BACKOFF_MS_MAX, BACKOFF_MS_MIN * 2 ** this.#attempts) * (0.8 + 0.4 * Math.random());
      this.#attempts += 1;
      this.phase = "waiting";
      this.retryAt = performance.now() + backoff;
      this.#retry = setTimeout(() => this.open(), backoff);
    }
    this.#watcher.changed();
  }

  #drop() {
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
    clearTimeout(this.#retry);
    clearTimeout(this.#deadline);
    clearInterval(this.#beat);
    this.#asked.clear();
    this.online = null;
    this.roundTripMs = null;
  }
}
