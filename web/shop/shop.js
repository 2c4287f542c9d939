/** The shop: which page is shown, and what its buttons do. The client does the rest. */

import { FIRST_PACKAGE } from "./catalog.js";
import { byId } from "./dom.js";
import { countDown, render } from "./pages.js";
import { startTroubles } from "./trouble.js";
import { rendered, watch } from "./underneath.js";
import { openCheckout } from "./visitor.js";

/** @typedef {"add" | "packages" | "checkout" | "done"} Step */

const PATHS = { add: "/", packages: "/packages", checkout: "/checkout", done: "/done" };
const TITLES = { add: "Coffees", packages: "Package", checkout: "Checkout", done: "Thank you" };

/** @type {import("/client/checkout-sessions.js").Notice} */
const NOTHING_OPEN = {
  code: "nothing_open",
  message: "You have no open checkout. Choose a coffee to begin.",
  tone: "info",
  next: "continue",
};

export const checkout = openCheckout();
const form = /** @type {HTMLFormElement} */ (byId("contact"));

/** @type {import("/client/checkout-sessions.js").Notice | null} why the shop itself moved the shopper */
let hint = null;

/** @type {Step} */
let shown = stepOf(location.pathname);

/** @param {string} path @returns {Step} */
function stepOf(path) {
  const found = Object.entries(PATHS).find((entry) => entry[1] === path);
  return /** @type {Step} */ (found?.[0] ?? "add");
}

/** The step that the shopper may see, given their session. @param {Step} wanted @returns {Step} */
function allowed(wanted) {
  const { session } = checkout.state;
  if (wanted === "add") return wanted;
  if (session?.valid) return wanted === "done" ? "checkout" : wanted;
  return session?.status === "completed" ? "done" : "add";
}

/** @param {Step} wanted @param {boolean} [replace] the address, since the shopper did not ask to move */
export function show(wanted, replace = false) {
  const step = allowed(wanted);
  if (step === "add" && wanted !== step) hint = NOTHING_OPEN;
  else if (!replace) hint = null;
  if (location.pathname !== PATHS[step]) {
    if (replace) history.replaceState(null, "", PATHS[step]);
    else history.pushState(null, "", PATHS[step]);
  }
  const moved = step !== shown;
  shown = step;
  document.title = `${TITLES[step]} · Slow Morning Coffee`;
  paint();
  if (moved) {
    scrollTo(0, 0);
    byId(`page-${step}`).querySelector("h1")?.focus({ preventScroll: true });
  }
}

/**
 * The shopper moves, at once; the server keeps where they are, so that other tabs and days know.
 * @param {Step} step @param {boolean} [replace]
 */
async function move(step, replace = false) {
  checkout.dismiss();
  const { session } = checkout.state;
  show(step, replace);
  if (!session?.valid || shown !== step || session.step === step) return;
  await checkout.navigate(step, step === "checkout" ? reference(session) : undefined);
}

/** One payment for one order, however often it is sent. @param {import("/client/checkout-sessions.js").Session} session */
const reference = (session) =>
  session.data.payment ? undefined : { payment: `pay_${Math.random().toString(36).slice(2)}` };

/** @param {string} coffee */
async function add(coffee) {
  checkout.dismiss();
  const session = checkout.state.session?.valid
    ? await checkout.navigate("packages", { coffee })
    : await checkout.create(FIRST_PACKAGE, { step: "packages", data: { coffee } });
  if (session) show("packages");
}

/** @param {HTMLElement} card @param {string} choice */
async function change(card, choice) {
  card.dataset.wanted = "";
  await checkout.changePackage(choice);
  delete card.dataset.wanted;
}

/** The session that is paid for as soon as the shopper has signed in again. @type {string | null} */
let due = null;

async function pay() {
  const { session } = checkout.state;
  due = null;
  if (!session) return;
  const known = /** @type {Record<string, unknown>} */ (session.data.contact ?? {});
  const saved = [...new FormData(form)].every(([name, value]) => known[name] === value) ? session : await save();
  if (!saved && checkout.state.notice?.next === "sign_in") due = session.id;
  if (saved?.package !== session.package) return; // it went on elsewhere: the shopper looks again first
  await checkout.complete(String(saved.data.payment ?? `pay_${saved.id}`));
}

async function save() {
  if (!checkout.state.session?.valid) return null;
  return checkout.navigate(null, { contact: Object.fromEntries(new FormData(form)) });
}

function paint() {
  render(checkout.state, shown, hint);
}

function changed() {
  const { ready, session, doing } = checkout.state;
  if (!ready) return paint();
  const isOver = session?.status === "completed" && shown !== "add";
  if (isOver || (!doing && allowed(shown) !== shown)) show(isOver ? "done" : shown, true);
  else paint();
}

/** @type {Record<string, (next: string) => unknown>} what the one button of a notice does */
const ACTIONS = {
  retry: () => checkout.retry(),
  sign_in: async () => {
    const session = await checkout.retry();
    if (due && shown === "checkout" && session?.id === due) await pay();
  },
  restart: () => (checkout.dismiss(), show("add")),
  done: () => (checkout.dismiss(), show("done")),
};

document.addEventListener("click", (event) => {
  const target = /** @type {Element} */ (event.target).closest("[data-go], [data-add], [data-choose], [data-next]");
  if (!(target instanceof HTMLElement)) return;
  if (event instanceof MouseEvent && (event.ctrlKey || event.metaKey || event.shiftKey)) return;
  event.preventDefault();
  const { go, add: coffee, choose, next } = target.dataset;
  if (go) rendered(event, "navigate", move(/** @type {Step} */ (go)));
  if (coffee) rendered(event, checkout.state.session?.valid ? "navigate" : "create", add(coffee));
  if (choose && choose !== checkout.state.session?.package) rendered(event, "renew", change(target, choose));
  if (next) (ACTIONS[next] ?? (() => (checkout.dismiss(), show(shown))))(next);
});
form.addEventListener("change", save);
form.addEventListener("submit", (event) => {
  event.preventDefault();
  rendered(event, "complete", pay());
});
byId("another").addEventListener("click", () => (checkout.forget(), show("add")));
addEventListener("popstate", () => move(stepOf(location.pathname), true));
checkout.addEventListener("change", changed);

watch(checkout);
startTroubles(checkout, show);
countDown(checkout);
await checkout.start(new URLSearchParams(location.search).get("session"));
show(shown, true);
