"""What a family costs, and what proves it: write docs/families.md and print the table: `make docs`.

`python -m tools.check` fails when the mean is above the limit, a family is proven by nothing, or the page is
not the one that this file makes.
"""

from __future__ import annotations

import ast
import json
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bestiary.config import Config
from bestiary.families import FAMILIES, TELLING, Family, family
from bestiary.roster.published import Published, published
from tools.sources import ROOT

PAGE = ROOT / "docs/families.md"
FOLDER = ROOT / "src/bestiary/families"
CASES = ROOT / "src/bestiary/prove/references"
LIVE = ROOT / "tests/tiny.py"
TABLES = ("MODELS", "ENCODERS", "ENCODER_DECODERS")
MEAN_LINES = 60

# Families whose files transformers does not write and of which no case is stored: the test that makes some.
OTHERWISE = {
    "easylm": "tests/parity/test_other_names.py",
    "llama_native": "tests/parity/test_native.py",
    "tencent_pretrain": "tests/parity/test_other_names.py",
    "tensor2tensor": "tests/parity/test_translation_models.py",
    "transformer_paper": "tests/parity/test_translation_models.py",
}

# Mean length of a file, or of the files, that hold one architecture elsewhere, counted in August 2026.
ELSEWHERE = (
    ("transformers 5.23", "about 1,000", "559,300 lines in the `modeling_*.py` of 524 architectures"),
    ("curated-transformers e7e7e9d", "483", "Llama: five files"),
    ("mlx-lm d78bf58", "278", "one file an architecture"),
    ("exllamav3 4f8ad01", "232", "one file an architecture"),
)

HEAD = """\
# Families

A family is one file in [src/bestiary/families](../src/bestiary/families) that says only what is particular
to an architecture: `TENSORS`, the names under which its published files hold the tensors of
[our modules](../src/bestiary/models.py), and `build`, which reads its config.json into
[bricks](../src/bestiary/bricks). What computes exactly as another family does is a row of `FAMILIES`, not a
file. This page is made by `make docs`: change the files, not the page.

## Add one in five steps

1. **Name it.** Add its `model_type` to `FAMILIES` in
   [families/\\_\\_init\\_\\_.py](../src/bestiary/families/__init__.py); where the config has none, a key that
   only this family has to `TELLING`. If it computes what a family here computes, you are at step 5.
2. **Build it.** Read every key that changes a number, with the reader of its type (`c.count`, `c.flag`,
   `c.activation`, ...), and compose bricks; `c.must(key, value)` where only one setting is computed. A key
   that nobody reads is refused, by name, when a file is loaded. Start from
   [falcon.py](../src/bestiary/families/falcon.py), or call [llama.py](../src/bestiary/families/llama.py) with
   the one layer that differs. An equation that no brick has is a new brick, and never a flag on one.
3. **Name its tensors.** One rule a tensor in `TENSORS`: `*` is a number, `[...]` a part that some files have.
   Fused, turned and interleaved tensors have layouts in [tensors.py](../src/bestiary/tensors.py). The same
   table, read backwards, saves.
4. **Prove it.** Where transformers has the architecture, a line in [tests/tiny.py](../tests/tiny.py) for
   every way to compute: each is compared live, and held to every context, adapter and quantisation. Where it
   has not, a tiny checkpoint, and what the authors' own code computes from it, in
   [prove/references](../src/bestiary/prove/references).
5. **Count it.** A published checkpoint in
   [sizes.toml](../src/bestiary/roster/published/sizes.toml): built at full size, without memory, it must
   have exactly as many parameters as its authors'. Then `make docs` adds it below.
"""


@dataclass(frozen=True)
class Row:
    """One family: its file's name, its length, and what reads and proves it."""

    name: str
    lines: int
    code: int  # without blank lines and comments
    rules: int
    types: tuple[str, ...]
    checkpoints: tuple[str, ...]
    cases: tuple[str, ...]
    live: tuple[str, ...]


def rows() -> list[Row]:
    """Return every family that a config.json can name, in the order of their names."""
    types, sizes, cases = _types(), _sizes(), _cases()
    live = _live(types)
    return [
        _row(name, types[name], sizes.get(name, []), tuple(cases.get(name, ())), tuple(live.get(name, ())))
        for name in sorted(types)
    ]


def shared() -> list[tuple[str, int]]:
    """Return the files that several families read with, and their lines."""
    known = {*_types(), "__init__"}
    paths = (path for path in sorted(FOLDER.glob("*.py")) if path.stem not in known)
    return [(path.stem, len(path.read_text(encoding="utf-8").splitlines())) for path in paths]


def mean(found: list[Row]) -> float:
    """Return the mean length of a family's file, blank lines and docstrings in."""
    return sum(row.lines for row in found) / len(found)


def problems(found: list[Row] | None = None) -> Iterator[str]:
    """Yield one line for each thing that is not as this page promises."""
    found = found or rows()
    if mean(found) > MEAN_LINES:
        yield f"src/bestiary/families: {mean(found):.1f} lines a family on average, {MEAN_LINES} at most"
    for row in found:
        if not (row.cases or row.live or (ROOT / OTHERWISE.get(row.name, "-")).is_file()):
            yield f"src/bestiary/families/{row.name}.py: neither tests/tiny.py nor prove/references proves it"
    if not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != page(found):
        yield "docs/families.md: out of date; run `make docs`"


def page(found: list[Row]) -> str:
    """Return the page."""
    parts = [HEAD, "## What there is", "", *_table(found), "", "## What one costs", "", *_costs(found), ""]
    return "\n".join(parts)


