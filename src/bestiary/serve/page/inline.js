// Markdown within a paragraph, read into plain data. One pass, and what is looked ahead has a budget: the
// time is linear in the text whatever is in it. HTML is text here, and so are links that links.js refuses.

import { judged, LONGEST } from "./links.js";

const DEEPEST = 32; // frames open at once; more marks are text
const AHEAD = 1 << 18; // characters that may be looked at in vain, in all
const SPECIAL = /[\\`*_~[\]!<h]/;
const ESCAPED = /[!-/:-@[-`{-~]/;
const BLANK = /\s/;
const LETTER = /[\p{L}\p{N}]/u;
const MARKS = { "*": "em", "**": "strong", _: "em", __: "strong", "~~": "del" };

/** Reads text into nodes: {kind: text | code | em | strong | del | link | image, text, nodes, address}. */
export function inline(text) {
  return new Reader(text).read();
}

class Reader {
  constructor(text) {
    this.text = text;
    this.at = 0;
    this.budget = AHEAD;
    this.frames = [{ mark: "", nodes: [] }];
    this.passed = new Map(); // length of a run of ` -> how many such runs lie behind
  }

  read() {
    while (this.at < this.text.length) this.step();
    while (this.frames.length > 1) this.collapse();
    return this.frames[0].nodes;
  }

  step() {
    const { text, at } = this;
    const here = text[at];
    if (!SPECIAL.test(here)) return this.plain();
    if (here === "\\" && ESCAPED.test(text[at + 1] ?? "")) return this.take(text[at + 1], 2);
    if (here === "`") return this.code();
    if (here === "*" || here === "_" || here === "~") return this.marks(here);
    if (here === "!" && text[at + 1] === "[") return this.open("![");
    if (here === "[") return this.open("[");
    if (here === "]") return this.close();
    if (here === "<") return this.bracketed();
    if (here === "h" && /^https?:\/\//.test(text.slice(at, at + 8))) return this.bare();
    return this.take(here, 1);
  }

  /** Takes what needs no reading, up to the next character that may. */
  plain() {
    let end = this.at + 1;
    while (end < this.text.length && !SPECIAL.test(this.text[end])) end += 1;
    this.take(this.text.slice(this.at, end), end - this.at);
  }

  take(text, length) {
    this.add({ kind: "text", text });
    this.at += length;
  }

  add(node) {
    const { nodes } = this.frames.at(-1);
    const last = nodes.at(-1);
    if (node.kind === "text" && last?.kind === "text") last.text += node.text;
    else nodes.push(node);
  }

  run(mark, from) {
    let end = from;
    while (this.text[end] === mark) end += 1;
    return end - from;
  }

  /** Where the next run of exactly so many ` is, or -1. Runs are found once, and each place is passed once. */
  closing(length, from) {
    this.ticks ??= ticks(this.text);
    const runs = this.ticks.get(length) ?? [];
    let next = this.passed.get(length) ?? 0;
    while (next < runs.length && runs[next] < from) next += 1;
    this.passed.set(length, next);
    return runs[next] ?? -1;
  }

  code() {
    const length = this.run("`", this.at);
    const start = this.at + length;
    const end = this.closing(length, start);
    if (end === -1) return this.take("`".repeat(length), length);
    const inside = this.text.slice(start, end);
    const padded = inside.length > 2 && inside[0] === " " && inside.at(-1) === " ";
    this.add({ kind: "code", text: padded ? inside.slice(1, -1) : inside });
    this.at = end + length;
  }

  /** Opens or closes emphasis. `a_b_c` is a name and 2 * 3 a product: neither is. */
  marks(mark) {
    const whole = this.run(mark, this.at);
    const before = this.text[this.at - 1] ?? " ";
    const after = this.text[this.at + whole] ?? " ";
    const word = mark === "_" && LETTER.test(before) && LETTER.test(after);
    const opens = !BLANK.test(after) && !word && !(mark === "_" && LETTER.test(before));
    const closes = !BLANK.test(before) && !word && !(mark === "_" && LETTER.test(after));
    let left = whole > 3 ? 0 : whole;
    while (left) {
      const open = closes ? this.opened(mark, left) : -1;
      const length = mark === "~" ? 2 : Math.min(left, 2);
      if (open > 0) {
        left -= this.frames[open].mark.length;
        this.wrap(open);
      } else if (opens && left >= length && this.frames.length < DEEPEST) {
        left -= length;
        this.frames.push({ mark: mark.repeat(length), nodes: [] });
      } else {
        break;
      }
    }
    const text = mark.repeat(whole > 3 ? whole : left);
    if (text) this.add({ kind: "text", text });
    this.at += whole;
  }

  opened(mark, most) {
    return this.frames.findLastIndex((frame) => frame.mark[0] === mark && frame.mark.length <= most);
  }

  /** Makes a node of the frame at `index`; frames above it were no marks after all. */
  wrap(index) {
    while (this.frames.length > index + 1) this.collapse();
    const { mark, nodes } = this.frames.pop();
    if (nodes.length) this.add({ kind: MARKS[mark], nodes });
    else this.add({ kind: "text", text: mark + mark });
  }

  collapse() {
    const { mark, nodes } = this.frames.pop();
    this.add({ kind: "text", text: mark });
    for (const node of nodes) this.add(node);
  }

  open(mark) {
    if (this.frames.length >= DEEPEST) return this.take(mark, mark.length);
    this.frames.push({ mark, nodes: [] });
    this.at += mark.length;
  }

  close() {
    const index = this.frames.findLastIndex((frame) => frame.mark.endsWith("["));
    if (index < 0) return this.take("]", 1);
    const target = this.text[this.at + 1] === "(" ? this.target(this.at + 2) : null;
    if (!target) {
      while (this.frames.length > index) this.collapse();
      return this.take("]", 1);
    }
    while (this.frames.length > index + 1) this.collapse();
    const { mark, nodes } = this.frames.pop();
    const address = judged(target.address);
    const kind = mark === "[" ? "link" : "image";
    if (address) {
      this.add({ kind, nodes: withoutLinks(nodes), address });
    } else {
      this.add({ kind: "text", text: mark });
      for (const node of nodes) this.add(node);
      this.add({ kind: "text", text: this.text.slice(this.at, target.end) });
    }
    this.at = target.end;
  }

  /** Reads `address)` or `address "title")` from a place; null where there is none. */
  target(from) {
    let end = from;
    let deep = 0;
    const most = Math.min(this.text.length, from + LONGEST, from + this.budget);
    for (; end < most; end += 1) {
      const here = this.text[end];
      if (here === "(") deep += 1;
      if (here === ")" && deep-- === 0) break;
      if (here === "\n") return this.vain(end - from);
    }
    if (end >= most) return this.vain(end - from);
    const said = this.text.slice(from, end).trim();
    const blank = said.search(BLANK);
    const address = blank === -1 ? said : said.slice(0, blank);
    return { address: /^<.*>$/.test(address) ? address.slice(1, -1) : address, end: end + 1 };
  }

  vain(length) {
    this.budget -= length;
    return null;
  }

  bracketed() {
    const most = Math.min(LONGEST, this.budget);
    const window = this.text.slice(this.at + 1, this.at + 9);
    if (!/^https?:\/\//i.test(window)) return this.take("<", 1);
    const end = this.text.slice(this.at, this.at + most).indexOf(">");
    const address = end === -1 ? null : judged(this.text.slice(this.at + 1, this.at + end));
    if (!address) {
      this.budget -= end === -1 ? most : end;
      return this.take("<", 1);
    }
    this.add({ kind: "link", nodes: [{ kind: "text", text: address }], address });
    this.at += end + 1;
  }

  /** A bare address goes on to the first character that is not ASCII: Chinese text has no blanks. */
  bare() {
    let end = this.at;
    while (end < this.text.length && /[!#-;=?-[\]_a-z~]/.test(this.text[end])) end += 1;
    // What ends a sentence is no part of the address; nor is a bracket that nothing in it opened.
    const whole = this.text.slice(this.at, end);
    let spare = whole.split(")").length - whole.split("(").length;
    while (end > this.at && /[.,:;!?*_~\])]/.test(this.text[end - 1])) {
      if (this.text[end - 1] === ")" && spare-- <= 0) break;
      end -= 1;
    }
    const said = this.text.slice(this.at, end);
    const address = judged(said);
    const before = this.text[this.at - 1] ?? " ";
    if (!address || /[A-Za-z0-9]/.test(before)) return this.take(said || "h", Math.max(said.length, 1));
    this.add({ kind: "link", nodes: [{ kind: "text", text: said }], address });
    this.at = end;
  }
}

/** Each length of a run of ` -> where such runs are. */
function ticks(text) {
  const found = new Map();
  for (const { 0: run, index } of text.matchAll(/`+/g)) {
    if (!found.has(run.length)) found.set(run.length, []);
    found.get(run.length).push(index);
  }
  return found;
}

/** A link has no links in it. */
function withoutLinks(nodes) {
  return nodes.flatMap((node) => {
    if (node.kind === "link" || node.kind === "image") return node.nodes;
    return node.nodes ? { ...node, nodes: withoutLinks(node.nodes) } : node;
  });
}
