// Draws what markdown.js read. Everything ends in text nodes; the only address that is ever set is one that
// links.js has judged, and it is always to be seen beside what it is called. No picture is fetched.

import { copier } from "./copy.js";
import { element, outward } from "./dom.js";
import { blocks } from "./markdown.js";
import { say } from "./words.js";

const INLINE = { em: "em", strong: "strong", del: "del" };

/** Draws a text as Markdown into a box. What is drawn of an earlier part of a text that grows, stays. */
export function draw(box, text) {
  const wanted = blocks(text);
  const drawn = (box.drawn ??= []);
  let same = 0;
  while (same < drawn.length && same < wanted.length && drawn[same] === wanted[same].key) same += 1;
  while (box.childNodes.length > same) box.lastChild.remove();
  for (const block of wanted.slice(same)) box.append(drawBlock(block));
  box.drawn = wanted.map((block) => block.key);
}

function drawBlock(block) {
  switch (block.kind) {
    case "heading":
      return drawHeading(block);
    case "code":
      return drawCode(block);
    case "quote":
      return element("blockquote", {}, block.blocks.map(drawBlock));
    case "list":
      return drawList(block);
    case "table":
      return drawTable(block);
    case "rule":
      return element("hr");
    default:
      return element("p", {}, drawAll(block.nodes));
  }
}

/** The page has h1 to h3; what a model calls a heading stands below them. */
function drawHeading({ level, nodes }) {
  const role = { role: "heading", "aria-level": Math.min(level + 3, 6) };
  return element("p", { class: `heading level${level}`, ...role }, drawAll(nodes));
}

function drawAll(nodes) {
  return nodes.map(drawNode);
}

function drawNode(node) {
  switch (node.kind) {
    case "text":
      return document.createTextNode(node.text);
    case "code":
      return element("code", {}, node.text);
    case "link":
    case "image":
      return drawLink(node);
    default:
      return element(INLINE[node.kind], {}, drawAll(node.nodes));
  }
}

/** A link shows where it leads: as itself, or behind what it is called. */
function drawLink({ kind, nodes, address }) {
  const called = drawAll(nodes);
  const text = called.map((one) => one.textContent).join("");
  const named = kind === "image" ? [say("imageAt", { text })] : called;
  if (kind === "link" && (text === address || `${text}/` === address)) return outward(address, ...called);
  if (!text.trim()) return outward(address, address);
  const beside = element("span", { class: "address" }, `(${address})`);
  return element("span", { class: "link" }, outward(address, ...named), " ", beside);
}

function drawCode({ language, text }) {
  const name = language || say("code");
  const title = element("figcaption", {}, element("span", {}, name), copier(() => text, say("copyCode")));
  const box = element("pre", { tabindex: "0", role: "group", "aria-label": name }, element("code", {}, text));
  return element("figure", { class: "code" }, title, box);
}

function drawList({ ordered, start, items }) {
  const lines = items.map((inside) => {
    // An item that is one line needs no paragraph of its own.
    const [first, ...rest] = inside;
    const plain = first?.kind === "paragraph" ? drawAll(first.nodes) : first ? [drawBlock(first)] : [];
    return element("li", {}, plain, rest.map(drawBlock));
  });
  return element(ordered ? "ol" : "ul", { start }, lines);
}

function drawTable({ sides, head, rows }) {
  const heads = head.map((nodes, i) => element("th", { class: sides[i], scope: "col" }, drawAll(nodes)));
  const line = (cells) => cells.map((nodes, i) => element("td", { class: sides[i] }, drawAll(nodes)));
  const body = element("tbody", {}, rows.map((cells) => element("tr", {}, line(cells))));
  const table = element("table", {}, element("thead", {}, element("tr", {}, heads)), body);
  return element("div", { class: "scrolls", tabindex: "0", role: "group", "aria-label": say("tableOf") }, table);
}
