// Where a person writes: Enter sends, Shift+Enter makes a line, and Enter that ends a Chinese word does neither.

import { part } from "./dom.js";
import { onLanguage, say } from "./words.js";

export class Composer {
  #plain = false;
  #busy = false;
  #off = false;

  /** send: called with the text; returns whether it was taken. stop: ends the answer. */
  constructor({ send, stop, typed }) {
    const field = part("say");
    part("composer").addEventListener("submit", (event) => {
      event.preventDefault();
      if (!this.#busy && !this.#off && send(field.value)) this.clear();
    });
    field.addEventListener("keydown", (event) => {
      // While a word is being composed Enter chooses it. Safari ends the composition first and then tells of the
      // key: 229 is all that is left of it (https://www.w3.org/TR/uievents/#determine-keydown-keyup-keyCode).
      if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
      event.preventDefault();
      part("composer").requestSubmit();
    });
    field.addEventListener("input", () => {
      this.#fit();
      typed();
    });
    part("stop").addEventListener("click", stop);
    onLanguage(() => this.show({ plain: this.#plain, busy: this.#busy, off: this.#off }));
  }

  get text() {
    return part("say").value;
  }

  /** plain: a text is continued. busy: an answer is being written. off: there is nobody to write to. */
  show({ plain, busy, off }) {
    const held = document.activeElement;
    this.#plain = plain;
    this.#busy = busy;
    this.#off = off;
    part("send").hidden = busy;
    part("stop").hidden = !busy;
    part("send").disabled = off;
    part("say").disabled = off;
    part("send").textContent = say(plain ? "goOn" : "send");
    part("say-label").textContent = say(plain ? "sayText" : "say");
    part("say").placeholder = say(plain ? "sayTextHint" : "sayHint");
    if (held === part("send") && busy) part("stop").focus();
    if (held === part("stop") && !busy) part("say").focus();
  }

  clear() {
    part("say").value = "";
    this.#fit();
  }

  focus() {
    part("say").focus();
  }

  /** Grows with its text where the style sheet's field-sizing is not known. */
  #fit() {
    if (CSS.supports("field-sizing", "content")) return;
    const field = part("say");
    field.style.height = "auto";
    field.style.height = `${field.scrollHeight}px`;
  }
}
