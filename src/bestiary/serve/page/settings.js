// The panel of settings, and what is chosen there. Kept in this browser; what is out of its bounds is refused
// where it is typed, and when it is read back.

import { element, part } from "./dom.js";
import { FIELDS, read } from "./sampling.js";
import { onLanguage, say } from "./words.js";

const KEY = "settings";
// Where neither a person nor the model's authors say how to sample: OpenAI's own temperature of 1 makes small
// models ramble.
const CALM = { temperature: 0.7, top_p: 0.95 };

export class Settings {
  #typed = new Map(FIELDS.map(({ name }) => [name, ""]));
  #told = () => {};
  #models = [];
  markdown = true;
  logprobs = true;
  model = "";

  constructor() {
    this.#load();
    this.#draw();
    for (const [id, name] of [["markdown", "markdown"], ["logprobs", "logprobs"]]) {
      part(id).checked = this[name];
      part(id).addEventListener("change", (event) => this.#set(name, event.target.checked));
    }
    part("model").addEventListener("change", (event) => this.#set("model", event.target.value));
    part("defaults").addEventListener("click", () => this.#reset());
    onLanguage(() => {
      this.#draw();
      this.models(this.#models);
    });
  }

  onChange(told) {
    this.#told = told;
  }

  /** The fields of a request that were chosen. */
  sampling() {
    const chosen = { ...this.#usual() };
    for (const field of FIELDS) {
      const { value } = read(field, this.#typed.get(field.name));
      if (value !== undefined) chosen[field.name] = value;
    }
    return chosen;
  }

  /** What is chosen where nothing is typed; empty where the model's authors say, and the server knows it. */
  #usual() {
    const said = this.#models.find(({ id }) => id === this.model)?.sampling ?? {};
    return Object.keys(said).length ? {} : CALM;
  }

  /** The name of a field that holds what it may not, or null. */
  wrong() {
    return FIELDS.find((field) => read(field, this.#typed.get(field.name)).why)?.name ?? null;
  }

  /** Tells which models there are: [{id, parent}]. */
  models(all) {
    this.#models = all;
    const here = all.some(({ id }) => id === this.model) ? this.model : (all[0]?.id ?? "");
    this.model = here;
    part("model").replaceChildren(...all.map(({ id, parent }) => {
      return element("option", { value: id, selected: id === here }, parent || all.length < 2 ? id : say("baseModel", { id }));
    }));
    this.#draw();
  }

  #set(name, value) {
    this[name] = value;
    this.#save();
    this.#told(name);
  }

  #reset() {
    for (const name of this.#typed.keys()) this.#typed.set(name, "");
    this.#save();
    this.#draw();
    this.#told("sampling");
  }

  #draw() {
    part("fields").replaceChildren(...FIELDS.map((field) => this.#field(field)));
  }

  #field(field) {
    const { name, kind, low, high, step } = field;
    const shared = {
      id: `field-${name}`, name, autocomplete: "off", spellcheck: "false",
      "aria-describedby": `hint-${name} wrong-${name}`,
    };
    const whole = kind === "whole" ? "numeric" : "decimal";
    const box = kind === "texts"
      ? element("textarea", { ...shared, rows: 2 })
      : element("input", { ...shared, type: "number", min: low, max: high, step, inputmode: whole });
    const said = this.#models.find(({ id }) => id === this.model)?.sampling ?? {};
    box.placeholder = this.#usual()[name] ?? said[name] ?? "";
    box.value = this.#typed.get(name);
    const wrong = element("p", { class: "wrong", id: `wrong-${name}`, role: "status" });
    const check = () => {
      // What a number field cannot read it gives out as empty, and says so in validity.
      const why = box.validity.badInput ? read(field, "x").why : read(field, box.value).why;
      box.setAttribute("aria-invalid", String(Boolean(why)));
      if (wrong.textContent !== (why ?? "")) wrong.textContent = why ?? "";
      this.#typed.set(name, box.validity.badInput ? "x" : box.value);
    };
    box.addEventListener("input", () => {
      check();
      this.#save();
      this.#told("sampling");
    });
    check();
    const hint = element("span", { class: "soft", id: `hint-${name}` }, say(name === "stop" ? "stopTexts" : name));
    const label = element("label", { for: shared.id }, name);
    return element("div", { class: kind === "texts" ? "field wide" : "field" }, label, box, hint, wrong);
  }

  #save() {
    const { markdown, logprobs, model } = this;
    const typed = Object.fromEntries([...this.#typed].filter(([, text]) => text));
    try {
      localStorage.setItem(KEY, JSON.stringify({ markdown, logprobs, model, typed }));
    } catch {
      // Then they last until the page is closed.
    }
  }

  #load() {
    let kept;
    try {
      kept = JSON.parse(localStorage.getItem(KEY));
    } catch {
      kept = null;
    }
    if (typeof kept !== "object" || kept === null) return;
    for (const name of ["markdown", "logprobs"]) if (typeof kept[name] === "boolean") this[name] = kept[name];
    if (typeof kept.model === "string") this.model = kept.model;
    for (const field of FIELDS) {
      const text = Object.hasOwn(kept.typed ?? {}, field.name) ? kept.typed[field.name] : "";
      if (typeof text === "string" && !read(field, text).why) this.#typed.set(field.name, text);
    }
  }
}
