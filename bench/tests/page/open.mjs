// Opens pages in a headless Chromium and says what each asked for, complained about, and shows first.
//
// node open.mjs CHROMIUM FILE...
//
// Prints one JSON line for each file: {"failures": [...], "first": "text of the first element", "overflow": false}.
// Without dependencies: Chromium's protocol over a pipe (file descriptors 3 and 4, JSON ended by NUL).

import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const ALL_MS_MAX = 60_000;

const [program, ...files] = process.argv.slice(2);
const profile = await mkdtemp(join(tmpdir(), "halley-bench-page-"));
const flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--no-default-browser-check",
  "--disable-background-networking", "--disable-component-update", "--disable-extensions", "--disable-sync", "--no-proxy-server",
  "--remote-debugging-pipe", `--user-data-dir=${profile}`, "about:blank"];
// A group of its own: the helper processes end with it.
const chromium = spawn(program, flags, { stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"], detached: true });

const waiting = new Map();
let heard = () => {};
let rest = Buffer.alloc(0);
chromium.stdio[4].on("data", (bytes) => {
  rest = Buffer.concat([rest, bytes]);
  for (let end; (end = rest.indexOf(0)) >= 0; ) {
    const message = JSON.parse(rest.subarray(0, end).toString());
    rest = rest.subarray(end + 1);
    if (message.id === undefined) heard(message.method, message.params);
    else waiting.get(message.id)?.(message);
  }
});

let next = 1;
async function send(method, params = {}, sessionId = undefined) {
  const id = next++;
  const answered = new Promise((resolve) => waiting.set(id, resolve));
  chromium.stdio[3].write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
  const { result, error } = await answered;
  if (error) throw new Error(`${method}: ${error.message}`);
  return result;
}

async function visit(file) {
  const url = pathToFileURL(file).href;
  const failures = [];
  const { targetId } = await send("Target.createTarget", { url: "about:blank" });
  const { sessionId } = await send("Target.attachToTarget", { targetId, flatten: true });
  const loaded = new Promise((resolve) => {
    heard = (method, params) => {
      if (method === "Page.loadEventFired") resolve();
      if (method === "Network.requestWillBeSent" && params.request.url !== url && !params.request.url.startsWith("data:"))
        failures.push(`request: ${params.request.url}`);
      if (method === "Runtime.exceptionThrown") failures.push(`exception: ${params.exceptionDetails.text}`);
      if (method === "Runtime.consoleAPICalled") failures.push(`console: ${params.type}`);
      if (method === "Log.entryAdded") failures.push(`log: ${params.entry.text}`);
    };
  });
  for (const domain of ["Page", "Runtime", "Log", "Network"]) await send(`${domain}.enable`, {}, sessionId);
  await send("Emulation.setDeviceMetricsOverride", { width: 400, height: 800, deviceScaleFactor: 1, mobile: true }, sessionId);
  await send("Page.navigate", { url }, sessionId);
  await loaded;
  const evaluate = async (expression) => (await send("Runtime.evaluate", { expression, returnByValue: true }, sessionId)).result.value;
  const first = await evaluate("document.body.firstElementChild.innerText");
  const overflow = await evaluate("document.documentElement.scrollWidth > innerWidth");
  await send("Target.closeTarget", { targetId });
  return { failures, first, overflow };
}

const gone = new Promise((_, reject) => {
  chromium.on("error", reject);
  chromium.on("exit", () => reject(new Error("Chromium ended")));
  setTimeout(() => reject(new Error(`not done within ${ALL_MS_MAX} ms`)), ALL_MS_MAX).unref();
});
try {
  for (const file of files) console.log(JSON.stringify(await Promise.race([visit(file), gone])));
} catch (error) {
  console.error(error.message);
  process.exitCode = 1;
}
gone.catch(() => {});
try {
  process.kill(-chromium.pid, "SIGKILL");
} catch {
  // The whole group has ended.
}
await rm(profile, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 }).catch(() => {});
