"""`bestiary bench`: how fast a model is here, in the table of llama-bench.

ppN processes a prompt of N tokens at once; tgN generates N tokens one by one, from an empty context. Tokens
are drawn at random with a fixed seed, and nothing is sampled: what is timed is the model.
"""

from __future__ import annotations

import argparse
import csv
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import RequestError
from .options import add_loading, add_model, count, model_name, open_llm
from .terminal import print_json

if TYPE_CHECKING:
    from ..run.session import Session

_FORMATS = ("md", "csv", "json")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_model(parser)
    parser.add_argument("-p", "--n-prompt", metavar="N,...", default="512", help="prompt lengths; 0: none")
    parser.add_argument("-n", "--n-gen", metavar="N,...", default="128", help="tokens to generate; 0: none")
    parser.add_argument("-r", "--repetitions", metavar="N", default="5", help="how often each is timed")
    parser.add_argument("-o", "--output", choices=_FORMATS, default="md", help="the form of the table")
    parser.add_argument(
        "--json", action="store_const", const="json", dest="output", help="the same as -o json"
    )
    add_loading(parser)


def run(options: argparse.Namespace) -> int:
    """Time the model and print tokens a second: mean and standard deviation."""
    tests = [("pp", n) for n in _counts(options.n_prompt, "-p")] + [
        ("tg", n) for n in _counts(options.n_gen, "-n")
    ]
    repetitions = count(options.repetitions, "-r")
    if not tests or not repetitions:
        raise RequestError("there is nothing to time: -p, -n and -r are 0")
    rows = []
    with open_llm(options) as llm:
        import torch

        # A tied tensor stands in the state twice.
        weights = {tensor.data_ptr(): tensor.nbytes for tensor in llm.model.state_dict().values()}
        about = {
            "model": model_name(options),
            "nbytes": sum(weights.values()),
            "device": str(next(llm.model.parameters()).device),
            "threads": torch.get_num_threads(),
        }
        draw = random.Random(0)  # noqa: S311 (not a secret)
        for kind, length in tests:
            if length > llm.context:
                raise RequestError(f"{kind}{length} does not fit the context of {llm.context} tokens")
            ids = [draw.randrange(llm.tokenizer.vocab_size) for _ in range(length)]
            rows.append({**about, "test": f"{kind}{length}", **_time(llm.session(), ids, kind, repetitions)})
    _FORMS[options.output](rows)
    return 0


def _counts(text: str, where: str) -> list[int]:
    return [number for number in (count(part, where) for part in text.split(",")) if number]


def _time(session: Session, ids: Sequence[int], kind: str, repetitions: int) -> dict[str, Any]:
    """Time one test, after a run that warms caches up and takes memory."""
    step = session.prefill if kind == "pp" else lambda tokens: _one_by_one(session, tokens)
    seconds = []
    for _ in range(repetitions + 1):
        session.rewind(0)
        began = time.perf_counter()
        step(ids)
        seconds.append(time.perf_counter() - began)
    speeds = [len(ids) / taken for taken in seconds[1:]]
    deviation = statistics.stdev(speeds) if len(speeds) > 1 else 0.0
    return {"mean": statistics.fmean(speeds), "stdev": deviation, "samples": speeds}


def _one_by_one(session: Session, ids: Sequence[int]) -> None:
    for token in ids:
        session.feed([token])


def _print_md(rows: Sequence[dict[str, Any]]) -> None:
    cells = [["model", "size", "device", "threads", "test", "t/s"]]
    for row in rows:
        speed = f"{row['mean']:.2f} ± {row['stdev']:.2f}"
        fixed = [row["model"], f"{row['nbytes'] / 2**20:.2f} MiB", row["device"], str(row["threads"])]
        cells.append([*fixed, row["test"], speed])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    for line in (cells[0], rule, *cells[1:]):
        padded = [
            line[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)),
        ]
        print(f"| {' | '.join(padded)} |")


def _print_csv(rows: Sequence[dict[str, Any]]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    keys = [key for key in rows[0] if key != "samples"]
    writer.writerow(keys)
    writer.writerows([row[key] for key in keys] for row in rows)


_FORMS: dict[str, Callable[[Sequence[dict[str, Any]]], None]] = {
    "md": _print_md,
    "csv": _print_csv,
    "json": print_json,
}
