"""A chat format as data: what stands around each message's text, and nothing that runs."""

from __future__ import annotations

import contextlib
import datetime
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ...errors import RequestError
from ..tracing import TEMPLATE, Piece

_FIELD = re.compile(r"\{(\||[a-z_]+)\}")
_NOW = "now:"


@dataclass(frozen=True)
class Turn:
    """What stands before and after a message's text; `between` is what separates it from its input.

    strips: of white space, "both" ends, the "end", or neither.
    """

    before: str
    after: str
    between: str = ""
    strips: Literal["", "both", "end"] = ""


@dataclass(frozen=True)
class Format:
    """A chat format, known by its name or by the templates that say the same.

    In its texts {bos} and {eos} stand for those tokens, {round} for the number of the question, and {name}
    for one of `values`. {|} adds nothing: what follows is given to the tokenizer as a text of its own, as
    published code does that encodes pieces one by one.

    Args:
        name: what it is known as.
        source: where its authors' code writes it.
        templates: SHA-256 of the Jinja templates that it stands for.
        turns: role -> what stands around its text. "user.first", "user.last" (the conversation's last
            message), "user.only" (the one beside a system message) and "user.input" (one with an input) go
            before "user".
        template: a Jinja template instead of turns, for what they cannot say.
        begin: what stands before everything.
        generation: what ends a prompt that asks for an answer.
        closing: what ends one that does not.
        stop: texts and control tokens that end an answer.
        tool_stop: texts that end one where there are tools: what the tool would say next.
        needs: control tokens without which a model is not of this format.
        default_system: the system text where the conversation does not begin with one.
        after_system: what stands before the first user's text after a system text, if not the usual.
        values: name -> what {name} stands for unless a caller says; "now:%Y-%m-%d" is the time.
        plugins: function -> the value that tells of it, and what that value is then; where a model was taught
            a few functions, and their descriptions have no place.
        replace: what is written otherwise in messages.
        omits: roles whose messages are left out, with all around them, where they have no text.
        json: whose texts a template is given as JSON, "arguments" of calls or roles: as Python writes what
            is JSON already, and the others as strings.
        first_round: the number of the first question.
        wraps: the tokens get what the tokenizer puts around a text (BOS, GLM's [gMASK] sop, T5's </s>).
        single: there is no form for a second question.
        trims: the templates trim texts, so only texts without white space at their ends fit.
        alternates: user and assistant take turns, after at most one system text.
    """

    name: str
    source: str = ""
    templates: frozenset[str] = frozenset()
    turns: Mapping[str, Turn] = field(default_factory=dict)
    template: str | None = None
    begin: str = ""
    generation: str = ""
    closing: str = ""
    stop: tuple[str, ...] = ()
    tool_stop: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    default_system: str | None = None
    after_system: str | None = None
    values: Mapping[str, str] = field(default_factory=dict)
    plugins: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    replace: Mapping[str, str] = field(default_factory=dict)
    omits: frozenset[str] = frozenset()
    json: frozenset[str] = frozenset()
    first_round: int = 1
    wraps: bool = True
    single: bool = False
    trims: bool = False
    alternates: bool = False

    @property
    def words(self) -> str:
        """The roles and the keys of messages that have a place, as a template would mention them."""
        roles = {role.partition(".")[0] for role in self.turns}
        keys = {"input"} if any(role.endswith(".input") for role in self.turns) else set()
        return self.template or " ".join([*(f"'{role}'" for role in sorted(roles)), *keys])

    def fits(self, messages: Sequence[Mapping[str, Any]]) -> bool:
        """Tell whether this format says all that its templates do with these messages."""
        if any(self.trims and message["content"] != str(message["content"]).strip() for message in messages):
            return False
        return self._refusal(messages) is None and not (
            self.trims and any(not m["content"] for m in messages)
        )

    def check(self, messages: Sequence[Mapping[str, Any]]) -> None:
        """Raise RequestError for messages that have no place in this format; it names the message."""
        if (why := self._refusal(messages)) is not None:
            raise RequestError(why)

    def _refusal(self, messages: Sequence[Mapping[str, Any]]) -> str | None:
        for i, message in enumerate(messages):
            role = message["role"]
            if role not in self.turns and f"{role}.only" not in self.turns:
                return f"message {i}: the format {self.name} has no place for the role {role!r}"
            if not isinstance(message["content"], str):
                return f"message {i}: the format {self.name} takes one text a message"
            if not isinstance(message.get("input", ""), str):
                return f"message {i}: input must be text, not {repr(message['input'])[:80]}"
            if (
                extra := message.keys()
                - {"role", "content"}
                - ({"input"} if f"{role}.input" in self.turns else set())
            ):
                return f"message {i}: the format {self.name} has no place for {min(extra)!r}"
        roles = [message["role"] for message in messages]
        if self.single and roles.count("user") > 1:
            why = f"the format {self.name} has no form for a second question"
            return f"{why}; ask each in a conversation of its own"
        if self.alternates and not _alternate(roles):
            return (
                f"in the format {self.name} user and assistant take turns, after at most one system message"
            )
        return None

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        generation: bool,
        tokens: Mapping[str, str],
        values: Mapping[str, str] | None = None,
    ) -> list[Piece] | None:
        """Return the prompt, cut where the owner changes; None where it needs a token that the model has not.

        tokens: "bos_token" and "eos_token" -> their spelling, for a model that has them. values: those of
        `values` that are not the usual ones. A text of `values` is nobody's tokens, as a message's is not:
        its owner is len(messages) + 1.
        """
        if self._lacks(tokens):
            return None
        fixed = {name: tokens.get(f"{name}_token", "") for name in ("bos", "eos")}
        given = self.filled(values)

        def own(text: str, number: int = 0) -> Iterator[Piece]:
            yield from _filled(text, fixed | {"round": str(number)}, given, len(messages) + 1)

        pieces = list(own(self.begin))
        asked = self.first_round - 1
        said = list(self._said(messages))
        for place, (i, message) in enumerate(said):
            asked += message["role"] == "user"
            turn = self._turn([one for _, one in said], place)
            pieces += [*own(turn.before, asked), Piece(self._text(message["content"], turn), i)]
            if message.get("input"):  # an empty one is none, as in Alpaca's data
                pieces += [*own(turn.between, asked), Piece(self._text(message["input"], turn), i)]
            pieces += own(turn.after, asked)
        pieces += own(self.generation if generation else self.closing, asked)
        return _compact(pieces)

    def _said(self, messages: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, Mapping[str, Any]]]:
        """Yield what is written, each with its owner: the usual system text, and messages."""
        if self.default_system is not None and messages[0]["role"] != "system":
            yield TEMPLATE, {"role": "system", "content": self.default_system}
        for i, message in enumerate(messages):
            if message["content"] or message["role"] not in self.omits:
                yield i, message

    def written(self, messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Return the messages with the texts of `json` as JSON."""
        found = [dict(message) for message in messages]
        for message in found:
            if message["role"] in self.json and isinstance(message["content"], str):
                message["content"] = _json(message["content"])
            if "arguments" in self.json and message.get("tool_calls"):
                message["tool_calls"] = [_call(call) for call in message["tool_calls"]]
        return found

    def told(self, tools: Iterable[Mapping[str, Any]]) -> dict[str, str]:
        """Return the values that tell of tools. Raises RequestError for one that the model was not taught."""
        found = {}
        for i, tool in enumerate(tools):
            function = tool.get("function", tool)
            name = function.get("name") if isinstance(function, Mapping) else None
            if not isinstance(name, str) or name not in self.plugins:
                known = ", ".join(self.plugins)
                raise RequestError(f"tool {i}: {str(name)[:80]!r} is none that {self.name} has: {known}")
            value, text = self.plugins[name]
            found[value] = text
        return found

    def filled(self, values: Mapping[str, str] | None) -> dict[str, str]:
        """Return what each of `values` stands for. Raises RequestError for one that this format has not."""
        for name in values or {}:
            if name not in self.values:
                known = ", ".join(self.values) or "none"
                raise RequestError(f"the format {self.name} has no value {name!r}; it has {known}")
        now = datetime.datetime.now().astimezone()  # with the name of its zone
        usual = {
            name: now.strftime(text.removeprefix(_NOW)) if text.startswith(_NOW) else text
            for name, text in self.values.items()
        }
        return {**usual, **(values or {})}

    def _text(self, text: str, turn: Turn) -> str:
        for character, instead in self.replace.items():
            text = text.replace(character, instead)
        match turn.strips:
            case "both":
                return text.strip()
            case "end":
                return text.rstrip()
        return text

    def _turn(self, messages: Sequence[Mapping[str, Any]], place: int) -> Turn:
        """Return what stands around a message: of its role's turns the most special."""
        role = messages[place]["role"]
        before = [message["role"] for message in messages[:place]]
        said = [message["role"] for message in messages if message["role"] != "system"]
        holds = {
            "input": bool(messages[place].get("input")),
            "only": said == [role],
            "last": place == len(messages) - 1,
            "first": role not in before,
        }
        for form, there in holds.items():
            if there and f"{role}.{form}" in self.turns:
                return self.turns[f"{role}.{form}"]
        turn = self.turns[role]
        if self.after_system is not None and before == ["system"]:
            # The text does not begin here, so only its end is stripped.
            turn = replace(turn, before=self.after_system, strips="end" if turn.strips else "")
        return turn

    def _lacks(self, tokens: Mapping[str, str]) -> bool:
        used = "".join(
            [self.begin, self.generation, self.closing, *(t.before + t.after for t in self.turns.values())]
        )
        return any(f"{{{name}}}" in used and f"{name}_token" not in tokens for name in ("bos", "eos"))


def _json(value: Any) -> str:
    """Write a value as JSON; a text that is JSON is what it says."""
    if isinstance(value, str):
        with contextlib.suppress(ValueError, RecursionError):
            value = json.loads(value)
    return json.dumps(value, ensure_ascii=False)


def _call(call: Any) -> Any:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or "arguments" not in function:
        return call
    return {**call, "function": {**function, "arguments": _json(function["arguments"])}}


def _alternate(roles: list[str]) -> bool:
    rest = roles[1:] if roles[0] == "system" else roles
    return bool(rest) and all(role == ("user", "assistant")[i % 2] for i, role in enumerate(rest))


def _filled(text: str, fixed: Mapping[str, str], values: Mapping[str, str], owner: int) -> Iterator[Piece]:
    """Yield a text of the format with its fields filled in."""
    apart = False
    for i, part in enumerate(_FIELD.split(text)):
        if i % 2 == 0:
            piece = Piece(part, TEMPLATE, apart)
        elif part == "|":
            apart = True
            continue
        elif part in values:
            piece = Piece(values[part], owner, apart)
        else:
            piece = Piece(fixed.get(part, f"{{{part}}}"), TEMPLATE, apart)
        if piece.text:
            yield piece
            apart = False
    if apart:
        yield Piece("", TEMPLATE, True)


def _compact(pieces: Iterable[Piece]) -> list[Piece]:
    """Drop pieces without text; the next one begins apart where one of them did."""
    found: list[Piece] = []
    apart = False
    for piece in pieces:
        apart = apart or piece.apart
        if piece.text:
            found.append(replace(piece, apart=apart))
            apart = False
    return found


def read(values: dict[str, Any]) -> Format:
    """Return the format of a .toml file's values. Raises TypeError or ValueError for one that is wrong."""
    values = dict(values)
    strips = frozenset(values.pop("strips", ()))
    turns = {role: _turn(role, texts, role in strips) for role, texts in values.pop("turns", {}).items()}
    if unknown := strips - turns.keys():
        raise ValueError(f"strips names {', '.join(sorted(unknown))}, which turns has not")
    if bool(turns) == ("template" in values):
        raise ValueError("a format has turns or a template")
    values |= {
        "templates": frozenset(values.pop("templates", ())),
        **{key: tuple(values.pop(key, ())) for key in ("stop", "tool_stop", "needs")},
        **{key: frozenset(values.pop(key, ())) for key in ("omits", "json")},
        "plugins": {name: (value, text) for name, (value, text) in values.pop("plugins", {}).items()},
    }
    return Format(turns=turns, **values)


def _turn(role: str, texts: list[str], strips: bool) -> Turn:
    form = role.partition(".")[2]
    if form not in ("", "first", "last", "only", "input") or len(texts) != (3 if form == "input" else 2):
        raise ValueError(f"turns: {role!r} is no turn of {len(texts)} texts")
    return Turn(texts[0], texts[-1], "".join(texts[1:-1]), "both" if strips else "")
