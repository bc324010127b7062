"""`bestiary list`: the models on this machine."""

from __future__ import annotations

import argparse

from .. import hub
from ..hub import cache
from .terminal import BOLD, columns, note, paint, print_json, printable, size


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--json", action="store_true", help="print name, kind, bytes, path and state as JSON")


def run(options: argparse.Namespace) -> int:
    """List the embedded models that were pulled, then what the Hugging Face cache holds."""
    models = hub.models()
    if options.json:
        rows = [{**vars(model), "path": str(model.path)} for model in models]
        print_json(rows)
        return 0
    if not models:
        note(f"no models in {cache.own_cache()} or {cache.hub_cache()}; bestiary pull smollm2 gets the first")
        return 0
    cells = [("NAME", "KIND", "SIZE", "")]
    cells += [(printable(m.name), m.kind, size(m.nbytes), "" if m.complete else "incomplete") for m in models]
    head, *rest = columns(cells, right=frozenset({2}))
    print("\n".join([paint(head, BOLD), *rest]))
    return 0
