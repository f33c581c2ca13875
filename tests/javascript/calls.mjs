// Every call of fal's JavaScript client, as it is published; what came of them, as one line of JSON.
// Its hosts are replaced in one of two ways: WAY is "middleware" or "proxy". The third, fetch, is for streams by a token.
import { createHash } from "node:crypto";
import { existsSync, writeFileSync } from "node:fs";
import { createFalClient } from "@fal-ai/client";

const { STOKER_URL: url, FAL_KEY: credentials, WAY, FOLDER, LARGE_BYTES } = process.env;
const APP = "tests/served";
const PREFIXES = { "queue.fal.run": "/queue", "fal.run": "/run", "rest.fal.ai": "/rest" };
const own = (address) => {
  const target = new URL(address);
  return url + PREFIXES[target.host] + target.pathname + target.search;
};
const hosts = {
  middleware: { requestMiddleware: async (request) => ({ ...request, url: own(request.url) }) },
  proxy: { proxyUrl: { url: `${url}/api/fal/proxy`, when: "always" } },
};
const fal = createFalClient({ credentials, ...hosts[WAY] });

const failure = async (call) => {
  try {
    await call();
  } catch (error) {
    return { name: error.name, status: error.status, body: error.body, message: error.message };
  }
  return null;
};
const bytes = async (address) => Buffer.from(await (await fetch(address)).arrayBuffer());
const found = {};

const updates = [];
const polled = await fal.subscribe(APP, {
  input: { text: "hello" },
  logs: true,
  pollInterval: 20,
  onQueueUpdate: (update) => updates.push(update.status),
});
found.polled = { text: polled.data.text, id: polled.requestId, last: updates.at(-1) };
found.said = (await bytes(polled.data.file.url)).toString();

const streamedLogs = [];
const streamed = await fal.subscribe(APP, {
  input: { text: "hello" },
  mode: "streaming",
  logs: true,
  onQueueUpdate: (update) => streamedLogs.push((update.logs ?? []).map((line) => line.message)),
});
found.streamed = { text: streamed.data.text, logs: streamedLogs.at(-1) };

found.invalid = await failure(() => fal.subscribe(APP, { input: { text: "" } }));

const end = `${FOLDER}/end-${WAY}`;
const { request_id: requestId } = await fal.queue.submit(`${APP}/wait`, { input: { wait_for: end }, priority: "low" });
const before = await fal.queue.status(APP, { requestId, logs: true });
writeFileSync(end, "");
await fal.queue.subscribeToStatus(APP, { requestId, pollInterval: 20 });
found.submitted = {
  before: before.status,
  after: (await fal.queue.status(APP, { requestId, logs: true })).logs.map((line) => line.message),
  text: (await fal.queue.result(APP, { requestId })).data.text,
};

const never = `${FOLDER}/never`;
const cancelled = await fal.queue.submit(`${APP}/wait`, { input: { wait_for: never } });
await fal.queue.cancel(APP, { requestId: cancelled.request_id });
await fal.queue.subscribeToStatus(APP, { requestId: cancelled.request_id, pollInterval: 20 });
found.cancelled = {
  result: await failure(() => fal.queue.result(APP, { requestId: cancelled.request_id })),
  again: await failure(() => fal.queue.cancel(APP, { requestId: cancelled.request_id })),
};
let enqueued;
found.timeout = await failure(() =>
  fal.subscribe(`${APP}/wait`, {
    input: { wait_for: never },
    timeout: 300,
    pollInterval: 20,
    onEnqueue: (id) => (enqueued = id),
  }),
);
found.afterTimeout = await fal.queue.subscribeToStatus(APP, { requestId: enqueued, pollInterval: 20 });

found.run = (await fal.run(APP, { input: { text: "hello" } })).data.text;
const stream = await fal.stream(APP, { input: { text: "hello" } });
const events = [];
for await (const event of stream) events.push(event);
found.stream = { events, done: (await stream.done()).text };

const asked = { method: "get", input: { text: "hello" }, startTimeout: 60, hint: "a" };
found.byQuery = {
  run: (await fal.run(APP, asked)).data.text,
  text: (await fal.subscribe(APP, { ...asked, pollInterval: 20 })).data.text,
};
const statuses = [];
const followed = await fal.queue.submit(APP, { input: { text: "hello" } });
const follow = await fal.queue.streamStatus(APP, { requestId: followed.request_id, logs: true });
for await (const status of follow) statuses.push(status.status);
found.statuses = statuses;
const direct = createFalClient({ credentials, fetch: (address, options) => fetch(own(address), options) });
console.warn = () => {}; // it wants a tokenProvider for this
const byToken = await direct.stream(APP, { input: { text: "hello" }, connectionMode: "client" });
found.byToken = (await byToken.done()).text;

const small = new Blob(["hello"], { type: "text/plain" });
const address = await fal.storage.upload(small);
found.small = (await bytes(address)).toString();
found.digest = (await fal.subscribe(`${APP}/digest`, { input: { file: small }, pollInterval: 20 })).data;
if (LARGE_BYTES) {
  const large = Buffer.alloc(Number(LARGE_BYTES), "\x00\x01\x02 large");
  const stored = createHash("sha256").update(await bytes(await fal.storage.upload(new Blob([large]))));
  found.large = stored.digest("hex") === createHash("sha256").update(large).digest("hex");
}
found.leftovers = existsSync(never);
console.log(JSON.stringify(found));
