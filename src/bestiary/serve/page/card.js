// The model's card: what the roster says of it, and what the server does.

import { element, outward, part } from "./dom.js";
import { judged } from "./links.js";
import { digits, language, say } from "./words.js";

const MOST_LINKS = 12;

/** model: of /v1/models; entry: of /v1/card, or null; template: the name of the format, or null. */
export function show({ model, entry, template, adapters }) {
  const box = part("card");
  if (!model) return box.replaceChildren();
  const rows = entry ? entryRows(entry) : [];
  rows.push(["context", say("tokens", { n: digits(model.context) })], ["template", template ?? say("none")]);
  if (adapters.length) rows.push(["loadedAdapters", adapters.join(", ")]);
  if (entry) rows.push(...furtherRows(entry));
  const list = rows.filter(([, said]) => said && said.length !== 0);
  const pairs = list.flatMap(([key, said]) => [element("dt", {}, say(key)), element("dd", {}, said)]);
  box.replaceChildren(
    element("h3", { dir: "auto" }, entry?.name ?? model.id),
    element("p", {}, entry ? both(entry.about) : say("notKnown")),
    element("dl", {}, pairs),
  );
}

/** One sentence of a model for a conversation that has not begun. */
export function claim(entry) {
  return entry ? both(entry.about) : "";
}

/** A text in the reader's language. */
function both(words) {
  return String(words?.[language()] ?? words?.en ?? "");
}

function entryRows(entry) {
  const { organisation, date, kind, languages, licence = {}, claim: known } = entry;
  const verdict = ["yes", "conditions", "no"].includes(licence.commercial) ? licence.commercial : "unstated";
  const use = element("span", { class: verdict }, say(verdict));
  return [
    ["claim", both(known)], ["organisation", text(organisation)], ["date", text(date)], ["kind", text(kind)],
    ["languages", text(languages)], ["licence", text(licence.weights)], ["commercial", [use]],
  ];
}

function furtherRows(entry) {
  const { tokenizer, training, features, checkpoints, links } = entry;
  const all = Array.isArray(links) ? links : [];
  const listed = all.map((one) => judged(String(one))).filter(Boolean).slice(0, MOST_LINKS);
  const ids = Array.isArray(checkpoints) ? checkpoints.map((one) => text(one?.id)).filter(Boolean) : [];
  const shown = listed.map((address) => element("li", {}, outward(address, address.replace(/^https?:\/\//, ""))));
  return [
    ["tokenizer", text([tokenizer?.kind, ...(tokenizer?.facts ?? [])].filter(Boolean))], ["training", text(training)],
    ["features", text(features)],
    ["checkpoint", ids.length ? [element("ul", {}, ids.map((id) => element("li", {}, element("code", {}, id))))] : ""],
    ["links", shown.length ? [element("ul", {}, shown)] : ""],
  ];
}

function text(value) {
  return Array.isArray(value) ? value.map(String).join(", ") : String(value ?? "");
}
