"""Log-probabilities in OpenAI's two shapes: of chat, an entry a token; of completions, lists of each kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..text.tokenizer import Tokenizer
from .jobs import Piece
from .schemas.chat import ChatLogprobs, TokenLogprob, TopLogprob
from .schemas.completions import CompletionLogprobs


def shown(tokenizer: Tokenizer, token: int) -> str:
    r"""Return a token's text; half a character as OpenAI writes it, "bytes:\xe4\xb8"."""
    piece = tokenizer.piece(token)
    try:
        return piece.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in piece)


def of_chat(tokenizer: Tokenizer, piece: Piece, likeliest: int) -> ChatLogprobs:
    """Return the entries of a piece's tokens, each with so many of the likeliest."""

    def fields(entry: Sequence[Any]) -> dict[str, Any]:
        token = int(entry[0])
        return {
            "token": shown(tokenizer, token),
            "logprob": float(entry[1]),
            "bytes": list(tokenizer.piece(token)),
        }

    content = [
        TokenLogprob(**fields(own), top_logprobs=[TopLogprob(**fields(one)) for one in others[:likeliest]])
        for own, *others in piece.logprobs
    ]
    return ChatLogprobs(content=content)


def of_completion(tokenizer: Tokenizer, piece: Piece, likeliest: int, offset: int) -> CompletionLogprobs:
    """Return the lists of a piece's tokens. offset: characters of the answer's text before the piece.

    A piece's text is shared out by its tokens' own lengths, so that no offset is beyond the text.
    """
    texts = [shown(tokenizer, token) for token in piece.ids]
    offsets, place = [], 0
    for text in texts:
        offsets.append(offset + min(place, len(piece.text)))
        place += len(text)
    tops = [
        {shown(tokenizer, int(one[0])): float(one[1]) for one in (own, *others[:likeliest])}
        for own, *others in piece.logprobs
    ]
    return CompletionLogprobs(
        tokens=texts,
        token_logprobs=[float(entry[0][1]) for entry in piece.logprobs],
        top_logprobs=list(tops) if likeliest else None,
        text_offset=offsets,
    )
