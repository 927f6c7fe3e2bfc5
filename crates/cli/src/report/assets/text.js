// Text for people, and elements made of it. Everything from an image goes through textContent.

const UNITS = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];

/** "77.8 MB": three digits, decimal, as strata prints sizes. */
function size(bytes) {
  let value = bytes, unit = 0;
  while (value >= 1000 && unit + 1 < UNITS.length) {
    value /= 1000;
    unit += 1;
  }
  const digits = value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  return `${Number(value.toFixed(digits))}\u202f${UNITS[unit]}`;
}

const grouped = new Intl.NumberFormat("en-US");
const exact = (bytes) => `${grouped.format(bytes)} ${bytes === 1 ? "byte" : "bytes"}`;
const many = (count, one, more = `${one}s`) =>
  `${grouped.format(count)} ${count === 1 ? one : more}`;

function percent(part, whole) {
  if (!whole) return "0%";
  const value = 100 * part / whole;
  if (value > 0 && value < 0.1) return "<0.1%";
  return value < 9.95 ? `${Number(value.toFixed(1))}%` : `${Math.round(value)}%`;
}

const times = (whole, part) =>
  part ? `${(whole / part).toFixed(whole / part < 9.95 ? 2 : 0)}×` : "–";

const shortId = (digest) => digest.replace(/^sha256:/, "").slice(0, 12);
const shortened = (text, length) =>
  text.length > length ? `${text.slice(0, length - 1)}…` : text;

/** An element: properties that are no properties become attributes, strings become text. */
function el(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "class") node.className = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

const ruler = document.createElement("canvas").getContext("2d");

/** How wide a line is when it is drawn. */
function widthOf(text, pixels) {
  ruler.font = `${pixels}px ${getComputedStyle(document.body).fontFamily}`;
  return ruler.measureText(text).width;
}

/** The part of a text's letters that stays at its beginning where there is no room for all: names
 * and paths that begin alike differ at their end, what a step does stands at its beginning. */
const NAME_HEAD = 0.25, STEP_HEAD = 1;

/** As much of a text as has room. */
function fitted(text, width, pixels, head = NAME_HEAD) {
  if (widthOf(text, pixels) <= width) return text;
  const letters = [...text];
  let [least, most] = [0, letters.length - 1];
  const cut = (kept) => `${letters.slice(0, Math.ceil(kept * head)).join("")}…` +
    letters.slice(letters.length - kept + Math.ceil(kept * head)).join("");
  while (least < most) {
    const kept = Math.ceil((least + most) / 2);
    if (widthOf(cut(kept), pixels) <= width) least = kept; else most = kept - 1;
  }
  return cut(least);
}

/** A size that tells its bytes on hover, and to a program that reads the page. */
const sized = (bytes, properties = {}) =>
  el("data", { value: bytes, title: exact(bytes), ...properties }, size(bytes));
const sizedCell = (bytes, properties = {}) =>
  el("td", { class: "number", ...properties }, sized(bytes));
const heads = (...names) =>
  el("thead", {}, el("tr", {}, names.map((name) =>
    el("th", { scope: "col", class: name.endsWith(" ") ? "number" : null }, name.trim()))));

/** Folds a table where it has no room: each row a block, each cell under its column's name. */
function foldable(table) {
  const names = [...table.querySelectorAll("thead th")].map((th) => th.textContent);
  for (const row of table.tBodies[0].rows) {
    [...row.cells].forEach((cell, at) => cell.setAttribute("data-label", names[at]));
  }
  const place = table.parentElement;
  let seen;
  const fold = () => {
    table.classList.remove("folded");
    table.classList.toggle("folded", table.offsetWidth > place.clientWidth);
  };
  if (place.watched) return fold();
  place.watched = new ResizeObserver(() => {
    if (place.clientWidth !== seen) fold();
    seen = place.clientWidth;
  });
  place.watched.observe(place);
  return fold();
}

/** What colours mean, above a chart and never on it. */
function legendAbove(id, series) {
  const list = el("ul", { class: "legend above", id: `${id}-legend` }, series.map((one) =>
    el("li", {}, el("span", { class: `swatch c-${one.color}` }), one.name)));
  byId(id).before(list);
}
const byId = (id) => document.getElementById(id);
