/** Writes the state of the checkout to the pages. */

import { clock, COFFEES, coffee, money, package_, PACKAGES } from "./catalog.js";
import { byId, drawing, fill, h, write } from "./dom.js";

/** @import { CheckoutSessions, Session, State } from "/client/checkout-sessions.js" */

const STEPS = ["add", "packages", "checkout", "done"];
const BUTTONS = /** @type {Record<string, string>} */ ({
  continue: "All right",
  done: "See your order",
  restart: "Choose a coffee",
  retry: "Try again",
  sign_in: "Sign in again",
  fix: "All right",
});

/** @param {State} state @param {string} shown the step @param {State["notice"]} hint the shop's own */
export function render(state, shown, hint) {
  const page = state.ready ? shown : "wait";
  for (const step of [...STEPS, "wait"]) byId(`page-${step}`).hidden = step !== page;
  byId("main").setAttribute("aria-busy", String(state.doing !== null));
  document.body.dataset.doing = state.doing ?? "";
  renderSteps(state, shown);
  renderNotice(state, hint);
  renderCoffees(state);
  renderPackages(state.session);
  if (state.session) renderOrder(state.session);
  byId("open").hidden = !state.session?.valid;
  byId("kept").hidden = !state.session?.valid;
}

/** @param {State} state @param {string} shown */
function renderSteps({ session }, shown) {
  for (const link of document.querySelectorAll(".steps a")) {
    const step = link.getAttribute("data-step") ?? "";
    const open = step === shown || step === "add" || (session?.valid ? step !== "done" : false);
    if (step === shown) link.setAttribute("aria-current", "step");
    else link.removeAttribute("aria-current");
    if (open) link.removeAttribute("aria-disabled");
    else link.setAttribute("aria-disabled", "true");
    link.classList.toggle("past", STEPS.indexOf(step) < STEPS.indexOf(shown));
  }
}

/** @param {State} state @param {State["notice"]} hint */
function renderNotice({ trouble, notice }, hint) {
  const said = trouble ?? notice ?? hint;
  const box = byId("notice");
  box.className = `notice ${said ? (trouble ? "trouble" : said.tone) : ""}`;
  const button = said && !trouble && h("button", { type: "button", "data-next": said.next }, BUTTONS[said.next] ?? "All right");
  fill(box, said ? [h("p", {}, said.message), ...(button ? [button] : [])] : []);
}

/** @param {State} state */
function renderCoffees({ session }) {
  const chosen = session?.valid ? session.data.coffee : null;
  const cards = COFFEES.map((one) =>
    h("li", { class: `coffee ${one.id}` },
      drawing("bag"),
      h("h3", {}, one.name),
      h("p", { class: "from" }, one.from),
      h("p", { class: "notes" }, one.notes),
      h("button", { class: "main", type: "button", "data-add": one.id }, one.id === chosen ? `Keep ${one.name}` : `Add ${one.name}`),
    ),
  );
  fill(byId("coffees"), cards);
  if (session?.valid) write("#open-text", `${describe(session)} is waiting for you.`);
}

/** @param {Session | null} session */
function renderPackages(session) {
  const list = byId("packages");
  if (!list.children.length) list.append(...PACKAGES.map(card));
  for (const button of list.querySelectorAll("button")) {
    const pressed = String(button.dataset.choose === session?.package);
    if (button.getAttribute("aria-pressed") !== pressed) button.setAttribute("aria-pressed", pressed);
  }
}

/** @param {import("./catalog.js").Package} one */
function card(one) {
  return h("li", {},
    h("button", { class: "package", type: "button", "data-choose": one.id, "aria-pressed": "false" },
      h("span", { class: "name" }, one.name),
      h("span", { class: "amount" }, one.amount),
      h("span", { class: "every" }, one.every),
      h("span", { class: "price" }, money(one.cents)),
      ...(one.tag ? [h("span", { class: "tag" }, one.tag)] : []),
    ),
  );
}

/** @param {Session} session */
function renderOrder(session) {
  const chosen = package_(session.package);
  const contact = /** @type {Record<string, string>} */ (session.data.contact ?? {});
  const price = chosen ? money(chosen.cents) : "–";
  write("[data-coffee]", coffee(session.data.coffee)?.name ?? "your coffee");
  write("[data-package]", chosen ? `${chosen.name}, ${chosen.amount} ${chosen.every}` : session.package);
  write("[data-price]", price);
  write("[data-pay]", `Pay ${price} now`);
  write("[data-order]", session.id.slice(-8).toUpperCase());
  write("[data-reference]", session.payment_reference ?? "");
  write("[data-name]", contact.name ? `${contact.name.split(" ")[0]}, ` : "");
  write("[data-email]", contact.email || "your inbox");
  for (const [name, value] of Object.entries(contact)) {
    const input = byId("contact").querySelector(`input[name="${CSS.escape(name)}"]`);
    if (input instanceof HTMLInputElement && input !== document.activeElement && !input.value) input.value = value;
  }
}

/** @param {Session} session */
const describe = (session) => `${coffee(session.data.coffee)?.name ?? "A coffee"}, ${package_(session.package)?.name ?? session.package},`;

/** @param {CheckoutSessions} checkout */
export function countDown(checkout) {
  setInterval(() => write("#countdown", clock(checkout.secondsLeft)), 500);
}
