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

/** A size that tells its bytes on hover, and to whoever reads the page by program. */
const sized = (bytes, properties = {}) =>
  el("data", { value: bytes, title: exact(bytes), ...properties }, size(bytes));
const sizedCell = (bytes, properties = {}) =>
  el("td", { class: "number", ...properties }, sized(bytes));
const heads = (...names) =>
  el("thead", {}, el("tr", {}, names.map((name) =>
    el("th", { scope: "col", class: name.endsWith(" ") ? "number" : null }, name.trim()))));
const byId = (id) => document.getElementById(id);
