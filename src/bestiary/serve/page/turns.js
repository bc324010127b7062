// Draws the turns of a conversation, with what can be done to each.

import { copier } from "./copy.js";
import { button, element } from "./dom.js";
import { view } from "./probabilities.js";
import { draw } from "./prose.js";
import { digits, say } from "./words.js";

const SLOW = 8; // what is drawn while an answer comes takes at most one part in so many of the time
const SOONEST = 60; // milliseconds between two drawings
const NOTES = { cut: "cut", stopped: "stopped", failed: "failed" };

/** actions: {again, goOn, keep, send, step}, each called with a turn and what it needs. */
export class Turns {
  #shown = new Map(); // turn's id -> {turn, box, said, acts}
  #odds = new Set(); // turns whose tokens are shown
  #conversation = null;
  #pending = null;

  constructor(root, actions) {
    Object.assign(this, { root, actions, plain: false, markdown: true, busy: false });
  }

  /** Draws a conversation; turns that stay where they were are not drawn again. */
  show(conversation, { busy, plain, markdown }) {
    const again = conversation !== this.#conversation || plain !== this.plain || markdown !== this.markdown;
    if (again) this.clear();
    Object.assign(this, { busy, plain, markdown });
    this.#conversation = conversation;
    const path = conversation.path();
    const wanted = path.map((turn, i) => this.#shown.get(turn.id) ?? this.#make(turn, i));
    const kept = new Set(wanted);
    for (const [id, shown] of this.#shown) {
      if (kept.has(shown)) continue;
      shown.box.remove();
      this.#shown.delete(id);
    }
    for (const shown of wanted) if (!shown.box.isConnected) this.root.append(shown.box);
    for (const shown of wanted) this.#acts(shown);
  }

  clear() {
    clearTimeout(this.#pending);
    this.#pending = null;
    this.#shown.clear();
    this.#odds.clear();
    this.root.replaceChildren();
  }

  /** Draws what is new in a turn that is being written; soon, and not for every token. done: when it is drawn. */
  grown(turn, done) {
    if (this.#pending !== null) return;
    this.#pending = setTimeout(() => {
      const began = performance.now();
      this.#pending = null;
      const shown = this.#shown.get(turn.id);
      if (!shown) return;
      this.#text(shown);
      done();
      this.wait = Math.max(SOONEST, SLOW * (performance.now() - began));
    }, this.wait ?? SOONEST);
  }

  /** Draws a turn as it is now. */
  settled(turn) {
    clearTimeout(this.#pending);
    this.#pending = null;
    const shown = this.#shown.get(turn.id);
    if (!shown) return;
    this.#text(shown);
    this.#acts(shown);
  }

  /** Puts the focus on what can be done to a turn: the button that did the same before, or its neighbour. */
  focus(turn, act) {
    const { acts } = this.#shown.get(turn.id) ?? {};
    const found = [act, "earlier", "later", "copy"].map((one) => acts?.querySelector(`[data-act=${one}]:enabled`));
    found.find(Boolean)?.focus();
  }

  #make(turn, index) {
    const who = this.#who(turn);
    const said = element("div", { class: "said", dir: "auto" });
    const acts = element("div", { class: "acts" });
    const named = { "aria-label": say("turn", { who, n: index + 1 }), "data-turn": turn.id };
    const kind = `turn ${turn.role}${this.plain ? " plain" : ""}`;
    const box = element("article", { class: kind, ...named }, element("p", { class: "who" }, who), said, acts);
    const shown = { turn, box, said, acts };
    this.#shown.set(turn.id, shown);
    this.#text(shown);
    return shown;
  }

  #who(turn) {
    if (turn.role === "user") return say(this.plain ? "text" : "you");
    return turn.model || say("model");
  }

