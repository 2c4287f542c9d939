/** What the shop sells. */

/** @typedef {{id: string, name: string, from: string, notes: string}} Coffee */
/** @typedef {{id: string, name: string, amount: string, every: string, cents: number, tag?: string}} Package */

/** @type {Coffee[]} */
export const COFFEES = [
  { id: "sidama", name: "Sidama", from: "Ethiopia, washed", notes: "Apricot, jasmine, black tea" },
  { id: "huila", name: "Huila", from: "Colombia, honey", notes: "Red apple, caramel, hazelnut" },
  { id: "mantiqueira", name: "Mantiqueira", from: "Brazil, natural", notes: "Dark chocolate, plum, walnut" },
];

/** @type {Package[]} */
export const PACKAGES = [
  { id: "solo", name: "Solo", amount: "250 g", every: "every 4 weeks", cents: 1400 },
  { id: "duo", name: "Duo", amount: "500 g", every: "every 2 weeks", cents: 2400, tag: "Most loved" },
  { id: "crew", name: "Crew", amount: "1 kg", every: "every week", cents: 4200 },
];

export const FIRST_PACKAGE = "duo";

/** @param {unknown} id */
export const coffee = (id) => COFFEES.find((one) => one.id === id);

/** @param {unknown} id */
export const package_ = (id) => PACKAGES.find((one) => one.id === id);

/** @param {number} cents */
export const money = (cents) => `€${(cents / 100).toFixed(2)}`;

/** @param {number} seconds */
export function clock(seconds) {
  const whole = Math.ceil(seconds);
  const parts = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  return parts.map((part) => String(part).padStart(2, "0")).join(":");
}
