// Socket.IO 4 over WebSocket only, one process. The room is in the address; POST /push?room=ROOM emits the body to it.
const http = require("node:http");
const { Server } = require("socket.io");

const server = http.createServer((request, response) => {
  const url = new URL(request.url, "http://localhost");
  if (url.pathname !== "/push") return; // Socket.IO's own
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("end", () => {
    io.to(url.searchParams.get("room")).emit("message", String(Buffer.concat(parts)));
    response.end("ok");
  });
});
const io = new Server(server, { transports: ["websocket"], serveClient: false });
io.on("connection", (client) => client.join(client.handshake.query.room));
const port = Number(process.env.PORT ?? 9003);
server.listen(port, "127.0.0.1", 4096, () => console.log(`ready ${port}`));
