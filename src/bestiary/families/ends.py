"""The two ends that most families have: an embedding, and a head that may be the same tensor."""

from __future__ import annotations

from torch import nn

from ..config import Config


def ends(c: Config, width: int, *, tied: bool, bias: bool = False) -> tuple[nn.Embedding, nn.Linear]:
    """Return the embedding and the head that a config.json describes.

    tied: whether they are one tensor where the file does not say. bias: of the head.
    """
    vocab = c.count("vocab_size")
    embed, head = nn.Embedding(vocab, width), nn.Linear(width, vocab, bias)
    if c.flag("tie_word_embeddings", tied):
        head.weight = embed.weight
    return embed, head
