// npm ws, one process. A client's first message is its room; POST /push?room=ROOM sends the body to it.
const http = require("node:http");
const { WebSocketServer } = require("ws");

const rooms = new Map();
const server = http.createServer((request, response) => {
  const room = new URL(request.url, "http://localhost").searchParams.get("room");
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("end", () => {
    const message = Buffer.concat(parts);
    for (const client of rooms.get(room) ?? []) client.send(message, { binary: false });
    response.end("ok");
  });
});
new WebSocketServer({ server, perMessageDeflate: false }).on("connection", (client) => {
  let room;
  client.once("message", (name) => {
    room = String(name);
    if (!rooms.has(room)) rooms.set(room, new Set());
    rooms.get(room).add(client);
    client.send("joined");
  });
  client.on("close", () => rooms.get(room)?.delete(client));
  client.on("error", () => {});
});
const port = Number(process.env.PORT ?? 9002);
server.listen(port, "127.0.0.1", 4096, () => console.log(`ready ${port}`));
