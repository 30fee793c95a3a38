// The page: what the node tells is kept, and drawn at most four times a second, however much happens.

import { $, ago, arrange, count, duration, h, say, short, toast } from "./parts.js";
import { Chart } from "./draw.js";
import { Ends, Poller, ask } from "./node.js";
import { find, replay, show } from "./task.js";

const DRAW_MS = 250;
const NODES_MS = 5000;
const FRESH_MS = 3000;
const STATES = ["ready", "scheduled", "blocked", "running", "succeeded", "failed", "cancelled"];
const chart = new Chart($("chart"));
const ends = new Ends();
const replayed = new Set();
let stats;
let away;
let drawn = -1;

new Poller(
  (fresh) => { stats = fresh; away = undefined; drawStats(); },
  (since, error) => { away = { since, error }; drawStatus(); },
);
setInterval(drawRecent, DRAW_MS);
setInterval(askNodes, NODES_MS);
askNodes();
setInterval(drawStatus, 1000);

$("find").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("find-text").value.trim();
  if (text) find(text);
});
$("task").addEventListener("click", (event) => { if (event.target === $("task")) $("task").close(); });

// -- is it there ------------------------------------------------------------------------------------

function drawStatus() {
  const state = away ? "away" : !stats ? "connecting" : stats.state === "active" ? "live" : stats.state ?? "live";
  $("status").dataset.state = state;
  say($("status").lastElementChild, state);
  $("main").dataset.fresh = String(state !== "away" && state !== "connecting");
  $("away").hidden = !away;
  if (away) {
    const seconds = Math.round((Date.now() - away.since) / 1000);
    say($("away"), `The node has not answered for ${duration(Math.max(seconds, 1)).replace(/\.0 /, " ")}; what is shown is from before. Trying again.`);
  }
}

// -- once a second ----------------------------------------------------------------------------------

function drawStats() {
  drawStatus();
  document.title = `${stats.node ?? "?"} · Noria`;
  $("node").hidden = !stats.node;
  say($("node"), stats.node ?? "");
  say($("incarnation"), [stats.version && `version ${stats.version}`, stats.incarnation && `incarnation ${stats.incarnation}`].filter(Boolean).join(" · "));
  drawStates(stats.counts ?? {});
  drawRates(stats.rates ?? {});
  drawLatency(stats.latency_s ?? {});
  drawRoom(stats.capacity ?? {});
  drawLanes(stats.lanes ?? []);
  drawHandlers(stats.handlers ?? []);
  drawRunning(stats.running ?? []);
  drawFailures(stats.failures ?? []);
}

function drawStates(counts) {
  const shown = STATES.filter((state) => state !== "blocked" || counts.blocked);
  arrange($("states"), shown, (state) => state,
    (state) => h("a", { class: "state", "data-state": state, href: `/v1/tasks?state=${state}` },
      h("span", {}, h("i"), state), h("b", {}, "–")),
    (tile, state) => {
      const value = counts[state];
      const about = state === "succeeded" && counts.succeeded_is_estimate ? "≈ " : "";
      say(tile.lastElementChild, about + count(value));
      tile.title = value === undefined ? "" : `${about}${value.toLocaleString("en")} ${state}`;
      tile.dataset.zero = String(!value);
    });
}

function sum(...lists) {
  return lists.filter(Boolean).reduce((total, list) => total.map((value, i) => value + (list[i] ?? 0)), Array(120).fill(0));
}

function drawRates(rates) {
  const last = (name) => rates[name]?.last;
  const perSecond = (...names) => names.reduce((total, name) => total + (rates[name]?.per_s ?? 0), 0);
  const ended = ["succeeded", "failed", "cancelled"];
  chart.show({ accepted: sum(last("accepted")), finished: sum(...ended.map(last)), failed: sum(last("failed")) });
  const lines = [["accepted", perSecond("accepted")], ["finished", perSecond(...ended)], ["failed", perSecond("failed")]];
  arrange($("legend"), lines, ([name]) => name,
    ([name]) => h("li", { "data-line": name }, h("i"), h("span", {}, name), h("b"), h("span", {}, "/s")),
    (item, [, value]) => say(item.children[2], count(value)));
}

