// What NATS lacks here: POST /push?room=ROOM publishes the body to the subject ROOM over one connection to NATS.
const http = require("node:http");
const net = require("node:net");

const nats = net.connect(Number(process.env.NATS ?? 4222), "127.0.0.1");
nats.setNoDelay(true);
nats.write('CONNECT {"verbose":false,"pedantic":false}\r\n');
nats.on("data", (data) => {
  if (/^PING\r\n/m.test(data.toString("latin1"))) nats.write("PONG\r\n");
});
nats.on("close", () => process.exit(1));
const server = http.createServer((request, response) => {
  const room = new URL(request.url, "http://localhost").searchParams.get("room");
  const parts = [];
  request.on("data", (part) => parts.push(part));
  request.on("end", () => {
    const body = Buffer.concat(parts);
    nats.write(Buffer.concat([Buffer.from(`PUB ${room} ${body.length}\r\n`), body, Buffer.from("\r\n")]));
    response.end("ok");
  });
});
const port = Number(process.env.PORT ?? 9004);
server.listen(port, "127.0.0.1", () => console.log(`ready ${port}`));
