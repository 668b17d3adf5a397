// `fal.run` through the proxy route: what goes in, what comes out, and every way to fail.

import assert from "node:assert/strict";

import { APP, ApiError, Calls, SINGLE, UUID, ValidationError } from "./checks.mjs";
import { apiError, busy, client, run } from "./checks.mjs";

const LARGE_BYTES = 6 * 1024 * 1024;
const WORDS = 'Grüße, 世界! 🚀 "\\ \u2028';

const fal = client();

await run({
  async a_call_answers() {
    const { data, requestId } = await fal.run(APP, { input: { name: "you", times: 2 } });
    assert.deepEqual(data, { greeting: "hello you, hello you" });
    assert.match(requestId, UUID);
  },

  async a_path_is_part_of_the_name() {
    const given = { text: WORDS, none: null, number: -1.5e-7, list: [[], {}, true] };
    const { data, requestId } = await fal.run(`${APP}/echo`, { input: given });
    assert.deepEqual(data.body, given);
    assert.equal(data.headers["x-fal-endpoint"], "me/app/echo");
    assert.equal(data.request_id, requestId);
    assert.equal(data.headers["x-fal-target-url"], undefined);
    assert.equal(data.headers["authorization"], undefined);
    assert.match(data.headers["user-agent"], /^@fal-ai\/client\/1\.10\.1/);
  },

  async large_bodies_come_through() {
    const given = { text: "ü€".repeat(LARGE_BYTES / 5) };
    const { data } = await fal.run(`${APP}/echo`, { input: given });
    assert.deepEqual(data.body, given);
  },

  async binary_answers_come_as_bytes() {
    const { data } = await fal.run(`${APP}/bytes`, { input: { number: LARGE_BYTES } });
    const numbers = new DataView(data);
    assert.equal(numbers.byteLength, LARGE_BYTES);
    for (let n = 0; n < LARGE_BYTES / 4; n += 9973) {
      assert.equal(numbers.getUint32(4 * n), n);
    }
  },

  async bad_input_is_a_validation_error() {
    const error = await apiError(fal.run(APP, { input: { name: 3 } }));
    assert.ok(error instanceof ValidationError);
    assert.equal(error.status, 422);
    const [problem] = error.getFieldErrors("name");
    assert.deepEqual(problem.loc, ["body", "name"]);
    assert.equal(problem.type, "string_type");
  },

  async errors_of_the_app_come_as_they_are() {
    for (const status of [400, 418, 500]) {
      const input = { status, detail: WORDS };
      const error = await apiError(fal.run(`${APP}/fail`, { input }));
      assert.ok(!(error instanceof ValidationError));
      assert.equal(error.status, status);
      assert.deepEqual(error.body, { detail: WORDS });
    }
    const raised = await apiError(fal.run(`${APP}/raise`, { input: { number: 1 } }));
    assert.equal(raised.status, 500);
    assert.deepEqual(raised.body, { detail: "Internal Server Error" });
    const nowhere = await apiError(fal.run(`${APP}/nowhere`, { input: {} }));
    assert.equal(nowhere.status, 404);
  },

  async an_unknown_app_is_named_with_the_nearest() {
    const error = await apiError(fal.run("me/singel", { input: {} }));
    assert.equal(error.status, 404);
    assert.equal(error.body.error_type, "app_not_found");
    assert.match(error.body.detail, /did you mean `me\/single`\?/);
  },

  async the_client_repeats_a_502_and_not_a_500() {
    const twice = new Calls();
    const { data } = await fal.run(`${APP}/flaky`, { input: twice.input(2, 502) });
    assert.deepEqual(data, { calls: 3 });
    assert.equal(new Set(twice.ids()).size, 3);
    const once = new Calls();
    const error = await apiError(fal.run(`${APP}/flaky`, { input: once.input(1, 500) }));
    assert.equal(error.status, 500);
    assert.equal(once.ids().length, 1);
  },

  async a_start_timeout_is_the_callers_and_is_not_repeated() {
    await busy(fal, SINGLE, async () => {
      const error = await apiError(fal.run(SINGLE, { input: { name: "x" }, startTimeout: 1.2 }));
      assert.ok(error instanceof ApiError && error.isUserTimeout);
      assert.equal(error.body.error_type, "request_timeout");
    });
  },

  async a_call_may_be_given_up() {
    const controller = new AbortController();
    const input = { steps: 1, seconds: 1 };
    const call = fal.run(`${SINGLE}/slow`, { input, abortSignal: controller.signal });
    setTimeout(() => controller.abort(), 200);
    await assert.rejects(call, { name: "AbortError" });
    const { data } = await fal.run(SINGLE, { input: { name: "you" } });
    assert.deepEqual(data, { greeting: "hello you" });
  },
});