function drawLatency(latency) {
  arrange($("latency"), ["p50", "p90", "p99"], (name) => name,
    (name) => h("div", {}, h("dt", {}, name), h("dd", {}, "–")),
    (box, name) => say(box.lastElementChild, duration(latency[name])));
}

function meter(item) {
  return h("li", { "data-state": item.color }, h("p", {}, h("span", {}, item.name), h("b"), h("small")), h("div", {}, h("i")));
}

async function askNodes() {
  if (document.hidden) return;
  const { nodes } = await ask("/v1/cluster").catch(() => ({ nodes: undefined }));
  if (!nodes) return; // the poller says so
  const order = ["active", "unreachable", "joining", "draining", "left", "dead"];
  nodes.sort((a, b) => order.indexOf(a.state) - order.indexOf(b.state) || a.name.localeCompare(b.name) || b.incarnation - a.incarnation);
  say($("n-nodes"), `${nodes.filter((node) => node.state === "active").length} active`);
  arrange($("nodes"), nodes.slice(0, 50), (node) => node.incarnation,
    (node) => h("li", { title: `incarnation ${node.incarnation}` }, h("i"), h("b", {}, node.name), h("span"), h("small")),
    (item, node) => {
      item.dataset.node = node.state;
      say(item.children[2], node.state === "active" ? "" : node.state);
      say(item.lastElementChild, [node.running === null ? "" : `${count(node.running)} running`, node.slots ? `${node.slots.toLocaleString("en")} slots` : ""].filter(Boolean).join(" · "));
    });
}

function setMeter(element, { value, words, part }) {
  const line = element.firstElementChild;
  say(line.children[1], value);
  say(line.children[2], words);
  const bar = element.lastElementChild.firstElementChild;
  bar.style.setProperty("--part", `${Math.min(100, 100 * part).toFixed(1)}%`);
  bar.style.setProperty("--least", part > 0 ? "3px" : "0");
  element.dataset.full = String(part >= 1 && element.dataset.state === undefined);
}

function drawRoom(capacity) {
  const rooms = Object.entries(capacity).map(([name, { limit, taken }]) => ({ name, value: count(taken), words: `of ${count(limit)}`, part: limit ? taken / limit : 0 }));
  arrange($("room"), rooms, (room) => room.name, meter, setMeter);
}

function drawLanes(lanes) {
  const most = Math.max(1, ...lanes.map((lane) => lane.ready));
  const rows = lanes.map((lane) => ({
    name: lane.lane, color: "ready", value: count(lane.ready), part: lane.ready / most,
    words: [lane.ready ? `oldest ${duration(lane.oldest_s)}` : "nothing waits", lane.scheduled ? `${count(lane.scheduled)} later` : ""].filter(Boolean).join(" · "),
  }));
  arrange($("lanes"), rows, (row) => row.name, meter, setMeter);
}

// -- tables -----------------------------------------------------------------------------------------

function number(cell, value, text = count(value)) {
  say(cell, text);
  cell.className = value ? "n" : "n zero";
}

function drawHandlers(handlers) {
  say($("n-handlers"), `${handlers.length}`);
  arrange($("handlers"), handlers, (row) => row.name,
    (row) => h("tr", {}, h("td", {}, h("span", { class: "name" }, row.name), " ", h("span", { class: "tag", hidden: "" }, "paused")),
      h("td"), h("td"), h("td"), h("td"),
      h("td", { class: "end" }, h("button", { class: "act", onclick: (event) => setPaused(row.name, event.currentTarget) }))),
    (line, row) => {
      line.children[0].lastElementChild.hidden = !row.paused;
      number(line.children[1], row.ready);
      number(line.children[2], row.scheduled);
      number(line.children[3], row.running);
      number(line.children[4], row.ready, row.ready ? duration(row.oldest_s) : "–");
      const button = line.lastElementChild.firstElementChild;
      button.dataset.does = row.paused ? "resume" : "pause";
      button.setAttribute("aria-label", `${button.dataset.does} ${row.name}`);
      say(button, row.paused ? "Resume" : "Pause");
    });
}

