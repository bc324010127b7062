"""Reference results: what other implementations computed from tiny checkpoints, one folder a case.

They are looked for in $BESTIARY_GOLDENS, else in `shared/goldens` beside the checkout. Where they are absent
the tests that need them are left out, and the last lines of the run say how many.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from safetensors import safe_open

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


def meta(case: Path) -> dict[str, Any]:
    """Return a case's META.json: family, reference, tolerance, pitfalls."""
    read: dict[str, Any] = json.loads((case / "META.json").read_text(encoding="utf-8"))
    return read


def hints(case: Path) -> dict[str, Any]:
    """Return the config keys that stand in for published facts which a tiny config cannot carry."""
    if not (case / "META.json").exists():
        return {}
    about = meta(case)
    said: dict[str, Any] = dict(about.get("hints") or {})
    if about["family"] == "glm130b":  # whose published ids lie beyond a tiny vocabulary
        said |= {f"{name}_token_id": about["special_ids"][name] for name in ("mask", "gmask", "smask", "sop")}
    return said | said.pop("rope", {})


# Cases of other kinds than a text model's forward pass.
OTHERS = (
    "format", "loss", "minigpt4", "opensora", "prompts", "tokenizers",
)  # fmt: skip
# Families whose models read a whole text first.
ENCODERS = ("bert",)
ENCODER_DECODERS = ("cpm2", "plug", "t5", "transformer")
READERS = (*ENCODERS, *ENCODER_DECODERS)
STORED = Path(__file__).parent / "references"


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
