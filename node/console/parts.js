// Small helpers: build elements (text only, never markup), keep tables in place, say numbers plainly.

export const $ = (id) => document.getElementById(id);

/** h("td", {class: "n", onclick: f}, "text", node) */
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== null && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

/** Sets text only where it differs, so that selections and hovers survive. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Children of `parent` as `items` say: kept by key, made by `make(item)`, brought up to date by `update(element, item)`. */
export function arrange(parent, items, key, make, update) {
  const known = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let place = parent.firstElementChild;
  for (const item of items) {
    const name = String(key(item));
    let element = known.get(name);
    known.delete(name);
    if (!element) {
      element = make(item);
      element.dataset.key = name;
    }
    if (element === place) place = place.nextElementSibling;
    else parent.insertBefore(element, place);
    update?.(element, item);
  }
  for (const left of known.values()) left.remove();
}

const LARGE = [[1e9, "G"], [1e6, "M"], [1e4, "k"]];

export function count(value) {
  if (value === undefined || value === null) return "–";
  for (const [unit, letter] of LARGE) {
    if (value >= unit) {
      const base = letter === "k" ? 1e3 : unit;
      return `${(value / base).toPrecision(3).replace(/e\+?\d+$/, "")} ${letter}`;
    }
  }
  return value.toLocaleString("en", { maximumFractionDigits: value < 10 ? 1 : 0 });
}

export function duration(seconds) {
  if (seconds === undefined || seconds === null) return "–";
  if (seconds < 0.001) return `${Math.round(seconds * 1e6)} µs`;
  if (seconds < 1) return `${(seconds * 1e3).toFixed(seconds < 0.01 ? 1 : 0)} ms`;
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86400)} days`;
}

export function ago(instant, now = Date.now()) {
  const seconds = Math.max(0, (now - Date.parse(instant)) / 1000);
  return seconds < 2 ? "now" : `${duration(seconds < 60 ? Math.floor(seconds) : seconds).replace(/\.0 /, " ")} ago`;
}

/** The end of an id tells tasks apart; its start is the time. */
export const short = (id) => `…${id.slice(-8)}`;

let hiding;
export function toast(text, kind = "info") {
  const box = $("toast");
  box.textContent = text;
  box.dataset.kind = kind;
  box.hidden = false;
  clearTimeout(hiding);
  hiding = setTimeout(() => { box.hidden = true; }, 4000);
}
