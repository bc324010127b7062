// What the model sees: the prompt as tokens, those that are control tokens marked.

import { element, fill, part } from "./dom.js";
import { text } from "./pieces.js";
import { digits, say } from "./words.js";

const MOST = 20000; // tokens that are drawn

/** rendered: of /v1/render, or null for nothing yet; context: tokens that the model has room for. */
export function show(rendered, context) {
  part("ids-switch").hidden = !rendered;
  if (!rendered) {
    part("rendered").replaceChildren();
    part("rendered-count").textContent = say("nothingYet");
    part("rendered-template").textContent = "";
    return;
  }
  const { tokens, template } = rendered;
  part("rendered-count").textContent = say("tokensOf", { n: digits(tokens.length), all: digits(context) });
  part("rendered-template").textContent = template ? say("templateIs", { name: template }) : say("noTemplate");
  const drawn = part("ids").checked ? tokens.slice(0, MOST).flatMap(withId) : joined(tokens.slice(0, MOST));
  if (tokens.length > MOST) drawn.push(element("p", { class: "soft" }, say("longPrompt", { n: digits(MOST) })));
  part("rendered").replaceChildren();
  fill(part("rendered"), drawn);
}

/** A token above its id; what ends a line ends it here too. */
function withId(token) {
  const shown = token.text.replaceAll("\n", "↵") || "∅";
  const name = element("span", { class: token.control ? "control" : "piece" }, shown);
  const numbered = element("span", { class: "numbered" }, name, element("sub", {}, String(token.id)));
  return token.text.includes("\n") ? [numbered, "\n"] : [numbered];
}

/** Text between control tokens in one piece: a character may be spread over tokens. */
function joined(tokens) {
  const drawn = [];
  let between = [];
  const flush = () => {
    if (between.length) drawn.push(document.createTextNode(text(between)));
    between = [];
  };
  for (const token of tokens) {
    if (!token.control) {
      between.push(token.text);
      continue;
    }
    flush();
    drawn.push(element("span", { class: "control" }, token.text));
  }
  flush();
  return drawn;
}
