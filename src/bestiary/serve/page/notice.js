// Says what went wrong and what to do, where the answer would be; and asks for the key where one is needed.

import { ApiError, key } from "./api.js";
import { button, element, part } from "./dom.js";
import { say } from "./words.js";

const WORDS = { network: "network", key: "keyNeeded", busy: "busy", unavailable: "unavailable", request: "said", strange: "strange" };
let counting = null;

export function clear() {
  clearInterval(counting);
  part("notice").replaceChildren();
}

/** Says a sentence, and offers to try again where there is a way. */
export function tell(text, retry = null, after = null) {
  clear();
  part("notice").append(element("p", {}, text));
  if (!retry) return;
  const again = button(say("retry"), () => {
    clear();
    retry();
  });
  part("notice").append(again);
  if (after) count(again, after);
}

function count(again, after) {
  let left = after;
  const show = () => {
    again.disabled = left > 0;
    again.textContent = left > 0 ? say("retryIn", { n: left }) : say("retry");
    if (left-- <= 0) clearInterval(counting);
  };
  show();
  counting = setInterval(show, 1000);
}

/** Says why there is no answer. retry: asks once more. */
export function fail(error, retry) {
  if (!(error instanceof ApiError)) {
    tell(String(error?.message ?? error));
    throw error;
  }
  if (error.kind === "key") askKey(retry);
  tell(words(error), retry, error.kind === "busy" ? (error.after ?? 1) : null);
}

function words({ kind, said, after }) {
  if (kind === "broken") return said ? say("said", { said }) : say("broken");
  return say(WORDS[kind], { said, n: after ?? 1 });
}

let wanted = null;

function askKey(retry) {
  wanted = retry;
  part("key-why").textContent = say(key.get() ? "keyWrong" : "keyNeeded");
  part("key").value = "";
  if (!part("key-dialog").open) part("key-dialog").showModal();
}

/** changed: called when there is a key, or none any more. */
export function beginKeys(changed) {
  const dialog = part("key-dialog");
  part("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const given = part("key").value.trim();
    if (!key.allowed(given)) {
      part("key-why").textContent = say("keyPlain");
      part("key").focus();
      return;
    }
    key.set(given);
    part("key").value = "";
    dialog.close();
    clear();
    changed();
    wanted?.();
  });
  dialog.querySelector(".close").addEventListener("click", () => dialog.close());
  part("forget").addEventListener("click", () => {
    key.forget();
    changed();
  });
  changed();
}
