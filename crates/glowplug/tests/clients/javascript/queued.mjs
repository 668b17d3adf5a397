// The queue through the proxy route: submit, status, result, cancel, and both ways to subscribe.

import assert from "node:assert/strict";

import { APP, Calls, SINGLE, UUID, ValidationError } from "./checks.mjs";
import { apiError, busy, client, messages, run, said, state } from "./checks.mjs";

const SLOW = { steps: 3, seconds: 0.4 };
const STEPS = ["step 1 of 3", "step 2 of 3", "step 3 of 3"];
const LARGE_CHARACTERS = 1_500_000;

const fal = client();

async function submitted(app, input, options = {}) {
  const { request_id } = await fal.queue.submit(app, { input, ...options });
  return request_id;
}

function subscribe(options) {
  const updates = [];
  const enqueued = [];
  const subscription = fal.subscribe(`${SINGLE}/slow`, {
    input: SLOW,
    logs: true,
    // The client goes on adding to the logs it has shown.
    onQueueUpdate: (update) => updates.push(structuredClone(update)),
    onEnqueue: (requestId) => enqueued.push(requestId),
    ...options,
  });
  return { updates, enqueued, subscription };
}

function assertSubscribed({ data, requestId }, updates, enqueued) {
  assert.deepEqual(data, { steps: 3 });
  assert.deepEqual(enqueued, [requestId]);
  const states = updates.map((update) => update.status);
  const order = ["IN_QUEUE", "IN_PROGRESS", "COMPLETED"];
  assert.deepEqual(states, states.toSorted((a, b) => order.indexOf(a) - order.indexOf(b)));
  assert.ok(states.includes("IN_PROGRESS"), states.join());
  assert.equal(states.filter((one) => one === "COMPLETED").length, 1);
  assert.deepEqual(messages(updates.at(-1)), STEPS);
  const partly = updates.filter((update) => update.status === "IN_PROGRESS").map(messages);
  assert.ok(partly.some((lines) => lines.length > 0 && lines.length < 3), JSON.stringify(partly));
}

