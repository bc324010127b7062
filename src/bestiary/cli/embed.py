"""`bestiary embed`: vectors of texts, and which lines of a file are nearest to them.

bestiary embed minilm --nearest notes.txt "how do I reset my password?"
bestiary embed minilm --file notes.txt --out notes.npy
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import RequestError
from .options import open_llm
from .terminal import BOLD, DIM, ReadingBar, columns, fit, gauge, note, paint, print_json
from .texts import add_texts, add_truncate, lines, room, texts

if TYPE_CHECKING:
    from torch import Tensor

    from ..run.llm import LLM

_KINDS = (".npy", ".jsonl", ".safetensors")
_MATRIX = 12  # texts whose likenesses fit a terminal side by side


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_texts(parser)
    add_truncate(parser)
    parser.add_argument(
        "-o", "--out", metavar="FILE", help=f"write the vectors to a file: {', '.join(_KINDS)}"
    )
    parser.add_argument("--nearest", metavar="FILE", help="show the lines of a file that are nearest to each")
    parser.add_argument("--top", type=int, default=5, metavar="N", help="how many lines --nearest shows (5)")
    parser.add_argument(
        "--prompt", metavar="TEXT", help="put this before each TEXT (lines of --nearest have none)"
    )
    parser.add_argument("--prompt-name", metavar="NAME", help="put one of the model's own there: query")


def run(options: argparse.Namespace) -> int:
    """Read the texts, then write, compare or show their vectors."""
    out = None if options.out is None else Path(options.out).expanduser()
    if out is not None and out.suffix not in _KINDS:
        raise RequestError(f"{out.name} should end in {', '.join(_KINDS)}")
    if out is not None and not out.parent.is_dir():
        raise RequestError(f"{out.parent} is no folder to write {out.name} into\nTry: mkdir -p {out.parent}")
    if options.top < 1:
        raise RequestError(f"--top {options.top} should be 1 or more")
    given = texts(options)
    others = None if options.nearest is None else lines(options.nearest)
    with open_llm(options) as llm:
        vectors = _read(llm, given, options, options.prompt, options.prompt_name)
        beside = None if others is None else _read(llm, others, options, None, None)
    if out is not None:
        _write(out, given, vectors)
        note(f"{len(given)} vectors of {vectors.shape[1]} numbers in {out}")
    if others is not None and beside is not None:
        _nearest(given, others, _likeness(vectors, beside), options)
    elif options.json:
        print("[", ",\n ".join(_rows(given, vectors)), "]", sep="")
    elif out is None:
        _show(given, vectors)
    return 0


def _read(
    llm: LLM, given: Sequence[str], options: argparse.Namespace, prompt: str | None, name: str | None
) -> Tensor:
    with ReadingBar(f"{len(given):,} texts") as bar:
        return llm.embed(given, prompt=prompt, prompt_name=name, truncate=options.truncate, progress=bar)


def _likeness(a: Tensor, b: Tensor) -> Tensor:
    """The cosine of the angle between each of one and each of the other."""
    from torch.nn.functional import normalize

    return normalize(a) @ normalize(b).T


def _write(out: Path, given: Sequence[str], vectors: Tensor) -> None:
    """Write the file whole, or leave what was there."""
    if out.suffix == ".safetensors":
        from ..files.safetensors import write

        write(out, {"vectors": vectors})
        return
    temporary = out.with_name(f"{out.name}.tmp")
    if out.suffix == ".npy":
        import numpy

        with temporary.open("wb") as file:
            numpy.save(file, vectors.numpy())
    else:
        temporary.write_text("".join(f"{line}\n" for line in _rows(given, vectors)), encoding="utf-8")
    temporary.replace(out)


def _rows(given: Sequence[str], vectors: Tensor) -> list[str]:
    """A line of JSON a text: a vector with a line a number is for nobody to read."""
    rows = zip(given, vectors.tolist(), strict=True)
    return [json.dumps({"text": text, "vector": vector}, ensure_ascii=False) for text, vector in rows]


def _nearest(
    given: Sequence[str], others: Sequence[str], likeness: Tensor, options: argparse.Namespace
) -> None:
    best = likeness.topk(min(options.top, len(others)))
    found = [
        [(others[i], score) for i, score in zip(*row, strict=True)]
        for row in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]
    if options.json:
        print_json(
            [
                {"text": text, "nearest": [{"text": line, "similarity": score} for line, score in row]}
                for text, row in zip(given, found, strict=True)
            ]
        )
        return
    for text, row in zip(given, found, strict=True):
        print(paint(fit(text, room()), BOLD))
        for line, score in row:
            print(f"  {score:5.2f}  {gauge(score)}  {fit(line, room(21))}")


def _show(given: Sequence[str], vectors: Tensor) -> None:
    """How alike a few texts are; of one, or of many, the first numbers of each vector."""
    if 1 < len(given) <= _MATRIX:
        table = _likeness(vectors, vectors)
        head = ["", *(str(i + 1) for i in range(len(given))), ""]
        cells = [[str(i + 1), *(f"{x:.2f}" for x in row), ""] for i, row in enumerate(table.tolist())]
        top, *rows = columns([head, *cells], right=frozenset(range(len(given) + 1)))
        print(paint(top, DIM))
        for row, text in zip(rows, given, strict=True):
            print(f"{row}  {fit(text, room(len(row) + 2))}")
        note("the cosine of the angle between each two: 1 is the same direction, 0 nothing in common")
        return
    for text, vector in zip(given, vectors, strict=True):
        first = " ".join(f"{x:7.4f}" for x in vector[:4].tolist())
        print(f"{first} …  {fit(text, room(36))}")
    note(f"{vectors.shape[1]} numbers each; --json prints them, --out FILE keeps them")
