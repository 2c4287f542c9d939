// The operators' page: asks /api/ops every few seconds and draws what it hears. No dependencies, no build step.

import { bars, line } from "/ops/plots.js";

const POLL_MS = 2_000;
const KEY = "ops.token"; // of this tab; never in a URL

/** @param {string} id */
const at = (id) => /** @type {HTMLElement} */ (document.getElementById(id));

/** @param {string} tag @param {string | Node} content @param {string} [look] */
function make(tag, content, look) {
  const node = document.createElement(tag);
  node.append(content);
  if (look) node.className = look;
  return node;
}

/** @param {number | null | undefined} value */
const count = (value) => (value == null ? "–" : Math.round(value).toLocaleString("en"));
/** @param {number | null | undefined} value */
const percent = (value) => (value == null ? "–" : `${(100 * value).toFixed(1)} %`);
/** @param {number | null | undefined} value */
const bytes = (value) => (value == null ? "–" : `${(value / 1_048_576).toFixed(1)} MB`);

/** @param {number | null | undefined} value */
function seconds(value) {
  if (value == null) return "–";
  if (value < 1) return `${Math.round(1000 * value)} ms`;
  if (value < 120) return `${value.toFixed(value < 10 ? 1 : 0)} s`;
  return value < 7200 ? `${Math.round(value / 60)} min` : `${Math.round(value / 3600)} h`;
}

/** @param {string} path */
async function ask(path) {
  const response = await fetch(path, { headers: { Authorization: `Bearer ${sessionStorage[KEY]}` } });
  const body = await response.json();
  if (!response.ok) throw Object.assign(new Error(body.detail ?? body.title), { status: response.status });
  return body;
}

/** @param {string} id @param {[string, string, boolean?][]} tiles */
function tell(id, tiles) {
  const nodes = tiles.map(([name, value, bad]) => {
    const tile = make("div", make("dt", name));
    tile.append(make("dd", value, bad ? "bad" : ""));
    return tile;
  });
  at(id).replaceChildren(...nodes);
}

/** @param {string} id @param {string[]} head @param {(string | Node)[][]} rows */
function tabulate(id, head, rows) {
  const lines = rows.map((cells) => {
    const row = document.createElement("tr");
    row.append(...cells.map((cell) => make("td", cell)));
    return row;
  });
  const first = document.createElement("tr");
  first.append(...head.map((name) => make("th", name)));
  at(id).replaceChildren(first, ...lines);
}

/** What an operator should look at, in words. @param {any} now */
function troubles(now) {
  const { tables, broker } = now;
  const found = [];
  if (!now.postgres) found.push("Postgres does not answer: nothing can be accepted or read.");
  if (!now.redis) found.push("Redis does not answer: what is accepted waits.");
  for (const pool of now.pools) {
    if (pool.in_use >= pool.size) found.push(`All connections of this process's ${pool.name} to Postgres are in use.`);
  }
  if (tables?.oldest_pending_seconds > 30) found.push(`A task is pending for ${seconds(tables.oldest_pending_seconds)}.`);
  if (tables?.given_up_24h) found.push(`${tables.given_up_24h} tasks were given up in 24 hours.`);
  for (const run of tables?.runs ?? []) {
    if (run.failed) found.push(`The last run of ${run.task} failed.`);
    if (run.task.endsWith("check_invariants") && run.rows) found.push(`The doctor found ${run.rows} broken rows.`);
  }
  if (broker?.memory_limit && broker.memory > 0.9 * broker.memory_limit) found.push("Redis is full.");
  if (broker) {
    const heard = broker.members.filter((/** @type {any} */ one) => one.seconds < now.heard_seconds);
    const beats = heard.filter((/** @type {any} */ one) => one.role === "beat").length;
    if (beats !== 1) found.push(beats ? `${beats} beats run.` : "No beat runs: nothing is swept or rung again.");
    for (const queue of Object.keys(broker.messages)) {
      const serve = (/** @type {any} */ one) => one.role === "worker" && one.queue.split(",").includes(queue);
      if (!heard.some(serve)) found.push(`No worker serves the queue ${queue}.`);
    }
  }
  return found;
}

