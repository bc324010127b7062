// The page: one conversation that is shown, answers that are being written, and what a person does to them.

import { Announcer } from "./announcer.js";
import { ask, key } from "./api.js";
import { answer, request, seen } from "./asking.js";
import * as card from "./card.js";
import { Composer } from "./composer.js";
import { Conversation, MOST_TURNS } from "./conversation.js";
import { element, part } from "./dom.js";
import { titleOf } from "./jsonl.js";
import { Listing } from "./listing.js";
import * as looks from "./looks.js";
import * as notice from "./notice.js";
import * as raw from "./raw.js";
import { Rooms } from "./rooms.js";
import { Scroll } from "./scroll.js";
import { Server } from "./server.js";
import { Settings } from "./settings.js";
import { open } from "./store.js";
import { Turns } from "./turns.js";
import { digits, onLanguage, say } from "./words.js";

const LOADING = 2000; // milliseconds until a server whose model is not ready is asked again
const SOON = 400; // milliseconds after the last key until the prompt is rendered, or a system prompt kept

class Page {
  #server = new Server();
  #ready = false;
  #all = [];
  #current = new Conversation();
  #writing = new Map(); // conversation's id -> what ends its answer
  #later = null;

  async begin() {
    looks.begin();
    this.settings = new Settings();
    this.scroll = new Scroll();
    this.announcer = new Announcer();
    this.turns = new Turns(part("thread"), {
      again: (turn) => this.#again(turn), keep: (turn, text) => this.#keep(turn, text),
      send: (turn, text) => this.#branch(turn, text), step: (turn, steps, act) => this.#step(turn, steps, act),
    });
    this.composer = new Composer({
      send: (text) => this.#send(text), stop: () => this.#stop(), typed: () => this.#soon(),
    });
    this.listing = new Listing({
      begin: () => this.#choose(new Conversation()), choose: (one) => this.#choose(one),
      rename: (one, title) => this.#rename(one, title),
      remove: (one) => this.#remove(one), imported: (all) => this.#imported(all),
    });
    this.rooms = new Rooms((view) => view === "prompt" && this.#render());
    this.#listen();
    this.store = await open();
    part("kept").dataset.say = this.store.lasting ? "kept" : "keptNot";
    part("kept").textContent = say(part("kept").dataset.say);
    this.#all = await this.store.all();
    this.#show();
    await this.#connect();
    this.composer.focus();
  }

  #listen() {
    notice.begin(() => {
      part("forget").hidden = !key.get();
    });
    this.settings.onChange((name) => {
      if (name === "markdown") this.#show();
      if (name === "model") this.#named();
    });
    part("system").addEventListener("input", (event) => {
      this.#current.system = event.target.value;
      this.#soon();
    });
    part("ids").addEventListener("change", () => raw.show(this.rendered, this.#server.model.context));
    part("refresh").addEventListener("click", () => this.#render());
    addEventListener("keydown", (event) => this.#escape(event));
    onLanguage(() => {
      part("live").replaceChildren();
      this.turns.clear();
      this.#show();
      this.#named();
      if (this.rooms.view === "prompt") this.#render();
    });
  }

  /** Escape ends the answer; when there is none it closes the panel. A dialog's own comes first. */
  #escape(event) {
    if (event.key !== "Escape" || event.isComposing || event.defaultPrevented) return;
    if (document.querySelector("dialog:modal")) return;
    if (this.#writing.has(this.#current.id)) this.#stop();
    else if (!this.rooms.leave()) return;
    event.preventDefault();
  }

  async #connect() {
    part("show-card").textContent = say("loading");
    try {
      await this.#server.load();
    } catch (error) {
      part("show-card").textContent = say("card");
      // A model that is being loaded will be there soon.
      if (error.kind === "unavailable") setTimeout(() => this.#ready || this.#connect(), LOADING);
      return notice.fail(error, () => this.#connect());
    }
    this.#ready = true;
    notice.clear();
    this.settings.models(this.#server.models);
    part("system-field").hidden = !this.#server.chats;
    if (!this.#server.writes) notice.tell(() => say("onlyEmbeds"));
    this.#named();
    this.#show();
  }

  /** Says which model it is, wherever that is said. */
  #named() {
    const { model, entry, template, adapters } = this.#server;
    if (!model) return;
    const context = element("small", {}, say("tokens", { n: digits(model.context) }));
    part("show-card").replaceChildren(this.settings.model || model.id, " ", context);
    document.title = `${this.settings.model || model.id} · Bestiary`;
    card.show({ model, entry, template, adapters });
    this.#opening();
  }

  /** What stands where nothing has been said yet. */
  #opening() {
    const { model, entry, chats, writes } = this.#server;
    const box = part("opening");
    box.hidden = !this.#ready || !this.#current.empty;
    if (box.hidden) return;
    const facts = [entry?.licence?.weights, say("tokens", { n: digits(model.context) }), entry?.languages?.join(", ")];
    box.replaceChildren(
      element("h2", {}, entry?.name ?? model.id), element("p", {}, card.claim(entry)),
      element("p", { class: "facts" }, facts.filter(Boolean).join(" · ")),
      writes && !chats ? element("p", {}, say("completes")) : "",
    );
  }

  #how() {
    const { chats, continues } = this.#server;
    return { model: this.settings.model, chats, continues };
  }

  #show() {
    const busy = this.#writing.has(this.#current.id);
    const plain = this.#ready && !this.#server.chats;
    this.turns.show(this.#current, { busy, plain, markdown: this.settings.markdown });
    this.composer.show({ plain, busy, off: this.#ready && !this.#server.writes });
    this.listing.show(this.#all, this.#current);
    if (part("system").value !== this.#current.system) part("system").value = this.#current.system;
    this.#opening();
    this.#counted();
    this.scroll.follow();
  }

  /** How much of the context the conversation fills. */
  #counted() {
    const figures = this.#current.last()?.figures;
    const all = this.#server.model?.context;
    const used = figures?.prompt && all ? figures.prompt + figures.tokens : null;
    part("used").textContent = used === null ? "" : say("contextUsed", { used: digits(used), all: digits(all) });
  }

  // What a person does.

  #send(text) {
    const empty = !text.trim();
    const last = this.#current.last();
    if (!this.#ready) {
      this.#connect();
      return false;
    }
    // A text that is continued may be continued as it is.
    if (empty && (this.#server.chats || !last)) return false;
    if (this.#wrong()) return false;
    if (!this.#all.includes(this.#current)) this.#all.unshift(this.#current);
    const turn = empty ? last : this.#current.add(last, "user", text);
    this.#current.title ||= titleOf(this.#current);
    this.scroll.toEnd();
    this.#write(turn);
    return true;
  }

  #wrong() {
    const name = this.settings.wrong();
    if (name) notice.tell(() => say("settingWrong", { name }));
    else if (this.#current.full) notice.tell(() => say("tooManyTurns", { n: digits(MOST_TURNS) }));
    return Boolean(name) || this.#current.full;
  }

  #again(turn) {
    const asked = this.#current.turns.get(turn.parent);
    if (asked && !this.#wrong()) this.#write(asked);
  }

  #branch(turn, text) {
    if (!text.trim() || this.#wrong()) return;
    const before = this.#current.turns.get(turn.parent) ?? null;
    this.#write(this.#current.add(before, "user", text));
    this.composer.focus();
  }

  #keep(turn, text) {
    if (this.#wrong()) return;
    const kept = this.#current.add(this.#current.turns.get(turn.parent) ?? null, "assistant", text);
    kept.model = turn.model;
    this.#keepAll();
    this.turns.focus(kept, "edit");
  }

  #step(turn, steps, act) {
    const other = this.#current.step(turn, steps);
    this.#keepAll();
    this.turns.focus(other, act);
  }

  #stop() {
    this.#writing.get(this.#current.id)?.abort();
  }

  #choose(conversation) {
    this.#current = conversation;
    notice.clear();
    this.#show();
    this.scroll.toEnd();
    if (this.rooms.view === "prompt") this.#render();
    this.rooms.uncover();
    this.composer.focus();
  }

  #rename(one, title) {
    one.title = title;
    this.#put(one);
  }

  async #remove(one) {
    this.#writing.get(one.id)?.abort();
    this.#all = this.#all.filter((other) => other !== one);
    await this.store.remove(one.id);
    if (one === this.#current) this.#current = new Conversation();
    this.#show();
    part("new").focus();
  }

  async #imported(conversations) {
    this.#all.unshift(...conversations);
    for (const one of conversations) await this.store.put(one);
    this.#show();
  }

  #keepAll() {
    this.#put(this.#current);
    this.#show();
  }

  #put(conversation) {
    this.store.put(conversation).catch(() => notice.tell(() => say("keptNot")));
  }

  // Answers.

  /** Asks for the answer to a turn, and writes it behind it as it comes. */
  async #write(asked) {
    const conversation = this.#current;
    const turn = conversation.add(asked, "assistant", "", "writing");
    turn.model = this.settings.model;
    const [path, body] = request(this.#how(), conversation, asked, this.settings);
    const ending = new AbortController();
    this.#writing.set(conversation.id, ending);
    notice.clear();
    this.#put(conversation);
    this.#show();
    this.announcer.begin();
    try {
      for await (const said of answer(path, body, ending.signal)) {
        Object.assign(turn, said);
        if (conversation !== this.#current) continue;
        this.turns.grown(turn, () => this.scroll.follow());
        this.announcer.grow(turn.text);
      }
    } catch (error) {
      this.#broken(error, { conversation, turn, asked, stopped: ending.signal.aborted });
    } finally {
      this.#writing.delete(conversation.id);
      this.#done(conversation, turn);
    }
  }

  #broken(error, { conversation, turn, asked, stopped }) {
    turn.state = stopped ? "stopped" : "failed";
    if (!turn.text) conversation.drop(turn);
    if (stopped) return;
    if (conversation !== this.#current) return;
    notice.fail(error, () => conversation === this.#current && this.#write(asked));
  }

  #done(conversation, turn) {
    if (turn.figures) delete turn.figures.usage;
    if (this.#all.includes(conversation)) this.#put(conversation);
    if (conversation !== this.#current) return;
    this.turns.settled(turn);
    this.announcer.end(turn.text);
    this.#show();
    if (this.rooms.view === "prompt") this.#render();
  }

  // The prompt.

  #soon() {
    clearTimeout(this.#later);
    this.#later = setTimeout(() => {
      if (this.#all.includes(this.#current)) this.#put(this.#current);
      if (this.rooms.view === "prompt") this.#render();
    }, SOON);
  }

  /** Shows the prompt of what stands in the field; when that is empty, the one that was answered last. */
  async #render() {
    const draft = this.composer.text;
    const path = this.#current.path();
    const asked = path.findLast(({ role }) => role === "user") ?? null;
    if (!this.#ready || (!draft.trim() && !asked)) {
      this.rendered = null;
      return raw.show(null);
    }
    const body = draft.trim() ? this.#drafted(draft) : seen(this.#how(), this.#current, asked);
    try {
      this.rendered = await ask("v1/render", body);
      raw.show(this.rendered, this.#server.model.context);
    } catch (error) {
      notice.fail(error, () => this.#render());
    }
  }

  /** What would be asked if what stands in the field were sent. */
  #drafted(draft) {
    const { id, title, system } = this.#current;
    const imagined = new Conversation({ id, title, system });
    let last = null;
    for (const { role, text } of this.#current.path()) last = imagined.add(last, role, text);
    return seen(this.#how(), imagined, imagined.add(last, "user", draft));
  }
}

new Page().begin();
