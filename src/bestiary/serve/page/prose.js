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
      // The page has h1 to h3; what a model calls a heading stands below them.
      return element("p", { class: `heading level${block.level}`, role: "heading", "aria-level": Math.min(block.level + 3, 6) }, drawAll(block.nodes));
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
  return element("span", { class: "link" }, outward(address, ...named), " ", element("span", { class: "address" }, `(${address})`));
}

function drawCode({ language, text }) {
  const title = element("figcaption", {}, element("span", {}, language || say("code")), copier(() => text, say("copyCode")));
  const box = element("pre", { tabindex: "0", role: "group", "aria-label": language || say("code") }, element("code", {}, text));
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
  const cell = (name, nodes, i) => element(name, { class: sides[i], scope: name === "th" ? "col" : null }, drawAll(nodes));
  const line = (name) => (cells) => element("tr", {}, cells.map((nodes, i) => cell(name, nodes, i)));
  const table = element("table", {}, element("thead", {}, line("th")(head)), element("tbody", {}, rows.map(line("td"))));
  return element("div", { class: "scrolls", tabindex: "0", role: "group", "aria-label": say("tableOf") }, table);
}
