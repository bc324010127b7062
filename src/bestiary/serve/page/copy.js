// Copies text, and says whether it did.

import { button } from "./dom.js";
import { say } from "./words.js";

const SHOWN = 1500; // milliseconds

/** A button that copies what a function returns. */
export function copier(text, label = say("copy")) {
  const made = button(say("copy"), async () => {
    const copied = await copy(text());
    made.textContent = say(copied ? "copied" : "copyFailed");
    setTimeout(() => {
      made.textContent = say("copy");
    }, SHOWN);
  }, { class: "act", "data-act": "copy", "aria-label": label === say("copy") ? null : label });
  return made;
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyOld(text);
  }
}

/** The clipboard's own interface is only there with HTTPS or on this machine. */
function copyOld(text) {
  const before = document.activeElement;
  const box = document.createElement("textarea");
  box.value = text;
  box.className = "unseen";
  document.body.append(box);
  box.select();
  const copied = document.execCommand("copy");
  box.remove();
  before?.focus();
  return copied;
}
