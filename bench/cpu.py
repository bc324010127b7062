"""Bestiary, llama.cpp and transformers on the same file, same tokens, same threads, side by side in one run.

    python bench/cpu.py [MODEL.gguf] [--threads 2] [--rounds 5] [--out bench/results]

Each engine is a process of its own. Rounds are interleaved (A B C D, A B C D, ...), so that a machine that
slows down slows all of them; the table shows medians with the smallest and largest round. Faithfulness is the
mean KL divergence from the exact float32 model (transformers over the dequantised file) on bench/text.txt,
and how often the likeliest token is the same.
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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bestiary import hub
from bestiary.run.score import kl_divergence, top1_agreement
from bestiary.text.tokenizer import open_tokenizer

HERE = Path(__file__).parent
EXACT = "transformers-float32"
ENGINES = ("bestiary", "llama.cpp", "llama.cpp-8192", "transformers", "transformers-bfloat16", EXACT)
PREFILL, DECODE, PROMPT = 512, 128, 16


@dataclass
class Run:
    """One engine's process and what was measured of it."""

    name: str
    process: subprocess.Popen[str]
    hello: dict[str, Any] = field(default_factory=dict)
    prefill: list[float] = field(default_factory=list)
    decode: list[float] = field(default_factory=list)
    memory: int = 0
    divergence: float = 0.0
    agreement: float = 1.0

    def ask(self, **command: Any) -> dict[str, Any]:
        """Send one command and wait for its reply."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        return self.reply()

    def reply(self) -> dict[str, Any]:
        """Wait for a line from the engine."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} ended early with status {self.process.wait()}; its error is above")
        read: dict[str, Any] = json.loads(line)
        return read


def start(name: str, model: Path, threads: int) -> Run:
    """Start an engine and wait until it has loaded the model."""
    print(f"loading {name} ...", file=sys.stderr, flush=True)
    command = [sys.executable, str(HERE / "engines.py"), name, str(model), str(threads)]
    run = Run(name, subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
    run.hello = run.reply()
    return run


def measure(runs: list[Run], ids: list[int], rounds: int) -> None:
    """Time prefill and decode in turn, one round of warm-up first; then the peak memory; then the logits."""
    for turn in range(rounds + 1):
        for run in runs:
            prefill = run.ask(do="prefill", ids=ids[:PREFILL])["seconds"]
            decode = run.ask(do="decode", ids=ids[: PROMPT + DECODE])["seconds"]
            print(
                f"round {turn}/{rounds} {run.name:24} {PREFILL / prefill:8.1f} {DECODE / decode:8.1f} tok/s",
                file=sys.stderr,
                flush=True,
            )
            if turn:
                run.prefill.append(PREFILL / prefill)
                run.decode.append(DECODE / decode)
    for run in runs:
        run.memory = run.ask(do="memory")["bytes"]
    with tempfile.TemporaryDirectory() as folder:
        files = {run.name: f"{folder}/{i}.npy" for i, run in enumerate(runs)}
        for run in runs:
            run.ask(do="logits", ids=ids[:PREFILL], file=files[run.name])
        logits = {name: torch.from_numpy(np.load(file)) for name, file in files.items()}
    for run in runs:
        run.divergence = kl_divergence(logits[EXACT], logits[run.name])
        run.agreement = top1_agreement(logits[EXACT], logits[run.name])


def spread(values: list[float]) -> str:
    """Return median (smallest to largest)."""
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def table(runs: list[Run]) -> str:
    """Return the results as a Markdown table; ratios are against llama.cpp, round by round."""
    anchor = next(run for run in runs if run.name == "llama.cpp")
    head = (
        "| engine | prefill 512, tok/s | ratio | decode 128, tok/s | ratio | peak memory, MB | ratio "
        "| mean KL from float32 | same top-1 |\n|---|---|---|---|---|---|---|---|---|\n"
    )
    rows = []
    for run in runs:
        ratios = [
            statistics.median(a / b for a, b in zip(getattr(run, what), getattr(anchor, what), strict=True))
            for what in ("prefill", "decode")
        ]
        rows.append(
            f"| {run.name} | {spread(run.prefill)} | {ratios[0]:.2f} "
            f"| {spread(run.decode)} | {ratios[1]:.2f} "
            f"| {run.memory / 1e6:.0f} | {run.memory / anchor.memory:.2f} "
            f"| {run.divergence:.6f} | {100 * run.agreement:.2f} % |"
        )
    return head + "\n".join(rows) + "\n"


def hardware() -> str:
    """Return the processor's name and what of it this process may use."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next(s.partition(":")[2].strip() for s in lines if s.startswith("model name"))
    flags = next(s for s in lines if s.startswith("flags")).split()
    has = [f for f in ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile") if f in flags]
    return f"{name}, {torch.get_num_threads()} cores, {' '.join(has)}"


def commit() -> str:
    """Return the commit that was measured, and whether the tree differed from it."""
    said = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        capture_output=True,
        text=True,
        check=False,
        cwd=HERE,
    )
    return said.stdout.strip() or "unknown"


def report(runs: list[Run], model: Path, options: argparse.Namespace) -> str:
    """Return the results file: what ran, on what, and the table."""
    command = f"python bench/cpu.py {options.model} --threads {options.threads} --rounds {options.rounds}"
    system = f"{platform.platform()}, Python {platform.python_version()}, torch {torch.__version__}"
    facts = [f"hardware: {hardware()}", f"system: {system}", f"commit: {commit()}"]
    facts += [f"{run.name}: {run.hello['version']}, loaded in {run.hello['load']:.2f} s" for run in runs]
    listed = "\n".join(f"- {fact}" for fact in facts)
    return (
        f"# {model.name}, {options.threads} threads, {options.today}\n\n"
        f"`{command}`\n\n{listed}\n\n{table(runs)}\n"
        "Medians (smallest to largest) of interleaved rounds; ratios are medians of each round's ratio to "
        "llama.cpp.\nKL and top-1 on the first 512 tokens of `bench/text.txt`.\n"
    )


def main() -> None:
    """Measure, print the table, write the results file."""
    summary = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(description=summary)
    parser.add_argument("model", nargs="?", default="smollm2", help="a .gguf file, or the default model")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=ENGINES)
    parser.add_argument("--out", type=Path, default=HERE / "results")
    options = parser.parse_args()
    options.today = datetime.datetime.now(datetime.UTC).date().isoformat()
    model = hub.resolve(options.model)
    ids = open_tokenizer(model).encode((HERE / "text.txt").read_text(encoding="utf-8"))
    if len(ids) < PREFILL:
        raise SystemExit(f"bench/text.txt makes {len(ids)} tokens, and {PREFILL} are needed")
    wanted = [name for name in ENGINES if name in {*options.engines, "llama.cpp", EXACT}]
    runs = [start(name, model, options.threads) for name in wanted]
    measure(runs, ids, options.rounds)
    text = report(runs, model, options)
    print(text)
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / f"cpu_{platform.machine()}_{options.threads}threads_{options.today}.md"
    file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
