// A browser's own WebSocket as a client of compression: what it agrees on, says and reads.
//
// node compression.mjs PAGE_URL CHROMIUM --clients URL
//
// Once it is in its room it prints `push please`; the caller then pushes three messages to the room.

import { drive } from "./browser.mjs";

const CLIENT = `(async (url) => {
  const header = (bytes, operation) => {
    const view = new DataView(new ArrayBuffer(16));
    view.setInt32(0, 16 + bytes);
    view.setInt16(4, 16);
    view.setInt16(6, 1);
    view.setInt32(8, operation);
    view.setInt32(12, 1);
    return new Uint8Array(view.buffer);
  };
  const socket = new WebSocket(url);
  socket.binaryType = "arraybuffer";
  window.heard = [];
  window.messages = 0;
  const packets = (bytes) => {
    for (let at = 0; at < bytes.length; ) {
      const view = new DataView(bytes.buffer, bytes.byteOffset + at);
      const [length, operation] = [view.getInt32(0), view.getInt32(8)];
      const body = bytes.subarray(at + 16, at + length);
      if (operation === 9) packets(body);
      else window.heard.push({ operation, text: new TextDecoder().decode(body) });
      at += length;
    }
  };
  socket.onmessage = ({ data }) => {
    window.messages += 1;
    packets(new Uint8Array(data));
  };
  socket.onclose = ({ code }) => (window.ended = code);
  window.say = (operation, text) => {
    const body = new TextEncoder().encode(text);
    socket.send(new Uint8Array([...header(body.length, operation), ...body]));
  };
  await new Promise((resolve, reject) => ((socket.onopen = resolve), (socket.onerror = () => reject(new Error("no upgrade")))));
  return socket.extensions;
})`;

const heard = (operation) => `window.heard.filter((packet) => packet.operation === ${operation})`;

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
