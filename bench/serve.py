"""Our server beside llama.cpp's two: the same file, prompts, threads and streams, in one run.

    python bench/serve.py [MODEL.gguf] [--threads 2] [--rounds 5] [--out bench/results]

llama-server is named by LLAMA_SERVER=path (docs/serving-under-load.md says how it is built), a Python that
has llama_cpp.server by LLAMA_CPP_PYTHON=path (default: this one). What is not there is left out, and the
results say so. llama.cpp is fastest with Q4_0, whose rows it packs anew as it loads them: all servers are
measured on a Q4_0 copy of the model too.

Rounds are interleaved. A round is 1 stream, then 16 at once: prompts of 64 tokens that nobody asked before,
128 new tokens each, greedy. The rate is new tokens over the time from the first request to the last token, so
it holds the prompts too.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import datetime
import os
import platform
import random
import signal
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faults
import torch
from client import Heard, stream
from cpu import commit, hardware, spread
from servers import (
    LLAMA_PYTHON,
    LLAMA_SERVER,
    OURS,
    STREAMS,
    Server,
    llama_python,
    llama_server,
    ours,
    serves,
)

from bestiary import hub
from bestiary.convert import convert
from bestiary.text.tokenizer import open_tokenizer

HERE = Path(__file__).parent
PROMPT, NEW, LONG, TAIL = 64, 128, 1000, 16
PROBES = 20


class Prompts:
    """Texts of so many tokens that nobody asked before."""

    def __init__(self, model: Path) -> None:
        self._tokenizer = open_tokenizer(model)
        self._words = (HERE / "text.txt").read_text(encoding="utf-8").split()
        self._random = random.Random(0)

    def draw(self, tokens: int) -> str:
        """Return words in a random order."""
        text = " ".join(self._random.choices(self._words, k=2 * tokens))
        return str(self._tokenizer.decode(self._tokenizer.encode(text)[:tokens]))


def body(prompt: str, tokens: int) -> dict[str, Any]:
    """Return a greedy request that all three servers understand in the same way."""
    return {
        "prompt": prompt,
        "max_tokens": tokens,
        "temperature": 0,
        "stream_options": {"include_usage": True},
    }


def request(server: Server, prompt: str, tokens: int) -> dict[str, Any]:
    """Return a request that does not end early; llama-cpp-python's server has no ignore_eos."""
    ends = {"logit_bias": {"0": -100, "2": -100}} if server.name == LLAMA_PYTHON else {"ignore_eos": True}
    return {**body(prompt, tokens), **ends}


def tokens_of(heard: Heard) -> int:
    """Return how many tokens an answer has; llama-cpp-python's server sends one a chunk and no count."""
    assert heard.whole or heard.reasons, heard
    return int((heard.usage or {}).get("completion_tokens", min(NEW, heard.chunks)))


# Throughput.


async def burst(server: Server, prompts: list[str]) -> tuple[float, list[Heard]]:
    """Return new tokens a second of streams that begin at once, and what they heard."""
    began = asyncio.get_running_loop().time()
    heard = await asyncio.gather(*(stream(server.port, request(server, one, NEW)) for one in prompts))
    return sum(map(tokens_of, heard)) / (asyncio.get_running_loop().time() - began), list(heard)


def throughput(servers: list[Server], prompts: Prompts, rounds: int) -> None:
    """Measure all in turn, one round of warm-up first."""
    for turn in range(rounds + 1):
        for server in servers:
            with server.awake():
                single, _ = asyncio.run(burst(server, [prompts.draw(PROMPT)]))
                many, heard = asyncio.run(burst(server, [prompts.draw(PROMPT) for _ in range(STREAMS)]))
            line = f"round {turn}/{rounds} {server.label:24} {single:7.1f} {many:7.1f} tok/s"
            print(line, file=sys.stderr, flush=True)
            if turn:
                server.single.append(single)
                server.many.append(many)
                server.first += [one.first for one in heard]
                server.between += [
                    b - a for one in heard for a, b in zip(one.times, one.times[1:], strict=False)
                ]


# Time to the first token.


async def under_load(server: Server, prompts: Prompts, probes: int) -> list[float]:
    """Return seconds to the first token of long prompts, one after the other, beside 15 streams."""
    stop = asyncio.Event()

    async def busy() -> None:
        while not stop.is_set():
            await stream(server.port, request(server, prompts.draw(PROMPT), NEW))

    others = [asyncio.create_task(busy()) for _ in range(STREAMS - 1)]
    await asyncio.sleep(2.0)
    found = [await stream(server.port, request(server, prompts.draw(LONG), 4)) for _ in range(probes)]
    stop.set()
    await asyncio.gather(*others)
    return [one.first for one in found]


async def shared(server: Server, prompts: Prompts, rounds: int) -> tuple[list[float], list[float]]:
    """Return seconds to the first token of a long prompt, and of one that begins with its 1,000 tokens."""
    first, second = [], []
    for _ in range(rounds + 1):
        prefix = prompts.draw(LONG)
        for found in (first, second):
            heard = await stream(server.port, request(server, f"{prefix} {prompts.draw(TAIL)}", 4))
            found.append(heard.first)
    return first[1:], second[1:]


# The report.


def seconds(values: list[float]) -> str:
    """Return p50 and p99 in seconds."""
    return f"{statistics.median(values):.3f} | {faults.percentile(values, 99):.3f}"


