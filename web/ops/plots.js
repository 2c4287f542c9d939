// Plots by hand: a line over time, and pairs of bars over days.

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 320;
const HEIGHT = 96;
const FOOT = 14; // for the words below

/** @param {string} tag @param {Record<string, string | number>} attributes @param {string} [text] */
function draw(tag, attributes, text) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, String(value));
  if (text) node.textContent = text;
  return node;
}

/** @param {string} title @param {string} latest @param {Node[]} marks */
function figure(title, latest, marks) {
  const caption = document.createElement("figcaption");
  const value = document.createElement("b");
  value.textContent = latest;
  caption.append(title, value);
  const svg = draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT + FOOT}`, role: "img", "aria-label": `${title}: ${latest}` });
  svg.append(draw("line", { class: "axis", x1: 0, x2: WIDTH, y1: HEIGHT, y2: HEIGHT }), ...marks);
  const whole = document.createElement("figure");
  whole.append(caption, svg);
  return whole;
}

/** @param {number} seconds */
const clock = (seconds) => new Date(1000 * seconds).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });

/**
 * @param {string} title
 * @param {[number, number | null][]} points of time and value; null is a gap
 * @param {(value: number) => string} words
 */
export function line(title, points, words) {
  const known = points.filter((point) => point[1] != null);
  const last = known.at(-1)?.[1];
  if (last == null) return figure(title, "–", []);
  const from = /** @type {[number, number]} */ (points[0])[0];
  const span = Math.max(60, /** @type {[number, number]} */ (points.at(-1))[0] - from);
  const top = Math.max(...known.map((point) => Number(point[1]))) || 1;
  const place = known.map(([time, value]) => {
    const x = ((time - from) / span) * WIDTH;
    return `${x.toFixed(1)},${(HEIGHT - (Number(value) / top) * (HEIGHT - 12)).toFixed(1)}`;
  });
  const ends = [place[0]?.split(",")[0], place.at(-1)?.split(",")[0]];
  return figure(title, words(last), [
    draw("path", { class: "area", d: `M${ends[0]},${HEIGHT}L${place.join("L")}L${ends[1]},${HEIGHT}Z` }),
    draw("path", { class: "line", d: `M${place.join("L")}` }),
    draw("text", { x: 0, y: 8 }, `most ${words(top)}`),
    draw("text", { x: 0, y: HEIGHT + FOOT - 2 }, clock(from)),
    draw("text", { x: WIDTH, y: HEIGHT + FOOT - 2, "text-anchor": "end" }, clock(from + span)),
  ]);
}

/**
 * @param {string} title
 * @param {Record<string, any>[]} days
 * @param {string} whole the name of all
 * @param {string} part the name of those among them
 */
export function bars(title, days, whole, part) {
  const sum = (/** @type {string} */ name) => days.reduce((total, day) => total + day[name], 0);
  const top = Math.max(1, ...days.map((day) => day[whole]));
  const step = WIDTH / 31;
  const last = days.at(-1)?.day;
  const bar = (/** @type {Record<string, any>} */ day, /** @type {string} */ name, /** @type {string} */ look) => {
    const ago = Math.round((Date.parse(last) - Date.parse(day.day)) / 86_400_000);
    const height = (day[name] / top) * (HEIGHT - 12);
    const place = { x: (30 - ago) * step + 1, width: step - 2, y: HEIGHT - height, height };
    const node = draw("rect", { class: look, ...place });
    node.append(draw("title", {}, `${day.day}: ${day[part]} of ${day[whole]}`));
    return node;
  };
  return figure(title, `${sum(part)} of ${sum(whole)}`, [
    ...days.flatMap((day) => [bar(day, whole, "one"), bar(day, part, "two")]),
    draw("text", { x: 0, y: 8 }, `most ${top}`),
    draw("text", { x: WIDTH, y: HEIGHT + FOOT - 2, "text-anchor": "end" }, last ?? ""),
  ]);
}
