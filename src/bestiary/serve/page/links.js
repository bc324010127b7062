// Which addresses may be followed: absolute ones of http and https, spelt plainly. All others stay text.

export const LONGEST = 2048;
const PLAIN = /^https?:\/\/[!-~]+$/i; // printable ASCII: no blank, no control character, no look-alike letter

/** The address as it would be followed, or null for one that may not be. */
export function judged(text) {
  if (text.length > LONGEST || !PLAIN.test(text) || /["'<>\\^`{|}]/.test(text)) return null;
  let url;
  try {
    url = new URL(text);
  } catch {
    return null;
  }
  const web = url.protocol === "https:" || url.protocol === "http:";
  // https://bank.example@evil.example shows a name that it does not lead to.
  return web && !url.username && !url.password && url.hostname ? url.href : null;
}
