// A plain HTTP server, started by a command: no SDK and no packages, only Node.js.
//
//   GET  /health   204 once it is warm
//   GET  /         JSON about this process
//   POST /echo     the body, streamed back as it comes
//   GET  /stream   five server-sent events
//   GET  /ws       a websocket that echoes text and binary messages
//
// It listens on 127.0.0.1:$PORT, and only after a slow start, as a server that loads a model does.

import { createHash } from "node:crypto";
import { createServer } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";

const WARM_UP_MS = Number(process.env.WARM_UP_MS ?? 2000);
const EVENTS = 5;
const EVENT_GAP_MS = 200;
const MESSAGE_BYTES_MAX = 1024 * 1024;
// A constant of the websocket protocol (RFC 6455).
const WEBSOCKET_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

const port = Number(process.env.PORT);
if (!Number.isInteger(port) || port < 1 || port > 65535) {
  console.error("set PORT to the port to listen on");
  process.exit(2);
}

const startedAt = Date.now();
let answered = 0;

const server = createServer(async (request, response) => {
  const { pathname } = new URL(request.url, "http://127.0.0.1");
  if (pathname === "/health") {
    response.writeHead(204).end();
  } else if (pathname === "/") {
    answered += 1;
    const body = { pid: process.pid, answered, up_ms: Date.now() - startedAt };
    response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(body));
  } else if (pathname === "/echo") {
    const type = request.headers["content-type"] ?? "application/octet-stream";
    response.writeHead(200, { "content-type": type });
    request.pipe(response);
  } else if (pathname === "/stream") {
    response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
    for (let number = 1; number <= EVENTS && !response.destroyed; number += 1) {
      response.write(`data: ${JSON.stringify({ number })}\n\n`);
      await sleep(EVENT_GAP_MS);
    }
    response.end();
  } else {
    response.writeHead(404, { "content-type": "application/json" });
    response.end(JSON.stringify({ detail: `Path ${pathname} not found` }));
  }
});

server.on("upgrade", (request, socket) => {
  const key = request.headers["sec-websocket-key"];
  if (new URL(request.url, "http://127.0.0.1").pathname !== "/ws" || !key) {
    socket.end("HTTP/1.1 404 Not Found\r\nconnection: close\r\n\r\n");
    return;
  }
  const accept = createHash("sha1").update(key + WEBSOCKET_GUID).digest("base64");
  socket.write(
    "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n" +
      `sec-websocket-accept: ${accept}\r\n\r\n`,
  );
  echoFrames(socket);
});

// Sends every unfragmented frame back unmasked; a ping comes back as a pong, a close ends the connection.
function echoFrames(socket) {
  const CLOSE = 8;
  const PING = 9;
  const PONG = 10;
  let pending = Buffer.alloc(0);
  socket.on("error", () => socket.destroy());
  socket.on("data", (chunk) => {
    pending = Buffer.concat([pending, chunk]);
    for (let frame = takeFrame(pending); frame; frame = takeFrame(pending)) {
      if (frame.payload.length > MESSAGE_BYTES_MAX) return socket.destroy();
      pending = frame.rest;
      const opcode = frame.opcode === PING ? PONG : frame.opcode;
      if (opcode !== PONG || frame.opcode === PING) socket.write(makeFrame(opcode, frame.payload));
      if (opcode === CLOSE) return socket.end();
    }
    if (pending.length > MESSAGE_BYTES_MAX + 14) socket.destroy();
  });
}

// The first frame of `bytes`, or null while it is incomplete. Frames of a client are always masked.
function takeFrame(bytes) {
  if (bytes.length < 2) return null;
  let length = bytes[1] & 0x7f;
  let at = 2;
  if (length === 126) {
    if (bytes.length < 4) return null;
    length = bytes.readUInt16BE(2);
    at = 4;
  } else if (length === 127) {
    if (bytes.length < 10) return null;
    length = Number(bytes.readBigUInt64BE(2));
    at = 10;
  }
  if (bytes.length < at + 4 + length) return null;
  const mask = bytes.subarray(at, at + 4);
  const payload = Buffer.from(bytes.subarray(at + 4, at + 4 + length));
  for (let i = 0; i < payload.length; i += 1) payload[i] ^= mask[i % 4];
  return { opcode: bytes[0] & 0x0f, payload, rest: bytes.subarray(at + 4 + length) };
}

function makeFrame(opcode, payload) {
  const head = [0x80 | opcode];
  if (payload.length < 126) {
    head.push(payload.length);
  } else if (payload.length < 65536) {
    head.push(126, payload.length >> 8, payload.length & 0xff);
  } else {
    const long = Buffer.alloc(8);
    long.writeBigUInt64BE(BigInt(payload.length));
    head.push(127, ...long);
  }
  return Buffer.concat([Buffer.from(head), payload]);
}

process.on("SIGTERM", () => {
  console.log(`going away after ${answered} answer(s)`);
  server.close(() => process.exit(0));
  server.closeIdleConnections();
});

console.log(`warming up for ${WARM_UP_MS} ms`);
await sleep(WARM_UP_MS);
server.listen(port, "127.0.0.1", () => console.log(`listening on 127.0.0.1:${port}`));
