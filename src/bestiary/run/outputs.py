"""What a request gives: answers with their tokens, by sampling or by beam search."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from .beams import Hypothesis
from .generate import Chunk, FinishReason
from .sample import Logprob
from .vocabulary import Vocabulary


@dataclass(frozen=True)
class CompletionOutput:
    """One answer.

    token_ids holds all that was generated, also the end token or the stop string, which the text leaves out.
    logprobs has one entry a token, by token id; None when none were asked for.
    """

    index: int
    text: str
    token_ids: list[int]
    finish_reason: FinishReason
    logprobs: list[dict[int, Logprob]] | None = None


@dataclass(frozen=True)
class RequestOutput:
    """The answers to one prompt. prompt: its text, for a chat with the template's; None where ids were
    given.
    """

    prompt: str | None
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]

    @property
    def text(self) -> str:
        """The text of the first answer."""
        return self.outputs[0].text

    @property
    def prompt_tokens(self) -> int | None:
        """How many tokens the prompt has."""
        return len(self.prompt_token_ids)

    @property
    def tokens(self) -> int | None:
        """How many tokens all answers have together."""
        return sum(len(one.token_ids) for one in self.outputs)


@dataclass(frozen=True)
class BeamOutput:
    """One hypothesis of a beam search.

    token_ids holds all that was generated, also the end token, which the text leaves out. logprob: the sum of
    the tokens' log-probabilities. score: what hypotheses were compared by: that divided by a penalty of their
    length.
    """

    index: int
    text: str
    token_ids: list[int]
    finish_reason: FinishReason
    logprob: float
    score: float

    @classmethod
    def of(cls, index: int, found: Hypothesis, vocabulary: Vocabulary) -> BeamOutput:
        """Return what was found, with its text."""
        shown = found.ids[:-1] if found.finish_reason == "stop" else found.ids
        ids, text = list(found.ids), vocabulary.text(shown)
        return cls(index, text, ids, found.finish_reason, found.logprob, found.score)


@dataclass(frozen=True)
class BeamRequestOutput:
    """The hypotheses of one prompt, the best first. prompt: its text; None where ids were given."""

    prompt: str | None
    prompt_token_ids: list[int]
    outputs: list[BeamOutput]

    @property
    def text(self) -> str:
        """The text of the best hypothesis."""
        return self.outputs[0].text


def collect(chunks: Iterator[Chunk]) -> list[CompletionOutput]:
    """Return the answers that chunks make, which come answer after answer."""
    outputs: list[CompletionOutput] = []
    pending: list[Chunk] = []
    for chunk in chunks:
        pending.append(chunk)
        if chunk.finish_reason is not None:
            text = "".join(one.text for one in pending)
            ids = [i for one in pending for i in one.ids]
            entries = [one.logprobs for one in pending if one.logprobs is not None]
            outputs.append(CompletionOutput(chunk.index, text, ids, chunk.finish_reason, entries or None))
            pending = []
    return outputs
