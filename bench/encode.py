"""Bestiary, transformers and CTranslate2 making vectors of the same texts, side by side in one run.

    python bench/encode.py [MODEL] [--threads 2] [--rounds 10] [--out bench/results]

64 texts of 128 tokens in float32, from ids to pooled vectors of length 1. Each engine is a process of its
own; rounds are interleaved, so that a machine that slows down slows all of them. Differences are the largest
of a number of a vector from transformers'.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from cpu import commit, hardware, spread
from torch import Tensor

from bestiary import hub
from bestiary.text.tokenizer import open_tokenizer

HERE = Path(__file__).parent
ENGINES = ("bestiary", "transformers", "ctranslate2")
TEXTS, TOKENS = 64, 128

# int64 ids (texts, tokens) -> float32 vectors (texts, dim)
Encode = Callable[[Tensor], Tensor]


def bestiary(path: str, threads: int) -> tuple[str, Encode]:
    """Return this package's version and its encoder, batched as LLM.embed batches."""
    import bestiary as package
    from bestiary.load import load
    from bestiary.run import encode
    from bestiary.run.memory import keep_freed
    from bestiary.run.pooling import open_pooling
    from bestiary.text.around import Wrapped

    keep_freed()  # as LLM does
    model, pooling = load(path).model, open_pooling(Path(path))

    def run(ids: Tensor) -> Tensor:
        texts = [Wrapped(row, [0] * len(row)) for row in ids.tolist()]
        return encode.embed(model, texts, pooling)

    return package.__version__, run


def mean(states: Tensor) -> Tensor:
    """Return the mean of each text's states, made of length 1: what MiniLM's folder asks for."""
    return torch.nn.functional.normalize(states.mean(1), dim=-1)


def transformers(path: str, threads: int) -> tuple[str, Encode]:
    """Return transformers' version and its encoder: the batch at once, as sentence-transformers has it."""
    import transformers as package

    model = package.AutoModel.from_pretrained(path, dtype=torch.float32).eval()

    @torch.inference_mode()
    def run(ids: Tensor) -> Tensor:
        return mean(model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state)

    return f"{package.__version__}, {model.config._attn_implementation}", run


def ctranslate2(path: str, threads: int) -> tuple[str, Encode]:
    """Return CTranslate2's version and its encoder, converted to float32 weights first."""
    import ctranslate2 as package

    with tempfile.TemporaryDirectory() as folder:
        package.converters.TransformersConverter(path).convert(folder, force=True)
        encoder = package.Encoder(folder, compute_type="float32", intra_threads=threads, inter_threads=1)

    def run(ids: Tensor) -> Tensor:
        return mean(torch.from_numpy(np.array(encoder.forward_batch(ids.tolist()).last_hidden_state)))

    return package.__version__, run


def texts(path: Path) -> Tensor:
    """Return 64 texts of 128 ids, int64: windows of bench/text.txt, each begun eight tokens later."""
    tokenizer = open_tokenizer(path)
    ids = tokenizer.encode((HERE / "text.txt").read_text(encoding="utf-8"))
    around = (tokenizer.bos or 0, tokenizer.eos or 0)
    return torch.tensor(
        [
            [around[0], *(ids[(8 * row + i) % len(ids)] for i in range(TOKENS - 2)), around[1]]
            for row in range(TEXTS)
        ]
    )


def serve(name: str, path: str, threads: int) -> None:
    """Be one engine: a line of JSON in, a line of JSON out."""
    torch.set_num_threads(threads)
    replies, sys.stdout = sys.stdout, sys.stderr  # what a library prints is no reply
    version, run = {"bestiary": bestiary, "transformers": transformers, "ctranslate2": ctranslate2}[name](
        path, threads
    )
    ids = texts(Path(path))
    print(json.dumps({"version": version}), file=replies, flush=True)
    for line in sys.stdin:
        begin = time.perf_counter()
        vectors = run(ids)
        took = time.perf_counter() - begin
        if file := json.loads(line).get("file"):
            np.save(file, vectors.numpy())
        print(json.dumps({"seconds": took}), file=replies, flush=True)


class Engine:
    """One engine's process, and the texts a second that were measured of it."""

    def __init__(self, name: str, path: Path, threads: int) -> None:
        print(f"loading {name} ...", file=sys.stderr, flush=True)
        command = [sys.executable, __file__, str(path), "--threads", str(threads), "--serve", name]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.name, self.rates, self.version = name, list[float](), self._reply()["version"]

    def run(self, file: str | None = None) -> float:
        """Encode the texts once and return the texts a second."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"file": file}) + "\n")
        self.process.stdin.flush()
        return TEXTS / float(self._reply()["seconds"])

    def _reply(self) -> dict[str, str]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended early with status {self.process.wait()}; its error is above")
        read: dict[str, str] = json.loads(line)
        return read


def measure(engines: list[Engine], rounds: int) -> dict[str, float]:
    """Time all in turn after a warm-up; return how far each one's vectors are from transformers'."""
    with tempfile.TemporaryDirectory() as folder:
        for engine in engines:
            engine.run(f"{folder}/{engine.name}.npy")
        vectors = {engine.name: np.load(f"{folder}/{engine.name}.npy") for engine in engines}
    for turn in range(1, rounds + 1):
        for engine in engines:
            engine.rates.append(engine.run())
            print(f"round {turn}/{rounds} {engine.name:14} {engine.rates[-1]:7.1f} texts/s", file=sys.stderr)
    return {name: float(np.abs(own - vectors["transformers"]).max()) for name, own in vectors.items()}


def report(engines: list[Engine], apart: dict[str, float], options: argparse.Namespace) -> str:
    """Return the results file."""
    base = next(engine for engine in engines if engine.name == "transformers")
    system = f"{platform.platform()}, Python {platform.python_version()}, torch {torch.__version__}"
    facts = [f"hardware: {hardware()}", f"system: {system}", f"commit: {commit()}"]
    facts += [f"{engine.name}: {engine.version}" for engine in engines]
    rows = []
    for engine in engines:
        ratio = statistics.median(a / b for a, b in zip(engine.rates, base.rates, strict=True))
        tokens = TOKENS * statistics.median(engine.rates)
        rows.append(
            f"| {engine.name} | {spread(engine.rates)} | {tokens:,.0f} | {ratio:.2f} "
            f"| {apart[engine.name]:.1e} |"
        )
    return (
        f"# {options.model}, {TEXTS} texts of {TOKENS} tokens, {options.threads} threads, {options.today}\n\n"
        f"`python bench/encode.py {options.model} --threads {options.threads} --rounds {options.rounds}`\n\n"
        + "\n".join(f"- {fact}" for fact in facts)
        + "\n\n| engine, float32 | texts/s | tokens/s | ratio | largest difference |\n|---|---|---|---|---|\n"
        + "\n".join(rows)
        + "\n\nMedians (smallest to largest) of interleaved rounds; ratios are medians of each round's ratio "
        "to transformers.\n"
    )


def main() -> None:
    """Measure, print the table, write the results file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", nargs="?", default="minilm")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=ENGINES)
    parser.add_argument("--out", type=Path, default=HERE / "results")
    parser.add_argument("--serve", choices=ENGINES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.model, options.threads)
        return
    options.today = datetime.datetime.now(datetime.UTC).date().isoformat()
    path = hub.resolve(options.model)
    wanted = [name for name in ENGINES if name in {*options.engines, "transformers"}]
    engines = [Engine(name, path, options.threads) for name in wanted]
    text = report(engines, measure(engines, options.rounds), options)
    print(text)
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / f"encode_{platform.machine()}_{options.threads}threads_{options.today}.md"
    file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
