// A browser's own WebSocket over TLS, from a page that came over TLS.
//
// node tls.mjs PAGE_URL CHROMIUM --clients URL
//
// Once it is in its room it prints `push please`; the caller then pushes to the room.

import { drive } from "./browser.mjs";
import { CLIENT, heard } from "./client.mjs";

await drive("tls", { clients: { type: "string" } }, async (page, { clients }) => {
  await page.until("the page", `document.readyState === "complete" && location.protocol === "https:"`);
  await page.evaluate(`${CLIENT}(${JSON.stringify(clients)})`);
  await page.evaluate(`window.say(7, ${JSON.stringify(JSON.stringify({ key: "browser", room_id: "live://1", accepts: [1000] }))})`);
  await page.until("the login's reply", `${heard(8)}.length === 1`);
  console.log("push please");
  await page.until("a push", `${heard(1000)}[0]?.text === "over TLS"`);
}, true);
