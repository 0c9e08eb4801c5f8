// Drives the operator's console as a person would, and says what failed.
//
// node console.mjs CONSOLE_URL CHROMIUM [--screenshot FILE]
//
// It prints `token please`, and reads from its input the token, the key of a connection that is there, that
// connection's member and its room, one a line.

import { once } from "node:events";
import { createInterface } from "node:readline";

import { drive, query } from "./browser.mjs";

const text = (selector) => `(${query(selector)}?.textContent ?? "")`;
const number = (selector) => `Number(${text(selector)}.replaceAll(",", ""))`;

async function read() {
  const lines = createInterface({ input: process.stdin });
  const said = [];
  lines.on("line", (line) => said.push(line));
  console.log("token please");
  await once(lines, "close");
  return said;
}

await drive("console", {}, async (page) => {
  const [token, key, member, room] = await read();
  await page.until("the question for a token", `${query("#sign-in")}?.hidden === false`);
  await page.type("#token", "wrong");
  await page.enter();
  await page.until("a wrong token refused", `/token/i.test(${text("#token-hint")}) && !/stays/.test(${text("#token-hint")})`);
  await page.type("#token", token);
  await page.enter();
  await page.until("the overview", `!${query("#overview")}.hidden && ${query("#sign-in")}.hidden`);
  page.away = false;
  await page.until("the gateway serving", `${query("#state")}.dataset.phase === "open"`);
  await page.until("connections in a chart", `${number("#charts output")} >= 1`);
  await page.until("a line in a chart", `/L/.test(${query("#charts .line")}.getAttribute("d"))`);
  await page.until("a row for each shard", `${query("#shards")}.rows.length >= 1`);
  await page.until("the law to hold", `${query("#law-state")}.dataset.holds === "yes"`);

  await page.click('nav a[href="#rooms"]');
  await page.until("the rooms' view", `!${query("#rooms")}.hidden`);
  await page.type("#rooms-prefix", room.slice(0, 6));
  await page.enter();
  await page.until("the rooms asked for", `${query("#rooms-list")}.dataset.prefix === ${JSON.stringify(room.slice(0, 6))}`);
  await page.until("the room with its members", `${text("#rooms-list tr td")} === "1" && ${text("#rooms-list tr th")} === ${JSON.stringify(room)}`);
  await page.click("#rooms-list a");
  await page.until("the room in the push form", `${query("#push-name")}.value === ${JSON.stringify(room)}`);
  await page.type("#push-text", "from the console");
  await page.enter();
  await page.until("the push's result", `/1 connection/.test(${text("#push-result")})`);

  await page.click('nav a[href="#nodes"]');
  await page.until("this node", `/this node/.test(${text("#nodes-list")}) && /up/.test(${text("#nodes-list")})`);

  await page.click("#reload");
  await page.until("a reload that changes nothing", `/nothing has changed/.test(${text("#nodes-done")})`);

  await page.click('nav a[href="#connections"]');
  await page.until("the connections' view", `!${query("#connections")}.hidden`);
  await page.click('#find-form label:has([value="member"])');
  await page.type("#find-name", member);
  await page.enter();
  await page.until("the member's key", `${text("#found .keys a")} === ${JSON.stringify(key)}`);
  await page.click("#found .keys a");
  await page.until("the connection of the key", `/tcp/.test(${text("#found .terms")}) && ${text("#found .terms")}.includes(${JSON.stringify(room)})`);
  await page.click("#found .danger");
  await page.type("#confirm-reason", "from the console");
  await page.click("#confirm-yes");
  await page.until("the connection kicked", `/kicked/.test(${text("#find-said")})`);
  // To look for what is gone is a 404, which the browser tells as an error.
  page.away = true;
  await page.click("#find-form .main");
  await page.until("it is gone", `/no connection/.test(${text("#find-said")})`);
  // The API's answers to calls without a token, or with a wrong one, are told by the browser as errors.
}, true);
