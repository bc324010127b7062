"""Our GGUF files in llama.cpp: the same logits and tokens, the same packed bytes as ggml's own quantisers.

    python bench/gguf.py [MODEL] [--out bench/results]

Three tables. Encoders: bytes of packed blocks beside ggml's, of random matrices. Architectures: tiny random
models, written in float32, in both. MODEL in each type: bytes, how far its logits are from the source's by
our reading, and how far llama.cpp's are from ours (it packs activations too, so it is not near where weights
are packed).
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import datetime
import io
import platform
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import torch
from cpu import commit, hardware
from torch import Tensor

from bestiary import hub
from bestiary.context import Full
from bestiary.convert import convert
from bestiary.files.gguf import TYPES
from bestiary.formats import FORMATS
from bestiary.load import Loaded, load
from bestiary.run.score import kl_divergence
from bestiary.text.gguf_keys import PROBES
from bestiary.text.tokenizer import open_tokenizer

HERE = Path(__file__).parent
TOKENS = 512
ARCHITECTURES = ["tiny model", "written as", "logits apart", "largest logit", "to know"]
KINDS = "type; matrices; MB; KL from the source; KL of llama.cpp from ours; logits apart; tokens".split("; ")


def ggml() -> ctypes.CDLL:
    """Return ggml as llama-cpp-python brings it."""
    lib = Path(llama_cpp.__file__).parent / "lib"
    library = ctypes.CDLL(str(next(lib.glob("libggml-base*"))))
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    library.ggml_quantize_chunk.argtypes = [
        ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int64] * 3, ctypes.c_void_p,
    ]  # fmt: skip
    return library


def encoders() -> Iterator[list[str]]:
    """Yield the rows of the first table."""
    library, x = ggml(), torch.randn(512, 4096, generator=torch.Generator().manual_seed(0)) * 0.02
    numbers = {name: number for number, name in TYPES.items()}
    for name, fmt in FORMATS.items():
        if fmt.encode is None:
            continue
        theirs = torch.zeros(x.numel() // fmt.block * fmt.nbytes, dtype=torch.uint8)
        library.ggml_quantize_chunk(numbers[name], x.data_ptr(), theirs.data_ptr(), 0, *x.shape, None)
        blocks = (fmt.encode(x).view(-1, fmt.nbytes) != theirs.view(-1, fmt.nbytes)).any(1)
        yield [name, f"{len(blocks):,}", f"{int(blocks.sum())}"]


def logits(loaded: Loaded, ids: list[int]) -> Tensor:
    """Return our logits of every position, (T, vocabulary)."""
    tokens = torch.tensor([ids])
    with torch.inference_mode():
        return loaded.decoder(tokens, Full.of(tokens, None, loaded.decoder.prompt(tokens)))[0].float()


def theirs(file: Path, ids: list[int]) -> Tensor | None:
    """Return llama.cpp's logits of every position; None where it does not open the file.

    With keys and values in float32 and without flash attention, whose sums are in float16.
    """
    model_params = llama_cpp.llama_model_default_params()
    model = llama_cpp.llama_model_load_from_file(str(file).encode(), model_params)
    if not model:
        return None
    params = llama_cpp.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = max(64, len(ids))
    params.type_k = params.type_v = params.flash_attn_type = 0
    context = llama_cpp.llama_init_from_model(model, params)
    batch = llama_cpp.llama_batch_init(len(ids), 0, 1)
    batch.n_tokens = len(ids)
    for at, token in enumerate(ids):
        batch.token[at], batch.pos[at], batch.n_seq_id[at], batch.logits[at] = token, at, 1, 1
        batch.seq_id[at][0] = 0
    if llama_cpp.llama_decode(context, batch):
        return None
    size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    rows = [llama_cpp.llama_get_logits_ith(context, at) for at in range(len(ids))]
    found = torch.from_numpy(np.stack([np.ctypeslib.as_array(row, shape=(size,)).copy() for row in rows]))
    llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)
    return found


def architectures(folder: Path) -> Iterator[list[str]]:
    """Yield the rows of the second table: tests/parity/test_convert.py's models."""
    sys.path.insert(0, str(HERE.parent))
    from tests import tiny
    from tests.parity.test_convert import WRITTEN

    ids = torch.randint(3, 100, (20,), generator=torch.Generator().manual_seed(0)).tolist()
    for name, kind in WRITTEN.items():
        place = folder / name
        place.mkdir()
        with contextlib.redirect_stderr(io.StringIO()):
            tiny.make(name, place)
        done = convert(place, place / "x.gguf", kind="f32", tokenizer=False)
        ours, found = logits(load(place / "x.gguf"), ids), theirs(place / "x.gguf", ids)
        apart = "not opened" if found is None else f"{(found - ours).abs().max():.1e}"
        yield [name, kind, apart, f"{ours.abs().max():.1f}", "; ".join(done.notes)]


def types(source: Path, folder: Path) -> Iterator[list[str]]:
    """Yield the rows of the third table."""
    before, tokenizer = load(source), open_tokenizer(source)
    ids = tokenizer.encode((HERE / "text.txt").read_text(encoding="utf-8"))[:TOKENS]
    wanted = logits(before, ids)
    for kind in ("f32", "f16", "bf16", "q8_0", "q4_k", "q4_0"):
        file = folder / f"{kind}.gguf"
        done = convert(source, file, kind=kind)
        ours, found = logits(load(file), ids), theirs(file, ids)
        assert found is not None
        held = sorted({tensor.dtype for tensor in done.tensors if len(tensor.shape) > 1})
        same = spoken(file, tokenizer)
        yield [
            kind, ", ".join(held), f"{file.stat().st_size / 1e6:.1f}", f"{kl_divergence(wanted, ours):.2e}",
            f"{kl_divergence(ours, found):.2e}", f"{(ours - found).abs().max():.1e}", same,
        ]  # fmt: skip
        file.unlink()


def spoken(file: Path, tokenizer: Any) -> str:
    """Return how many awkward texts llama.cpp gives the same tokens for."""
    model = llama_cpp.Llama(str(file), vocab_only=True, verbose=False)
    same = [
        model.tokenize(text.encode(), add_bos=False, special=False) == tokenizer.encode(text)
        for text in PROBES
    ]
    return f"{sum(same)} of {len(same)}"


def table(title: str, head: list[str], rows: Iterator[list[str]]) -> str:
    """Return a table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return f"## {title}\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def main() -> None:
    """Measure, print, and write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", nargs="?", default="smollm2")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    options = parser.parse_args()
    date = datetime.datetime.now(datetime.UTC).date()
    about = (
        f"{hardware()}. bestiary {commit()}, llama-cpp-python {llama_cpp.__version__}, "
        f"torch {torch.__version__}. "
        f"Made by `python bench/gguf.py {options.model}`."
    )
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        parts = [
            f"# GGUF files of ours in llama.cpp, {date}\n\n{about}\n",
            table("Encoders beside ggml's", ["type", "blocks", "that differ"], encoders()),
            table("Architectures in float32", ARCHITECTURES, architectures(folder)),
            table(f"{options.model} in each type", KINDS, types(hub.resolve(options.model), folder)),
        ]
    page = "\n".join(parts)
    print(page)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / f"gguf_{platform.machine()}_{date}.md").write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
