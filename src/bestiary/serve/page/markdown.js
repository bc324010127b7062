// Markdown, read into plain data: blocks of lines here, what is within a paragraph in inline.js. Nothing here
// touches the page. What a model writes is deep or long at will, so both have a bound and what is beyond is text.

import { inline } from "./inline.js";

const DEEPEST = 8; // quotes and lists within each other
const LONGEST = 1 << 18; // characters, and
const MOST = 1 << 15; // marks and lines: a text that has more of either is shown as it is
const WIDEST = 64; // cells in a row of a table
const FENCE = /^( {0,3})(`{3,}|~{3,})(.*)$/s;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]+(.*))?$/s;
const QUOTE = /^ {0,3}>/;
const ITEM = /^( {0,3})([-*+]|\d{1,9}[.)])(?:[ \t]+(.*))?$/s;

/** Reads text into blocks: {kind: paragraph | heading | code | quote | list | table | rule, key, ...}. */
export function blocks(text) {
  const plain = text.length > LONGEST || (text.match(/[\n*_`~[\]<>|]/g)?.length ?? 0) > MOST;
  if (plain) return [{ kind: "paragraph", nodes: [{ kind: "text", text }], key: text }];
  return read(text.replace(/\r\n?/g, "\n").split("\n"), 0);
}

function read(lines, deep) {
  const found = [];
  let at = 0;
  while (at < lines.length) {
    if (!lines[at].trim()) {
      at += 1;
      continue;
    }
    const block = next(lines, at, deep);
    // Two blocks with one key look the same: what was drawn of one can stay for the other.
    block.key = `${block.kind} ${lines.slice(at, block.end).join("\n")}`;
    at = block.end;
    found.push(block);
  }
  return found;
}

function next(lines, at, deep) {
  const line = lines[at];
  const heading = HEADING.exec(line);
  if (fence(line)) return code(lines, at);
  if (heading) return { kind: "heading", level: heading[1].length, nodes: inline(bare(heading[2] ?? "")), end: at + 1 };
  if (isRule(line)) return { kind: "rule", end: at + 1 };
  if (QUOTE.test(line) && deep < DEEPEST) return quote(lines, at, deep);
  if (ITEM.test(line) && deep < DEEPEST) return list(lines, at, deep);
  if (isTable(lines, at)) return table(lines, at);
  return paragraph(lines, at, deep);
}

function fence(line) {
  const found = FENCE.exec(line);
  return found && !(found[2][0] === "`" && found[3].includes("`")) ? found : null;
}

/** The text of a heading without the #s that may close it. */
function bare(text) {
  let end = text.trimEnd().length;
  const whole = end;
  while (end && text[end - 1] === "#") end -= 1;
  return end === 0 || (end < whole && text[end - 1] === " ") ? text.slice(0, end).trim() : text.trim();
}

function isRule(line) {
  const marks = line.replace(/[ \t]/g, "");
  return marks.length >= 3 && "-*_".includes(marks[0]) && marks === marks[0].repeat(marks.length);
}

function code(lines, at) {
  const [, indent, marks, info] = fence(lines[at]);
  let end = at + 1;
  const closes = (line) => {
    const mark = line.trim();
    return mark.length >= marks.length && mark === marks[0].repeat(mark.length);
  };
  while (end < lines.length && !closes(lines[end])) end += 1;
  const inside = lines.slice(at + 1, end).map((line) => unindented(line, indent.length));
  const closed = end < lines.length;
  const language = info.trim().split(/\s/)[0].slice(0, 32);
  return { kind: "code", language, text: inside.join("\n"), end: closed ? end + 1 : end };
}

function indentation(line) {
  return line.length - line.trimStart().length;
}

function unindented(line, most) {
  return line.slice(Math.min(most, indentation(line)));
}

function quote(lines, at, deep) {
  let end = at;
  const inside = [];
  while (end < lines.length && QUOTE.test(lines[end])) {
    inside.push(lines[end].replace(/^ {0,3}> ?/, ""));
    end += 1;
  }
  return { kind: "quote", blocks: read(inside, deep + 1), end };
}

function list(lines, at, deep) {
  const first = ITEM.exec(lines[at]);
  const ordered = /\d/.test(first[2]);
  const items = [];
  let end = at;
  while (end < lines.length) {
    const found = ITEM.exec(lines[end]);
    if (!found || /\d/.test(found[2]) !== ordered || isRule(lines[end])) break;
    const item = itemLines(lines, end, found[1].length + found[2].length + 1);
    items.push(read([found[3] ?? "", ...item.lines], deep + 1));
    end = item.end;
  }
  return { kind: "list", ordered, start: ordered ? Number.parseInt(first[2], 10) : undefined, items, end };
}

/** The lines of an item after its first: what is indented, and a paragraph that simply goes on. */
function itemLines(lines, at, offset) {
  const inside = [];
  let end = at + 1;
  while (end < lines.length) {
    const line = lines[end];
    const blank = !line.trim();
    const further = blank && (lines[end + 1] ?? "").trim() !== "" && indentation(lines[end + 1]) >= 2;
    const deeper = !blank && indentation(line) >= 2;
    const goesOn = !blank && lines[end - 1].trim() !== "" && !starts(lines, end);
    const nextItem = blank && ITEM.test(lines[end + 1] ?? "") && indentation(lines[end + 1]) < 2;
    if (nextItem) return { lines: inside, end: end + 1 };
    if (!further && !deeper && !goesOn) break;
    inside.push(unindented(line, offset));
    end += 1;
  }
  return { lines: inside, end };
}

/** Whether a line begins something that ends a paragraph. */
function starts(lines, at) {
  const line = lines[at];
  return Boolean(HEADING.test(line) || fence(line) || QUOTE.test(line) || ITEM.test(line) || isRule(line));
}

function cells(line) {
  const inside = line.trim().replace(/^\|/, "").replace(/\|$/, "");
  return inside.split("|", WIDEST).map((cell) => cell.trim());
}

function isTable(lines, at) {
  const line = lines[at + 1];
  if (!lines[at].includes("|") || line === undefined || !line.includes("-") || !line.includes("|")) return false;
  return cells(line).every((cell) => /^:?-+:?$/.test(cell)) && cells(lines[at]).length === cells(line).length;
}

function table(lines, at) {
  const sides = cells(lines[at + 1]).map((cell) => {
    const [left, right] = [cell.startsWith(":"), cell.endsWith(":")];
    return right ? (left ? "centre" : "right") : "left";
  });
  let end = at + 2;
  while (end < lines.length && lines[end].trim() && lines[end].includes("|")) end += 1;
  const row = (line) => {
    const said = cells(line);
    return sides.map((_, i) => inline(said[i] ?? ""));
  };
  return { kind: "table", sides, head: row(lines[at]), rows: lines.slice(at + 2, end).map(row), end };
}

function paragraph(lines, at, deep) {
  let end = at + 1;
  const ends = (i) => !lines[i].trim() || (deep < DEEPEST && starts(lines, i)) || isTable(lines, i);
  while (end < lines.length && !ends(end)) end += 1;
  const text = lines.slice(at, end).map((line) => line.trimEnd()).join("\n");
  return { kind: "paragraph", nodes: inline(text.trimStart()), end };
}
