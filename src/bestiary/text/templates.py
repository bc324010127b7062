"""Where a model's chat template comes from: a caller, its own files, or the roster's entry of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .. import roster
from ..errors import BestiaryError, TemplateError
from ..files import open_checkpoint, paths
from ..hub import cache
from . import jinja, prompts
from .chat import ChatTemplate
from .tokenizer import Tokenizer

Json = Any
_TEMPLATE_FILES = (".jinja", ".jinja2", ".j2", ".txt")

_FILE_LIMIT = 16 << 20
_NAMED = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")


def choose(path: Path, tokenizer: Tokenizer, given: str | Path | None = None) -> ChatTemplate | None:
    """Return the chat template of a model; None where it has none, as a base model.

    given: the name of a format ("vicuna-v1.1"), a Jinja template, or a file with one. Otherwise the model's
    own files count, and then what the roster says of the checkpoint that it was pulled as or adopted from.
    Raises TemplateError: it cannot be read, or is another model's. RequestError: no format has that name.
    """
    if given is not None:
        return _given(given, tokenizer)
    if (own := open_template(path, tokenizer)) is not None:
        return own
    name = published_format(path)
    return None if name is None else ChatTemplate(prompts.get(name), tokenizer)


def published_format(path: Path) -> str | None:
    """Return the name of the format that a pulled checkpoint was trained with, as the roster has it."""
    repository = cache.origin(path)
    entry = roster.find(repository) if repository is not None else None
    ones = entry.checkpoints if entry is not None else ()
    return next((one.prompt for one in ones if one.id.lower() == str(repository).lower()), None)


def _given(given: str | Path, tokenizer: Tokenizer) -> ChatTemplate:
    if "{" in str(given):
        return ChatTemplate(str(given), tokenizer)
    if str(given) in prompts.named():
        return ChatTemplate(prompts.get(str(given)), tokenizer)
    file = Path(given)
    if not file.is_file() and file.suffix not in _TEMPLATE_FILES and len(file.parts) == 1:
        prompts.get(str(given))
    try:
        source = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TemplateError(f"chat template {given} cannot be read: {error}") from error
    return ChatTemplate(source, tokenizer)


def open_template(
    path: str | Path, tokenizer: Tokenizer, *, sandbox: jinja.Sandbox = jinja.shared
) -> ChatTemplate | None:
    """Read a model's chat template; None if it has none.

    A .gguf file has it in its metadata (tokenizer.chat_template); a folder in chat_template.jinja, in
    tokenizer_config.json, in chat_template.json, or in its only .gguf file. Of several by name "default" is
    taken. A folder's generation_config.json adds to the tokens that end an answer, as do GGUF's eot and eom
    tokens.

    Raises:
        TemplateError: it cannot be read, or is longer than jinja.TEMPLATE_LIMIT.
        CheckpointError: the .gguf file cannot be read.
    """
    path = Path(path)
    if path.is_dir():
        source, tokens, stops = _from_folder(path)
        files = [] if source is not None else sorted(path.glob("*.gguf"))
        if len(files) == 1:
            source, stops = _from_gguf(files[0])
    else:
        tokens = {}
        source, stops = _from_gguf(path)
    if source is None:
        return None
    if len(source) > jinja.TEMPLATE_LIMIT:
        raise TemplateError(
            f"{path}: chat template of {len(source)} characters; {jinja.TEMPLATE_LIMIT} are the limit"
        )
    return ChatTemplate(source, tokenizer, tokens=tokens, stops=stops, sandbox=sandbox)


def _from_gguf(file: Path) -> tuple[str | None, list[int]]:
    with open_checkpoint(file) as checkpoint:
        metadata = checkpoint.metadata
    source = metadata.get("tokenizer.chat_template")
    stops = [metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ("eot", "eom")]
    return (source if isinstance(source, str) else None), [id for id in stops if isinstance(id, int)]


def _from_folder(folder: Path) -> tuple[str | None, dict[str, str | None], list[int]]:
    config = _json(folder / "tokenizer_config.json")
    source = _chosen(folder, config.get("chat_template"))
    if (folder / "chat_template.json").exists():
        source = source or _chosen(folder, _json(folder / "chat_template.json").get("chat_template"))
    if (file := folder / "chat_template.jinja").exists():
        try:
            source = paths.read_bytes(file, limit=4 * jinja.TEMPLATE_LIMIT).decode()
        except (BestiaryError, UnicodeDecodeError) as error:
            raise TemplateError(f"{file}: the chat template cannot be read: {error}") from error
    tokens = {}
    for name in _NAMED:
        if name in config:
            value = config[name].get("content") if isinstance(config[name], dict) else config[name]
            tokens[name] = value if isinstance(value, str) else None
    ends = _json(folder / "generation_config.json").get("eos_token_id")
    return source, tokens, [id for id in (ends if isinstance(ends, list) else [ends]) if type(id) is int]


def _chosen(folder: Path, value: Json) -> str | None:
    """Return the default one of what chat_template says: a text, or a list of texts with names."""
    if not isinstance(value, list):
        return value if isinstance(value, str) else None
    named = {str(one.get("name")): one.get("template") for one in value if isinstance(one, dict)}
    default = named.get("default")
    if not isinstance(default, str):
        raise TemplateError(
            f"{folder}: of its chat templates ({', '.join(named)[:200]}) none is called default"
        )
    return default


def _json(file: Path) -> dict[str, Json]:
    if not file.exists():
        return {}
    try:
        return paths.read_json(file, limit=_FILE_LIMIT)
    except BestiaryError as error:
        raise TemplateError(f"the chat template cannot be read: {error}") from error
