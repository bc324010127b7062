// Tells a screen reader of an answer as it grows: whole sentences, and not more often than they can be read.

import { part } from "./dom.js";
import { say } from "./words.js";

const APART = 3000; // milliseconds
const KEPT = 4; // lines that stay in the region
const SENTENCE = /[.!?。！？\n][^.!?。！？\n]*$/;

export class Announcer {
  #told = 0;
  #last = 0;

  begin() {
    this.#told = 0;
    this.#last = performance.now();
    this.tell(say("answering"));
  }

  /** Tells what is new in a growing text, up to the end of a sentence. */
  grow(text) {
    if (performance.now() - this.#last < APART) return;
    const more = text.slice(this.#told);
    const end = more.search(SENTENCE) + 1;
    if (!end) return;
    this.#last = performance.now();
    this.#told += end;
    this.tell(more.slice(0, end));
  }

  end(text) {
    this.tell(text.slice(this.#told));
    this.tell(say("answered"));
  }

  tell(text) {
    const region = part("live");
    const line = document.createElement("p");
    line.textContent = text;
    region.append(line);
    while (region.childElementCount > KEPT) region.firstElementChild.remove();
  }
}
