"""A model with adapters beside it: which there are, and whose tokenizer and chat template count."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike, fspath
from pathlib import Path

from .. import adapters, hub
from ..adapters import Adapter
from ..adopt.folder import has_tokenizer
from ..errors import RequestError
from ..load import Loaded
from ..text.chat import ChatTemplate
from ..text.templates import choose
from ..text.tokenizer import Tokenizer, open_tokenizer

Named = str | PathLike[str]


class Tuning:
    """Adapters that are to be attached in order. given: folders, or names that `hub.resolve` finds.

    Raises HubError for one that is not here, and as adapters.read does.
    """

    def __init__(self, given: Named | Sequence[Named] | None) -> None:
        named = [] if given is None else [given] if isinstance(given, str | PathLike) else list(given)
        self.adapters: list[Adapter] = [adapters.read(_local(fspath(name))) for name in named]

    def tokenizer(self, path: Path) -> Tokenizer:
        """Return the tokenizer of the last adapter that brings one, or else the model's own.

        Raises RequestError for a model that is an adapter, and as open_tokenizer does.
        """
        if adapters.is_adapter(path):
            base = adapters.read(path).base or "its base"
            raise RequestError(
                f"{path} is an adapter, and no model by itself\nTry: {base} with --adapter {path}"
            )
        return open_tokenizer(next((folder for folder in self._folders() if has_tokenizer(folder)), path))

    def template(self, path: Path, tokenizer: Tokenizer, given: str | Path | None) -> ChatTemplate | None:
        """Return the chat template that was given, or of the last adapter with one, or the model's own."""
        folders = self._folders() if given is None else []
        found = (choose(folder, tokenizer) for folder in folders)
        return next((one for one in found if one is not None), None) or choose(path, tokenizer, given)

    def attach(self, loaded: Loaded) -> Loaded:
        """Attach them, in order. Raises as adapters.attach does."""
        for adapter in self.adapters:
            loaded = adapters.attach(loaded, adapter)
        return loaded

    def _folders(self) -> list[Path]:
        return [adapter.path for adapter in reversed(self.adapters)]


def _local(name: str) -> Path:
    path = Path(name).expanduser()
    return path if path.exists() else hub.resolve(name)
