// The one place where elements are made. Text goes in as text nodes: no string is ever read as HTML, and an
// attribute that could run something or fetch something cannot be set by accident.

const ATTRIBUTES = new Set([
  "class", "id", "for", "type", "name", "role", "lang", "dir", "tabindex", "title", "hidden", "disabled", "rows",
  "min", "max", "step", "inputmode", "autocomplete", "spellcheck", "placeholder", "value", "checked", "selected",
  "maxlength", "start", "scope", "method", "multiple", "accept", "open", "rel", "target", "enterkeyhint",
]);

/** Makes an element. attributes: a fixed set, aria-* and data-*; on: event -> listener; then texts and nodes. */
export function element(name, attributes = {}, ...inside) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (key === "on") {
      for (const [event, heard] of Object.entries(value)) made.addEventListener(event, heard);
    } else if (ATTRIBUTES.has(key) || key.startsWith("aria-") || key.startsWith("data-")) {
      made.setAttribute(key, value === true ? "" : String(value));
    } else {
      throw new TypeError(`attribute ${key} is not one that this page sets`);
    }
  }
  fill(made, inside.flat());
  return made;
}

/** Adds nodes and texts, of which there may be more than a call has room for. */
export function fill(box, inside) {
  for (const one of inside) if (one !== null && one !== undefined && one !== false) box.append(one);
}

/** A link out. address: from links.js, which has judged it. */
export function outward(address, ...inside) {
  const made = element("a", { rel: "noopener noreferrer nofollow", target: "_blank" }, ...inside);
  made.href = address;
  return made;
}

export function button(words, pressed, attributes = {}) {
  return element("button", { type: "button", ...attributes, on: { click: pressed } }, words);
}

/** The element with this id that index.html has. */
export function part(id) {
  const found = document.getElementById(id);
  if (!found) throw new Error(`index.html has no #${id}`);
  return found;
}