/** @param {any} now */
function show(now) {
  const { figures, tables, broker } = now;
  const found = troubles(now);
  at("verdict").textContent = found.length ? `${found.length} to look at` : "All is well.";
  at("verdict").className = found.length ? "bad" : "good";
  at("troubles").hidden = !found.length;
  at("troubles").querySelector("ul")?.replaceChildren(...found.map((sentence) => make("li", sentence)));
  tell("figures", [
    ["Active sessions", count(figures?.active_sessions)],
    ["Completion rate, 30 days", percent(figures?.completion_rate)],
    ["Recovery success, 30 days", percent(figures?.recovery_success_rate)],
    ["Cleanups, 24 hours", count(figures?.cleanups_24h)],
  ]);
  tell("now", [
    ["Pending tasks", count(tables?.pending)],
    ["Oldest pending", seconds(tables?.oldest_pending_seconds), tables?.oldest_pending_seconds > 30],
    ["Overdue, not marked", count(tables?.overdue)],
    ["Given up, 24 hours", count(tables?.given_up_24h), tables?.given_up_24h > 0],
    ["Messages in Redis", count(broker && broker.messages.sessions + broker.messages.maintenance)],
    ["Redis memory", bytes(broker?.memory)],
    ["Postgres connections", tables ? `${tables.connections} / ${tables.connections_limit}` : "–"],
    ["Clients that wait here", count(now.waiting)],
  ]);
  const of = (/** @type {string} */ name) => now.samples.map((/** @type {any} */ one) => [one.at, one[name]]);
  at("hour").replaceChildren(
    line("Tasks finished a second", of("rate"), (value) => value.toFixed(value < 10 ? 1 : 0)),
    line("Taken up within (95 %)", of("wait"), seconds),
    line("Pending tasks", of("pending"), count),
    line("Active sessions", of("active"), count),
  );
  at("days").replaceChildren(
    bars("Lines begun, and completed of them", now.days, "begun", "completed"),
    bars("Recoveries, and successful ones", now.days, "recoveries", "recovered"),
  );
  tabulate("processes", ["Name", "Queue", "Heard"], (broker?.members ?? []).map((/** @type {any} */ one) => [
    one.name, one.queue, make("span", `${seconds(one.seconds)} ago`, one.seconds < now.heard_seconds ? "good" : "bad"),
  ]));
  tabulate("runs", ["Task", "Last success", "Took", "Rows", "24 h", "Failed"], (tables?.runs ?? []).map(
    (/** @type {any} */ run) => [
      run.task.replace("maintenance.", ""), `${seconds(run.since_success)} ago`, seconds(run.took), count(run.rows),
      count(run.succeeded_24h), make("span", count(run.failed_24h), run.failed ? "bad" : ""),
    ],
  ));
  flower = `${location.protocol}//${location.hostname}:${now.flower_port}`;
}

let flower = "";
let timer = 0;

async function poll() {
  clearTimeout(timer);
  try {
    const now = await ask("/api/ops");
    at("sign-in").hidden = true;
    at("board").hidden = false;
    show(now);
  } catch (error) {
    const status = /** @type {any} */ (error).status;
    if (status === 401 || status === 403) return signOut(/** @type {Error} */ (error).message);
    at("verdict").textContent = "The API does not answer.";
    at("verdict").className = "bad";
  }
  timer = setTimeout(poll, document.hidden ? 10 * POLL_MS : POLL_MS);
}

/** @param {string} why */
function signOut(why) {
  sessionStorage.removeItem(KEY);
  at("board").hidden = true;
  at("sign-in").hidden = false;
  at("verdict").textContent = "Not signed in.";
  at("verdict").className = "";
  at("refused").textContent = why;
}

at("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  const input = /** @type {HTMLInputElement} */ (at("token"));
  sessionStorage[KEY] = input.value.trim();
  input.value = "";
  at("refused").textContent = "";
  poll();
});

at("find").addEventListener("submit", async (event) => {
  event.preventDefault();
  const id = /** @type {HTMLInputElement} */ (at("task")).value.trim();
  /** @type {[string, string | Node][]} */
  let facts;
  try {
    const task = await ask(`/api/tasks/${encodeURIComponent(id)}`);
    facts = [["Kind", task.kind], ["State", task.state], ["Session", task.session_id ?? "–"]];
    if (task.error) facts.push(["Refused", `${task.error.code}: ${task.error.detail}`]);
    facts.push(["Accepted", task.accepted_at], ["Finished", task.finished_at ?? "–"]);
    if (task.celery_task_id) {
      const link = document.createElement("a");
      link.href = `${flower}/task/${task.celery_task_id}`;
      link.textContent = task.celery_task_id;
      facts.push(["Worker", task.worker], ["In Flower", link]);
    }
  } catch (error) {
    facts = [["Not found", /** @type {Error} */ (error).message]];
  }
  at("found").replaceChildren(...facts.flatMap(([name, value]) => [make("dt", name), make("dd", value)]));
});

if (sessionStorage[KEY]) poll();
