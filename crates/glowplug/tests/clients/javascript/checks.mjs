// Runs the checks of a script, and what more than one script needs.

import assert from "node:assert/strict";
import { mkdtempSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

// The packages under test are not beside this file.
const modules = createRequire(join(process.env.NODE_MODULES, "here.js"));
export const { createFalClient, ApiError, ValidationError } = modules("@fal-ai/client");
export const { WebSocket } = modules("ws");

// Apps of the node's config: `APP` takes several requests at a time, `SINGLE` one.
export const APP = "me/app";
export const SINGLE = "me/single";

export const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/;
const WAIT_MILLIS_MAX = 30_000;
const POLL_MILLIS = 20;

// A client that reaches the node as a web page's would: everything through the proxy route.
export function client(credentials = process.env.FAL_KEY) {
  return createFalClient({
    credentials,
    proxyUrl: { url: `${process.env.GLOWPLUG_URL}/proxy`, when: "always" },
  });
}

export async function run(checks) {
  let passed = 0;
  let failed = 0;
  for (const [name, check] of Object.entries(checks)) {
    const began = Date.now();
    try {
      await bounded(name, check());
      passed += 1;
      console.log(`ok ${name} (${((Date.now() - began) / 1000).toFixed(2)} s)`);
    } catch (error) {
      failed += 1;
      console.log(`FAILED ${name}`, error);
    }
  }
  console.log(`${passed} passed, ${failed} failed`);
  process.exit(failed || !passed ? 1 : 0);
}

async function bounded(name, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${name} hangs`)), 2 * WAIT_MILLIS_MAX);
  });
  await Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

export function pause(millis) {
  return new Promise((resolve) => setTimeout(resolve, millis));
}

// Waits until `look` gives something true.
export async function until(what, look) {
  const end = Date.now() + WAIT_MILLIS_MAX;
  while (Date.now() < end) {
    const found = await look();
    if (found) {
      return found;
    }
    await pause(POLL_MILLIS);
  }
  assert.fail(`waited in vain for ${what}`);
}

export function state(fal, app, requestId, wanted) {
  return until(`${wanted} of ${requestId}`, async () => {
    const status = await fal.queue.status(app, { requestId, logs: true });
    return status.status === wanted ? status : undefined;
  });
}

export function said(fal, app, requestId, message) {
  return until(message, async () => {
    const status = await fal.queue.status(app, { requestId, logs: true });
    return status.logs && messages(status).includes(message);
  });
}

// Keeps an app that takes one request at a time from taking another while `work` is done.
export async function busy(fal, app, work) {
  const input = { seconds: (2 * WAIT_MILLIS_MAX) / 1000 };
  const { request_id: requestId } = await fal.queue.submit(`${app}/patient`, { input });
  await said(fal, app, requestId, "patient work begins");
  await work();
  const status = await fal.queue.status(app, { requestId });
  assert.equal(status.status, "IN_PROGRESS", "it was to be left alone");
  await fal.queue.cancel(app, { requestId });
  await state(fal, app, requestId, "COMPLETED");
}

export function messages(status) {
  return status.logs.map((line) => {
    assert.deepEqual(Object.keys(line).sort(), ["level", "message", "source", "timestamp"]);
    return line.message;
  });
}

// The error of ours or the app's that a call ends with.
export async function apiError(promise) {
  try {
    const result = await promise;
    assert.fail(`it should have failed, but gave ${JSON.stringify(result)}`);
  } catch (error) {
    if (!(error instanceof ApiError)) {
      throw error;
    }
    assert.match(error.requestId, UUID);
    return error;
  }
}

// Counts how often the app's `/flaky` was called.
export class Calls {
  constructor() {
    this.path = join(mkdtempSync(join(process.env.SCRATCH, "calls-")), "calls");
  }

  input(times, status) {
    return { calls: this.path, times, status };
  }

  ids() {
    return readFileSync(this.path, "utf8").split("\n").filter(Boolean);
  }
}
