"""Where reference results lie: in the package, and in folders that a user names."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import RequestError

PACKAGED = Path(__file__).parent / "references"
# One case a family that transformers computes, by the name of our family's file.
TINY = Path(__file__).parent / "tiny"
# Cases of training objectives on plain tensors.
LOSSES = Path(__file__).parent / "losses" / "cases"
VARIABLE = "BESTIARY_REFERENCES"


@dataclass(frozen=True)
class Places:
    """Folders of cases; the first that has one counts. A case is a folder: META.json and its results."""

    folders: tuple[Path, ...]

    @classmethod
    def of(cls, given: str | None) -> Places:
        """Return the packaged cases, after those of a folder that was named.

        Raises RequestError for a folder that is none, or has no case.
        """
        named = given or os.environ.get(VARIABLE)
        if not named:
            return cls((PACKAGED, LOSSES))
        folder = Path(named).expanduser()
        if not folder.is_dir() or next(folder.glob("*/META.json"), None) is None:
            where = "--references" if given else VARIABLE
            raise RequestError(
                f"{where} {named}: no folder of reference results, each a folder with a META.json"
            )
        return cls((folder, PACKAGED, LOSSES))

    def case(self, name: str) -> Path | None:
        """Return the folder of a case; None where it is not at hand."""
        found = (folder / name for folder in self.folders)
        return next((case for case in found if (case / "META.json").is_file()), None)

    def families(self, names: Iterable[str]) -> list[Path]:
        """Return the packaged cases of families, of those that have one."""
        own = {meta(case)["family"].partition(" ")[0]: case for case in sorted(PACKAGED.iterdir())}
        found = (TINY / name if (TINY / name).is_dir() else own.get(name) for name in names)
        return [case for case in found if case is not None]

    def tokenizer(self, name: str) -> Path | None:
        """Return the folder of a tokenizer's texts and ids; None where it is not at hand."""
        return self.case(f"tokenizers/{name}")


def meta(case: Path) -> dict[str, Any]:
    """Return a case's META.json: family, reference, tolerance, pitfalls."""
    read: dict[str, Any] = json.loads((case / "META.json").read_text(encoding="utf-8"))
    return read


def hints(case: Path) -> dict[str, Any]:
    """Return the config keys that stand in for published facts which a tiny config cannot carry."""
    if not (case / "META.json").is_file():
        return {}
    about = meta(case)
    said: dict[str, Any] = dict(about.get("hints") or {})
    if about.get("family") == "glm130b":  # whose published ids lie beyond a tiny vocabulary
        said |= {f"{name}_token_id": about["special_ids"][name] for name in ("mask", "gmask", "smask", "sop")}
    rope: dict[str, Any] = said.pop("rope", {})
    return {**said, **rope}
