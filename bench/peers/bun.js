// uWebSockets as Bun has it, one process. A client's first message is its room; POST /push?room=ROOM sends the body to it.
const rooms = Bun.serve({
  port: Number(process.env.PORT ?? 9001),
  hostname: "127.0.0.1",
  async fetch(request, server) {
    const url = new URL(request.url);
    if (url.pathname === "/push") {
      server.publish(url.searchParams.get("room") ?? "", await request.text());
      return new Response("ok");
    }
    return server.upgrade(request) ? undefined : new Response("WebSocket only", { status: 426 });
  },
  websocket: {
    message(client, room) {
      client.subscribe(room);
      client.send("joined");
    },
    idleTimeout: 960,
    perMessageDeflate: false,
    backpressureLimit: 1 << 20,
  },
});
console.log(`ready ${rooms.port}`);
