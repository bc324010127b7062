"""`bestiary convert`: a model in another form of file."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from .. import hub
from .terminal import LoadingBar, columns, note, print_json, size

if TYPE_CHECKING:
    from ..convert import Conversion

_SHOWN = 8  # tensors that are named where they have another type than was asked for


class _Bar(LoadingBar):
    verb = "writing"


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("model", metavar="MODEL", help="a model, as for `bestiary chat`")
    parser.add_argument("--to", metavar="PATH", required=True, help="a folder, or a file that ends in .gguf")
    parser.add_argument(
        "--format", choices=("safetensors", "gguf"), help="what to write (default: by the name of PATH)"
    )
    about = "of weights: f32, f16, bf16; in GGUF also q8_0, q4_0, q4_k (default: as they are)"
    parser.add_argument("--type", metavar="TYPE", help=about)
    parser.add_argument("--overwrite", action="store_true", help="write over what is there")
    parser.add_argument("--no-tokenizer", action="store_true", help="leave the tokenizer out")
    parser.add_argument("--dry-run", action="store_true", help="say what would be written, and write nothing")
    parser.add_argument("--json", action="store_true", help="print files, types and notes as JSON")


def run(options: argparse.Namespace) -> int:
    """Convert; say what was written, what has another type than was asked for, and what to know."""
    source, target = hub.resolve(options.model), Path(options.to).expanduser()
    from ..convert import convert

    with _Bar(str(target)) as bar:
        done = convert(
            source,
            target,
            form=options.format,
            kind=options.type,
            overwrite=options.overwrite,
            tokenizer=not options.no_tokenizer,
            dry_run=options.dry_run,
            progress=bar,
        )
    if options.json:
        print_json(_as_json(done))
        return 0
    _report(done, planned=options.dry_run)
    return 0


def _types(done: Conversion) -> Counter[str]:
    return Counter(tensor.dtype for tensor in done.tensors)


def _as_json(done: Conversion) -> dict[str, object]:
    return {
        "format": done.format,
        "architecture": done.architecture,
        "files": [str(file) for file in done.files],
        "nbytes": done.nbytes,
        "types": dict(_types(done)),
        "fallen_back": done.fallen,
        "notes": list(done.notes),
    }


def _report(done: Conversion, *, planned: bool) -> None:
    counts = _types(done)
    sizes = {kind: sum(each.nbytes for each in done.tensors if each.dtype == kind) for kind in counts}
    rows = [(kind, f"{counts[kind]} tensors", size(sizes[kind])) for kind in sorted(counts)]
    for line in columns(rows, right=frozenset({1, 2})):
        print(line)
    kinds = {tensor.name: tensor.dtype for tensor in done.tensors}
    for name, wanted in list(done.fallen.items())[:_SHOWN]:
        note(f"{name} is {kinds[name]}: its rows do not fill the blocks of {wanted}")
    if (more := len(done.fallen) - _SHOWN) > 0:
        note(f"and {more} more like it")
    for text in done.notes:
        note(f"note: {text}")
    what = "would be written" if planned else "written"
    note(f"{what}: {done.architecture}, {size(done.nbytes)} in {done.files[0] if done.files else ''}")
