"""Text: tokenizers of every published kind behind one protocol, and chat templates."""

from __future__ import annotations

from .stream import StreamDecoder
from .tokenizer import Tokenizer, open_tokenizer

__all__ = ["StreamDecoder", "Tokenizer", "open_tokenizer"]
