"""`bestiary fit`: the memory that a model takes here and the speed to expect, before any download."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from .. import fit, hub
from ..errors import HubError, RequestError
from ..fit import BITS, TRAIN, Plan
from ..hub import cache
from ..roster import Checkpoint
from ..roster.published.shapes import Shape, shape
from ..roster.search import is_size
from .bandwidth import bandwidth, cores
from .licence import system
from .listing import size_words
from .options import add_model, count, model_name
from .terminal import BOLD, GREEN, RED, columns, note, paint, print_json, printable

_GIB = 1 << 30
_UNITS = {"": _GIB, "m": 1 << 20, "g": _GIB, "t": 1 << 40}
_MEMORY = re.compile(r"(\d{1,6}(?:\.\d{1,3})?)\s*([mgt]?)(?:i?b)?", re.ASCII | re.IGNORECASE)
_CONTEXT = 4096  # tokens, of a model that was published for more
# What the base may be held in for each way to train; and in a GPU's memory.
_TRAINED: Mapping[str, tuple[str, ...]] = {
    "full": ("float32",), "lora": ("float32", "16-bit"), "qlora": ("8-bit", "4-bit"),
}  # fmt: skip


_SPEEDS = {"first_tokens_a_second": "tokens a second, at most", "tokens_a_second": "with that context"}


@dataclass(frozen=True)
class Sized:
    """A model to be fitted: what it is called, and its shape."""

    name: str
    shape: Shape


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_model(parser)
    parser.add_argument("--size", metavar="SIZE", help="of a system with several: 7b, '<=13b'")
    parser.add_argument("--ram", metavar="SIZE", help="memory in GiB: 16g (default: this machine's)")
    parser.add_argument("--gpu", metavar="SIZE", help="fit a GPU's memory instead: 24g; all in 16 bits")
    parser.add_argument(
        "-c", "--context", "--ctx-size", metavar="N", help="tokens, 8K is 8192 (default: up to 4K)"
    )
    parser.add_argument("--batch", metavar="N", default="1", help="sequences at once (default: 1)")
    parser.add_argument("--train", choices=TRAIN, help="train it on rows of --context tokens, with AdamW")
    parser.add_argument(
        "--bandwidth", metavar="GB/s", type=float, help="of the memory (default: measured, once)"
    )
    parser.add_argument("--json", action="store_true", help="print it as JSON, in bytes")


def run(options: argparse.Namespace) -> int:
    """Print what fits: of one size all of its parts, of several what each needs."""
    name = model_name(options)
    batch = count(options.batch, "--batch")
    if not batch:
        raise RequestError("--batch 0 should be 1 or more")
    if options.ram is not None and options.gpu is not None:
        raise RequestError("--ram and --gpu are two places for a model; name one")
    where = _Where.of(options)
    asked = None if options.context is None else count(options.context, "--context")
    if asked == 0:
        raise RequestError("--context 0 should be 1 or more")
    sized = _chosen(_sized(name), options.size, name)
    tables = [_table(one, where, _context(one.shape, asked), batch, options.train) for one in sized]
    if options.json:
        print_json({"memory": where.memory, "bandwidth": where.bandwidth, "gpu": where.gpu, "models": tables})
    elif len(tables) == 1:
        _print_one(tables[0], sized[0], where)
    else:
        _print_several(tables, where)
    return 0


@dataclass(frozen=True)
class _Where:
    """The memory that a model is to fit in, bytes; how fast it is read, bytes a second; and whose it is."""

    memory: int
    bandwidth: float | None
    gpu: bool
    said: str

    @classmethod
    def of(cls, options: argparse.Namespace) -> _Where:
        """What was asked for, or this machine."""
        given = options.bandwidth
        if given is not None and not 0 < given < 1e6:
            raise RequestError(f"--bandwidth {given} should be in GB/s, such as 50")
        if options.gpu is not None:
            return cls(_memory(options.gpu, "--gpu"), given and given * 1e9, True, f"--gpu {options.gpu}")
        read = given * 1e9 if given is not None else bandwidth(cache.own_cache())
        if options.ram is not None:
            return cls(_memory(options.ram, "--ram"), read, False, f"--ram {options.ram}")
        return cls(_installed(), read, False, "this machine")


def _memory(text: str, where: str) -> int:
    found = _MEMORY.fullmatch(text.strip())
    if found is None or not float(found[1]):
        raise RequestError(f"{where} {text[:40]!r} should be like 16g (GiB) or 900m (MiB)")
    return int(float(found[1]) * _UNITS[found[2].lower()])


def _installed() -> int:
    """The memory of this machine, or of the container that this process is in."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for file in ("memory.max", "memory/memory.limit_in_bytes"):  # cgroup v2, v1
        try:
            limit = (Path("/sys/fs/cgroup") / file).read_text("ascii").strip()
        except OSError:
            continue
        if limit.isdecimal():
            return min(whole, int(limit))
    return whole


