// `fal.storage` and tokens through the proxy route.

import assert from "node:assert/strict";
import { createHash } from "node:crypto";

import { APP, client, run } from "./checks.mjs";

const fal = client();
// More than the client sends at once: ten parts.
const PARTS_BYTES = 91 * 1024 * 1024;

function pattern(length) {
  const block = createHash("sha256").update("glowplug").digest();
  return Buffer.alloc(length, block);
}

await run({
  async files_of_every_size_are_kept() {
    for (const length of [0, 1024, 5 * 1024 * 1024]) {
      const data = pattern(length);
      const url = await fal.storage.upload(new File([data], "a b.png", { type: "image/png" }));
      assert.ok(url.startsWith(process.env.GLOWPLUG_URL), url);
      const answer = await fetch(url);
      assert.equal(answer.headers.get("content-type"), "image/png");
      assert.ok(Buffer.from(await answer.arrayBuffer()).equals(data));
    }
  },

  async a_file_in_parts() {
    const data = pattern(PARTS_BYTES);
    const url = await fal.storage.upload(new Blob([data], { type: "video/mp4" }));
    const answer = await fetch(url);
    assert.equal(answer.headers.get("content-length"), String(PARTS_BYTES));
    assert.ok(Buffer.from(await answer.arrayBuffer()).equals(data));
  },

  async blobs_in_the_input_become_addresses() {
    const image = new Blob([pattern(1024)], { type: "image/png" });
    const { data } = await fal.run(`${APP}/echo`, { input: { image } });
    const answer = await fetch(data.body.image, { headers: { Range: "bytes=1000-" } });
    assert.equal(answer.status, 206);
    assert.equal((await answer.arrayBuffer()).byteLength, 24);
  },

  async tokens_are_strings() {
    const answer = await fetch(`${process.env.GLOWPLUG_URL}/proxy`, {
      method: "POST",
      headers: {
        "x-fal-target-url": "https://rest.fal.ai/tokens/",
        "content-type": "application/json",
        authorization: `Key ${process.env.FAL_KEY}`,
      },
      body: JSON.stringify({ allowed_apps: ["app"], token_expiration: 120 }),
    });
    assert.equal(answer.status, 200);
    assert.equal((await answer.json()).split(".").length, 3);
  },
});