  #text({ turn, said, box }) {
    box.classList.toggle("writing", turn.state === "writing");
    if (this.#odds.has(turn.id) && turn.state !== "writing") {
      said.drawn = undefined;
      said.className = "said";
      said.replaceChildren(view(turn.tokens));
      return;
    }
    const formatted = turn.role === "assistant" && this.markdown && !this.plain;
    said.className = formatted ? "said prose" : "said as-is";
    if (formatted) draw(said, turn.text);
    else said.textContent = turn.text;
  }

  #acts(shown) {
    const { turn, acts } = shown;
    const writing = turn.state === "writing";
    const focused = acts.contains(document.activeElement) ? document.activeElement.dataset.act : null;
    acts.hidden = writing;
    acts.replaceChildren();
    if (writing) return;
    const offered = [this.#versions(turn), copier(() => turn.text), this.#act("edit", () => this.#edit(shown))];
    if (turn.role === "assistant") offered.push(this.#act("again", () => this.actions.again(turn)));
    if (turn.tokens?.length) offered.push(this.#oddsSwitch(shown));
    acts.append(...offered.flat(), this.#notes(turn));
    if (focused) this.focus(turn, focused);
  }

  #act(name, pressed, attributes = {}) {
    return button(say(name), pressed, { class: "act", "data-act": name, disabled: this.busy, ...attributes });
  }

  #versions(turn) {
    const all = this.#conversation.versions(turn);
    if (all.length < 2) return [];
    const i = all.indexOf(turn);
    const step = (name, sign, steps, off) => button(sign, () => this.actions.step(turn, steps, name), {
      class: "act step", "data-act": name, "aria-label": say(name), disabled: off || this.busy,
    });
    const seen = element("span", { "aria-hidden": "true" }, `${i + 1}/${all.length}`);
    const heard = element("span", { class: "unseen" }, say("version", { i: i + 1, n: all.length }));
    const count = element("span", { class: "count" }, seen, heard);
    return [step("earlier", "‹", -1, i === 0), count, step("later", "›", 1, i === all.length - 1)];
  }

  #oddsSwitch(shown) {
    const { turn } = shown;
    const on = this.#odds.has(turn.id);
    const pressed = () => {
      if (on) this.#odds.delete(turn.id);
      else this.#odds.add(turn.id);
      this.#text(shown);
      this.#acts(shown);
      this.focus(turn, "probabilities");
    };
    const named = { "data-act": "probabilities", "aria-pressed": String(on) };
    return button(say("probabilities"), pressed, { class: "act", ...named });
  }

  #notes(turn) {
    const { figures, state } = turn;
    const notes = NOTES[state] ? [element("span", { class: "note" }, say(NOTES[state]))] : [];
    if (figures) {
      const { tokens, rate, first } = figures;
      const said = [tokens === 1 ? say("tokenSay") : say("tokensSay", { n: digits(tokens) })];
      if (rate) said.push(say("perSecond", { n: digits(rate, rate < 10 ? 1 : 0) }));
      said.push(say("first", { n: digits(first, 2) }));
      notes.push(element("span", { class: "figures", title: say("statsSay") }, said.join(" · ")));
    }
    return notes.length ? element("span", { class: "notes" }, notes) : "";
  }

  /** Puts a field in the place of a turn's text. What was there stays as another version. */
  #edit(shown) {
    const { turn, said, acts } = shown;
    const yours = turn.role === "user";
    const label = say(yours ? "editYours" : "editTheirs");
    const field = element("textarea", { class: "edited", "aria-label": label, rows: 3 });
    field.value = turn.text;
    const cancel = () => {
      said.drawn = undefined;
      said.replaceChildren();
      this.#text(shown);
      this.#acts(shown);
      this.focus(turn, "edit");
    };
    const done = () => (yours ? this.actions.send(turn, field.value) : this.actions.keep(turn, field.value));
    field.addEventListener("keydown", (event) => {
      if (event.isComposing || event.keyCode === 229) return;
      if (event.key === "Escape") cancel();
      else if (event.key === "Enter" && !event.shiftKey && yours && !this.plain) done();
      else if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) done();
      else return;
      event.preventDefault();
      event.stopPropagation();
    });
    said.className = "said";
    said.replaceChildren(field);
    acts.replaceChildren(
      button(say(yours ? "send" : "keep"), done, { class: "act first" }),
      button(say("cancel"), cancel, { class: "act" }),
    );
    field.focus();
  }
}

