/** The client's rules, without a browser: a fetch and a storage of the test's own. */

import assert from "node:assert/strict";
import { afterEach, test } from "node:test";
import { CheckoutSessions, backoff, isNews } from "../client/checkout-sessions.js";

const ID = "01a20ce3-bc08-7644-9f29-4493e6ffdb57";
const session = (more = {}) => ({
  id: ID, user_id: "u", status: "active", valid: true, next: "continue", package: "duo", step: null, data: {},
  successor_id: null, seconds_left: 60, created_at: "2026-01-01T00:00:00Z", updated_at: "2026-01-01T00:00:00Z", ...more,
});
const task = (result, more = {}) => ({ id: "t", state: "SUCCESS", session_id: result.id, result, error: null, ...more });
const json = (status, body, headers = {}) =>
  new Response(JSON.stringify(body), { status, headers: { "Content-Type": "application/json", ...headers } });
const lost = () => Promise.reject(new TypeError("lost"));

/** @type {CheckoutSessions[]} */
let open = [];
afterEach(() => open.splice(0).forEach((one) => one.close()));

function client(answers, kept = new Map(), more = {}) {
  const asked = [];
  const fetch = async (url, init) => {
    asked.push({ method: init.method, url, key: init.headers["Idempotency-Key"], token: init.headers.Authorization });
    const answer = answers.shift();
    assert.ok(answer, `an answer to ${init.method} ${url}`);
    return typeof answer === "function" ? answer() : answer;
  };
  const storage = {
    getItem: (key) => kept.get(key) ?? null,
    setItem: (key, value) => void kept.set(key, value),
    removeItem: (key) => void kept.delete(key),
  };
  const checkout = new CheckoutSessions({ token: () => "token", fetch, storage, name: `test-${open.length}`, ...more });
  open.push(checkout);
  return { checkout, asked, kept };
}

test("backoff doubles up to a limit and spreads by half", () => {
  assert.deepEqual([0, 1, 2, 9].map((attempt) => backoff(attempt, 1)), [250, 500, 1000, 8000]);
  assert.equal(backoff(2, 0), 500);
});

test("another tab's session is news if it is newer, and never to a finished order", () => {
  const mine = session();
  assert.ok(isNews(mine, null));
  assert.ok(!isNews(mine, mine));
  assert.ok(isNews(session({ updated_at: "2026-01-01T00:00:01Z" }), mine));
  assert.ok(isNews(session({ id: "b", created_at: "2026-01-01T00:00:01Z" }), mine));
  assert.ok(!isNews(session({ id: "b", created_at: "2025-12-31T00:00:00Z" }), mine));
  assert.ok(!isNews(session({ id: "b", user_id: "other" }), mine));
  assert.ok(!isNews(session({ id: "b" }), session({ status: "completed" })));
});

test("a lost answer is asked for again under the same key, which is kept until then", async () => {
  const { checkout, asked, kept } = client([lost, lost, json(201, task(session()))]);
  const done = checkout.create("duo");
  await new Promise((resolve) => checkout.addEventListener("request", resolve, { once: true }));
  assert.equal(JSON.parse(kept.get("test-0.wishes")).length, 1);
  assert.equal((await done)?.id, ID);
  assert.equal(new Set(asked.map(({ key }) => key)).size, 1);
  assert.equal(asked.length, 3);
  assert.equal(kept.has("test-0.wishes"), false);
  assert.equal(kept.get("test-0.session"), ID);
});

test("a wish of a closed page is taken up; an old one is not, unless it is a payment", async () => {
  const wish = (kind, age) => ({ key: `${kind}-${age}`, kind, session: ID, body: {}, at: Date.now() - age, shown: null });
  const wishes = [wish("renew", 3_600_000), wish("complete", 86_000_000)];
  const kept = new Map([["test-0.wishes", JSON.stringify(wishes)]]);
  const { checkout, asked } = client([json(200, task(session({ status: "completed", valid: false })))], kept);
  await checkout.start();
  assert.deepEqual(asked.map(({ key }) => key), ["complete-86000000"]);
  assert.equal(checkout.state.session?.status, "completed");
});

