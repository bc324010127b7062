// The two rooms beside the conversation: the list, and the panel with the card, the prompt or the settings. Beside
// it where there is width, over it where there is none; then they are modal, and the browser holds the focus in.

import { part } from "./dom.js";
import { onLanguage, say } from "./words.js";

const WIDE = matchMedia("(min-width: 64rem)");
const VIEWS = { card: "card", prompt: "promptTitle", settings: "settings" };

export class Rooms {
  #view = null;

  /** opened: called with the name of a view that was opened in the panel. */
  constructor(opened) {
    this.side = part("side");
    this.panel = part("panel");
    this.opened = opened;
    part("show-side").addEventListener("click", () => (this.side.open ? this.side.close() : this.#open(this.side)));
    for (const view of Object.keys(VIEWS)) part(`show-${view}`).addEventListener("click", () => this.toggle(view));
    for (const room of [this.side, this.panel]) {
      room.querySelector(".close").addEventListener("click", () => room.close());
      // A press beside a room that lies over the page closes it.
      room.addEventListener("click", (event) => event.target === room && room.matches(":modal") && room.close());
      room.addEventListener("close", () => this.#told());
    }
    WIDE.addEventListener("change", () => this.#rearrange());
    onLanguage(() => this.#title());
    this.#rearrange();
  }

  get view() {
    return this.panel.open ? this.#view : null;
  }

  toggle(view) {
    if (this.view === view) return this.panel.close();
    this.#view = view;
    for (const name of Object.keys(VIEWS)) part(`view-${name}`).hidden = name !== view;
    this.#title();
    if (!this.panel.open) this.#open(this.panel);
    this.#told();
    this.opened(view);
  }

  /** Closes what lies over the page. */
  uncover() {
    for (const room of [this.side, this.panel]) if (room.matches(":modal")) room.close();
  }

  /** Closes the panel; tells whether there was one to close. */
  leave() {
    const was = this.panel.open;
    if (was) this.panel.close();
    return was;
  }

  #open(room) {
    if (WIDE.matches) room.show();
    else room.showModal();
    this.#told();
  }

  #rearrange() {
    if (this.panel.open) this.panel.close();
    if (this.side.open) this.side.close();
    if (WIDE.matches) {
      const before = document.activeElement;
      this.side.show();
      before?.focus();
    }
    this.#told();
  }

  #title() {
    if (this.#view) part("panel-title").textContent = say(VIEWS[this.#view]);
  }

  #told() {
    part("show-side").setAttribute("aria-expanded", String(this.side.open));
    for (const view of Object.keys(VIEWS)) part(`show-${view}`).setAttribute("aria-expanded", String(this.view === view));
  }
}
