// A WebSocket with permessage-deflate in a stream of HTTP/2 (RFC 8441): `server PORT`, which says
// what it is told, and `client ADDRESS PORT MESSAGE…`, which ends with an error if it hears
// something else. All frames are short, and none is in fragments.
"use strict";
const http2 = require("node:http2");
const zlib = require("node:zlib");

const TAIL = Buffer.from([0, 0, 255, 255]);

/** Reads and writes the messages of one end of a stream. */
function talk(stream, masks, hear) {
  const deflate = zlib.createDeflateRaw({ flush: zlib.constants.Z_SYNC_FLUSH });
  const inflate = zlib.createInflateRaw({ flush: zlib.constants.Z_SYNC_FLUSH });
  let kept = Buffer.alloc(0);
  deflate.on("data", (data) => {
    const payload = data.subarray(0, -TAIL.length);
    const mask = masks ? Buffer.from([1, 2, 3, 4]) : Buffer.alloc(0);
    const sent = masks ? payload.map((byte, at) => byte ^ mask[at % 4]) : payload;
    const head = Buffer.from([0xc1, payload.length | (masks ? 0x80 : 0)]);
    stream.write(Buffer.concat([head, mask, sent]));
  });
  inflate.on("data", (data) => hear(data.toString()));
  stream.on("data", (data) => {
    kept = Buffer.concat([kept, data]);
    while (kept.length > 1) {
      const start = kept[1] & 0x80 ? 6 : 2;
      const end = start + (kept[1] & 0x7f);
      if (kept.length < end) return;
      const payload = kept.subarray(start, end);
      const mask = kept.subarray(2, start);
      inflate.write(Buffer.concat([start > 2 ? payload.map((b, at) => b ^ mask[at % 4]) : payload, TAIL]));
      kept = kept.subarray(end);
    }
  });
  return (message) => deflate.write(message);
}

const [role, ...rest] = process.argv.slice(2);
if (role === "server") {
  const server = http2.createServer({ settings: { enableConnectProtocol: true } });
  server.on("stream", (stream) => {
    stream.respond({ ":status": 200, "sec-websocket-extensions": "permessage-deflate" });
    const say = talk(stream, false, (message) => say(message));
    stream.on("end", () => stream.end());
  });
  server.listen(Number(rest[0]), "0.0.0.0");
} else {
  const [address, port, ...messages] = rest;
  const client = http2.connect(`http://${address}:${port}`);
  client.on("remoteSettings", () => {
    const stream = client.request(
      {
        ":method": "CONNECT",
        ":protocol": "websocket",
        ":path": "/",
        "sec-websocket-extensions": "permessage-deflate",
      },
      { endStream: false },
    );
    let heard = 0;
    const say = talk(stream, true, (message) => {
      if (message !== messages[heard]) throw new Error(`heard ${message}`);
      heard += 1;
      if (heard < messages.length) say(messages[heard]);
      else stream.end();
    });
    stream.on("response", () => say(messages[0]));
    stream.on("close", () => client.close());
  });
}
