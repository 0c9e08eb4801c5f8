// Drives the developer page in a headless Chromium as a person would, and says what failed.
//
// node drive.mjs PAGE_URL CHROMIUM [--restart] [--screenshot FILE]
//
// Without dependencies: Chromium's protocol over a pipe (file descriptors 3 and 4, JSON ended by NUL).
// Exit 0: everything was seen. Exit 1: the failures are printed. Exit 2: wrong arguments.
// With --restart it prints `restart now` once the rest has passed: the caller then restarts the gateway
// on the same ports, and the page must come back by itself, rejoin its room and receive a push again.

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";

const STEP_MS_MAX = 20_000;
const RESTART_MS_MAX = 60_000;
const ALL_MS_MAX = 150_000;
const EXIT_MS_MAX = 5_000;
const ROOM = "drive://room";

const FLAGS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--disable-dev-shm-usage",
  "--no-first-run",
  "--no-default-browser-check",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-default-apps",
  "--disable-extensions",
  "--disable-sync",
  "--metrics-recording-only",
  "--no-proxy-server",
  "--window-size=1280,900",
  "--remote-debugging-pipe",
];

/** One Chromium and its protocol. */
class Browser {
  #child;
  #profile;
  #next = 1;
  #waiting = new Map();
  #rest = Buffer.alloc(0);
  #gone;
  #stderr = "";

  static async start(program) {
    const profile = await mkdtemp(join(tmpdir(), "halley-page-"));
    return new Browser(program, profile);
  }