test("202 is polled until the task is finished", async () => {
  const pending = { task_id: "t1", session_id: ID, state: "PENDING" };
  const { checkout, asked } = client([json(202, pending), json(200, { ...task(session()), state: "SUCCESS" })]);
  await checkout.create("duo");
  assert.equal(asked[1].url, "/api/tasks/t1?wait=10");
});

test("a refused token is refreshed once; then the shopper is asked, and the wish is kept", async () => {
  const problem = { code: "token_expired", message: "Please sign in again to go on.", next: "sign_in" };
  const refreshed = [];
  const token = (refused) => (refreshed.push(refused), "token");
  const answers = [json(401, problem), json(401, problem), json(201, task(session()))];
  const { checkout, asked } = client(answers, new Map(), { token });
  assert.equal(await checkout.create("duo"), null);
  assert.equal(checkout.state.notice?.next, "sign_in");
  assert.deepEqual(refreshed, [false, true]);
  assert.equal((await checkout.retry())?.id, ID);
  assert.equal(new Set(asked.map(({ key }) => key)).size, 1);
});

test("of what a sign-in held up, the payment is taken up first", { timeout: 5_000 }, async () => {
  const problem = { code: "token_expired", message: "", next: "sign_in" };
  const refusals = Array.from({ length: 4 }, () => json(401, problem));
  const paid = json(200, task(session({ status: "completed", valid: false })));
  const { checkout, asked } = client([json(200, session()), ...refusals, paid], new Map([["test-0.session", ID]]));
  await checkout.start();
  await checkout.complete("pay-1");
  await checkout.navigate("checkout");
  assert.equal((await checkout.retry())?.status, "completed");
  assert.match(asked.at(-1).url, /complete$/);
});

test("messages are translated by code", async () => {
  const problem = { code: "session_unrecoverable", message: "English", next: "restart" };
  const kept = new Map([["test-0.session", ID]]);
  const gone = { code: "session_not_found", message: "", next: "restart" };
  const messages = { session_unrecoverable: "Bitte neu beginnen." };
  const { checkout } = client([json(404, gone), json(410, problem)], kept, { messages });
  await checkout.start();
  assert.deepEqual({ ...checkout.state.notice }, { code: "session_unrecoverable", message: "Bitte neu beginnen.", tone: "error", next: "restart" });
  assert.equal(kept.size, 0);
});

test("what was overtaken before its answer came leads to what lives", async () => {
  const answers = [
    json(200, session()),
    json(200, task(session({ id: "b", status: "invalidated", valid: false, successor_id: "c" }))),
    json(200, session({ id: "c", package: "solo" })),
  ];
  const { checkout } = client(answers, new Map([["test-0.session", ID]]));
  await checkout.start();
  assert.equal((await checkout.changePackage("crew"))?.id, "c");
  assert.equal(checkout.state.notice?.code, "moved");
});

test("what another tab did later and told sooner stays", { timeout: 5_000 }, async (t) => {
  const tab = new BroadcastChannel("test-0");
  t.after(() => tab.close());
  const later = session({ id: "later", package: "solo", created_at: "2026-01-01T00:00:02Z" });
  const slow = async () => {
    tab.postMessage(later);
    while (checkout.state.session?.id !== "later") await new Promise((resolve) => setTimeout(resolve, 1));
    return json(200, task(session({ id: "sooner", created_at: "2026-01-01T00:00:01Z" })));
  };
  const { checkout } = client([json(200, session()), slow], new Map([["test-0.session", ID]]));
  await checkout.start();
  assert.equal((await checkout.changePackage("crew"))?.id, "later");
  assert.equal(checkout.state.session?.package, "solo");
});

test("a double click is one wish, three changes are three", async () => {
  const answers = Array.from({ length: 3 }, () => json(200, task(session())));
  const { checkout, asked } = client([json(200, session()), ...answers], new Map([["test-0.session", ID]]));
  await checkout.start();
  await Promise.all(["a", "a", "b", "a"].map((one) => checkout.changePackage(one)));
  assert.equal(asked.length, 4);
});

test("the state is frozen, and the time left goes by the server's seconds", async () => {
  const { checkout } = client([json(200, session())]);
  await checkout.start();
  assert.ok(Object.isFrozen(checkout.state));
  assert.ok(checkout.secondsLeft > 59 && checkout.secondsLeft <= 60);
});