def throughput_table(servers: list[Server]) -> str:
    """Return rates and times; the last column is ours over the server's, round by round."""
    mine = servers[0]
    rows = []
    for server in servers:
        ratio = statistics.median(a / b for a, b in zip(mine.many, server.many, strict=True))
        gain = statistics.median(a / b for a, b in zip(server.many, server.single, strict=True))
        rows.append(
            f"| {server.label} | {spread(server.single)} | {spread(server.many)} | {gain:.2f} | {ratio:.2f} "
            f"| {seconds(server.first)} | {1000 * statistics.median(server.between):.1f} |"
        )
    return (
        f"| server | 1 stream, tok/s | {STREAMS} streams, tok/s | {STREAMS} over 1 | {mine.label} over it "
        f"| first token of {STREAMS}, p50 s | p99 s | between tokens, p50 ms |\n"
        "|---|---|---|---|---|---|---|---|\n" + "\n".join(rows)
    )


def first_table(servers: list[Server], prompts: Prompts, rounds: int) -> str:
    """Measure long prompts under load, and prefixes that are shared; return the table."""
    rows = []
    for server in servers:
        with server.awake():
            loaded = asyncio.run(under_load(server, prompts, PROBES))
            first, second = asyncio.run(shared(server, prompts, rounds))
        ratio = statistics.median(a / b for a, b in zip(first, second, strict=True))
        rows.append(
            f"| {server.label} | {seconds(loaded)} | {spread3(first)} | {spread3(second)} | {ratio:.1f} |"
        )
    return (
        f"| server | {LONG} tokens beside {STREAMS - 1} streams, p50 s | p99 s of {PROBES} "
        f"| {LONG} tokens alone, s | the same {LONG} and {TAIL} others, s | times faster |\n"
        "|---|---|---|---|---|---|\n" + "\n".join(rows)
    )


def spread3(values: list[float]) -> str:
    """Return median (smallest to largest) of short times."""
    return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def report(servers: list[Server], missing: list[str], parts: list[str], options: argparse.Namespace) -> str:
    """Return the results file."""
    system = f"{platform.platform()}, Python {platform.python_version()}, torch {torch.__version__}"
    facts = [f"hardware: {hardware()}", f"system: {system}", f"commit: {commit()}"]
    facts += [f"{one.label}: {one.version}" for one in servers]
    facts += [f"left out: {one}" for one in missing]
    facts.append(f"load average at the start {options.load:.1f}, at the end {os.getloadavg()[0]:.1f}")
    return (
        f"# {servers[0].file.name} served, {options.threads} threads, {options.today}\n\n"
        f"`python bench/serve.py {options.model} --threads {options.threads} --rounds {options.rounds}`\n\n"
        + "\n".join(f"- {fact}" for fact in facts)
        + "\n\n"
        + "\n\n".join(parts)
        + f"\n\nMedians (smallest to largest) of {options.rounds} interleaved rounds; ratios are medians "
        f"of each round's ratio.\nPrompts of {PROMPT} tokens, {NEW} new tokens, greedy. "
        "Servers that are not measured are stopped meanwhile.\n"
    )


@contextlib.contextmanager
def contenders(model: Path, options: argparse.Namespace) -> Iterator[tuple[list[Server], list[str]]]:
    """Start all that are there, ours on the model first; end them."""
    servers: list[Server] = []
    missing: list[str] = []
    binary, python = os.environ.get("LLAMA_SERVER"), os.environ.get("LLAMA_CPP_PYTHON", sys.executable)
    with tempfile.TemporaryDirectory() as folder:
        best = Path(folder) / f"{model.stem.rpartition('.')[0] or model.stem}.Q4_0.gguf"
        convert(model, best, kind="q4_0")
        try:
            for file in (model, best):
                servers.append(ours(file, options.threads))
                if binary:
                    servers.append(llama_server(Path(binary), file, options.threads))
                if serves(python):
                    servers.append(llama_python(python, file, options.threads))
            if not binary:
                missing.append(f"{LLAMA_SERVER} (LLAMA_SERVER is not set)")
            if not serves(python):
                missing.append(f"{LLAMA_PYTHON} ({Path(python).name} lacks llama-cpp-python[server])")
            for server in servers:
                server.pause()
            yield servers, missing
        finally:
            for server in servers:
                server.end()


def main() -> None:
    """Measure, print the tables, write the results file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", nargs="?", default="smollm2", help="a .gguf file, or the default model")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=HERE / "results")
    options = parser.parse_args()
    # What is started is ended also where this is told to stop.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    options.today = datetime.datetime.now(datetime.UTC).date().isoformat()
    options.load = os.getloadavg()[0]
    model = hub.resolve(options.model)
    prompts = Prompts(model)
    with contenders(model, options) as (servers, missing):
        throughput(servers, prompts, options.rounds)
        parts = [throughput_table(servers)]
        batched = [one for one in servers if one.file == model and one.name in (OURS, LLAMA_SERVER)]
        parts.append(first_table(batched, prompts, options.rounds))
    parts.append(faults.table(model, options.threads, prompts.draw))
    text = report(servers, missing, parts, options)
    print(text)
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / f"serve_{platform.machine()}_{options.threads}threads_{options.today}.md"
    file.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
