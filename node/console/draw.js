// The throughput chart: the last two minutes, second by second, as one SVG that is changed in place.

import { count, h } from "./parts.js";

const NS = "http://www.w3.org/2000/svg";
const LEFT = 44;
const BOTTOM = 20;
const TOP = 8;

function svg(tag, attributes = {}, parent = null) {
  const element = document.createElementNS(NS, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  parent?.append(element);
  return element;
}

/** The smallest of 1, 2, 5 × 10ⁿ that is at least `value`. */
function roundUp(value) {
  const unit = 10 ** Math.floor(Math.log10(Math.max(value, 1)));
  return unit * [1, 2, 5, 10].find((step) => step * unit >= value);
}

export class Chart {
  constructor(box) {
    this.box = box;
    this.lines = [];
    this.svg = svg("svg", { role: "img", "aria-label": "Tasks per second over the last two minutes" }, box);
    this.grid = svg("g", {}, this.svg);
    this.area = svg("path", { class: "area" }, this.svg);
    this.failed = svg("path", { class: "failed" }, this.svg);
    this.paths = { finished: svg("path", { class: "finished" }, this.svg), accepted: svg("path", { class: "accepted" }, this.svg) };
    this.cursor = svg("line", { class: "cursor", visibility: "hidden" }, this.svg);
    this.tip = h("div", { class: "tip", hidden: "" });
    box.append(this.tip);
    box.addEventListener("pointermove", (event) => { this.at = event.clientX - box.getBoundingClientRect().left; this.point(); });
    box.addEventListener("pointerleave", () => { this.at = undefined; this.point(); });
    new ResizeObserver(() => this.draw()).observe(box);
  }

  /** `series`: {accepted, finished, failed}, counts per second, oldest first, equally long. */
  show(series) {
    this.series = series;
    this.draw();
  }

  draw() {
    if (!this.series) return;
    this.width = this.box.clientWidth;
    this.height = this.box.clientHeight;
    this.svg.setAttribute("viewBox", `0 0 ${this.width} ${this.height}`);
    const { accepted, finished, failed } = this.series;
    this.top = roundUp(Math.max(...accepted, ...finished, 4));
    this.drawGrid();
    const line = (values) => values.map((value, i) => `${i ? "L" : "M"}${this.x(i).toFixed(1)} ${this.y(value).toFixed(1)}`).join("");
    this.paths.accepted.setAttribute("d", line(accepted));
    this.paths.finished.setAttribute("d", line(finished));
    const base = this.y(0);
    this.area.setAttribute("d", `${line(finished)}L${this.x(finished.length - 1)} ${base}L${this.x(0)} ${base}Z`);
    const wide = Math.max(1.5, (this.x(1) - this.x(0)) * 0.6);
    this.failed.setAttribute("d", failed.map((value, i) => {
      if (!value) return "";
      const tall = Math.max(2, base - this.y(value));
      return `M${(this.x(i) - wide / 2).toFixed(1)} ${base}v${-tall.toFixed(1)}h${wide.toFixed(1)}v${tall.toFixed(1)}Z`;
    }).join(""));
    this.point();
  }

  drawGrid() {
    const key = `${this.width} ${this.height} ${this.top}`;
    if (this.drawn === key) return;
    this.drawn = key;
    this.grid.replaceChildren();
    for (let part = 0; part <= 4; part += 1) {
      const value = (this.top * part) / 4;
      const y = this.y(value);
      svg("line", { class: part ? "grid" : "base", x1: LEFT, x2: this.width, y1: y, y2: y }, this.grid);
      svg("text", { x: LEFT - 8, y: y + 4, "text-anchor": "end" }, this.grid).textContent = count(value);
    }
    const seconds = this.series.accepted.length;
    for (let back = 0; back <= seconds; back += 30) {
      const last = back === 0;
      svg("text", { x: this.x(seconds - 1 - Math.min(back, seconds - 1)), y: this.height - 4, "text-anchor": last ? "end" : back >= seconds ? "start" : "middle" }, this.grid).textContent =
        last ? "now" : `−${back} s`;
    }
  }

  x(index) { return LEFT + (index * (this.width - LEFT)) / (this.series.accepted.length - 1); }
  y(value) { return TOP + (1 - value / this.top) * (this.height - BOTTOM - TOP); }

  /** What stood under the pointer. */
  point() {
    const inside = this.at !== undefined && this.at >= LEFT && this.series;
    this.tip.hidden = !inside;
    this.cursor.setAttribute("visibility", inside ? "visible" : "hidden");
    if (!inside) return;
    const seconds = this.series.accepted.length;
    const index = Math.min(seconds - 1, Math.round(((this.at - LEFT) / (this.width - LEFT)) * (seconds - 1)));
    const x = this.x(index);
    for (const [name, value] of Object.entries({ x1: x, x2: x, y1: TOP, y2: this.y(0) })) this.cursor.setAttribute(name, value);
    this.tip.replaceChildren(
      h("small", {}, index === seconds - 1 ? "the last second" : `${seconds - 1 - index} s ago`),
      ...["accepted", "finished", "failed"].map((name) => h("p", { "data-line": name }, h("i"), name, h("b", {}, count(this.series[name][index])))),
    );
    const wide = this.tip.offsetWidth;
    this.tip.style.setProperty("left", `${x + 14 + wide > this.width ? x - wide - 14 : x + 14}px`);
  }
}
