"""Reference results: what other implementations computed from tiny checkpoints, one folder a case.

They are looked for in $BESTIARY_GOLDENS, else in `shared/goldens` beside the checkout. Where they are absent
the tests that need them are left out, and the last lines of the run say how many.
"""

from __future__ import annotations

import os
from pathlib import Path

from safetensors import safe_open

from bestiary.prove.places import PACKAGED, hints, meta

__all__ = ["STORED", "case", "cases", "decoders", "hints", "meta", "readers", "root"]

_BESIDE = Path(__file__).resolve().parents[2] / "shared" / "goldens"


def root() -> Path | None:
    """Return the folder of reference results, or None where there is none.

    Raises:
        NotADirectoryError: $BESTIARY_GOLDENS is set and is no folder.
    """
    named = os.environ.get("BESTIARY_GOLDENS")
    if named and not Path(named).is_dir():
        raise NotADirectoryError(f"BESTIARY_GOLDENS={named} is not a folder. Unset it, or name one.")
    folder = Path(named) if named else _BESIDE
    return folder.resolve() if folder.is_dir() else None


def cases(*patterns: str) -> list[Path]:
    """Return the case folders that match any of the shell-style patterns; none where there are no results.

    Raises:
        LookupError: the results are here and a pattern matches none: no test vanishes by a typing slip.
    """
    folder = root()
    if folder is None:
        return []
    found: set[Path] = set()
    for pattern in patterns:
        matches = {path for path in folder.glob(pattern) if path.is_dir()}
        if not matches:
            raise LookupError(f"no reference result matches {pattern!r} in {folder}")
        found |= matches
    return sorted(found)


# Cases of other kinds than a text model's forward pass.
OTHERS = (
    "format", "loss", "minigpt4", "opensora", "prompts", "tokenizers",
)  # fmt: skip
# Families whose models read a whole text first.
ENCODERS = ("bert",)
ENCODER_DECODERS = ("cpm2", "plug", "t5", "transformer")
READERS = (*ENCODERS, *ENCODER_DECODERS)
STORED = PACKAGED


def decoders(*, with_key: str = "logits") -> list[Path]:
    """Return every case of a decoder whose expected results have a key.

    One case of each family that no installed library computes lies in the repository itself, so that every
    family is proven on any machine; the rest are read where they are.
    """
    return [case for case in _models(with_key) if meta(case)["family"] not in READERS]


def readers(*, with_key: str = "logits") -> list[Path]:
    """Return every case of an encoder or an encoder-decoder whose expected results have a key."""
    return [case for case in _models(with_key) if meta(case)["family"] in READERS]


def case(name: str) -> Path:
    """Return the folder of a decoder's, an encoder's or an encoder-decoder's case."""
    stored = STORED / name
    return stored if stored.is_dir() else cases(name)[0]


def _models(with_key: str) -> list[Path]:
    found = {path.name: path for path in sorted(STORED.iterdir())}
    found |= {path.name: path for path in cases("*") if path.name.split("-")[0] not in OTHERS}
    return [path for _, path in sorted(found.items()) if with_key in _keys(path / "expected.safetensors")]


def _keys(file: Path) -> set[str]:
    with safe_open(file, "pt") as opened:
        return set(opened.keys())
