"""A decoder that shows some control tokens by their spelling, where the form of an answer is made of them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping

from .stream import StreamDecoder


class Shown:
    """A StreamDecoder around another. shown: id -> spelling. inner: makes one; continues: inside a text."""

    def __init__(
        self, inner: Callable[[bool], StreamDecoder], shown: Mapping[int, str], *, continues: bool
    ) -> None:
        self._make, self._shown = inner, shown
        self._inner = inner(continues)

    def push(self, token: int) -> str:
        if (spelling := self._shown.get(token)) is None:
            return self._inner.push(token)
        before = self._inner.flush()
        self._inner = self._make(True)
        return before + spelling

    def flush(self) -> str:
        return self._inner.flush()

    def place(self) -> Hashable:
        return self._inner.place()
