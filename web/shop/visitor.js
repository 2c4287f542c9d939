/** Who shops: a demo user of this browser, their token, and a connection that can be cut. */

import { CheckoutSessions } from "/client/checkout-sessions.js";

/** @type {string | null} */
let token = null;
let isCut = false;

export const user = localStorage.getItem("shop.user") ?? `demo-${Math.random().toString(36).slice(2, 12)}`;
localStorage.setItem("shop.user", user);

/** @type {typeof globalThis.fetch} */
export const fetch = (...request) =>
  isCut ? Promise.reject(new TypeError("the connection is cut")) : globalThis.fetch(...request);

/** @param {boolean} cut */
export function cutConnection(cut) {
  isCut = cut;
  dispatchEvent(new Event(cut ? "offline" : "online"));
}

/** @param {boolean} refused */
export async function bearer(refused) {
  if (!token || refused) token = await newToken();
  return token;
}

/** As if the page had been left open for long. */
export async function expireToken() {
  token = await newToken(-60);
}

/** @param {number} [lifetime] seconds @returns {Promise<string>} */
async function newToken(lifetime) {
  const body = JSON.stringify({ user_id: user, lifetime });
  const response = await fetch("/demo/token", { method: "POST", headers: { "Content-Type": "application/json" }, body });
  if (!response.ok) throw new Error(`token: ${response.status}`);
  return (await response.json()).token;
}

/** Ask the demo for trouble. @param {string} path */
export async function trouble(path) {
  const response = await fetch(`/demo/${path}`, {
    method: "POST",
    headers: { Authorization: `Bearer ${await bearer(false)}` },
  });
  if (!response.ok) throw new Error(`${path}: ${response.status}`);
}

/** @param {string} [name] another one shares nothing with the tabs of this browser */
export const openCheckout = (name) => new CheckoutSessions({ token: bearer, fetch, ...(name && { name }) });
