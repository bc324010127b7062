"use strict";
// The page is whole without this: a table, cards and a drawing. This adds search, filters, order and language.
const form = document.querySelector("form");
const table = document.querySelector("#systems table");
const rows = [...table.tBodies[0].rows];
const cards = new Map([...document.querySelectorAll("article")].map((card) => [card.id, card]));
const count = document.querySelector("#count");
const fold = (text) => text.normalize("NFKC").toLowerCase().replace(/[\s._()\/-]+/g, "");
const said = new Map(rows.map((row) => [row, fold(row.dataset.said + " " + row.textContent)]));

function fits(row) {
  const words = form.words.value.split(/\s+/).map(fold).filter(Boolean);
  const listed = (name) => !form[name].value || row.dataset[name].split(" ").includes(form[name].value);
  const [least, most] = (form.size.value || "0-").split("-");
  const sizes = row.dataset.sizes.split(" ").filter(Boolean).map(Number);
  return words.every((word) => said.get(row).includes(word))
    && ["kind", "use", "language", "feature"].every(listed)
    && (!form.size.value || sizes.some((size) => size >= least * 1e9 && size < (most || Infinity) * 1e9));
}

function show() {
  let shown = 0;
  for (const row of rows) {
    const fit = fits(row);
    row.hidden = !fit;
    cards.get(row.dataset.id).hidden = !fit;
    shown += fit;
  }
  const zh = document.documentElement.classList.contains("zh");
  count.textContent = zh ? `${rows.length} 个系统中的 ${shown} 个` : `${shown} of ${rows.length} systems`;
}

function order(head, button) {
  const down = head.getAttribute("aria-sort") === "ascending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const value = (row) => row.cells[head.cellIndex].dataset.value ?? row.cells[head.cellIndex].textContent;
  const number = rows.every((row) => value(row) === "" || !Number.isNaN(Number(value(row))));
  const compare = (a, b) => number ? value(a) - value(b) : value(a).localeCompare(value(b), "zh");
  rows.sort((a, b) => (down ? -1 : 1) * compare(a, b));
  table.tBodies[0].append(...rows);
  button.focus();
}

function speak(language) {
  document.documentElement.classList.remove("en", "zh");
  document.documentElement.classList.add(language);
  document.documentElement.lang = language;
  show();
}

function relatives(name, from, to) {
  const found = new Set([name]);
  for (let size = 0; size < found.size;) {
    size = found.size;
    for (const line of lines) if (found.has(line.dataset[from])) found.add(line.dataset[to]);
  }
  return found;
}

const lines = [...document.querySelectorAll("svg .lines path")];
const boxes = [...document.querySelectorAll("svg [data-name]")];

function trace(name) {
  const up = name && relatives(name, "to", "from"), down = name && relatives(name, "from", "to");
  const near = (of) => up.has(of) || down.has(of);
  for (const box of boxes) {
    box.classList.toggle("near", Boolean(name) && near(box.dataset.name));
    box.classList.toggle("far", Boolean(name) && !near(box.dataset.name));
  }
  for (const line of lines) {
    const { from, to } = line.dataset;
    const on = Boolean(name) && ((up.has(from) && up.has(to)) || (down.has(from) && down.has(to)));
    line.classList.toggle("near", on);
    line.classList.toggle("far", Boolean(name) && !on);
  }
}

for (const box of boxes) {
  for (const event of ["mouseenter", "focus"]) box.addEventListener(event, () => trace(box.dataset.name));
  for (const event of ["mouseleave", "blur"]) box.addEventListener(event, () => trace(null));
}
for (const head of table.tHead.rows[0].cells) {
  const button = document.createElement("button");
  button.type = "button";
  button.append(...head.childNodes);
  head.append(button);
  button.addEventListener("click", () => order(head, button));
}
form.addEventListener("input", show);
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("reset", () => setTimeout(show));
document.querySelector("#language").addEventListener("click", () => {
  speak(document.documentElement.classList.contains("zh") ? "en" : "zh");
});
// A card that somebody follows a link to is shown whole, whatever a filter hides.
function open() {
  const card = cards.get(decodeURIComponent(location.hash.slice(1)));
  if (!card) return;
  card.querySelector("details").open = true;
  if (card.hidden) form.reset();
  setTimeout(() => card.scrollIntoView());
}
addEventListener("hashchange", open);
form.hidden = false;
speak(navigator.language.startsWith("zh") ? "zh" : "en");
open();
