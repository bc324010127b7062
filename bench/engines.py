"""One engine, one process: loads a GGUF file and does what it is told, a JSON line in, a JSON line out.

    python bench/engines.py ENGINE MODEL.gguf THREADS

Engines: bestiary; llama.cpp (llama-cpp-python with just the context that is needed) and llama.cpp-8192 (with
the model's whole context, as its own command line opens it and as bestiary offers); transformers (weights
packed, as it loads a GGUF file by default); transformers-float32, transformers-bfloat16 (the file dequantised
as a whole). Commands: {"do": "prefill", "ids": [...]}   seconds to take in a prompt and give the last logits
          {"do": "decode", "ids": [...]}    seconds to take in ids one by one, each with its logits
          {"do": "logits", "ids": [...], "file": "x.npy"}   logits of every position, float32
          {"do": "memory"}                  the process's peak resident memory in bytes
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Protocol

import numpy as np

PROMPT = 16  # tokens in the cache before decoding is timed
CONTEXT = 640  # tokens, where an engine takes all of its memory in advance


class Engine(Protocol):
    """What each engine offers."""

    version: str

    def reset(self) -> None:
        """Forget every token."""

    def take(self, ids: list[int]) -> None:
        """Take in tokens after those already there, and compute the logits of the last."""

    def logits(self, ids: list[int]) -> np.ndarray:
        """Return the logits of every position, (T, vocabulary) float32."""


class Bestiary:
    """This project, as `LLM` runs it."""

    def __init__(self, path: str, threads: int) -> None:
        import torch

        import bestiary
        from bestiary import LLM
        from bestiary.context import Cache

        self.torch, self.version = torch, bestiary.__version__
        self.llm = LLM(path, threads=threads)
        self.cache, self.done = Cache.empty(self.llm.model, 1, CONTEXT), 0

    def reset(self) -> None:
        self.done = 0

    def take(self, ids: list[int]) -> None:
        from bestiary.context import Stream

        with self.torch.inference_mode():
            step = Stream.at(self.cache, self.done, len(ids))
            self.llm.model(self.torch.tensor([ids]), step, (slice(None), -1))
        self.done += len(ids)

    def logits(self, ids: list[int]) -> np.ndarray:
        from bestiary.context import Stream

        self.reset()
        with self.torch.inference_mode():
            out = self.llm.model(self.torch.tensor([ids]), Stream.at(self.cache, 0, len(ids)))
        return out[0].float().numpy()


class LlamaCpp:
    """llama.cpp through llama-cpp-python."""

    def __init__(self, path: str, threads: int, context: int) -> None:
        import llama_cpp

        self.version, self.library = f"llama-cpp-python {llama_cpp.__version__}", llama_cpp
        self.arguments: dict[str, Any] = {
            "model_path": path, "n_ctx": context, "n_batch": 512, "n_ubatch": 512,
            "n_threads": threads, "n_threads_batch": threads, "verbose": False,
        }  # fmt: skip
        self.model = llama_cpp.Llama(**self.arguments)

    def reset(self) -> None:
        self.model.reset()

    def take(self, ids: list[int]) -> None:
        self.model.eval(ids)

    def logits(self, ids: list[int]) -> np.ndarray:
        model = self.library.Llama(**self.arguments, logits_all=True)
        model.eval(ids)
        return np.array(model.scores[: len(ids)], dtype=np.float32)


class Transformers:
    """transformers: its default for a GGUF file, or the whole file dequantised into the given type."""

    def __init__(self, path: str, threads: int, dtype: str) -> None:
        import torch
        import transformers

        torch.set_num_threads(threads)
        transformers.logging.disable_progress_bar()
        self.torch, self.version = torch, f"transformers {transformers.__version__}"
        file, arguments = Path(path), dict[str, Any]()
        if dtype:
            arguments["quantization_config"] = transformers.GgufConfig(dequantize=True)
        self.model = transformers.AutoModelForCausalLM.from_pretrained(
            file.parent, gguf_file=file.name, dtype=dtype or "float32", local_files_only=True, **arguments
        ).eval()
        self.reset()

    def reset(self) -> None:
        self.past: Any = None

    def take(self, ids: list[int]) -> None:
        with self.torch.inference_mode():
            out = self.model(
                self.torch.tensor([ids]), past_key_values=self.past, use_cache=True, logits_to_keep=1
            )
        self.past = out.past_key_values

    def logits(self, ids: list[int]) -> np.ndarray:
        with self.torch.inference_mode():
            return self.model(self.torch.tensor([ids])).logits[0].float().numpy()  # type: ignore[no-any-return]


def start(name: str, path: str, threads: int) -> Engine:
    """Load a model into the engine of this name."""
    if name == "bestiary":
        return Bestiary(path, threads)
    if name.startswith("llama.cpp"):
        return LlamaCpp(path, threads, int(name.partition("-")[2] or CONTEXT))
    return Transformers(path, threads, name.removeprefix("transformers").removeprefix("-"))


def peak_memory() -> int:
    """Return the peak resident memory of this process in bytes (Linux)."""
    line = next(s for s in Path("/proc/self/status").read_text().splitlines() if s.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def seconds(engine: Engine, ids: list[int], decode: bool) -> float:
    """Time one prefill or one run of single steps."""
    engine.reset()
    if not decode:
        begin = time.perf_counter()
        engine.take(ids)
        return time.perf_counter() - begin
    engine.take(ids[:PROMPT])
    begin = time.perf_counter()
    for token in ids[PROMPT:]:
        engine.take([token])
    return time.perf_counter() - begin


def main() -> None:
    """Answer commands until standard input closes."""
    name, path, threads = sys.argv[1], sys.argv[2], int(sys.argv[3])
    # Replies go to the real standard output; anything a library prints goes to standard error.
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    begin = time.perf_counter()
    engine = start(name, path, threads)
    print(
        json.dumps({"version": engine.version, "load": time.perf_counter() - begin}), file=replies, flush=True
    )
    for line in sys.stdin:
        command = json.loads(line)
        if command["do"] == "memory":
            reply: dict[str, Any] = {"bytes": peak_memory()}
        elif command["do"] == "logits":
            np.save(command["file"], engine.logits(command["ids"]))
            reply = {"file": command["file"]}
        else:
            reply = {"seconds": seconds(engine, command["ids"], command["do"] == "decode")}
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    main()
