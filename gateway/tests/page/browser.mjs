// A headless Chromium driven over its protocol, and one tab of it: what a person does there, and what it says or asks for.
//
// Without dependencies: Chromium's protocol over a pipe (file descriptors 3 and 4, JSON ended by NUL).

import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";

export const STEP_MS_MAX = 20_000;
const ALL_MS_MAX = 150_000;
const EXIT_MS_MAX = 5_000;

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
  // Those of tests sign themselves.
  "--ignore-certificate-errors",
  "--window-size=1280,900",
  "--remote-debugging-pipe",
];

/** One Chromium and its protocol. */
export class Browser {
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
export class Page {
  failures = [];

  /** With `away`, calls that are refused, by the gateway or since it is away, are no failure of the page. */
  static async open(browser, url, away) {
    const { targetId } = await browser.send("Target.createTarget", { url: "about:blank" });
    const { sessionId } = await browser.send("Target.attachToTarget", { targetId, flatten: true });
    const page = new Page(browser, sessionId, url, away);
    browser.onEvent = (method, params) => page.#event(method, params);
    for (const domain of ["Page", "Runtime", "Log", "Network"]) await page.#send(`${domain}.enable`);
    await page.#send("Page.navigate", { url });
    return page;
  }

  constructor(browser, session, url, away) {
    this.away = away;
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

export const query = (selector) => `document.querySelector(${JSON.stringify(selector)})`;

function within(promise, limit, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer within ${limit} ms: ${what}`)), limit);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/**
 * Reads `URL CHROMIUM [--FLAG] [--screenshot FILE]`, visits the page, and exits: 0 if everything was seen, 1 with the failures.
 * With `away` the page's first calls may be refused.
 */
export async function drive(name, flags, visit, away = false) {
  const usage = `usage: node ${name}.mjs URL CHROMIUM${Object.keys(flags).map((flag) => ` [--${flag}]`).join("")} [--screenshot FILE]`;
  let read;
  try {
    read = parseArgs({ allowPositionals: true, options: { ...flags, screenshot: { type: "string" } } });
    if (read.positionals.length !== 2) throw new Error(usage);
  } catch (error) {
    console.error(error.message);
    process.exit(2);
  }
  const { values, positionals: [url, chromium] } = read;
  const browser = await Browser.start(chromium);
  const failures = [];
  let page = null;
  const run = async () => {
    page = await Page.open(browser, url, away);
    await visit(page, values);
  };
  try {
    await within(run(), ALL_MS_MAX, "the whole visit");
  } catch (error) {
    failures.push(error.message);
  }
  if (page && values.screenshot) await page.screenshot(values.screenshot).catch((error) => failures.push(error.message));
  await browser.stop();
  failures.push(...(page?.failures ?? []));
  for (const failure of failures) console.error(`failed: ${failure}`);
  if (failures.length === 0) console.log(`the ${name} works`);
  process.exitCode = failures.length ? 1 : 0;
}
