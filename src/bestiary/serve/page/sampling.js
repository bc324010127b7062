// The fields of sampling: their names and bounds are the API's (schemas/sampling.py).

import { say } from "./words.js";

export const MOST_STOPS = 16;
export const LONGEST_STOP = 256;
// Whole numbers go to 2^63 - 1 there; a number of a browser is exact to here.
const MOST = Number.MAX_SAFE_INTEGER;

export const FIELDS = [
  { name: "temperature", kind: "real", low: 0, high: 2, step: 0.1 },
  { name: "top_p", kind: "real", low: 0, high: 1, step: 0.05 },
  { name: "top_k", kind: "whole", low: 0, high: MOST, step: 1 },
  { name: "min_p", kind: "real", low: 0, high: 1, step: 0.01 },
  { name: "max_tokens", kind: "whole", low: 1, high: MOST, step: 1 },
  { name: "seed", kind: "whole", low: 0, high: MOST, step: 1 },
  { name: "stop", kind: "texts" },
];

/** Reads what was typed: {value} (undefined for nothing), or {why} it is not one. */
export function read(field, typed) {
  if (field.kind === "texts") return readTexts(typed);
  if (!typed.trim()) return { value: undefined };
  const value = Number(typed);
  const { low, high, kind } = field;
  if (value >= low && value <= high && (kind === "real" || Number.isInteger(value))) return { value };
  return { why: kind === "whole" ? say("wholeFrom", { low, high }) : say("realFrom", { low, high }) };
}

function readTexts(typed) {
  const texts = typed.split("\n").filter((line) => line !== "");
  const fits = texts.length <= MOST_STOPS && texts.every((text) => Array.from(text).length <= LONGEST_STOP);
  if (!fits) return { why: say("stopsAre", { n: MOST_STOPS, most: LONGEST_STOP }) };
  return { value: texts.length ? texts : undefined };
}
