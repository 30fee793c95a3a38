// Speaking to the node: numbers once a second, events as they come, and saying so when it does not answer.

const ASK_MS = 1000;
const HIDDEN_MS = 10000;
const LIMIT_MS = 4000;
const RECENT = 14;

/** JSON of an answer; an Error with the problem's words otherwise. */
export async function ask(path, options = {}) {
  const response = await fetch(path, { signal: AbortSignal.timeout(LIMIT_MS), cache: "no-store", ...options });
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw Object.assign(new Error(body.detail || `HTTP ${response.status}`), { status: response.status });
  return body;
}

/** Asks for stats again and again. `onStats(stats)`; `onAway(since, error)` while there is no answer. */
export class Poller {
  constructor(onStats, onAway) {
    this.onStats = onStats;
    this.onAway = onAway;
    this.failures = 0;
    document.addEventListener("visibilitychange", () => { if (!document.hidden) this.soon(); });
    this.turn();
  }

  soon() {
    clearTimeout(this.timer);
    if (!this.asking) this.turn();
  }

  async turn() {
    this.asking = true;
    try {
      const stats = await ask("/v1/stats");
      this.failures = 0;
      this.since = undefined;
      this.onStats(stats);
    } catch (error) {
      this.failures += 1;
      this.since ??= Date.now();
      this.onAway(this.since, error);
    }
    this.asking = false;
    const pause = document.hidden ? HIDDEN_MS : Math.min(ASK_MS * 2 ** Math.max(0, this.failures - 1), 5000);
    this.timer = setTimeout(() => this.turn(), pause);
  }
}

/** Ends of tasks. Keeps the newest few and counts the rest, whatever their rate; nothing is drawn here. */
export class Ends {
  constructor() {
    this.recent = [];
    this.seen = 0;
    this.missed = 0;
    document.addEventListener("visibilitychange", () => this.follow());
    this.follow();
  }

  follow() {
    this.source?.close();
    this.source = undefined;
    if (document.hidden) return;
    this.source = new EventSource("/v1/events?state=succeeded,failed,cancelled");
    this.source.addEventListener("task", (event) => {
      this.seen += 1;
      this.recent.push(event.data); // read only when it is shown
      if (this.recent.length > 4 * RECENT) this.recent.splice(0, this.recent.length - RECENT);
    });
    this.source.addEventListener("gap", () => { this.missed += 1; });
    this.source.addEventListener("error", () => {
      if (this.source?.readyState === EventSource.CLOSED) setTimeout(() => this.follow(), 3000); // refused: it does not try again by itself
    });
  }

  /** The newest first. */
  newest() {
    return this.recent.slice(-RECENT).reverse().map((text) => JSON.parse(text));
  }
}
