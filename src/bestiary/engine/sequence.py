"""One answer as the engine sees it: its tokens, how many of them are computed, and on which pages."""

from __future__ import annotations

from collections.abc import Sequence as Several
from dataclasses import dataclass, field

from ..prompt import Prompt
from ..run.answer import Answer, Chunk
from ..run.params import SamplingParams
from ..run.vocabulary import Vocabulary
from .pages import PAGE


@dataclass(frozen=True)
class Job:
    """What is asked of the engine: params.n answers to one prompt of ids.

    adapter: the name of one that was attached. salt: only jobs of one salt share what is computed of their
    prompts; that a prompt was there before can be told by how long it takes.
    """

    prompt: Several[int]
    params: SamplingParams
    vocabulary: Vocabulary
    adapter: str | None = None
    salt: str = ""


@dataclass(frozen=True)
class Reading:
    """Texts to make vectors of, as ids with what stands around them. how: nothing can be said yet."""

    texts: Several[Several[int]]
    how: None = None


@dataclass(frozen=True)
class Update:
    """What a step gave one job: a chunk of an answer, the vectors of its texts, or an error that ended it.

    cached: how many tokens of the prompt were computed before.
    """

    job: int
    chunk: Chunk | None = None
    error: BaseException | None = None
    cached: int = 0
    vectors: Several[object] | None = None


@dataclass(eq=False)
class Sequence:
    """An answer under way.

    tokens: what stands before the answer, and the answer. begun: how many stand before it. done: how many
    tokens have keys and values on the pages. names: of the pages that are full, as far as they are known.
    leader: a sequence of the same prompt that computes it first. root: what the first page's name begins
    with; None where nothing is shared.
    """

    job: int
    answer: Answer
    tokens: list[int]
    begun: int
    source: Several[int]
    prompt: Prompt | None = None
    adapter: str | None = None
    root: bytes | None = None
    leader: Sequence | None = None
    done: int = 0
    cached: int = 0
    pages: list[int] = field(default_factory=list)
    names: list[bytes] = field(default_factory=list)
    started: bool = False
    over: bool = False

    @property
    def pending(self) -> int:
        """How many tokens are to be computed before the next one can be chosen."""
        return len(self.tokens) - self.done

    @property
    def follows(self) -> bool:
        """Whether it waits for its leader to have computed their prompt."""
        leader = self.leader
        return leader is not None and not leader.over and leader.done < leader.begun

    @property
    def whole(self) -> int:
        """How many first tokens must be computed at once: those of a prefix that all of them see."""
        prefix = None if self.prompt is None else self.prompt.prefix
        return 0 if prefix is None else int(prefix)


def pages_of(tokens: int) -> int:
    """Return how many pages hold so many tokens."""
    return -(-tokens // PAGE)