await run({
  async a_request_goes_through_the_queue() {
    const submission = await fal.queue.submit(APP, { input: { name: "you" } });
    assert.equal(submission.status, "IN_QUEUE");
    assert.match(submission.request_id, UUID);
    const requestId = submission.request_id;
    const base = `${process.env.GLOWPLUG_URL}/queue/${APP}/requests/${requestId}`;
    assert.equal(submission.response_url, base);
    assert.equal(submission.status_url, `${base}/status`);
    assert.equal(submission.cancel_url, `${base}/cancel`);
    const status = await state(fal, APP, requestId, "COMPLETED");
    assert.equal(status.request_id, requestId);
    assert.equal(status.response_url, base);
    assert.ok(status.metrics.inference_time >= 0);
    const result = await fal.queue.result(APP, { requestId });
    assert.deepEqual(result, { data: { greeting: "hello you" }, requestId });
    const quiet = await fal.queue.status(APP, { requestId });
    assert.equal(quiet.logs, null);
  },

  async the_path_is_the_requests_own() {
    const requestId = await submitted(`${APP}/echo`, { a: 1 }, { headers: { "X-Own": "kept" } });
    await state(fal, `${APP}/else`, requestId, "COMPLETED");
    const { data } = await fal.queue.result(APP, { requestId });
    assert.deepEqual(data.body, { a: 1 });
    assert.equal(data.headers["x-own"], "kept");
    assert.equal(data.headers["x-fal-endpoint"], "me/app/echo");
    assert.equal(data.headers["x-fal-request-id"], requestId);
    assert.equal(data.headers["x-fal-queue-priority"], undefined);
  },

  async a_waiting_request_knows_its_position() {
    await busy(fal, SINGLE, async () => {
      const normal = await submitted(SINGLE, { name: "normal" });
      const low = await submitted(SINGLE, { name: "low" }, { priority: "low" });
      for (const [position, requestId] of [normal, low].entries()) {
        const status = await fal.queue.status(SINGLE, { requestId });
        assert.deepEqual([status.status, status.queue_position], ["IN_QUEUE", position]);
      }
    });
  },

  async subscribing_by_polling_tells_of_everything() {
    const { updates, enqueued, subscription } = subscribe({ pollInterval: 50 });
    assertSubscribed(await subscription, updates, enqueued);
  },

  async subscribing_by_streaming_tells_of_everything() {
    const { updates, enqueued, subscription } = subscribe({ mode: "streaming" });
    assertSubscribed(await subscription, updates, enqueued);
  },

  async a_status_stream_sends_each_line_once_and_ends() {
    const requestId = await submitted(`${SINGLE}/slow`, SLOW);
    const stream = await fal.queue.streamStatus(SINGLE, { requestId, logs: true });
    const events = [];
    stream.on("data", (event) => events.push(event));
    const last = await stream.done();
    assert.equal(last.status, "COMPLETED");
    assert.deepEqual(events.at(-1), last);
    assert.deepEqual(events.flatMap((event) => messages(event)), STEPS);
    assert.ok(events.length > 3, JSON.stringify(events));
    assert.match(stream.requestId, UUID);
    // Of a request that is complete already there is one event.
    const again = await fal.queue.streamStatus(SINGLE, { requestId, logs: true });
    const repeated = [];
    again.on("data", (event) => repeated.push(event));
    await again.done();
    assert.deepEqual(repeated.map((event) => [event.status, messages(event)]), [["COMPLETED", STEPS]]);
  },

  async a_failed_request_throws_the_apps_error() {
    const invalid = await apiError(fal.subscribe(APP, { input: { name: 3 }, pollInterval: 50 }));
    assert.ok(invalid instanceof ValidationError);
    assert.deepEqual(invalid.fieldErrors[0].loc, ["body", "name"]);
    for (const [path, input, status, detail] of [
      ["fail", { status: 500, detail: "höh" }, 500, "höh"],
      ["raise", { number: 1 }, 500, "Internal Server Error"],
    ]) {
      const requestId = await submitted(`${APP}/${path}`, input);
      const done = await state(fal, APP, requestId, "COMPLETED");
      assert.equal(done.error, `Invalid status code: ${status}`);
      const error = await apiError(fal.queue.result(APP, { requestId }));
      assert.deepEqual([error.status, error.body.detail], [status, detail]);
      assert.equal(error.requestId, requestId);
    }
  },

  async the_queue_repeats_what_may_succeed() {
    const calls = new Calls();
    const requestId = await submitted(`${SINGLE}/flaky`, calls.input(1, 503));
    await state(fal, SINGLE, requestId, "COMPLETED");
    const { data } = await fal.queue.result(SINGLE, { requestId });
    assert.deepEqual(data, { calls: 2 });
    assert.deepEqual(calls.ids(), [requestId, requestId]);
  },

  async what_is_asked_too_early_or_unknown_is_refused() {
    const requestId = await submitted(`${SINGLE}/slow`, { steps: 1, seconds: 1 });
    const early = await apiError(fal.queue.result(SINGLE, { requestId }));
    assert.equal(early.status, 400);
    assert.equal(early.body.detail, "Request is still in progress");
    await state(fal, SINGLE, requestId, "COMPLETED");
    const unknown = { requestId: "01890000-0000-7000-8000-000000000000" };
    for (const call of ["status", "result", "cancel"]) {
      const error = await apiError(fal.queue[call](SINGLE, unknown));
      assert.deepEqual([error.status, error.body.status], [404, "NOT_FOUND"]);
    }
    const stream = await fal.queue.streamStatus(SINGLE, unknown);
    assert.equal((await apiError(stream.done())).status, 404);
  },

  async waiting_and_running_requests_are_cancelled() {
    const running = await submitted(`${SINGLE}/patient`, { seconds: 60 });
    await said(fal, SINGLE, running, "patient work begins");
    const waiting = await submitted(SINGLE, { name: "x" });
    await fal.queue.cancel(SINGLE, { requestId: waiting });
    const removed = await apiError(fal.queue.result(SINGLE, { requestId: waiting }));
    assert.deepEqual([removed.status, removed.body.error_type], [499, "client_cancelled"]);
    await fal.queue.cancel(SINGLE, { requestId: running });
    await state(fal, SINGLE, running, "COMPLETED");
    assert.equal((await apiError(fal.queue.result(SINGLE, { requestId: running }))).status, 499);
    const again = await apiError(fal.queue.cancel(SINGLE, { requestId: running }));
    assert.deepEqual([again.status, again.body.status], [400, "ALREADY_COMPLETED"]);
  },

  async timeouts_take_a_request_back() {
    await busy(fal, SINGLE, async () => {
      const late = await submitted(SINGLE, { name: "x" }, { startTimeout: 1.2 });
      const { subscription, enqueued } = subscribe({ timeout: 500, pollInterval: 50 });
      await assert.rejects(subscription, /timed out waiting for the request .* after 500ms/);
      const taken = await state(fal, SINGLE, enqueued[0], "COMPLETED");
      assert.equal(taken.error_type, "client_cancelled");
      const ended = await state(fal, SINGLE, late, "COMPLETED");
      assert.equal(ended.error_type, "request_timeout");
      const error = await apiError(fal.queue.result(SINGLE, { requestId: late }));
      assert.ok(error.isUserTimeout, "the client would ask again");
    });
  },

  async large_requests_and_answers_are_kept() {
    const input = { text: "ü€🚀".repeat(LARGE_CHARACTERS / 4) };
    const requestId = await submitted(`${APP}/echo`, input);
    await state(fal, APP, requestId, "COMPLETED");
    assert.deepEqual((await fal.queue.result(APP, { requestId })).data.body, input);
  },
});