def _context(shape: Shape, asked: int | None) -> int:
    return asked or min(_CONTEXT, shape.context or _CONTEXT)


def _sized(name: str) -> list[Sized]:
    """The models that a name stands for: the sizes of a system, one checkpoint, or a folder that is here."""
    repo = name.partition("@")[0]
    if "/" in repo and not Path(name).exists() and (known := shape(repo)) is not None:
        return [Sized(repo, known)]  # the roster need not be read
    found = system(name)
    if (Path(name).exists() and "/" in name) or Path(name).is_file() or found is None:
        return [_here(name)]
    entry, one = found
    sized = [
        Sized(each.id, known) for each in ([one] if one else entry.checkpoints) if (known := _shape(each))
    ]
    if not sized:
        why = entry.instead.en if entry.instead else "the sizes of its weights are not known"
        raise HubError(f"{entry.name} cannot be fitted: {why}\nTry: bestiary show {entry.id}")
    return sized


def _shape(one: Checkpoint) -> Shape | None:
    return shape(one.like or one.id)


def _chosen(sized: Sequence[Sized], size: str | None, name: str) -> list[Sized]:
    """One model of each shape; with --size, of that size alone."""
    if size is not None:
        sized = [one for one in sized if is_size(one.shape.params, size)]
        if not sized:
            raise RequestError(f"{name} has no size {size!r}\nTry: bestiary fit {name}")
    different: dict[Shape, Sized] = {}
    for one in sized:
        different.setdefault(one.shape, one)
    return sorted(different.values(), key=lambda one: one.shape.params)


def _here(name: str) -> Sized:
    """A folder with a config.json, or the file itself, with or without weights."""
    path = Path(name).expanduser()
    from ..describe import describe, empty
    from ..files import open_checkpoint
    from ..files.paths import read_json
    from ..run.shape import shape as of

    config = path / "config.json" if path.is_dir() else path
    if config.is_file() and config.suffix == ".json":
        said = read_json(config)
        return Sized(name, of(partial(empty, said), said))
    with open_checkpoint(hub.resolve(name)) as checkpoint:
        published, _, build = describe(checkpoint)
        return Sized(name, of(partial(empty, published, build), published))


def _table(one: Sized, where: _Where, context: int, batch: int, train: str | None) -> dict[str, Any]:
    """What `--json` says of a model: for every precision its parts, and what fits."""
    about = {key: value for key, value in one.shape.row().items() if not isinstance(value, list)}
    rows = []
    for precision in _TRAINED[train] if train else BITS:
        plan = Plan(precision, context, batch, gpu=where.gpu, train=train, threads=cores())
        needs = fit.need(one.shape, plan)
        answers = train is None and one.shape.kind != "encoder"
        rows.append(
            {
                "precision": precision,
                **vars(needs),
                "total": needs.total,
                "fits": needs.total <= where.memory,
                "largest_context": fit.largest_context(one.shape, plan, where.memory),
                "first_tokens_a_second": _rate(one.shape, replace(plan, context=1), where)
                if answers
                else None,
                "tokens_a_second": _rate(one.shape, plan, where) if answers else None,
            }
        )
    cache_token = fit.cache_bytes(one.shape, 1, gpu=where.gpu)
    return {
        "name": one.name, "shape": about, "context": context, "batch": batch, "train": train,
        "cache_token": cache_token, "precisions": rows,
    }  # fmt: skip


def _rate(shape: Shape, plan: Plan, where: _Where) -> float | None:
    return None if where.bandwidth is None else fit.speed(shape, plan, where.bandwidth)


