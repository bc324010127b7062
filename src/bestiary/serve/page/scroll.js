// Stays at the end of a growing answer, but only for who is there.

import { part } from "./dom.js";

const NEAR = 48; // pixels

export class Scroll {
  #stuck = true;

  constructor() {
    const box = part("scroller");
    box.addEventListener("scroll", () => {
      this.#stuck = box.scrollHeight - box.scrollTop - box.clientHeight < NEAR;
      this.#show();
    }, { passive: true });
    new ResizeObserver(() => this.follow()).observe(box);
    part("to-end").addEventListener("click", () => {
      this.toEnd();
      part("say").focus();
    });
  }

  /** Goes on with the text, for who is at its end. */
  follow() {
    if (this.#stuck) this.toEnd();
    else this.#show();
  }

  toEnd() {
    const box = part("scroller");
    this.#stuck = true;
    box.scrollTop = box.scrollHeight;
    this.#show();
  }

  #show() {
    const box = part("scroller");
    part("to-end").hidden = this.#stuck || box.scrollHeight - box.clientHeight < NEAR;
  }
}