def _table(found: list[Row]) -> Iterator[str]:
    count = sum(len(row.checkpoints) for row in found)
    yield _paragraph(
        f"""`model_type` is what config.json says, with a key in brackets where that says too little. Live
        variants are compared with transformers whenever the tests run, stored cases with what the authors'
        code computed. Counted: how many of {count} published checkpoints are built at full size and have
        exactly the parameters they should."""
    )
    yield ""
    yield "| family | `model_type` | stored cases | live variants | counted |"
    yield "|---|---|---|---|---:|"
    for row in found:
        link = f"[{row.name}](../src/bestiary/families/{row.name}.py)"
        cases = ", ".join(
            f"[{name}](../src/bestiary/prove/references/{name}/META.json)" for name in row.cases
        )
        if row.name in OTHERWISE:
            cases = f"[made by its test](../{OTHERWISE[row.name]})"
        cells = (link, ", ".join(row.types), cases, ", ".join(row.live), str(len(row.checkpoints)))
        yield f"| {' | '.join(cells)} |"


def _costs(found: list[Row]) -> Iterator[str]:
    names, lengths = zip(*shared(), strict=True)
    both = sum(row.lines for row in found) + sum(lengths)
    yield _paragraph(
        f"""{len(found)} families have {mean(found):.0f} lines each on average, docstrings and blank lines in;
        `make check` fails above {MEAN_LINES}. What several read with ({", ".join(names)}), divided among all,
        makes it {both / len(found):.0f}. What one architecture costs elsewhere:"""
    )
    yield ""
    yield "| project | lines | counted |"
    yield "|---|---:|---|"
    yield f"| Bestiary | {mean(found):.0f} | one file a family |"
    yield from (f"| {project} | {lines} | {how} |" for project, lines, how in ELSEWHERE)
    yield ""
    yield _paragraph(
        """Code is what remains without blank lines and comments; rules are the rows of `TENSORS`, those taken
        from another family included."""
    )
    yield ""
    yield "| family | lines | code | rules |"
    yield "|---|---:|---:|---:|"
    yield from (f"| {row.name} | {row.lines} | {row.code} | {row.rules} |" for row in found)


def _paragraph(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), 110, break_long_words=False, break_on_hyphens=False)


def _types() -> dict[str, tuple[str, ...]]:
    """Return what leads to each family: model types, and `(key)` where a key tells."""
    found: dict[str, list[str]] = {}
    for kind, name in FAMILIES.items():
        found.setdefault(name, []).append(f"`{kind}`")
    for telling, key, name in TELLING:
        found.setdefault(name, []).append(f"(`{key}`)" if telling is None else f"`{telling}` (`{key}`)")
    return {name: tuple(types) for name, types in found.items()}


def _row(
    name: str, types: tuple[str, ...], sizes: list[Published], cases: tuple[str, ...], live: tuple[str, ...]
) -> Row:
    lines = (FOLDER / f"{name}.py").read_text(encoding="utf-8").splitlines()
    code = [line for line in lines if line.strip() and not line.strip().startswith("#")]
    ids = tuple(name for row in sizes for name in row.ids)
    return Row(name, len(lines), len(code), _rules(sizes), types, ids, cases, live)


def _rules(sizes: list[Published]) -> int:
    """Count the rows of the tensor table that the family's first published checkpoint is read with.

    Rows that differ in a number alone are one: a few formats need a row a layer.
    """
    if not sizes:
        return 0
    c = Config(sizes[0].config)
    tensors = family(c).TENSORS
    table = tensors if isinstance(tensors, Mapping) else tensors(c)
    return len({re.sub(r"\d+", "*", str(key)) for key in table})


def _sizes() -> dict[str, list[Published]]:
    """Return the published checkpoints of each family that are built at full size."""
    found: dict[str, list[Published]] = {}
    for row in published():
        found.setdefault(_name(family(Config(row.config))), []).append(row)
    return found


def _cases() -> dict[str, list[str]]:
    """Return the stored cases of each family."""
    found: dict[str, list[str]] = {}
    for path in sorted(CASES.glob("*/config.json")):
        config = Config(json.loads(path.read_text(encoding="utf-8")))
        found.setdefault(_name(family(config)), []).append(path.parent.name)
    return found


def _name(module: Family) -> str:
    return str(getattr(module, "__name__", "")).rpartition(".")[2]


def _live(types: dict[str, tuple[str, ...]]) -> dict[str, list[str]]:
    """Return the variants of each family that transformers makes for the tests.

    Their classes are told by how their names begin, which is with the model type: reading that from
    transformers would take seconds.
    """
    named = {_plain(kind): name for name, kinds in types.items() for kind in kinds if "(" not in kind}
    found: dict[str, list[str]] = {}
    for variant, kind in _models(LIVE):
        begins = [plain for plain in named if _plain(kind).startswith(plain)]
        found.setdefault(named[max(begins, key=len)], []).append(variant)
    return found


def _plain(kind: str) -> str:
    return "".join(letter for letter in kind.lower() if letter.isalnum())


def _models(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (name, configuration class or model class) of each row of TABLES."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) in TABLES:
            table = node.value
            if not isinstance(table, ast.Dict):
                raise TypeError(f"{path}: {ast.unparse(node.target)} should be written as one table")
            for key, value in zip(table.keys, table.values, strict=True):
                yield ast.literal_eval(key), ast.literal_eval(value.elts[0])  # type: ignore[arg-type, attr-defined]


def main() -> None:
    """Print the table, and write the page."""
    found = rows()
    print(f"{'':16}{'lines':>6}{'code':>6}{'rules':>6}")
    for row in found:
        print(f"{row.name:16}{row.lines:6}{row.code:6}{row.rules:6}  {', '.join((*row.cases, *row.live))}")
    print(
        f"{'mean':16}{mean(found):6.1f}   shared: {', '.join(f'{name} {lines}' for name, lines in shared())}"
    )
    PAGE.write_text(page(found), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
