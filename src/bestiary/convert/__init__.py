"""Models to other forms of file: any that is loaded here, as GGUF or as Hugging Face's folder of
safetensors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import RequestError, TokenizerError
from ..files import gguf_writer
from ..files.writing import Planned, Progress
from ..load import Loaded, load
from ..text import declared
from ..text.gguf_keys import keys
from ..text.tokenizer import open_tokenizer
from . import folder, gguf, types

__all__ = ["FORMATS", "Conversion", "convert"]

FORMATS = ("safetensors", "gguf")
_FLOATS = ("f32", "f16", "bf16")


@dataclass(frozen=True)
class Conversion:
    """What was written, or would be.

    files: the files, weights first. tensors: name, shape and type of each. fallen: tensors that have another
    type than was asked for, since their rows do not fill its blocks -> that type. notes: what the reader of
    the files must know.
    """

    format: str
    architecture: str
    files: tuple[Path, ...]
    tensors: tuple[Planned, ...]
    fallen: dict[str, str]
    notes: tuple[str, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for tensor in self.tensors)


def convert(
    source: str | Path,
    target: str | Path,
    *,
    form: str | None = None,
    kind: str | None = None,
    overwrite: bool = False,
    tokenizer: bool = True,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> Conversion:
    """Write a model's folder or file in another form.

    target: a .gguf file, or a folder, made where it is not there. form: one of FORMATS, by the target's name
    unless told. kind: the type of weights: f32, f16, bf16, and in GGUF q8_0, q4_0 or q4_k; as the source has
    each unless told. tokenizer: write that too. dry_run: only plan, which proves that the files would compute
    the same. Raises RequestError for what has no such form, and where something is in the way;
    CheckpointError, ConfigError and TokenizerError as loading does.
    """
    target = Path(target)
    form = form or ("gguf" if target.suffix.lower() == ".gguf" else "safetensors")
    _check(form, kind)
    where = (
        target / f"{target.resolve().name}.gguf"
        if form == "gguf" and target.suffix.lower() != ".gguf"
        else target
    )
    _check_place(where, form, overwrite=overwrite)
    loaded = load(source)
    _check_apart(loaded, where)
    if form == "gguf":
        return _gguf(loaded, where, kind, tokenizer, None if dry_run else progress or _silent)
    plan = folder.plan(loaded, kind=kind, tokenizer=tokenizer)
    folder.check_free(where, plan)
    files = [where / "model.safetensors"] if dry_run else folder.write(where, plan, progress=progress)
    architecture = str(plan.config.get("model_type", type(loaded.model).__name__))
    return Conversion(form, architecture, tuple(files), plan.tensors, {}, plan.notes)


def _silent(done: int, total: int) -> None:
    return None


def _gguf(
    loaded: Loaded, target: Path, kind: str | None, tokenizer: bool, progress: Progress | None
) -> Conversion:
    """Plan a GGUF file, and write it where there is someone to tell."""
    plan = gguf.plan(loaded, kind=kind, name=_name(loaded))
    architecture = str(plan.metadata["general.architecture"])
    metadata = dict(plan.metadata)
    if tokenizer:
        metadata |= _tokenizer(loaded, int(str(plan.metadata[f"{architecture}.vocab_size"])))
    else:
        metadata["tokenizer.ggml.model"] = "no_vocab"
    if progress is not None:
        target.parent.mkdir(parents=True, exist_ok=True)
        gguf_writer.write(target, metadata, plan.tensors, progress=progress)
    return Conversion("gguf", architecture, (target,), plan.tensors, dict(plan.fallen), plan.notes)


def _name(loaded: Loaded) -> str:
    path = loaded.checkpoint.path
    return path.name if path.is_dir() else path.stem


def _tokenizer(loaded: Loaded, size: int) -> dict[str, object]:
    """Return the keys of a source's tokenizer: of a GGUF file, its own."""
    if loaded.checkpoint.kind == "gguf":
        return {
            key: value for key, value in loaded.checkpoint.metadata.items() if key.startswith("tokenizer.")
        }
    path = loaded.checkpoint.path if loaded.checkpoint.path.is_dir() else loaded.checkpoint.path.parent
    try:
        return keys(open_tokenizer(path), size=size, template=declared.read(path).template)
    except TokenizerError as error:
        said = str(error)
        raise TokenizerError(
            said if "--no-tokenizer" in said else f"{said}. Or write none: --no-tokenizer"
        ) from error


def _check(form: str, kind: str | None) -> None:
    if form not in FORMATS:
        raise RequestError(f"format = {form!r} is not written; choose {' or '.join(FORMATS)}")
    if kind is not None and kind not in types.TYPES:
        raise RequestError(f"type = {kind!r} is not written; choose {', '.join(types.TYPES)}")
    if form == "safetensors" and kind is not None and kind not in _FLOATS:
        raise RequestError(
            f"safetensors has no type for {kind}; choose {', '.join(_FLOATS)}"
            f"\nTry: --format gguf --type {kind}"
        )


def _check_place(target: Path, form: str, *, overwrite: bool) -> None:
    """Refuse to write over something, or beside weights that would then be taken for part of the model."""
    above = next(parent for parent in target.absolute().parents if parent.exists())
    if not above.is_dir():
        raise RequestError(f"{above} is a file, and {target} would lie in it\nTry: another place")
    if form == "gguf":
        if target.is_dir():
            raise RequestError(f"{target} is a folder, and a file is to be written")
        if target.exists() and not overwrite:
            raise RequestError(f"{target} is there already\nTry: --overwrite, or another name")
        return
    if target.exists() and not target.is_dir():
        raise RequestError(
            f"{target} is a file, and a folder is to be written\nTry: --format gguf, or another name"
        )
    if target.is_dir() and any(target.iterdir()) and not overwrite:
        raise RequestError(f"{target} is not empty\nTry: --overwrite, or another folder")


def _check_apart(loaded: Loaded, target: Path) -> None:
    """Refuse to write over the files that are read."""
    sources = {entry.file.resolve() for entry in loaded.checkpoint.entries.values()}
    if target.resolve() in sources or any(path.parent == target.resolve() for path in sources):
        raise RequestError(f"{target} is where the model is read from\nTry: another name")