  constructor(program, profile) {
    this.#profile = profile;
    // A group of its own: the helper processes end with it.
    this.#child = spawn(program, [...FLAGS, `--user-data-dir=${profile}`, "about:blank"], {
      stdio: ["ignore", "ignore", "pipe", "pipe", "pipe"],
      detached: true,
    });
    this.#child.stderr.on("data", (bytes) => (this.#stderr = (this.#stderr + bytes).slice(-2_000)));
    this.#child.stdio[3].on("error", () => {});
    this.#child.stdio[4].on("data", (bytes) => this.#read(bytes));
    this.#gone = new Promise((resolve) => {
      this.#child.on("error", (error) => resolve(`Chromium did not start: ${error.message}`));
      this.#child.on("exit", (code, signal) => resolve(`Chromium ended (${code ?? signal}): ${this.#stderr.trim()}`));
    });
    this.#gone.then((why) => {
      for (const { reject } of this.#waiting.values()) reject(new Error(why));
      this.#waiting.clear();
    });
    this.onEvent = () => {};
  }

  send(method, params = {}, sessionId = undefined) {
    const id = this.#next++;
    const answer = new Promise((resolve, reject) => this.#waiting.set(id, { resolve, reject }));
    this.#child.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    return within(Promise.race([answer, this.#gone.then((why) => Promise.reject(new Error(why)))]), STEP_MS_MAX, method);
  }

  #read(bytes) {
    this.#rest = Buffer.concat([this.#rest, bytes]);
    for (let end; (end = this.#rest.indexOf(0)) >= 0; ) {
      const message = JSON.parse(this.#rest.subarray(0, end).toString());
      this.#rest = this.#rest.subarray(end + 1);
      if (message.id === undefined) this.onEvent(message.method, message.params);
      else this.#settle(message);
    }
  }

  #settle({ id, result, error }) {
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (error) waiting?.reject(new Error(error.message));
    else waiting?.resolve(result);
  }

  async stop() {
    const exited = this.#child.exitCode !== null || this.#child.pid === undefined ? null : once(this.#child, "exit");
    if (exited) {
      await this.send("Browser.close").catch(() => {});
      await within(exited, EXIT_MS_MAX, "Chromium's end").catch(() => {});
    }
    try {
      if (this.#child.pid) process.kill(-this.#child.pid, "SIGKILL");
    } catch {
      // The whole group has ended.
    }
    await rm(this.#profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 }).catch(() => {});
  }
}

/** One tab: what a person does in it, and what it says or asks for meanwhile. */
class Page {
  failures = [];
  /** While the gateway is away, refused connections are no failure of the page. */
  away = false;

  static async open(browser, url) {
    const { targetId } = await browser.send("Target.createTarget", { url: "about:blank" });
    const { sessionId } = await browser.send("Target.attachToTarget", { targetId, flatten: true });
    const page = new Page(browser, sessionId, url);
    browser.onEvent = (method, params) => page.#event(method, params);
    for (const domain of ["Page", "Runtime", "Log", "Network"]) await page.#send(`${domain}.enable`);
    await page.#send("Page.navigate", { url });
    return page;
  }

  constructor(browser, session, url) {
    this.browser = browser;
    this.session = session;
    this.origin = new URL(url).origin;
  }

  #send(method, params) {
    return this.browser.send(method, params, this.session);
  }

  #event(method, params) {
    const at = {
      "Network.requestWillBeSent": () => this.#requested(params.request.url),
      "Runtime.exceptionThrown": () => {
        const { text, exception } = params.exceptionDetails;
        this.failures.push(`exception: ${exception?.description ?? text}`);
      },
      "Runtime.consoleAPICalled": () => {
        const text = params.args.map((arg) => arg.value ?? arg.description).join(" ");
        if (["error", "assert", "warning"].includes(params.type)) this.failures.push(`console ${params.type}: ${text}`);
      },
      "Log.entryAdded": () => {
        const { level, text, source, url } = params.entry;
        const refused = this.away && source !== "security";
        if (level === "error" && !refused) this.failures.push(`console: ${text} ${url ?? ""}`);
      },
    }[method];
    at?.();
  }

  #requested(url) {
    if (!url.startsWith(`${this.origin}/`) && !url.startsWith("data:")) this.failures.push(`request outside the page's origin: ${url}`);
  }

  async evaluate(expression) {
    const { result, exceptionDetails } = await this.#send("Runtime.evaluate", {
      expression,
      returnByValue: true,
      awaitPromise: true,
    });
    if (exceptionDetails) throw new Error(exceptionDetails.exception?.description ?? exceptionDetails.text);
    return result.value;
  }

  /** Waits until the expression is true. */
  async until(what, expression, limit = STEP_MS_MAX) {
    const end = Date.now() + limit;
    while (!(await this.evaluate(`Boolean(${expression})`))) {
      if (Date.now() > end) throw new Error(`not seen within ${limit} ms: ${what}`);
      await sleep(50);
    }
  }

  /** Clicks in the middle of an element, if nothing lies over it. */
  async click(selector) {
    const place = await this.evaluate(`(() => {
      const node = document.querySelector(${JSON.stringify(selector)});
      node.scrollIntoView({ block: "center" });
      const { x, y, width, height } = node.getBoundingClientRect();
      const middle = { x: x + width / 2, y: y + height / 2 };
      const hit = document.elementFromPoint(middle.x, middle.y);
      return { ...middle, free: node === hit || node.contains(hit) };
    })()`);
    if (!place.free) throw new Error(`something lies over ${selector}`);
    for (const type of ["mousePressed", "mouseReleased"]) {
      await this.#send("Input.dispatchMouseEvent", { type, x: place.x, y: place.y, button: "left", clickCount: 1 });
    }
  }

  /** Replaces what an input holds, by keyboard. */
  async type(selector, text) {
    await this.click(selector);
    await this.evaluate(`document.querySelector(${JSON.stringify(selector)}).select()`);
    await this.#send("Input.insertText", { text });
  }

  async enter() {
    const key = { key: "Enter", code: "Enter", windowsVirtualKeyCode: 13, text: "\r" };
    await this.#send("Input.dispatchKeyEvent", { type: "keyDown", ...key });
    await this.#send("Input.dispatchKeyEvent", { type: "keyUp", ...key });
  }

  async screenshot(file) {
    const { data } = await this.#send("Page.captureScreenshot", { captureBeyondViewport: true });
    await writeFile(file, Buffer.from(data, "base64"));
  }
}

const card = (number) => `[data-client="${number}"]`;
const query = (selector) => `document.querySelector(${JSON.stringify(selector)})`;
const isOpen = (number) => `${query(`${card(number)} .state`)}?.dataset.phase === "open"`;
const hasJoined = (number) => `${query(`${card(number)} [data-room="${ROOM}"]`)}?.dataset.state === "joined"`;
const texts = (number) => `[...document.querySelectorAll(${JSON.stringify(`${card(number)} .messages .text`)})].map((node) => node.textContent)`;
const shows = (number, text) => `${texts(number)}.includes(${JSON.stringify(text)})`;

