// A node with keys: `me/app` is private, `me/open` is for everyone.

import assert from "node:assert/strict";

import { APP, apiError, client, run, state } from "./checks.mjs";

const OPEN = "me/open";
const [identity, secret] = process.env.FAL_KEY.split(":");
const right = client();

await run({
  async the_right_key_opens_everything() {
    const { data } = await right.run(`${APP}/echo`, { input: {} });
    assert.equal(data.headers["x-fal-caller-user-id"], identity);
    assert.ok(!JSON.stringify(data).includes(secret));
    const subscribed = await right.subscribe(APP, { input: { name: "you" }, pollInterval: 50 });
    assert.deepEqual(subscribed.data, { greeting: "hello you" });
  },

  async a_wrong_or_missing_key_opens_nothing() {
    const { request_id: requestId } = await right.queue.submit(APP, { input: { name: "you" } });
    await state(right, APP, requestId, "COMPLETED");
    const wrong = "the key is not one of this node's";
    for (const [key, detail] of [
      [`${identity}:wrong`, wrong],
      ["any", wrong],
      [process.env.REVOKED_KEY, wrong],
      // The client takes an empty key for none, and sends no header.
      ["", "this app needs a key: send `Authorization: Key ID:SECRET`"],
    ]) {
      const fal = client(key);
      for (const call of [
        () => fal.run(APP, { input: { name: "you" } }),
        () => fal.queue.submit(APP, { input: { name: "you" } }),
        () => fal.queue.status(APP, { requestId }),
        () => fal.queue.result(APP, { requestId }),
        () => fal.queue.cancel(APP, { requestId }),
        () => fal.stream(APP, { input: { steps: 1 } }).then((stream) => stream.done()),
        () => fal.queue.streamStatus(APP, { requestId }).then((stream) => stream.done()),
      ]) {
        const error = await apiError(call());
        assert.deepEqual(error.body, { detail, error_type: "unauthorized" });
        assert.equal(error.status, 401);
      }
    }
  },

  async a_public_app_needs_no_key() {
    const fal = client("");
    const { data } = await fal.run(OPEN, { input: { name: "you" } });
    assert.deepEqual(data, { greeting: "hello you" });
    const subscribed = await fal.subscribe(OPEN, { input: { name: "you" }, pollInterval: 50 });
    assert.deepEqual(subscribed.data, { greeting: "hello you" });
  },
});
