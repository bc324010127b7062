// A conversation as a tree of turns: to ask again or to edit makes a sibling, and nothing that was said is lost.
// What is shown is one path from the root; of each turn's followers one is chosen.

export const LONGEST = 1 << 20; // characters of a turn
export const MOST_TURNS = 4096;
const ROOT = 0;
const ROLES = new Set(["user", "assistant"]);
const STATES = new Set(["done", "cut", "stopped", "failed", "writing"]);

/** A turn: {id, parent, role, text, state, model, tokens: of probabilities.js or null, figures or null}. */
export class Conversation {
  constructor({ id = randomId(), title = "", system = "", changed = Date.now() } = {}) {
    Object.assign(this, { id, title, system, changed });
    this.turns = new Map();
    this.chosen = new Map(); // parent's id -> the id of its follower that is shown
  }

  get empty() {
    return this.turns.size === 0;
  }

  /** The turns that are shown, first to last. */
  path() {
    const found = [];
    for (let id = this.chosen.get(ROOT); id !== undefined; id = this.chosen.get(id)) found.push(this.turns.get(id));
    return found;
  }

  last() {
    return this.path().at(-1) ?? null;
  }

  /** Those turns that stand in one's place, itself among them, in the order they were made. */
  versions(turn) {
    return [...this.turns.values()].filter((other) => other.parent === turn.parent && other.role === turn.role);
  }

  /** The turns that led to one, and itself. */
  upTo(turn) {
    const found = [];
    for (let one = turn; one; one = this.turns.get(one.parent)) found.unshift(one);
    return found;
  }

  get full() {
    return this.turns.size + 2 > MOST_TURNS;
  }

  /** Adds a turn behind `after` (null: the first) and shows it. */
  add(after, role, text, state = "done") {
    const turn = {
      id: this.turns.size + 1, parent: after?.id ?? ROOT, role, text, state, model: "", tokens: null, figures: null,
    };
    this.turns.set(turn.id, turn);
    this.choose(turn);
    return turn;
  }

  choose(turn) {
    this.chosen.set(turn.parent, turn.id);
    this.changed = Date.now();
  }

  /** Shows the version so many steps from one; returns it, or the same where there is none. */
  step(turn, steps) {
    const all = this.versions(turn);
    const other = all[all.indexOf(turn) + steps] ?? turn;
    this.choose(other);
    return other;
  }

  /** Takes back the turn that was added last, when nothing came of it. */
  drop(turn) {
    if (turn.id !== this.turns.size) return;
    const others = this.versions(turn).filter((other) => other !== turn);
    this.turns.delete(turn.id);
    if (others.length) this.choose(others.at(-1));
    else this.chosen.delete(turn.parent);
  }

  /** What is sent: the system prompt and the path up to a turn. */
  messages(upTo) {
    const said = this.upTo(upTo).map(({ role, text }) => ({ role, content: text }));
    return this.system.trim() ? [{ role: "system", content: this.system }, ...said] : said;
  }

  /** As plain data, for store.js. */
  data() {
    const { id, title, system, changed } = this;
    return { id, title, system, changed, turns: [...this.turns.values()], chosen: [...this.chosen] };
  }

  /** From plain data; null for data that is not what data() gives. */
  static of(data) {
    if (typeof data !== "object" || data === null || !Array.isArray(data.turns) || !Array.isArray(data.chosen)) {
      return null;
    }
    const { id, title, system, changed } = data;
    if (![id, title, system].every((one) => typeof one === "string") || !Number.isFinite(changed)) return null;
    const made = new Conversation({ id, title, system, changed });
    for (const turn of data.turns) {
      const known = turn?.parent === ROOT || made.turns.has(turn?.parent);
      if (!known || turn.id !== made.turns.size + 1) return null;
      if (!ROLES.has(turn.role) || typeof turn.text !== "string") return null;
      // An answer that was being written when the page went away was stopped.
      const state = turn.state === "writing" || !STATES.has(turn.state) ? "stopped" : turn.state;
      const { parent, role, text, tokens, figures } = turn;
      made.turns.set(turn.id, {
        id: turn.id, parent, role, text, state, model: String(turn.model ?? ""),
        tokens: Array.isArray(tokens) ? tokens : null, figures: figures ?? null,
      });
    }
    for (const [parent, chosen] of data.chosen) {
      if (made.turns.get(chosen)?.parent === parent) made.chosen.set(parent, chosen);
    }
    return made;
  }
}

/** crypto.randomUUID is not there on a page without HTTPS that is not of this machine. */
function randomId() {
  const bytes = crypto.getRandomValues(new Uint8Array(12));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
