// The list of conversations: choose, rename, delete, export, import.

import { button, element, part } from "./dom.js";
import { MOST_MEBIBYTES, read, written } from "./jsonl.js";
import { digits, onLanguage, say } from "./words.js";

const SHOWN = 20; // refused lines that are named

/** actions: {choose, rename, remove, imported}, called with a conversation; `imported` with several. */
export class Listing {
  #all = [];
  #current = null;
  #drawn = ""; // what is shown, as text: most answers change none of it

  constructor(actions) {
    this.actions = actions;
    part("new").addEventListener("click", () => actions.begin());
    part("export").addEventListener("click", () => save(this.#all, "bestiary"));
    part("import").addEventListener("click", () => part("file").click());
    part("file").addEventListener("change", async (event) => {
      const files = [...event.target.files];
      event.target.value = "";
      for (const file of files) await this.#import(file);
    });
    onLanguage(() => this.#again());
  }

  show(all, current) {
    this.#all = all;
    this.#current = current;
    const wanted = JSON.stringify([current.id, ...all.map(({ id, title, empty }) => [id, title, empty])]);
    if (wanted === this.#drawn) return;
    this.#drawn = wanted;
    const held = document.activeElement?.closest("#list [data-id]")?.dataset.id;
    const act = document.activeElement?.dataset.act;
    part("list").replaceChildren(...all.map((one) => this.#row(one)));
    part("export").disabled = all.every((one) => one.empty);
    if (held) part("list").querySelector(`[data-id="${held}"] [data-act=${act ?? "choose"}]`)?.focus();
  }

  #again() {
    this.#drawn = "";
    this.show(this.#all, this.#current);
  }

  #row(one) {
    const title = one.title || say("untitled");
    const here = one === this.#current;
    const chosen = button(title, () => this.actions.choose(one), {
      class: "title", "data-act": "choose", "aria-current": here ? "true" : null, dir: "auto",
    });
    const row = element("li", { "data-id": one.id }, chosen);
    if (here && !one.empty) row.append(this.#acts(one, title, row));
    return row;
  }

  #acts(one, title, row) {
    const act = (name, label, pressed) => button(say(name), pressed, {
      class: "act", "data-act": name, "aria-label": say(label, { title }),
    });
    const remove = act("remove", "removeOf", () => {
      // The second press deletes: there is no way back.
      if (remove.dataset.sure) return this.actions.remove(one);
      remove.dataset.sure = "yes";
      remove.textContent = say("reallyRemove");
      remove.setAttribute("aria-label", `${say("reallyRemove")} ${title}`);
    });
    remove.addEventListener("blur", () => remove.dataset.sure && this.#again());
    return element(
      "div", { class: "acts" },
      act("rename", "renameOf", () => this.#rename(one, row)),
      act("export", "exportOf", () => save([one], one.title)),
      remove,
    );
  }

  #rename(one, row) {
    const field = element("input", { type: "text", maxlength: 200, "aria-label": say("title"), autocomplete: "off" });
    field.value = one.title;
    const done = (kept) => {
      field.removeEventListener("blur", blurred);
      if (kept && field.value.trim()) this.actions.rename(one, field.value.trim());
      this.#again();
      part("list").querySelector("[aria-current] ~ .acts [data-act=rename]")?.focus();
    };
    const blurred = () => done(true);
    field.addEventListener("blur", blurred);
    field.addEventListener("keydown", (event) => {
      if (event.isComposing || event.keyCode === 229 || (event.key !== "Enter" && event.key !== "Escape")) return;
      event.preventDefault();
      event.stopPropagation();
      done(event.key === "Enter");
    });
    row.replaceChildren(field);
    field.select();
  }

  async #import(file) {
    const { conversations, refused, why } = await readFile(file);
    if (why) return tell([why]);
    if (conversations.length) await this.actions.imported(conversations);
    const said = [];
    if (conversations.length) said.push(say("imported", { n: digits(conversations.length) }));
    if (refused.length) said.push(say("refused", { n: digits(refused.length) }));
    const lines = refused.slice(0, SHOWN).map(({ line, why: reason }) => say("line", { n: line, why: reason }));
    if (refused.length > SHOWN) lines.push(say("andMore", { n: digits(refused.length - SHOWN) }));
    tell(said.length ? said : [say("fileEmpty")], lines);
  }
}

async function readFile(file) {
  if (file.size > MOST_MEBIBYTES << 20) return { why: say("fileTooBig", { n: MOST_MEBIBYTES }) };
  try {
    return read(new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer()));
  } catch (error) {
    if (error instanceof TypeError) return { why: say("notUtf8") };
    throw error;
  }
}

function tell(said, lines = []) {
  const box = part("import-said");
  box.replaceChildren(element("p", {}, said.join(" ")));
  if (lines.length) box.append(element("ul", {}, lines.map((line) => element("li", {}, line))));
}

/** Gives the browser a file to save. */
function save(conversations, title) {
  const address = URL.createObjectURL(new Blob([written(conversations)], { type: "application/jsonl" }));
  const link = document.createElement("a");
  link.href = address;
  link.download = `${title.replace(/[^\p{L}\p{N}._-]+/gu, "-").slice(0, 60) || "conversation"}.jsonl`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}
