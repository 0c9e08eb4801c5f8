// A browser's own WebSocket as a client of compression: what it agrees on, says and reads.
//
// node compression.mjs PAGE_URL CHROMIUM --clients URL
//
// Once it is in its room it prints `push please`; the caller then pushes three messages to the room.

import { drive } from "./browser.mjs";
import { CLIENT, heard } from "./client.mjs";

await drive("compression", { clients: { type: "string" } }, async (page, { clients }) => {
  await page.until("the page", `document.readyState === "complete"`);
  const agreed = await page.evaluate(`${CLIENT}(${JSON.stringify(clients)})`);
  if (!agreed.includes("permessage-deflate")) throw new Error(`agreed on: ${agreed}`);
  await page.evaluate(`window.say(7, ${JSON.stringify(JSON.stringify({ key: "browser", room_id: "room", accepts: [1000] }))})`);
  await page.until("the login's reply", `${heard(8)}.length === 1`);
  const list = Array.from({ length: 300 }, (_, n) => 2000 + (n % 3)).join(",");
  await page.evaluate(`window.say(14, ${JSON.stringify(list)})`);
  await page.until("what it said, echoed", `${heard(15)}[0]?.text === ${JSON.stringify(list)}`);
  console.log("push please");
  await page.until("three pushes", `${heard(1000)}.length === 3`);
  const texts = await page.evaluate(`${heard(1000)}.map((packet) => packet.text)`);
  for (const [n, text] of texts.entries()) {
    if (text !== `${n} ` + "again and again ".repeat(40)) throw new Error(`push ${n}: ${text}`);
  }
  if ((await page.evaluate("window.ended")) !== undefined) throw new Error("closed");
}, true);
