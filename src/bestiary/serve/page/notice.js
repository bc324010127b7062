// Says what went wrong and what to do, where the answer would be; and asks for the key where one is needed.

import { ApiError, key } from "./api.js";
import { button, element, part } from "./dom.js";
import { onLanguage, say } from "./words.js";

const WORDS = {
  network: "network", key: "keyNeeded", busy: "busy", unavailable: "unavailable", request: "said", strange: "strange",
};
let shown = null; // {words, retry, left: seconds until it can be pressed}
let counting = null;
let wanted = null; // what is done once there is a key

export function clear() {
  clearInterval(counting);
  shown = null;
  part("notice").replaceChildren();
}

/** Says words, which a function makes, and offers to try again where there is a way; after so many seconds. */
export function tell(words, retry = null, after = 0) {
  clear();
  shown = { words, retry, left: after };
  draw();
  if (after) counting = setInterval(count, 1000);
}

function draw() {
  if (!shown) return;
  const { words, retry } = shown;
  const pressed = () => {
    clear();
    retry();
  };
  const again = retry ? [button("", pressed)] : [];
  part("notice").replaceChildren(element("p", { role: "alert" }, words()), ...again);
  label();
}

/** Says on the button how long it is until it can be pressed. A screen reader is not told of every second. */
function label() {
  const again = part("notice").querySelector("button");
  if (!again) return;
  again.disabled = shown.left > 0;
  again.textContent = shown.left > 0 ? say("retryIn", { n: shown.left }) : say("retry");
}

function count() {
  shown.left -= 1;
  if (shown.left <= 0) clearInterval(counting);
  label();
}

/** Says why there is no answer. retry: asks once more. */
export function fail(error, retry) {
  if (!(error instanceof ApiError)) {
    tell(() => String(error?.message ?? error));
    throw error;
  }
  if (error.kind === "key") askKey(retry);
  tell(() => words(error), retry, error.kind === "busy" ? (error.after ?? 1) : 0);
}

function words({ kind, said, after }) {
  if (kind === "broken") return said ? say("said", { said }) : say("broken");
  return say(WORDS[kind], { said, n: after ?? 1 });
}

function askKey(retry) {
  wanted = retry;
  part("key-why").textContent = say(key.get() ? "keyWrong" : "keyNeeded");
  part("key").value = "";
  if (!part("key-dialog").open) part("key-dialog").showModal();
}

/** changed: called when there is a key, or none any more. */
export function begin(changed) {
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
  onLanguage(draw);
  changed();
}
