// A token's text as the API writes it, and its bytes: half a character is written "bytes:\xe4\xb8".

const HALF = /^bytes:((?:\\x[0-9a-f]{2})+)$/;
const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const lenient = new TextDecoder("utf-8", { ignoreBOM: true });
const encoder = new TextEncoder();

export function bytesOf(text) {
  const half = HALF.exec(text);
  if (!half) return encoder.encode(text);
  return Uint8Array.from(half[1].split("\\x").slice(1), (digits) => Number.parseInt(digits, 16));
}

/** The text of bytes; null where they end within a character, of which more may come. */
export function whole(bytes) {
  const given = Uint8Array.from(bytes);
  try {
    return strict.decode(given);
  } catch {
    return begins(given) ? null : lenient.decode(given);
  }
}

/** Whether bytes may be the beginning of text: what is incomplete is no error to a decoder of streams. */
function begins(bytes) {
  try {
    new TextDecoder("utf-8", { fatal: true }).decode(bytes, { stream: true });
    return true;
  } catch {
    return false;
  }
}

/** The text of tokens in a row. */
export function text(tokens) {
  return lenient.decode(Uint8Array.from(tokens.flatMap((token) => [...bytesOf(token)])));
}
