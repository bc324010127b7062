"""The object that people use: a model with its tokenizer and its chat template, from a name to text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from os import PathLike, fspath
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar, cast

import torch

from .. import hub
from ..errors import RequestError
from ..load import Loaded, Progress, load
from ..models import Encoder, Model, Writer
from ..quant.fused import fuse
from ..text.tokenizer import Tokenizer
from . import published
from . import threads as cores
from .asking import Asker, Conversation, Facts, Request, TextOrIds, Tools
from .beams import beam_search
from .encode import Progress as Told
from .findings import Classified, Entity, Filled, Scored
from .generate import Chunk, generate
from .hosted import Door
from .memory import keep_freed
from .outputs import BeamOutput, BeamRequestOutput, RequestOutput, collect
from .params import BeamParams, SamplingParams, show
from .reader import Reader, TextOrPair
from .room import Room
from .session import Session
from .tuned import Named, Tuning
from .vocabulary import Bounds

T = TypeVar("T")


class LLM(Door):
    """A model that is ready to answer.

    model: a name of the roster, a path, or a repository in the Hugging Face cache (see bestiary.hub). Nothing
    is downloaded. The name of a hosted model makes a Hosted (run/hosted), which asks its operator.
    device: "auto" is a GPU where there is one, else the CPU. dtype: what is computed in; "auto" is float32 on
    a CPU and the file's own type on a GPU. Weights stay packed as the file has them.
    context: tokens of a prompt and its answer together (of an encoder-decoder: of each); None is as many as
    the model was published for.
    chat_template: the name of a format (bestiary show names a system's), a Jinja template, or its file;
    unless told, the model's own, or what the roster says of it.
    Memory is taken as a conversation grows, not in advance. threads: of the whole process, as PyTorch counts
    them; None is one for each core that is available. adapter: a folder of PEFT's, or several in order; the
    tokenizer and the chat template are then the last one's that brings its own. progress: called with (bytes
    done, bytes in all) as the weights are read.

    Raises HubError for a name that is not here; CheckpointError, ConfigError, TokenizerError or TemplateError
    for a file that is refused; RequestError for an argument out of its bounds.
    """

    def __init__(
        self,
        model: str | PathLike[str] = "smollm2",
        *,
        device: str = "auto",
        dtype: str = "auto",
        context: int | None = None,
        threads: int | None = None,
        chat_template: str | Path | None = None,
        adapter: Named | Sequence[Named] | None = None,
        progress: Progress | None = None,
    ) -> None:
        place, count = _device(device), cores.checked(threads)
        self.path = hub.resolve(fspath(model))
        self.name = str(self.path)
        torch.set_num_threads(count)
        keep_freed()
        # The small files first: what is wrong with them is said before gigabytes are read.
        self.tuning = Tuning(adapter)
        self.tokenizer: Tokenizer = self.tuning.tokenizer(self.path)
        self.template = self.tuning.template(self.path, self.tokenizer, chat_template)
        loaded = self.tuning.attach(load(self.path, device=place, dtype=dtype, progress=progress))
        fuse(loaded.model)
        self.context = _context(context, loaded.context)
        self._loaded: Loaded | None = loaded
        self._reading: Reader | None = Reader(loaded, self.tokenizer, self.path, self.context)
        self.asker = Asker(self.tokenizer, self.template, self._facts(loaded))

    @property
    def model(self) -> Model:
        """The model itself: model(tokens, context) gives logits."""
        return self.loaded.model

    @property
    def writer(self) -> Writer:
        """The model, where it writes. Raises RequestError for one that only reads."""
        model = self.model
        if isinstance(model, Encoder) or self.loaded.scores:
            raise self.reader.cannot("write", "reads texts only")
        return model

    @property
    def abilities(self) -> list[str]:
        """What can be asked of this model: some of embed, classify, tag, fill_mask, generate and score."""
        return self.reader.abilities

    def generate(
        self, prompts: TextOrIds | Sequence[TextOrIds], params: SamplingParams | None = None
    ) -> list[RequestOutput]:
        """Continue a prompt, or each of several.

        A prompt of text is text: the spelling of a control token in it is not that token. Where it should be,
        give ids, as llm.tokenizer.encode(text, control=True) makes them; nothing is put around ids. The
        prompt of an encoder-decoder is its source, and is answered rather than continued. In one for a model
        that fills blanks (GLM) a mask is a mask, and is filled.
        Raises RequestError, before anything is computed, for a prompt that is empty or does not fit the
        context.
        """
        return self._complete([self._continuation(prompt) for prompt in listed(prompts)], params)

    def beam_search(
        self, prompts: TextOrIds | Sequence[TextOrIds], params: BeamParams | None = None
    ) -> list[BeamRequestOutput]:
        """Search for the likeliest continuations of a prompt, or of each of several, as wholes.

        Raises RequestError as generate does.
        """
        params = params or BeamParams()
        requests = [self._continuation(prompt) for prompt in listed(prompts)]
        for request in requests:  # all are checked before the first is searched
            Bounds.of(self.session().room, request.ids, params, self.asker.vocabulary(request))
        return [self._search(request, params) for request in requests]

    def chat(
        self,
        messages: Conversation | Sequence[Conversation],
        params: SamplingParams | None = None,
        *,
        tools: Tools | None = None,
        session: Session | None = None,
    ) -> list[RequestOutput]:
        """Answer a conversation, or each of several.

        messages: [{"role": "user", "content": "Hello"}, ...]. tools: descriptions of functions, as JSON, for
        a template with a place for them. session: the memory of one conversation. Raises RequestError for a
        model without a chat template, and as generate does.
        """
        alone = len(messages) == 0 or is_conversation(messages)  # the template says what is wrong with none
        listed = cast(Sequence[Conversation], [messages] if alone else messages)
        return self._complete([self._turn(one, tools) for one in listed], params, session)

    def stream(
        self,
        prompt: TextOrIds | Conversation,
        params: SamplingParams | None = None,
        *,
        tools: Tools | None = None,
        session: Session | None = None,
    ) -> Iterator[Chunk]:
        """Continue a prompt or answer a conversation, a chunk a token, as they are computed.

        Ctrl-C ends an answer with one more chunk, whose finish_reason is "abort", and is then raised.
        Raises RequestError at the call, as generate and chat do.
        """
        if is_conversation(prompt):
            request = self._turn(cast(Conversation, prompt), tools)
        else:
            request = self._continuation(cast(TextOrIds, prompt))
        return self._run(request, params, session)

    def embed(
        self,
        texts: str | Sequence[str],
        *,
        prompt: str | None = None,
        prompt_name: str | None = None,
        truncate: bool = False,
        progress: Told | None = None,
    ) -> torch.Tensor:
        """Return the vectors of a text, or of each of several: float32 (N, dim), on the CPU.

        They are made of the last states as the model's folder says. Where it says nothing: the mean of an
        encoder's, or a decoder's last. prompt: what to put before each text; prompt_name: one of the folder's
        own ("query"). truncate: cut what is longer than the model reads, which is refused otherwise.
        progress: called with (texts done, texts in all). Raises RequestError before anything is computed.
        """
        how = {"prompt": prompt, "prompt_name": prompt_name}
        return self.reader.embed(several(texts), **how, truncate=truncate, progress=progress)

    def classify(
        self,
        texts: TextOrPair | Sequence[TextOrPair],
        *,
        truncate: bool = False,
        progress: Told | None = None,
    ) -> list[Classified]:
        """Return what the model's head says of a text or a pair (a, b), or of each in a list of them.

        A pair is a tuple; several texts are a list.
        Scores are probabilities of the classes: of all together, or of each where problem_type says that
        there may be several. Rewards, regressions and a class alone are the head's own numbers. Raises
        RequestError for a model without such a head, and as embed does.
        """
        alone = isinstance(texts, tuple) and len(texts) == 2 and all(isinstance(one, str) for one in texts)
        listed = [cast(TextOrPair, texts)] if alone else several(texts)
        return self.reader.classify(listed, truncate=truncate, progress=progress)

    def tag(
        self, texts: str | Sequence[str], *, truncate: bool = False, progress: Told | None = None
    ) -> list[list[Entity]]:
        """Return the entities in a text, or in each of several, by a head that judges tokens.

        Raises RequestError as classify does.
        """
        return self.reader.tag(several(texts), truncate=truncate, progress=progress)

    def fill_mask(
        self,
        texts: str | Sequence[str],
        *,
        top: int = 5,
        truncate: bool = False,
        progress: Told | None = None,
    ) -> list[Filled]:
        """Return the likeliest tokens behind each mask of a text, or of each of several.

        A mask is written as the tokenizer spells it ([MASK], <mask>); other control tokens are text. Each is
        filled with the others hidden. Raises RequestError for a text without one, and as classify does.
        """
        return self.reader.fill_mask(several(texts), top=top, truncate=truncate, progress=progress)

    def score(
        self,
        texts: str | Sequence[str],
        *,
        choices: Sequence[str] | None = None,
        progress: Told | None = None,
    ) -> list[Scored]:
        """Return how likely a text is, or each of several; or each of choices after one text.

        What begins a document (BOS) stands before the text and is given; without one, the text's first token
        is. Of a masked language model, each token is scored with all others seen. Choices are encoded
        together with the text, and scored from the first token that differs from the text's alone; those of
        an encoder-decoder are encoded alone. No end token is scored. progress: called with (texts done,
        texts in all). Raises RequestError, before anything is computed, for a model that gives no
        probabilities, for a text without a token to score, and for what is longer than the context.
        """
        if choices is None:
            return self.reader.score(several(texts), progress=progress)
        if not isinstance(texts, str):
            raise RequestError(f"choices stand after one text, and {len(texts)} were given")
        if isinstance(choices, str):
            raise RequestError(f"choices={show(choices)} is one text; give a list of them")
        return self.reader.choices(texts, choices)

    def session(self) -> Session:
        """Return the memory of one conversation. Given to each of its turns, a turn computes only what is
        new.
        """
        return Session(self.writer, self.context)

    def close(self) -> None:
        """Let go of the weights."""
        if self._loaded is not None:
            self._loaded.checkpoint.close()
            self._loaded = self._reading = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def loaded(self) -> Loaded:
        """The model with its config and its checkpoint. Raises RequestError for one that was closed."""
        if self._loaded is None:
            raise RequestError("this model was closed; open it again")
        return self._loaded

    @property
    def reader(self) -> Reader:
        """The model as something that reads. Raises RequestError for one that was closed."""
        if self._reading is None:
            raise RequestError("this model was closed; open it again")
        return self._reading

    def _facts(self, loaded: Loaded) -> Facts:
        size, rows = self.tokenizer.vocab_size, loaded.config.get("vocab_size")
        model = loaded.model
        return Facts(
            name=self.path.name,
            size=min(size, rows) if isinstance(rows, int) else size,
            ends=published.ends(self.tokenizer, loaded, self.path),
            rules=published.rules(loaded, self.path),
            room=Room(self.context) if isinstance(model, Encoder) else Room.of(model, self.context),
            abilities=tuple(self.abilities),
        )

    def _continuation(self, prompt: TextOrIds) -> Request:
        _ = self.writer  # one that only reads says so
        return self.asker.continuation(prompt)

    def _turn(self, messages: Conversation, tools: Tools | None) -> Request:
        _ = self.writer
        return self.asker.turn(messages, tools)

    def _run(
        self, request: Request, params: SamplingParams | None, session: Session | None
    ) -> Iterator[Chunk]:
        session = self.session() if session is None else session
        if session.model is not self.writer:
            raise RequestError("this session belongs to another model; make one with llm.session()")
        params = params or SamplingParams()
        if request.stops:
            params = replace(params, stop=(*dict.fromkeys((*(params.stop or ()), *request.stops)),))
        return generate(session, request.ids, params, self.asker.vocabulary(request))

    def _search(self, request: Request, params: BeamParams) -> BeamRequestOutput:
        vocabulary = self.asker.vocabulary(request)
        found = beam_search(self.session(), request.ids, params, vocabulary)
        outputs = [BeamOutput.of(index, one, vocabulary) for index, one in enumerate(found)]
        return BeamRequestOutput(request.text, request.ids, outputs)

    def _complete(
        self, requests: Sequence[Request], params: SamplingParams | None, session: Session | None = None
    ) -> list[RequestOutput]:
        if session is not None and len(requests) != 1:
            raise RequestError(f"a session is the memory of one conversation; {len(requests)} were given")
        # All are checked before the first is run.
        runs = [self._run(request, params, session) for request in requests]
        return [
            RequestOutput(request.text, request.ids, collect(run))
            for request, run in zip(requests, runs, strict=True)
        ]


def listed(prompts: TextOrIds | Sequence[TextOrIds]) -> Sequence[TextOrIds]:
    """Return prompts as several; one alone is text, or ids."""
    alone = isinstance(prompts, str) or (len(prompts) > 0 and isinstance(prompts[0], int))
    return cast(Sequence[TextOrIds], [prompts] if alone else prompts)


def several(texts: str | Sequence[T]) -> Sequence[T | str]:
    """Return texts as several; one alone is text."""
    return [texts] if isinstance(texts, str) else texts


def is_conversation(value: object) -> bool:
    """Return whether a value is messages, not a prompt or several conversations."""
    return isinstance(value, Sequence) and len(value) > 0 and isinstance(value[0], Mapping)


def _device(name: str) -> torch.device:
    gpu = torch.cuda.is_available()
    if name == "auto":
        return torch.device("cuda" if gpu else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise RequestError(
            f"device={show(name)} is none that PyTorch knows; try auto, cpu or cuda"
        ) from error
    if device.type == "cuda" and not gpu:
        raise RequestError(f"device={show(name)}: PyTorch finds no CUDA GPU here; use cpu")
    return device


def _context(asked: object, published: int) -> int:
    if asked is None:
        return published
    if isinstance(asked, bool) or not isinstance(asked, int) or not 1 <= asked <= published:
        raise RequestError(
            f"context={show(asked)} should be a whole number from 1 to {published}, this model's own"
        )
    return asked
