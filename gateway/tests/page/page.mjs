// Drives the developer page as a person would, and says what failed.
//
// node page.mjs PAGE_URL CHROMIUM [--restart] [--screenshot FILE]
//
// With --restart it prints `restart now` once the rest has passed: the caller then restarts the gateway
// on the same ports, and the page must come back by itself, rejoin its room and receive a push again.

import { drive, query } from "./browser.mjs";

const RESTART_MS_MAX = 60_000;
const ROOM = "drive://room";

const card = (number) => `[data-client="${number}"]`;
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

await drive("page", { restart: { type: "boolean" } }, async (page, { restart }) => {
  await visit(page);
  if (restart) await survive(page);
});
