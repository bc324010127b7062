"""The next token: the loss of language models, and which tokens count in supervised fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...errors import RequestError
from .shapes import alike, scored

# What a label is that no loss counts: torch's cross_entropy and all of transformers agree on it.
IGNORED = -100


def log_probabilities(logits: Tensor, labels: Tensor) -> Tensor:
    """Return log p(label), float32 (*L), 0 where the label is IGNORED. logits (*L, V), labels int64 (*L).

    Raises RequestError for shapes that do not fit.
    """
    scored(logits, labels)
    real = labels != IGNORED
    each = logits.log_softmax(-1, dtype=torch.float32)
    return each.gather(-1, labels.where(real, 0)[..., None])[..., 0] * real


def shifted(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return what is said of each next token, (B, T - 1, V), and that token's label, (B, T - 1).

    logits (B, T, V), labels int64 (B, T) as the tokens stand. Raises RequestError for other shapes.
    """
    scored(logits, labels)
    return logits[:, :-1], labels[:, 1:]


def next_token(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean loss of each next token whose label is not IGNORED: -mean log p(x[t+1] | x[..t]).

    logits (B, T, V), labels int64 (B, T) as the tokens stand: the shift is made here. NaN where no label
    counts. Raises RequestError for other shapes. Radford et al., 2018.
    """
    said, next_ = shifted(logits, labels)
    return -log_probabilities(said, next_).sum() / (next_ != IGNORED).sum()


def answer_sum(logits: Tensor, labels: Tensor) -> Tensor:
    """Return log p(answer | prompt) of each row, (B): the sum over its labels. Shapes as for next_token."""
    return log_probabilities(*shifted(logits, labels)).sum(-1)


def answer_mean(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean log-probability of each row's labels, (B). Shapes as for next_token."""
    said, next_ = shifted(logits, labels)
    return log_probabilities(said, next_).sum(-1) / (next_ != IGNORED).sum(-1)


def by_role(ids: Tensor, learned: Tensor | Sequence[bool]) -> Tensor:
    """Return labels (*L): the tokens that are learned, IGNORED elsewhere.

    learned: bool (*L), as `ChatTemplate.encode(...).learned(stops)` says it. Raises RequestError for another
    shape.
    """
    chosen = torch.as_tensor(learned, dtype=torch.bool, device=ids.device)
    alike(ids=ids, learned=chosen)
    return ids.where(chosen, IGNORED)


def completion(ids: Tensor, prompt: int) -> Tensor:
    """Return labels (T) of a prompt and its answer: the first `prompt` tokens are IGNORED.

    Alpaca: tatsu-lab/stanford_alpaca, train.py, preprocess. There the prompt is tokenized alone for its
    length, and both together for the ids. Raises RequestError for a length that is negative.
    """
    if prompt < 0:
        raise RequestError(f"prompt = {prompt}: a prompt has no negative length")
    return by_role(ids, torch.arange(len(ids), device=ids.device) >= prompt)


def by_turns(ids: Tensor, prompts: Sequence[int], end: int) -> Tensor:
    """Return labels (T) of turns that each end with the token `end`: answers and their ends.

    prompts: how many tokens begin each turn that are not its answer, the first turn's BOS among them. What
    stands after the last turn is IGNORED. Vicuna: lm-sys/FastChat, fastchat/train/train.py, preprocess.
    There the words up to "ASSISTANT:" are the prompt: a space before an answer that is a token of its own is
    learned. Raises RequestError where the turns are not as many as the prompts.
    """
    ends = (ids == end).nonzero()[:, 0].tolist()
    if len(ends) != len(prompts):
        raise RequestError(f"{len(ends)} turns end with token {end}, and {len(prompts)} prompts are given")
    learned = torch.zeros_like(ids, dtype=torch.bool)
    start = 0
    for prompt, last in zip(prompts, ends, strict=True):
        learned[start + prompt : last + 1] = True
        start = last + 1
    return by_role(ids, learned)
