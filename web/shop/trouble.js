/** The buttons that make trouble, so that one can see it heal. */

import { FIRST_PACKAGE } from "./catalog.js";
import { byId } from "./dom.js";
import { cutConnection, expireToken, openCheckout, trouble } from "./visitor.js";

/** @import { CheckoutSessions, Session } from "/client/checkout-sessions.js" */

/** @param {CheckoutSessions} checkout @param {(step: "checkout") => void} show */
export function startTroubles(checkout, show) {
  /** @returns {Promise<Session | null>} an active session to make trouble with */
  const active = async () => {
    const { session } = checkout.state;
    return session?.valid ? session : checkout.create(FIRST_PACKAGE, { step: "packages", data: { coffee: "sidama" } });
  };
  let isCut = false;

  /** @type {Record<string, (button: HTMLElement) => Promise<string>>} */
  const troubles = {
    expire: async () => {
      await active();
      await trouble("expire");
      return "A night has passed: the session is over. Go on shopping as if nothing had happened.";
    },
    oldTab: async () => {
      const tab = open("", "_blank");
      const session = await active();
      if (!session) return "No session.";
      const old = session.previous_session_id ?? session.id;
      if (old === session.id) await checkout.changePackage(session.package);
      if (tab) tab.location.href = `/packages?session=${old}`;
      return "The new tab holds a session that was renewed since. It finds the live one.";
    },
    connection: async (button) => {
      isCut = !isCut;
      cutConnection(isCut);
      button.setAttribute("aria-pressed", String(isCut));
      button.textContent = isCut ? "Bring it back" : "Lose the connection";
      return isCut ? "The connection is lost. Click on: your last wish is kept." : "The connection is back.";
    },
    payTwice: async () => {
      const session = await active();
      if (!session) return "No session.";
      const payment = String(session.data.payment ?? `pay_${session.id}`);
      await checkout.navigate("checkout", { payment });
      show("checkout");
      const second = openCheckout(`twin-${session.id}`);
      await second.start(session.id);
      await Promise.all([checkout.complete(payment), second.complete(payment)]);
      second.close();
      return "Two payments were sent at once, with one reference: one order.";
    },
    worker: async () => {
      await trouble("restart-worker");
      return "The worker restarts. What you ask for meanwhile is done as soon as it is back.";
    },
    token: async () => {
      await expireToken();
      return "The token has expired. The next request gets a new one.";
    },
  };

  byId("troubles").addEventListener("click", async (event) => {
    const button = /** @type {Element} */ (event.target).closest("button");
    const make = troubles[button?.dataset.trouble ?? ""];
    if (!button || !make) return;
    byId("said").textContent = "";
    byId("said").textContent = await make(button).catch(() => "That did not work: the shop cannot be reached.");
  });
}