def _print_one(table: Mapping[str, Any], one: Sized, where: _Where) -> None:
    """Print a model, the parts of what it takes in each precision, and what fits."""
    rows = table["precisions"]
    print(f"{paint(printable(one.name), BOLD)}: {_about(one.shape)}")
    print(f"{_asked(table)}; memory {_gib(where.memory)} GiB ({where.said})")
    print()
    parts = {
        "weights": "weights", "cache": "keys and values", "optimizer": "AdamW's averages",
        "activations": "gradients, activations" if table["train"] else "activations", "program": "program",
        "total": "all, in GiB",
    }  # fmt: skip
    cells = [["", *(row["precision"] for row in rows)]]
    cells += [
        [said, *(_gib(row[key]) for row in rows)] for key, said in parts.items() if any(r[key] for r in rows)
    ]
    cells.append(["fits", *("yes" if row["fits"] else "no" for row in rows)])
    cells.append(["longest rows" if table["train"] else "largest context", *map(_longest(one.shape), rows)])
    for key, said in _SPEEDS.items():
        if rows[0][key] is not None:
            cells.append([said, *(_speed(row[key]) for row in rows)])
    lines = columns(cells, right=frozenset(range(1, len(rows) + 1)))
    for (said, *_), line in zip(cells, lines, strict=True):
        print(paint(line, BOLD) if not said else _marked(line) if said == "fits" else line)
    print()
    print(_verdict(rows, where))
    _explain(where, table)


def _print_several(tables: Sequence[Mapping[str, Any]], where: _Where) -> None:
    """Print for each size what it needs in each precision, in colour where it fits."""
    print(f"{_asked(tables[0], several=True)}; memory {_gib(where.memory)} GiB ({where.said})")
    print()
    precisions = [row["precision"] for row in tables[0]["precisions"]]
    cells = [["GiB needed", "SIZE", *precisions]]
    for table in tables:
        needed = [f"{_gib(row['total'])} {'yes' if row['fits'] else ' no'}" for row in table["precisions"]]
        cells.append([printable(table["name"]), size_words([table["shape"]["params"]]), *needed])
    head, *lines = columns(cells, right=frozenset(range(1, len(precisions) + 2)))
    print("\n".join([paint(head, BOLD), *map(_marked, lines)]))
    print()
    _explain(where, tables[0])
    note("--size 7b, or a name from the first column, shows the parts of one")


def _about(shape: Shape) -> str:
    experts = f", {shape.chosen} of {shape.experts} experts a token" if shape.experts else ""
    window = f", window {shape.window:,}" if shape.window else ""
    context = f", {shape.context:,} tokens" if shape.context else ""
    return f"{size_words([shape.params])} parameters, {shape.layers} layers{experts}{context}{window}"


def _asked(table: Mapping[str, Any], *, several: bool = False) -> str:
    batch = "" if table["batch"] == 1 else f", {table['batch']} at once"
    tokens = "context up to" if several else "context"
    what = f"training ({table['train']}) on rows" if table["train"] else tokens
    return f"{what} {'of ' if table['train'] else ''}{table['context']:,} tokens{batch}"


def _longest(shape: Shape) -> Any:
    def said(row: Mapping[str, Any]) -> str:
        most = row["largest_context"]
        return "-" if not most else f"{most:,}" if most < (shape.context or most + 1) else f"all {most:,}"

    return said


def _verdict(rows: Sequence[Mapping[str, Any]], where: _Where) -> str:
    fitting = [row for row in rows if row["fits"]]
    if fitting:
        best = fitting[0]
        return paint(
            f"fits in {best['precision']}, with {_gib(where.memory - best['total'])} GiB to spare", GREEN
        )
    least = min(rows, key=lambda row: row["total"])
    short = _gib(least["total"] - where.memory)
    return paint(f"does not fit: {least['precision']} needs {_gib(least['total'])} GiB, {short} more", RED)


def _explain(where: _Where, table: Mapping[str, Any]) -> None:
    token, published = table["cache_token"], table["shape"]["context"]
    kept = f"; keys and values are {token / 1024:,.1f} KiB a token" if token else ""
    note(f"computed in {'16 bits' if where.gpu else 'float32'}{kept}")
    if published is not None and table["context"] > published:
        note(f"it was published for {published:,} tokens")
    if where.bandwidth is not None and table["train"] is None and table["shape"]["kind"] != "encoder":
        note(f"speed: at most, where memory is read at {where.bandwidth / 1e9:.1f} GB/s")


def _gib(nbytes: float) -> str:
    value = nbytes / _GIB
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 0.95 else f"{value:.2f}"


def _speed(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"


def _marked(line: str) -> str:
    """The words yes and no in colour."""
    return re.sub(r"\b(yes|no)\b", lambda found: paint(found[0], GREEN if found[0] == "yes" else RED), line)