async function pushToRoom(page, text) {
  await page.click("#target-room");
  await page.type("#push-name", ROOM);
  await page.type("#push-text", text);
  await page.click("#push-send");
}

/** The visit: session, counters, room, pushes, a second client, another target. */
async function visit(page) {
  await page.until("an open session", isOpen(1));
  await page.until("a heartbeat's round trip", `/\\d/.test(${query(`${card(1)} .trip`)}.textContent)`);
  await page.until("the gateway's counters", `Number(${query("#stat-connections")}.textContent) >= 1`);

  await page.type(`${card(1)} .join input`, ROOM);
  await page.enter();
  await page.until("the room joined", hasJoined(1));
  await pushToRoom(page, "first push");
  await page.until("a push to the room", shows(1, "first push"));
  await page.until("its latency", `/^[\\d.]+\\u00a0ms$/.test(${query(`${card(1)} .messages .latency`)}.textContent)`);
  await page.until("its delivery in the counters", `Number(${query("#stat-sent")}.textContent.replaceAll(",", "")) >= 1`);

  await page.click("#client-add");
  await page.until("a second session", isOpen(2));
  await page.click(`${card(2)} .key`);
  await page.type("#push-text", "for the second");
  await page.click("#push-send");
  await page.until("a push to the second client's key", shows(2, "for the second"));
  if (await page.evaluate(shows(1, "for the second"))) throw new Error("a push to one key reached another client");

  await page.click(`${card(1)} [data-room="${ROOM}"] .leave`);
  await page.until("the room left", `!${query(`${card(1)} [data-room="${ROOM}"]`)}`);
  await page.click("#target-all");
  await page.type("#push-text", "for all");
  await page.click("#push-send");
  await page.until("a push to all at the first client", shows(1, "for all"));
  await page.until("a push to all at the second client", shows(2, "for all"));
  await page.until("the law to hold", `${query("#law-state")}.dataset.holds === "yes"`);
}

/** The gateway goes and comes back: the page reconnects, rejoins and receives. */
async function survive(page) {
  await page.type(`${card(1)} .join input`, ROOM);
  await page.enter();
  await page.until("the room joined again", hasJoined(1));
  const logins = await page.evaluate(`Number(${query(card(1))}.dataset.logins)`);
  page.away = true;
  console.log("restart now");
  await page.until("a login after the restart", `Number(${query(card(1))}.dataset.logins) > ${logins}`, RESTART_MS_MAX);
  await page.until("the session open after the restart", isOpen(1));
  await page.until("the room rejoined", hasJoined(1));
  page.away = false;
  await pushToRoom(page, "after the restart");
  await page.until("a push after the restart", shows(1, "after the restart"));
}

function within(promise, limit, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer within ${limit} ms: ${what}`)), limit);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

function readArguments() {
  try {
    const { values, positionals } = parseArgs({
      allowPositionals: true,
      options: { restart: { type: "boolean" }, screenshot: { type: "string" } },
    });
    if (positionals.length === 2) return { url: positionals[0], chromium: positionals[1], ...values };
  } catch (error) {
    console.error(error.message);
  }
  console.error("usage: node drive.mjs PAGE_URL CHROMIUM [--restart] [--screenshot FILE]");
  process.exit(2);
}

const { url, chromium, restart, screenshot } = readArguments();
const browser = await Browser.start(chromium);
let page = null;
const failures = [];
const run = async () => {
  page = await Page.open(browser, url);
  await visit(page);
  if (restart) await survive(page);
};
try {
  await within(run(), ALL_MS_MAX, "the whole visit");
} catch (error) {
  failures.push(error.message);
}
if (page && screenshot) await page.screenshot(screenshot).catch((error) => failures.push(error.message));
await browser.stop();
failures.push(...(page?.failures ?? []));
for (const failure of failures) console.error(`failed: ${failure}`);
if (failures.length === 0) console.log("the page works");
process.exitCode = failures.length ? 1 : 0;
