// One task in a dialog: what it is, what it met, and what can be done about it.

import { $, ago, duration, h, toast } from "./parts.js";
import { ask } from "./node.js";

const FINAL = new Set(["succeeded", "failed", "cancelled"]);

export async function replay(id) {
  try {
    await ask(`/v1/tasks/${encodeURIComponent(id)}/retry`, { method: "POST" });
    toast("A new run is open.");
    return true;
  } catch (error) {
    toast(error.message, "error");
    return false;
  }
}

async function cancel(id) {
  try {
    await ask(`/v1/tasks/${encodeURIComponent(id)}/cancel`, { method: "POST" });
  } catch (error) {
    toast(error.message, "error");
  }
}

/** By id, or by idempotency key. */
export async function find(text) {
  if (/^[0-9a-f]{8}-[0-9a-f-]{27}$/i.test(text)) return show(text);
  try {
    const { tasks } = await ask(`/v1/tasks?limit=1&idempotency_key=${encodeURIComponent(text)}`);
    return tasks.length ? show(tasks[0].id) : toast(`No task has the idempotency key ${text}.`, "error");
  } catch (error) {
    return toast(error.message, "error");
  }
}

export async function show(id) {
  const path = `/v1/tasks/${encodeURIComponent(id)}`;
  try {
    const [task, { attempts }] = await Promise.all([ask(path), ask(`${path}/attempts`)]);
    const dialog = $("task");
    dialog.replaceChildren(article(task, attempts));
    if (!dialog.open) dialog.showModal();
  } catch (error) {
    toast(error.message, "error");
  }
}

function article(task, attempts) {
  const dialog = $("task");
  return h("article", {},
    h("header", {},
      h("h2", { id: "task-title" }, task.handler),
      h("span", { class: "chip-state", "data-state": task.state }, h("i"), task.state),
      h("button", { class: "act", onclick: () => dialog.close() }, "Close")),
    h("p", { class: "key" }, task.id),
    facts(task),
    task.error ? h("h3", {}, `${task.error.type}: ${task.error.message}`) : null,
    task.error?.traceback ? h("pre", {}, task.error.traceback) : null,
    "result" in task ? h("h3", {}, "Result") : null,
    "result" in task ? h("pre", {}, JSON.stringify(task.result, null, 2)) : null,
    attempts.length ? h("h3", {}, "Attempts") : null,
    attempts.length ? met(attempts) : null,
    h("div", { class: "acts" },
      FINAL.has(task.state) ? null : h("button", { class: "act", onclick: async () => { await cancel(task.id); await show(task.id); } }, "Cancel"),
      task.state === "failed" || task.state === "cancelled"
        ? h("button", { class: "act", onclick: async () => { await replay(task.id); await show(task.id); } }, "Replay") : null,
      h("a", { class: "act", href: `/v1/tasks/${task.id}`, target: "_blank", rel: "noopener" }, "JSON")));
}

function facts(task) {
  const rows = [
    ["Waits", task.waiting && `${task.waiting.detail} (${task.waiting.reason})${task.waiting.until ? `, until ${moment(task.waiting.until)}` : ""}`],
    ["Cancel asked", task.cancel_requested_at && moment(task.cancel_requested_at)],
    ["Progress", task.progress && `${task.progress.done}${task.progress.total ? ` of ${task.progress.total}` : ""} ${task.progress.message}`],
    ["Created", `${moment(task.created_at)}, ${ago(task.created_at)}`],
    ["Started", task.started_at && moment(task.started_at)],
    ["Ended", task.finished_at && `${moment(task.finished_at)}${task.started_at ? `, after ${duration((Date.parse(task.finished_at) - Date.parse(task.started_at)) / 1000)}` : ""}`],
    ["Attempt", `${task.attempt}; ${task.failures} of ${task.max_attempts} failures, ${task.crashes} crashes`],
    ["Priority", task.priority],
    ["Key", task.idempotency_key],
    ["Actor key", task.actor_key],
    ["Node", task.node],
    ["Metadata", Object.keys(task.metadata).length ? JSON.stringify(task.metadata) : null],
  ];
  return h("dl", {}, ...rows.filter(([, value]) => value).flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
}

function met(attempts) {
  return h("table", {}, h("tbody", {}, ...attempts.map((each) => h("tr", {},
    h("td", { class: "n" }, String(each.attempt)),
    h("td", {}, each.kind.replace("_", " ")),
    h("td", {}, each.node ?? ""),
    h("td", { class: "error" }, each.error ? h("b", {}, each.error.type) : "", each.error ? h("span", {}, ` ${each.error.message}`) : ""),
    h("td", { class: "n" }, each.ended_at ? ago(each.ended_at) : "")))));
}

function moment(text) {
  return new Date(text).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
}