async function setPaused(name, button) {
  const does = button.dataset.does;
  button.disabled = true;
  try {
    await ask(`/v1/handlers/${encodeURIComponent(name)}/${does}`, { method: "POST" });
    toast(does === "pause" ? `${name} is paused; what runs goes on.` : `${name} goes on.`);
  } catch (error) {
    toast(error.message, "error");
  }
  button.disabled = false;
}

const idButton = (id) => h("button", { class: "id", title: id, onclick: () => show(id) }, short(id));

function drawRunning(running) {
  say($("n-running"), running.length >= 50 ? "the 50 longest" : running.length ? `${running.length}` : "");
  $("no-running").hidden = running.length > 0;
  arrange($("running"), running, (row) => `${row.id} ${row.attempt}`,
    (row) => h("tr", {}, h("td", {}, h("span", { class: "name" }, row.handler)), h("td", {}, idButton(row.id)), h("td", { class: "n" }, String(row.attempt)), h("td", { class: "n" })),
    (line, row) => say(line.lastElementChild, duration(row.for_s)));
}

function drawFailures(failures) {
  $("no-failures").hidden = failures.length > 0;
  say($("n-failures"), failures.length >= 50 ? "the newest 50 on this node" : failures.length ? "on this node" : "");
  arrange($("failures"), failures, (row) => `${row.id} ${row.attempt}`,
    (row) => h("tr", {}, h("td", { title: row.at }), h("td", {}, h("span", { class: "name" }, row.handler)),
      h("td", { class: "error", title: row.message }, h("b", {}, row.error_type), h("span", {}, ` ${row.message}`)),
      h("td", { class: "n" }, String(row.attempt)), h("td", {}, idButton(row.id)),
      h("td", { class: "end" }, row.final ? h("button", { class: "act", onclick: (event) => replayRow(row, event.currentTarget) }, "Replay") : h("small", {}, "tried again"))),
    (line, row) => {
      say(line.firstElementChild, ago(row.at));
      line.classList.toggle("new", Date.now() - Date.parse(row.at) < FRESH_MS);
      if (replayed.has(`${row.id} ${row.attempt}`)) markReplayed(line.querySelector("button.act"));
    });
}

async function replayRow(row, button) {
  button.disabled = true;
  if (await replay(row.id)) {
    replayed.add(`${row.id} ${row.attempt}`);
    markReplayed(button);
  } else {
    button.disabled = false;
  }
}

function markReplayed(button) {
  if (!button) return;
  button.disabled = true;
  say(button, "Replayed");
}

/** The only part that events move: at most four times a second, and only when there is something new. */
function drawRecent() {
  if (document.hidden || ends.seen === drawn) return;
  drawn = ends.seen;
  const rows = ends.newest();
  $("no-recent").hidden = rows.length > 0;
  say($("n-recent"), `${count(ends.seen)} since this page was opened${ends.missed ? ", not counting gaps" : ""}`);
  arrange($("recent"), rows, (row) => `${row.id} ${row.attempt} ${row.state}`,
    (row) => h("tr", {}, h("td", {}, h("span", { class: "name" }, row.handler)), h("td", {}, idButton(row.id)),
      h("td", {}, h("span", { class: "chip-state", "data-state": row.state }, h("i"), row.error_type ?? row.state)),
      h("td", { class: "n" }, row.run_s === null ? "–" : duration(row.run_s))));
}
