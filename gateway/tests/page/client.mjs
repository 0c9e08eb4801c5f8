// A client of goim's in a page: source for `evaluate`, of a function that connects to a URL and returns the extensions agreed on.
//
// Then `window.say` sends a packet, `window.heard` has what was heard, `window.ended` the code of the close.

export const CLIENT = `(async (url) => {
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

/** The packets of an operation that were heard. */
export const heard = (operation) => `window.heard.filter((packet) => packet.operation === ${operation})`;
