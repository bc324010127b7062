// Tokens of an answer by how likely the model found them, and what else it found likely.

import { element } from "./dom.js";
import { bytesOf, whole } from "./pieces.js";
import { digits, say } from "./words.js";

// Lowest probability of each band; colours are page.css's. The first has none: it is what was to be expected.
const BANDS = [0.8, 0.5, 0.2, 0.05, 0];

/** Gathers a stream's logprobs into tokens: {text, logprob, others: [[text, logprob]], parts}. */
export class Gatherer {
  tokens = [];
  #bytes = [];
  #waiting = [];

  /** Takes `logprobs` of an event of chat, or of completions. */
  take(logprobs) {
    for (const entry of logprobs?.content ?? []) {
      this.#one(entry.token, entry.logprob, (entry.top_logprobs ?? []).map((one) => [one.token, one.logprob]));
    }
    for (const [i, token] of (logprobs?.tokens ?? []).entries()) {
      this.#one(token, logprobs.token_logprobs[i] ?? 0, Object.entries(logprobs.top_logprobs?.[i] ?? {}));
    }
  }

  #one(token, logprob, others) {
    for (const byte of bytesOf(token)) this.#bytes.push(byte);
    this.#waiting.push({ token, logprob, others });
    const text = whole(this.#bytes);
    if (text !== null) this.#join(text);
  }

  /** Takes what is left when there is no more: the beginning of a character. */
  end() {
    if (this.#waiting.length) this.#join("\ufffd");
  }

  #join(text) {
    // A character of several tokens is one token here, as likely as all of them together.
    const sum = this.#waiting.reduce((before, one) => before + one.logprob, 0);
    this.tokens.push({ text, logprob: sum, others: this.#waiting[0].others, parts: this.#waiting.length });
    this.#bytes = [];
    this.#waiting = [];
  }
}

export function perplexity(tokens) {
  const count = tokens.reduce((sum, one) => sum + one.parts, 0);
  return Math.exp(-tokens.reduce((sum, one) => sum + one.logprob, 0) / Math.max(count, 1));
}

export function band(logprob) {
  const likely = Math.exp(logprob);
  return BANDS.findIndex((least) => likely >= least);
}

/** Draws tokens. One is in the order of tabs; arrow keys go to the others. */
export function view(tokens) {
  const odds = element("div", { class: "odds", "aria-hidden": "true", hidden: true });
  const drawn = tokens.map((token, i) => {
    return element("span", {
      role: "option", tabindex: i ? "-1" : "0", "aria-label": spoken(token), "aria-selected": "false",
      "data-band": band(token.logprob), "data-index": i,
    }, token.text);
  });
  const named = { role: "listbox", "aria-orientation": "horizontal", "aria-label": say("tokensBy") };
  const box = element("div", { class: "tokens", ...named }, drawn);
  const whole = element("div", { class: "chances" }, legend(tokens), box, odds);
  let at = null;
  const show = (one) => {
    at?.setAttribute("aria-selected", "false");
    at = one;
    one?.setAttribute("aria-selected", "true");
    odds.hidden = !one;
    if (!one) return;
    odds.replaceChildren(...bars(tokens[Number(one.dataset.index)]));
    place(odds, one, whole);
  };
  const nearest = (node) => (box.contains(node) ? node.closest("[data-index]") : null);
  const focused = () => nearest(document.activeElement);
  box.addEventListener("mouseover", (event) => show(nearest(event.target) ?? focused()));
  box.addEventListener("mouseleave", () => show(focused()));
  box.addEventListener("focusin", (event) => show(nearest(event.target)));
  box.addEventListener("focusout", () => show(null));
  box.addEventListener("keydown", (event) => step(event, drawn));
  return whole;
}

function step(event, drawn) {
  const from = drawn.indexOf(event.target);
  const last = drawn.length - 1;
  const to = { ArrowRight: from + 1, ArrowDown: from + 1, ArrowLeft: from - 1, ArrowUp: from - 1, Home: 0, End: last };
  if (from < 0 || !(event.key in to)) return;
  event.preventDefault();
  const next = drawn[Math.min(Math.max(to[event.key], 0), last)];
  event.target.setAttribute("tabindex", "-1");
  next.setAttribute("tabindex", "0");
  next.focus();
}

function legend(tokens) {
  const swatches = BANDS.map((_, i) => element("span", { "data-band": i }, "\u2002\u2002"));
  const how = element("abbr", { title: say("perplexitySays") }, say("perplexity", { n: digits(perplexity(tokens), 2) }));
  return element("p", { class: "legend" }, say("likely"), " ", swatches, " ", say("unlikely"), " · ", how);
}

function share(logprob) {
  const percent = 100 * Math.exp(logprob);
  return `${percent < 0.1 ? "<0.1" : digits(percent, percent < 10 ? 1 : 0)}%`;
}

function spoken(token) {
  const others = token.others.filter(([text]) => text !== token.text).slice(0, 3);
  const also = others.map(([text, logprob]) => `${visible(text)} ${share(logprob)}`).join(", ");
  return `${visible(token.text)} ${share(token.logprob)}${also ? `; ${say("otherTokens")}: ${also}` : ""}`;
}

/** Blanks as something that can be seen. */
function visible(text) {
  return text.replaceAll(" ", "␣").replaceAll("\n", "↵").replaceAll("\t", "⇥") || "∅";
}

function bars(token) {
  const rows = token.others.map(([text, logprob]) => ({ text, logprob, here: text === token.text }));
  if (token.parts > 1) return [element("p", {}, say("joined", { n: token.parts })), bar(token.text, token.logprob, true)];
  if (!rows.some((row) => row.here)) rows.push({ ...token, here: true });
  rows.sort((a, b) => b.logprob - a.logprob);
  return rows.map((row) => bar(row.text, row.logprob, row.here));
}

function bar(text, logprob, here) {
  const filled = element("span", { class: "filled" });
  filled.style.inlineSize = `${100 * Math.exp(logprob)}%`;
  const room = element("span", { class: "room" }, filled);
  const said = element("span", { class: "share" }, share(logprob));
  return element("div", { class: here ? "bar here" : "bar" }, element("code", {}, visible(text)), room, said);
}

/** Puts the table under a token, within the width of the answer. */
function place(odds, token, whole) {
  const outer = whole.getBoundingClientRect();
  const inner = token.getClientRects()[0] ?? token.getBoundingClientRect();
  const left = Math.min(inner.left - outer.left, outer.width - odds.offsetWidth);
  odds.style.left = `${Math.max(0, left)}px`;
  odds.style.top = `${inner.bottom - outer.top + 4}px`;
}
