"""From logits to a token: pure functions on float32 logits of shape (..., V), each row on its own.

`penalise` and `keep` apply them in this order, which is vLLM's for what changes the greedy choice too and
transformers' for the filters:

    bias, repetition, frequency and presence | temperature, top-k, top-p, min-p, typical | draw

A filter sets the logits of what it leaves out to -inf. Tokens tied with the last one kept are kept too, so
that no result depends on how a sort breaks ties.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .params import SamplingParams

# Below this, logits / temperature could leave float32's range; draws are greedy long before.
LEAST_TEMPERATURE = 1e-6

_WORD = 2**64 - 1


@dataclass(frozen=True)
class Logprob:
    """How likely a token was: the natural logarithm of its probability, and its rank, 1 for the likeliest."""

    logprob: float
    rank: int


@dataclass(frozen=True)
class History:
    """What penalties look back on.

    seen: bool (..., V), the tokens of prompt and answer. counts: float32 (..., V), how often each is in the
    answer.
    """

    seen: Tensor
    counts: Tensor

    @classmethod
    def of(cls, prompt: Tensor, vocabulary: int) -> History:
        """Return the history of a prompt, int64 (T,), whose answer is still empty."""
        seen = torch.zeros(vocabulary, dtype=torch.bool, device=prompt.device)
        seen[prompt] = True
        return cls(seen, torch.zeros(vocabulary, device=prompt.device))

    def add(self, token: int) -> None:
        """Count one more token of the answer, in place."""
        self.seen[token] = True
        self.counts[token] += 1


def bias(logits: Tensor, biases: Mapping[int, float]) -> Tensor:
    """Add a number to the logits of each of the given ids."""
    ids = torch.tensor(list(biases), device=logits.device)
    values = torch.tensor(list(biases.values()), dtype=logits.dtype, device=logits.device)
    return logits.index_add(-1, ids, values.expand(*logits.shape[:-1], -1))


def repetition(logits: Tensor, seen: Tensor, penalty: float) -> Tensor:
    """Divide the positive and multiply the negative logits of seen tokens (CTRL, arXiv:1909.05858, 4.1)."""
    return torch.where(seen, torch.where(logits < 0, logits * penalty, logits / penalty), logits)


def frequency_presence(logits: Tensor, counts: Tensor, frequency: float, presence: float) -> Tensor:
    """Subtract counts * frequency + (counts > 0) * presence (OpenAI's API reference)."""
    return logits - counts * frequency - (counts > 0).to(logits.dtype) * presence


def temperature(logits: Tensor, value: float) -> Tensor:
    """Divide by the temperature: below 1 sharpens, above 1 flattens."""
    return logits / max(value, LEAST_TEMPERATURE)


def top_k(logits: Tensor, k: int) -> Tensor:
    """Keep the k likeliest tokens (arXiv:1805.04833)."""
    least = logits.topk(min(k, logits.shape[-1])).values[..., -1:]
    return logits.masked_fill(logits < least, -math.inf)


def top_p(logits: Tensor, p: float) -> Tensor:
    """Keep the fewest of the likeliest tokens whose probabilities reach p together (arXiv:1904.09751)."""
    size, probabilities = logits.shape[-1], logits.softmax(-1)
    # Of 49,152 the first 64 take 0.1 ms and nearly always reach p, the first 4,096 0.6 ms, all 3 ms.
    for count in (64, 4096, size):
        whole = count >= size
        most = probabilities.sort(descending=True).values if whole else probabilities.topk(count).values
        before = most.cumsum(-1, dtype=torch.float64) - most  # what the likelier ones reach
        if whole or not (before[..., -1] < p).any():
            break
    least = most.where(before < p, math.inf).amin(-1, keepdim=True)
    return logits.masked_fill(probabilities < least, -math.inf)


def min_p(logits: Tensor, p: float) -> Tensor:
    """Keep tokens at least p times as likely as the likeliest (arXiv:2407.01082)."""
    return logits.masked_fill(logits < logits.amax(-1, keepdim=True) + math.log(p), -math.inf)


def typical(logits: Tensor, p: float) -> Tensor:
    """Keep the tokens whose surprise is nearest the entropy, until they reach p (arXiv:2202.00666).

    The likeliest token may be left out: that is the paper's point.
    """
    surprise = -logits.log_softmax(-1)
    probabilities = (-surprise).exp()
    entropy = (probabilities * surprise).nansum(-1, keepdim=True)  # a filtered token's is 0 * inf
    away = (surprise - entropy).abs()
    nearest, order = away.sort()
    reached = probabilities.gather(-1, order).cumsum(-1, dtype=torch.float64)
    last = (reached < p).sum(-1, keepdim=True).clamp(max=logits.shape[-1] - 1)
    return logits.masked_fill(away > nearest.gather(-1, last), -math.inf)


def penalise(logits: Tensor, params: SamplingParams, history: History | None) -> Tensor:
    """Apply bias and penalties, which change the greedy choice too. history: None where there are none."""
    if params.logit_bias:
        logits = bias(logits, params.logit_bias)
    if history is None:
        return logits
    if params.repetition_penalty != 1:
        logits = repetition(logits, history.seen, params.repetition_penalty)
    if params.frequency_penalty or params.presence_penalty:
        logits = frequency_presence(logits, history.counts, params.frequency_penalty, params.presence_penalty)
    return logits


def keep(logits: Tensor, params: SamplingParams) -> Tensor:
    """Apply the temperature, and the filters that are on."""
    logits = temperature(logits, params.temperature) if params.temperature != 1 else logits
    logits = top_k(logits, params.top_k) if params.top_k > 0 else logits
    logits = top_p(logits, params.top_p) if params.top_p < 1 else logits
    logits = min_p(logits, params.min_p) if params.min_p > 0 else logits
    return typical(logits, params.typical_p) if params.typical_p < 1 else logits


def narrow(logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the logits that top_k would keep, and their ids in rising order. logits (V,).

    What comes after is then computed for k tokens instead of a whole vocabulary, and draws the same.
    """
    least = logits.topk(min(k, len(logits))).values[-1]
    ids = (logits >= least).nonzero()[:, 0]
    return logits[ids], ids


def draw(logits: Tensor, point: Tensor) -> Tensor:
    """Return ids (...) drawn from softmax(logits), each by its point, float64 (...) in [0, 1).

    The id is the first at which the sum of probabilities, in the order of ids, passes the point: it depends
    on its own row and point alone.
    """
    reached = logits.softmax(-1).cumsum(-1, dtype=torch.float64)
    total = reached[..., -1:]
    # Rounding may lift point * total to total, beyond which there is no id.
    goal = torch.minimum(point[..., None] * total, total.nextafter(torch.zeros_like(total)))
    return torch.searchsorted(reached, goal, right=True)[..., 0]


def uniform(seed: int, sample: int, step: int) -> float:
    """Return the point in [0, 1) that draws token `step` of answer `sample` under `seed`.

    Philox4x64-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC'11) with key (seed,
    sample) and counter (step, 0, 0, 0); the upper 53 bits of its first word. It has no state, so that a draw
    depends neither on the other rows of a batch nor on how many draws came before.
    """
    a, b, c, d = step, 0, 0, 0
    key, other = seed, sample
    for _ in range(10):
        x, y = 0xD2E7470EE14C6C93 * a, 0xCA5A826395121157 * c
        a, b, c, d = (y >> 64) ^ b ^ key, y & _WORD, (x >> 64) ^ d ^ other, x & _WORD
        key, other = (key + 0x9E3779B97F4A7C15) & _WORD, (other + 0xBB67AE8584CAA73B) & _WORD
    return (a >> 11) / 2**53


def logprobs(logits: Tensor, token: int, top: int) -> dict[int, Logprob]:
    """Return log-probabilities of the token and of the `top` likeliest ones, by id. logits (V,)."""
    every = logits.log_softmax(-1)
    entries = {token: Logprob(every[token].item(), int((every > every[token]).sum()) + 1)}
    values, ids = every.topk(min(top, len(every)))
    for rank, (i, value) in enumerate(zip(ids.tolist(), values.tolist(), strict=True), 1):
        entries.setdefault(i, Logprob(value, rank))
    return entries
