"""How many tokens an answer may have: what a context leaves behind what stands before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import RequestError
from ..models import EncoderDecoder, Writer


@dataclass(frozen=True)
class Room:
    """The context of a model that writes.

    context: tokens of a prompt and its answer together; of an encoder-decoder: of each. start: the tokens
    that every answer of an encoder-decoder begins with; None where an answer stands behind its prompt.
    """

    context: int
    start: tuple[int, ...] | None = None

    @classmethod
    def of(cls, model: Writer, context: int) -> Room:
        """Return the room of a model whose context is this many tokens."""
        return cls(context, model.start if isinstance(model, EncoderDecoder) else None)

    def left(self, prompt: Sequence[int]) -> int:
        """Return how many tokens an answer to a prompt may have.

        Raises RequestError for a prompt that is empty or does not fit: it is never cut.
        """
        if not prompt:
            raise RequestError("the prompt is empty: there is no token to start from")
        if self.start is None:
            if len(prompt) < self.context:
                return self.context - len(prompt)
            raise RequestError(
                f"the prompt has {len(prompt)} tokens, and the context of {self.context} must hold it and an "
                "answer; shorten the prompt, or open the model with a larger context"
            )
        if len(prompt) > self.context:
            raise RequestError(
                f"the source has {len(prompt)} tokens, and the encoder's context is {self.context}; shorten "
                "the source, or open the model with a larger context"
            )
        if len(self.start) >= self.context:
            raise RequestError(
                f"the decoder's context of {self.context} must hold the {len(self.start)} token(s) that an "
                "answer begins with, and the answer; open the model with a larger context"
            )
        return self.context - len(self.start)

    def begun(self, prompt: Sequence[int]) -> Sequence[int]:
        """Return the tokens before an answer: the prompt, or what every answer to a source begins with."""
        return prompt if self.start is None else self.start
