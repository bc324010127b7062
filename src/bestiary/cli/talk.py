"""A conversation with a model: its messages, how to sample, and the memory that makes the next turn quick."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from ..errors import BestiaryError, RequestError
from ..files.paths import read_json
from ..run.generate import FinishReason
from ..run.hosted.model import Hosted
from ..run.llm import LLM
from ..run.params import SamplingParams
from ..run.session import Session
from ..text.chat import ChatTemplate, Message

_FILE_LIMIT = 64 << 20  # bytes of a saved conversation


class Talk:
    """A conversation that grows turn by turn.

    Raises RequestError for a model without a chat template.
    """

    def __init__(self, llm: LLM, params: SamplingParams, *, system: str | None = None) -> None:
        self.llm, self.messages = llm, list[Message]()
        self._session: Session | None = None
        self._template: ChatTemplate | None = None
        if not isinstance(llm, Hosted):
            self._session, self._template = _asked(llm)
        self.params = params
        if system is not None:
            self.instruct(system)

    @property
    def params(self) -> SamplingParams:
        """How answers are sampled."""
        return self._params

    @params.setter
    def params(self, params: SamplingParams) -> None:
        if params.n != 1:
            raise RequestError(f"n={params.n}: a conversation goes on with one answer; n is for generate")
        self._params = params

    @property
    def system(self) -> str | None:
        """The system message, if there is one."""
        first = self.messages[0] if self.messages else None
        return str(first["content"]) if first is not None and first["role"] == "system" else None

    def instruct(self, text: str | None) -> None:
        """Set, change or (None) take away the system message. What was said so far stays."""
        rest = self.messages[1:] if self.system is not None else self.messages
        told: list[Message] = [{"role": "system", "content": text}] if text is not None else []
        probe: list[Message] = [*told, {"role": "user", "content": "?"}]
        if 0 in self._dropped(probe):
            raise RequestError(
                f"{self.llm.path.name} has no place for a system message; it would not be read"
            )
        self.messages = [*told, *rest]

    def ask(self, text: str, write: Callable[[str], None]) -> FinishReason:
        """Say something and stream the answer; a question that cannot be answered is taken back.

        Ctrl-C ends the answer, and what there is of it stays. Raises RequestError when it does not fit.
        """
        self.messages.append({"role": "user", "content": text})
        return self._answer(write)

    def again(self, write: Callable[[str], None]) -> FinishReason:
        """Answer the last question once more. Raises RequestError when there is none."""
        if not self.messages or self.messages[-1]["role"] != "assistant":
            raise RequestError("there is no answer yet to give again")
        self.messages.pop()
        return self._answer(write)

    def _answer(self, write: Callable[[str], None]) -> FinishReason:
        parts: list[str] = []
        reason: FinishReason = "abort"
        try:
            for chunk in self.llm.stream(self.messages, self.params, session=self._session):
                parts.append(chunk.text)
                write(chunk.text)
                if chunk.finish_reason is not None:
                    reason = chunk.finish_reason
                    break
        except KeyboardInterrupt:
            pass  # the user had read enough
        finally:
            if text := "".join(parts):
                self.messages.append({"role": "assistant", "content": text})
            else:
                self.messages.pop()
        return reason

    def clear(self) -> None:
        """Forget what was said; the system message stays."""
        self.messages = self.messages[:1] if self.system is not None else []

    def save(self, path: Path) -> None:
        """Write the conversation as JSON, in OpenAI's form; the file appears whole or not at all."""
        text = json.dumps({"model": self.llm.name, "messages": self.messages}, indent=2, ensure_ascii=False)
        fresh = path.with_name(f".{path.name}.new")
        fresh.write_text(text + "\n", "utf-8")
        fresh.replace(path)

    def load(self, path: Path) -> None:
        """Go on with a saved conversation. Raises RequestError for a file that is none."""
        try:
            found: list[Message] = read_json(path, limit=_FILE_LIMIT).get("messages") or []
            # The template says whether these are messages, and of roles that it knows.
            self._dropped(found, generation=False)
        except BestiaryError as error:
            raise RequestError(f"{path} is no saved conversation: {error}") from error
        self.messages = found

    def _dropped(self, messages: list[Message], *, generation: bool = True) -> tuple[int, ...]:
        """Return which messages a model would not read. Raises RequestError for what is none."""
        if isinstance(self.llm, Hosted):
            self.llm.checked(messages)
            return ()
        if self._template is None:
            return ()
        return self._template.encode(messages, generation=generation).dropped


def _asked(llm: LLM) -> tuple[Session, ChatTemplate]:
    """Return the memory of a conversation and how it is written. Raises RequestError for a base model."""
    session = llm.session()  # what only reads texts says so here
    if llm.template is None:
        raise RequestError(
            f"{llm.path} has no chat template: it is a base model, or its files lack it\n"
            "Try: bestiary generate; or --chat-template NAME, as bestiary show names a system's"
        )
    return session, llm.template
