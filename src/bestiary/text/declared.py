"""What the JSON files beside a tokenizer say about it: special tokens, added tokens, BOS and EOS, its class.

tokenizer_config.json, special_tokens_map.json and added_tokens.json are read; where they do not name the BOS
or EOS token, generation_config.json and config.json do, by number. Everything here is data from a stranger's
folder.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import TokenizerError
from ..files import paths
from .around import Around, Named
from .boundary import reading
from .pipeline import Added, Special

Json = dict[str, Any]

_LIMIT = 16 << 20
_LARGEST_ID = 2**31 - 1
_NAMED = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")
_FLAGS = ("special", "normalized", "lstrip", "rstrip", "single_word")


@dataclass(frozen=True)
class Declared:
    """A folder's word on its tokenizer; empty where it says nothing.

    named: "bos_token" and its kin -> spelling. added: id -> token. template: the text of the chat templates.
    model_type: of config.json. origins: the names of what it was made from. wrapped: what stands around one
    text and around two, where that is not for the tokenizer's kind to say.
    """

    class_name: str | None = None
    named: Mapping[str, str] = field(default_factory=dict)
    extra: tuple[str, ...] = ()
    added: Mapping[int, Added] = field(default_factory=dict)
    options: Json = field(default_factory=dict)
    ids: Mapping[str, int] = field(default_factory=dict)
    template: str = ""
    model_type: str | None = None
    origins: tuple[str, ...] = ()
    wrapped: tuple[Sequence[Named], Sequence[Named]] | None = None

    def flag(self, key: str) -> bool | None:
        """Return a true or false of tokenizer_config.json, None where it is absent or null.

        Raises TokenizerError: any other value.
        """
        value = self.options.get(key)
        if value is None or isinstance(value, bool):
            return value
        raise TokenizerError(f"tokenizer_config.json: {key} is {str(value)[:80]!r}, not true or false")

    def special(
        self,
        vocab: Mapping[str, int],
        controls: Mapping[str, int],
        *,
        add_bos: bool = False,
        add_eos: bool = False,
        defaults: Mapping[str, str] | None = None,
        whole: Iterable[str] = (),
    ) -> Special:
        """Return what the tokens are for.

        vocab: every token's id. controls: those that the tokenizer file itself marks. add_bos, add_eos,
        defaults: what holds where the folder does not say (defaults: "bos_token" and its kin -> spelling, the
        class's own). whole: the tokens that the tokenizer file finds whole in a text without marking them as
        special.
        """
        named = dict(defaults or {}) | dict(self.named)
        spellings = [
            *named.values(),
            *self.extra,
            *(one.content for one in self.added.values() if one.special),
        ]
        known = {name: vocab[name] for name in spellings if name in vocab}
        whole = [*whole, *(one.content for one in self.added.values())]
        written = {name: vocab[name] for name in whole if name in vocab and delimits(name, self.template)}
        bos_flag, eos_flag = self.flag("add_bos_token"), self.flag("add_eos_token")
        bos, eos = (self._end(f"{end}_token", named, vocab) for end in ("bos", "eos"))
        control = {**controls, **known, **written}
        return Special(
            bos=bos,
            eos=eos,
            add_bos=bos is not None and (add_bos if bos_flag is None else bos_flag),
            add_eos=eos is not None and (add_eos if eos_flag is None else eos_flag),
            control=control,
            mask=vocab.get(named.get("mask_token", "")),
            around=None if self.wrapped is None else Around.of(*self.wrapped, {**vocab, **control}),
        )

    def _end(self, key: str, named: Mapping[str, str], vocab: Mapping[str, int]) -> int | None:
        spelling = named.get(key)
        return vocab[spelling] if spelling is not None and spelling in vocab else self.ids.get(f"{key}_id")


def delimits(spelling: str, template: str) -> bool:
    """Tell whether a token that a chat template writes begins or ends turns, so that no user may write it.

    Many files do not mark such tokens as special. A word or white space of the template is no delimiter,
    though it may have a token of its own.
    """
    marks = not all(character.isalnum() or character.isspace() for character in spelling)
    return marks and len(spelling) > 2 and spelling in template


def read(folder: Path) -> Declared:
    """Return what a folder declares.

    Raises TokenizerError: a file that is no JSON, or a value that is not of its key's type.
    """
    config = _json(folder / "tokenizer_config.json")
    of_model = _json(folder / "config.json")
    legacy = _json(folder / "special_tokens_map.json")
    named: dict[str, str] = {}
    for source in (legacy, config):  # what tokenizer_config.json says counts
        named |= {key: _spelling(key, source[key]) for key in _NAMED if source.get(key)}
    extra = [
        _spelling("additional_special_tokens", one)
        for source in (config, legacy)
        for one in _list(source, "additional_special_tokens")
    ]
    class_name = config.get("tokenizer_class")
    if class_name is not None and not isinstance(class_name, str):
        raise TokenizerError("tokenizer_config.json: tokenizer_class is no string")
    return Declared(
        class_name=class_name,
        named=named,
        extra=tuple(dict.fromkeys(extra)),
        added=_added(folder, config),
        options=config,
        ids=_ids(of_model, _json(folder / "generation_config.json")),
        template=_template(folder, config),
        model_type=_string(of_model, "model_type"),
        origins=tuple(
            name
            for source, key in ((config, "name_or_path"), (of_model, "_name_or_path"))
            if (name := _string(source, key))
        ),
    )


def _json(path: Path) -> Json:
    if not path.exists():
        return {}
    with reading(path):
        return paths.read_json(path, limit=_LIMIT)


def _spelling(key: str, value: object) -> str:
    """Return the spelling of a token written as a string or as an object with its "content"."""
    content = value.get("content") if isinstance(value, dict) else value
    if isinstance(content, str):
        return content
    raise TokenizerError(f"tokenizer_config.json: {key} is {str(value)[:80]!r}, not a token's spelling")


def _list(source: Json, key: str) -> list[object]:
    value = source.get(key) or []
    if isinstance(value, list):
        return value
    raise TokenizerError(f"tokenizer_config.json: {key} is no list")


def _id(where: str, value: object) -> int:
    text = str(value)
    if not isinstance(value, bool) and text.isascii() and text.isdigit() and int(text[:11]) <= _LARGEST_ID:
        return int(text)
    raise TokenizerError(f"{where}: {text[:80]!r} is no token id")


def added_token(where: str, number: object, token: object) -> Added:
    """Return one entry of added_tokens_decoder or of tokenizer.json's added_tokens.

    Raises TokenizerError: a wrong type, no spelling, or an id outside 0 .. 2^31 - 1.
    """
    if not isinstance(token, dict) or not isinstance(content := token.get("content"), str) or not content:
        raise TokenizerError(f"{where}: {str(token)[:80]!r} is no token with its spelling")
    flags = {name: token.get(name, False) for name in _FLAGS}
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise TokenizerError(
                f"{where}: {name} of {content[:80]!r} is {str(value)[:80]!r}, not true or false"
            )
    return Added(_id(where, number), content, **flags)


def _added(folder: Path, config: Json) -> dict[int, Added]:
    decoder = config.get("added_tokens_decoder") or {}
    if not isinstance(decoder, dict):
        raise TokenizerError("tokenizer_config.json: added_tokens_decoder is no object")
    tokens = [added_token("tokenizer_config.json: added_tokens_decoder", *item) for item in decoder.items()]
    found = {token.id: token for token in tokens}
    for content, value in _json(folder / "added_tokens.json").items():
        token = added_token("added_tokens.json", value, {"content": content})
        found.setdefault(token.id, token)
    return found


def _string(source: Json, key: str) -> str | None:
    value = source.get(key)
    return value if isinstance(value, str) else None


def _ids(*configs: Json) -> dict[str, int]:
    """Return bos_token_id and eos_token_id of the last file that has them, the first of several."""
    found: dict[str, int] = {}
    for config in configs:
        for key in ("bos_token_id", "eos_token_id"):
            value = config.get(key)
            value = value[0] if isinstance(value, list) and value else value
            if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _LARGEST_ID:
                found[key] = value
    return found


def _template(folder: Path, config: Json) -> str:
    texts = [config.get("chat_template")]
    if isinstance(texts[0], list):
        texts = [one.get("template") for one in texts[0] if isinstance(one, dict)]
    if (path := folder / "chat_template.jinja").exists():
        with reading(path):
            texts.append(paths.read_bytes(path, limit=_LIMIT).decode())
    texts.append(_json(folder / "chat_template.json").get("chat_template"))
    return "\n".join(text for text in texts if isinstance(text, str))
