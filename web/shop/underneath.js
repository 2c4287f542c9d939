/** The panel that shows what happens underneath. */

import { clock } from "./catalog.js";
import { byId, fill, h } from "./dom.js";

/** @import { CheckoutSessions, Session } from "/client/checkout-sessions.js" */

const KEPT = 12; // requests that are listed

/** @type {HTMLElement[]} */
let requests = [];

/** @param {CheckoutSessions} checkout */
export function watch(checkout) {
  /** @type {Session | null} */
  let told = null;
  checkout.addEventListener("request", (event) => {
    const { method, path, status, ms } = /** @type {CustomEvent} */ (event).detail;
    if (path.endsWith("/history")) return;
    requests = [row(`${method} ${short(path)}`, status ? String(status) : "no answer", `${ms.toFixed(0)} ms`), ...requests];
    requests = requests.slice(0, KEPT);
    afterPaint(() => fill(byId("requests"), requests.map((one) => one.cloneNode(true))));
  });
  checkout.addEventListener("change", () => {
    const { session, doing } = checkout.state;
    if (!session) fill(byId("facts"), [h("dt", {}, "status"), h("dd", {}, "none yet")]), fill(byId("line"), []), fill(byId("tasks"), []);
    if (!session || doing || session === told) return;
    told = session;
    afterPaint(() => {
      renderFacts(checkout);
      if (session === told) renderHistory(checkout);
    });
  });
  setInterval(() => renderFacts(checkout), 1000);
}

/** The shopper comes first, the curious after. @param {() => void} work */
const afterPaint = (work) => requestAnimationFrame(() => setTimeout(work));

/** @param {CheckoutSessions} checkout */
function renderFacts(checkout) {
  const { session } = checkout.state;
  if (!session) return;
  const facts = {
    id: session.id,
    status: session.status,
    package: session.package,
    step: session.step ?? "–",
    origin: session.origin,
    "time left": session.valid ? clock(checkout.secondsLeft) : "–",
  };
  fill(byId("facts"), Object.entries(facts).flatMap(([name, value]) => [h("dt", {}, name), h("dd", { class: name === "status" ? `badge ${value}` : "" }, value)]));
}

/** @param {CheckoutSessions} checkout */
async function renderHistory(checkout) {
  const { sessions, tasks } = await checkout.history().catch(() => ({ sessions: [], tasks: [] }));
  const line = sessions.map((one) =>
    h("li", {},
      h("span", { class: `badge ${one.status}` }, one.status),
      h("span", {}, `${one.package} · ${one.origin}`),
      h("code", {}, `…${one.id.slice(-6)}`),
    ),
  );
  fill(byId("line"), line);
  const rows = tasks.toReversed().map((task) => {
    const took = task.finished_at ? `${Date.parse(task.finished_at) - Date.parse(task.accepted_at)} ms` : "…";
    return row(task.kind, task.refusal ?? task.state, took);
  });
  fill(byId("tasks"), rows);
}

/** @param {...string} cells */
const row = (...cells) => h("tr", {}, ...cells.map((cell) => h("td", {}, cell)));

/** @param {string} path */
const short = (path) => path.replace(/[0-9a-f]{8}-[0-9a-f-]{20,22}([0-9a-f]{6})/g, "…$1").replace("/api", "");

/** Measure from a click to the painted result. @param {Event} event @param {string} kind @param {Promise<unknown>} done */
export async function rendered(event, kind, done) {
  await done;
  requestAnimationFrame(() => {
    const channel = new MessageChannel();
    channel.port1.onmessage = () => {
      channel.port1.close();
      const { duration } = performance.measure(`painted-${kind}`, { start: event.timeStamp, end: performance.now() });
      byId("painted").textContent = `From click to painted (${kind}): ${duration.toFixed(0)} ms`;
    };
    channel.port2.postMessage(null);
  });
}
