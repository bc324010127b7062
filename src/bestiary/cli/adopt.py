"""`bestiary adopt`: make a model of what was published in a form that is none by itself.

A difference to a base (Vicuna's first versions), adapters (Alpaca-LoRA), or the weights in another program's
form (Meta's consolidated files, GGUF, .bin) become a folder with safetensors, config.json and tokenizer.
Files that were encrypted with LLaMA's own (BELLE) become the plain ones.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import RequestError
from .terminal import LoadingBar, note, print_json, size

if TYPE_CHECKING:
    from ..adopt import Adopted


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "source", metavar="SOURCE", help="a folder, a weight file, or a name of the hub or roster"
    )
    parser.add_argument("--base", metavar="MODEL", help="what a difference is to, or an adapter goes on")
    parser.add_argument(
        "--adapter",
        metavar="FOLDER",
        action="append",
        default=[],
        help="merge it too; may be repeated, in order",
    )
    parser.add_argument(
        "--how",
        metavar="NAME",
        help="a difference's arithmetic, where its name does not tell: vicuna, ziya ...; "
        "xor: files encrypted with the consolidated.00.pth that --base names",
    )
    parser.add_argument(
        "--to", metavar="FOLDER", help="what to make: a folder that is empty or not there yet"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="say what was found and would be done; write nothing"
    )
    parser.add_argument("--json", action="store_true", help="print what was made as JSON")


def run(options: argparse.Namespace) -> int:
    """Find out what a source is, say so, make the folder, say what comes next."""
    if options.to is None and not options.dry_run:
        raise RequestError(
            "where to? nothing is written beside what was downloaded\nTry: --to FOLDER, or --dry-run"
        )
    from ..adopt import adopt, find
    from ..adopt.folder import check_free

    if options.to is not None:
        check_free(Path(options.to).expanduser())
    if options.how == "xor":
        return _decrypt(options)
    job = find(options.source, base=options.base, adapters=options.adapter, how=options.how)
    job.check()
    tensors = job.planned()
    nbytes = sum(tensor.nbytes for tensor in tensors)
    for line in job.told:
        note(line)
    note(f"result      {len(tensors)} tensors, {size(nbytes)}")
    if options.dry_run:
        note("nothing was written (--dry-run)")
        return 0
    with _WritingBar(str(options.to)) as bar:
        made = adopt(job, options.to, progress=bar)
    _tell(made, as_json=options.json)
    return 0


def _decrypt(options: argparse.Namespace) -> int:
    """Write the plain files of a folder that was encrypted with LLaMA's own."""
    from .. import hub
    from ..adopt import xor

    if options.base is None or options.adapter:
        raise RequestError(
            "--how xor takes the consolidated.00.pth of LLaMA, and no adapter\nTry: --base with its folder"
        )
    source, key = Path(options.source).expanduser(), Path(options.base).expanduser()
    source = source if source.exists() else hub.resolve(options.source)
    key = key / "consolidated.00.pth" if key.is_dir() else key
    note(f"encrypted   {source}")
    note(f"key         {key}")
    if options.dry_run:
        for name in xor.names(source):
            note(f"            {name}")
        note("nothing was written (--dry-run)")
        return 0
    to = Path(options.to).expanduser()
    with _WritingBar(str(to)) as bar:
        made = xor.decrypt(source, key, to, progress=bar)
    nbytes = sum(file.stat().st_size for file in made)
    if options.json:
        print_json({"path": str(to), "nbytes": nbytes, "files": [file.name for file in made]})
        return 0
    note(f"{to}: {len(made)} files, {size(nbytes)}, each with the SHA-256 that it was published with")
    note(f"next: bestiary show {to}")
    return 0


class _WritingBar(LoadingBar):
    verb = "making"


def _tell(made: Adopted, *, as_json: bool) -> None:
    if as_json:
        tokenizer = None if made.tokenizer is None else str(made.tokenizer)
        print_json(
            {"path": str(made.path), "nbytes": made.nbytes, "tokenizer": tokenizer, "notes": list(made.notes)}
        )
        return
    for line in made.notes:
        note(line)
    note(f"{made.path}: {size(made.nbytes)}; adopted.json says what it was made of")
    if made.tokenizer is None:
        note("no tokenizer was found beside the weights: copy the model's own into the folder")
        note(f"next: bestiary show {made.path}")
    else:
        note(f"next: bestiary generate {made.path} 'Once upon a time'")
