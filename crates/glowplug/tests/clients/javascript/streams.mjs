// Streams through the proxy route, and realtime over a socket of its own.

import assert from "node:assert/strict";

import { APP, UUID, WebSocket } from "./checks.mjs";
import { apiError, client, run } from "./checks.mjs";

// The client knows one address for sockets, `wss://fal.run`. Node.js 20 has no WebSocket of its own, so
// whoever brings one decides where it leads.
globalThis.WebSocket = class extends WebSocket {
  constructor(url, ...rest) {
    const base = process.env.GLOWPLUG_URL.replace(/^http/, "ws");
    super(url.replace("wss://fal.run", `${base}/run`), ...rest);
  }
};

const fal = client();

await run({
  async events_come_one_by_one() {
    const stream = await fal.stream(APP, { input: { steps: 3, seconds: 0.4 } });
    const events = [];
    for await (const event of stream) {
      events.push({ ...event, at: Date.now() });
    }
    assert.deepEqual(events.map(({ step, of, text }) => [step, of, text]), [
      [1, 3, "läuft"],
      [2, 3, "läuft"],
      [3, 3, "läuft"],
    ]);
    assert.ok(events[2].at - events[0].at > 400, JSON.stringify(events));
    assert.deepEqual(await stream.done(), { step: 3, of: 3, text: "läuft" });
    assert.match(stream.requestId, UUID);
  },

  async a_stream_that_fails_says_why() {
    const stream = await fal.stream(APP, { input: { steps: "many" } });
    const error = await apiError(stream.done());
    assert.equal(error.status, 422);
    assert.deepEqual(error.fieldErrors[0].loc, ["body", "steps"]);
  },

  async a_stream_may_be_left_early() {
    const stream = await fal.stream(APP, { input: { steps: 50, seconds: 0.1 } });
    await new Promise((resolve) => stream.on("data", resolve));
    stream.abort();
    assert.equal((await stream.done()).step, 1);
    const { data } = await fal.run(APP, { input: { name: "you" } });
    assert.deepEqual(data, { greeting: "hello you" });
  },

  async realtime_answers_frame_by_frame() {
    const answers = [];
    await new Promise((resolve, reject) => {
      const connection = fal.realtime.connect(APP, {
        connectionKey: "check",
        throttleInterval: 0,
        tokenProvider: async () => process.env.FAL_KEY,
        onResult: (answer) => {
          answers.push(answer.number);
          if (answers.length === 10) {
            connection.close();
            resolve();
          } else {
            connection.send({ number: answers.length });
          }
        },
        onError: reject,
      });
      connection.send({ number: 0 });
    });
    assert.deepEqual(answers, [0, 2, 4, 6, 8, 10, 12, 14, 16, 18]);
  },
});
