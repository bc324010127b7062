"""The certificate of a checkpoint on this machine: what can be shown without its authors' own numbers.

All keys are read and all tensors used, all weights are finite; a text over a cache has the logits that it has
at once; a text in a batch those that it has alone; packed weights those of the same weights decoded; texts
come back from their tokens; the prompt is that of the roster's format.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from ..context import Cache, Full, Stream
from ..errors import BestiaryError, RequestError, TokenizerError
from ..hub import cache
from ..kernels.attention import softmax
from ..kernels.matmul import linear
from ..load import Loaded, Progress, load
from ..models import Encoder, EncoderDecoder
from ..roster.published import by_id
from ..text import prompts
from ..text.chat import ChatTemplate
from ..text.templates import open_template, published_format
from ..text.tokenizer import Tokenizer, open_tokenizer
from .finding import Certificate, Column, Finding, worst

# Sums in another order differ by about 1e-6 of the largest logit a layer; a wrong cache by tenths of it.
_SHARE = 1e-3
_LENGTHS = (24, 17)
_TEXTS = (
    "The quick brown fox jumps over the lazy dog.",
    "1234567890 3.14 -17 2^10 = 1024",
    "def f(x):\n    return x ** 2  # a comment\n",
    "  two spaces before,\ta tab, and a line\n\nafter another",
    "你好，世界。这是一段中文。",
    "Größe, façade, naïve, œuvre; Привет; こんにちは; مرحبا; 🦜🐉",
    "<s> </s> <|im_end|> [INST] <<SYS>> ### Human: [gMASK] <eop>",
)
_TALKS: tuple[list[dict[str, str]], ...] = (
    [{"role": "user", "content": "Hello"}],
    [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi! How can I help?"},
        {"role": "user", "content": "Another one"},
    ],
)


@torch.inference_mode()
def certificate(name: str, path: Path, *, progress: Progress | None = None) -> Certificate:
    """Return what can be shown of the checkpoint at a path. name: what it was called."""
    try:
        loaded = load(path, check_finite=False, progress=progress)
    except BestiaryError as error:
        return Certificate(name, (Column("load", (Finding("loads", False, note=str(error)),)),))
    tokens, tokenizer = _tokens(path, _rows(loaded))
    columns = (
        Column("load", tuple(_read(loaded))),
        Column("logits", tuple(_logits(loaded))),
        Column("tokens", tokens),
        Column("prompt", tuple(_prompts(path, tokenizer)), "no chat template: a base model"),
        Column("scale", (_scale(loaded, path),)),
    )
    return Certificate(name, columns)


def _read(loaded: Loaded) -> Iterator[Finding]:
    """Loading had refused a key that is not read, and a tensor that is missing or left over."""
    count, dropped = len(loaded.checkpoint.entries), len(loaded.match.dropped)
    said = f"{count} tensors, {dropped} of them computed here" if dropped else f"{count} tensors"
    yield Finding("every key is read", True, note=f"{len(loaded.config)} keys")
    yield Finding("every tensor is used", True, note=said)
    broken = loaded.checkpoint.check_finite()
    yield Finding("every weight is finite", not broken, note=", ".join(broken[:3]))


def _logits(loaded: Loaded) -> Iterator[Finding]:
    model = loaded.model
    rows = min(_rows(loaded), 20_000)
    drawn = torch.Generator().manual_seed(0)
    texts = [torch.randint(rows // 2, rows, (1, length), generator=drawn) for length in _LENGTHS]
    alone = [_at_once(loaded, text) for text in texts]
    whole = all(bool(logits.isfinite().all()) for logits in alone)
    yield Finding("logits are finite", whole)
    if not whole:
        return
    allowed = _SHARE * max(logits.abs().max().item() for logits in alone)
    if not isinstance(model, Encoder):
        error = worst(
            _difference(_stepwise(loaded, text), logits) for text, logits in zip(texts, alone, strict=True)
        )
        yield Finding.near("over a cache as at once", error, allowed)
    if not isinstance(model, EncoderDecoder):
        yield Finding.near("in a batch as alone", _batched(loaded, texts, alone), allowed)
    with ExitStack() as plain:
        for table in (softmax, linear):
            plain.enter_context(table.forced("reference"))
        plainly = [_at_once(loaded, text) for text in texts]
    pairs = list(zip(plainly, alone, strict=True))
    error = worst(_difference(want, got) for want, got in pairs)
    divergence = worst(_divergence(want, got) for want, got in pairs)
    yield Finding.near("fast kernels as plain ones", error, allowed, f"KL divergence {divergence:.1e}")


def _rows(loaded: Loaded) -> int:
    model = loaded.model
    stack = model.decoder if isinstance(model, EncoderDecoder) else model
    sizes = (loaded.config.get("vocab_size"), _embedded(stack))
    return min(int(size) for size in sizes if isinstance(size, int))


def _embedded(stack: torch.nn.Module) -> int | None:
    found = (getattr(module, "num_embeddings", None) for module in stack.modules())
    return next((size for size in found if isinstance(size, int)), None)


def _at_once(loaded: Loaded, tokens: Tensor) -> Tensor:
    model = loaded.model
    ctx = Full.of(tokens, None, model.prompt(tokens))
    found: Tensor = model.hidden(tokens, ctx) if isinstance(model, Encoder) else model(tokens, ctx)
    return found


def _stepwise(loaded: Loaded, tokens: Tensor) -> Tensor:
    """Return the logits of a text read in two pieces and then a token at a time, over a cache."""
    model, length = loaded.model, tokens.shape[1]
    if isinstance(model, Encoder):
        raise TypeError(type(model).__name__)
    kept, begin = Cache.empty(model, 1, length), model.prompt(tokens)
    borders = [0, length // 2, *range(length // 2 + 1, length + 1)]
    if begin.prefix is not None or begin.stretch is not None:  # such a prompt is read whole
        borders = [0, length]
    parts = [
        model(tokens[:, start:end], Stream.at(kept, start, end - start, begin))
        for start, end in pairwise(borders)
    ]
    return torch.cat(parts, 1)


def _batched(loaded: Loaded, texts: list[Tensor], alone: list[Tensor]) -> float:
    """Return how far the logits of texts padded on the right are from those of each alone."""
    model, longest = loaded.model, max(text.shape[1] for text in texts)
    rows = [torch.nn.functional.pad(text, (0, longest - text.shape[1])) for text in texts]
    tokens = torch.cat(rows)
    seen = torch.arange(longest) < torch.tensor([[text.shape[1]] for text in texts])
    ctx = Full.of(tokens, seen, model.prompt(tokens, seen))
    got = model.hidden(tokens, ctx) if isinstance(model, Encoder) else model(tokens, ctx)
    return worst(_difference(row[None, : one.shape[1]], one) for row, one in zip(got, alone, strict=True))


def _difference(got: Tensor, want: Tensor) -> float:
    return (got.float() - want.float()).abs().max().item()


def _divergence(want: Tensor, got: Tensor) -> float:
    """Return the mean Kullback-Leibler divergence of two runs' next tokens, in nats."""
    exact, near = want.float().log_softmax(-1), got.float().log_softmax(-1)
    return float((exact.exp() * (exact - near)).sum(-1).mean().clamp_min(0))


def _tokens(path: Path, rows: int) -> tuple[tuple[Finding, ...], Tokenizer | None]:
    try:
        tokenizer = open_tokenizer(path)
    except TokenizerError as error:
        return (Finding("the tokenizer opens", False, note=str(error)),), None
    control = set(tokenizer.control.values())
    changed, lost, forged, uneven, foreign = 0, [], [], [], set[int]()
    for text in _TEXTS:
        ids = tokenizer.encode(text)
        back = tokenizer.decode(ids)
        stream = tokenizer.stream()
        changed += back != text
        foreign |= {id for id in ids if id >= rows}
        lost += [text] if tokenizer.decode(tokenizer.encode(back)) != back else []
        forged += [text] if control.intersection(ids) else []
        uneven += [text] if "".join([*map(stream.push, ids), stream.flush()]) != back else []
    rules = f"{changed} of {len(_TEXTS)} as the tokenizer writes them: lower case, known characters" * bool(
        changed
    )
    unread = f"{len(foreign)} ids from {rows:,} on: it is another model's tokenizer" if foreign else ""
    findings = (
        Finding("the model has every token", not foreign, note=unread),
        Finding("texts come back from their tokens", not lost, note="; ".join(lost)[:200] or rules),
        Finding("no text gives a control token", not forged, note="; ".join(forged)[:200]),
        Finding("token by token as at once", not uneven, note="; ".join(uneven)[:200]),
    )
    return findings, tokenizer


def _prompts(path: Path, tokenizer: Tokenizer | None) -> Iterator[Finding]:
    """Compare a checkpoint's own template with the roster's format of it, where it has both."""
    if tokenizer is None:
        return
    name = published_format(path)
    try:
        own = open_template(path, tokenizer)
        formed = ChatTemplate(prompts.get(name), tokenizer) if name else None
        if own is not None and formed is not None:
            yield _alike(own, formed)
        elif (template := own or formed) is not None:
            said = f"the roster's, {name}" if own is None else "its own template"
            yield Finding("a prompt is rendered", bool(template.encode(_TALKS[0]).ids), note=said)
    except BestiaryError as error:
        yield Finding("a prompt is rendered", False, note=str(error))


def _alike(own: ChatTemplate, formed: ChatTemplate) -> Finding:
    """Compare two templates of a model. What its template says counts in a chat, also where they differ."""
    what = f"its own template writes what the format {formed.name} does"
    tokenizer = own.tokenizer
    begin = next((name for name, id in tokenizer.control.items() if id == tokenizer.bos), "")
    other = False
    for talk in _TALKS:
        with contextlib.suppress(RequestError):  # a format of one question
            want, got = formed.encode(talk), own.encode(talk)
            if want.text.removeprefix(begin) != got.text.removeprefix(begin):
                return Finding(what, None, note="it does not; a chat is written by its own template")
            other = other or want.ids != got.ids
    return Finding(what, True, note="the same text; its authors' code makes other tokens of it" * other)


def _scale(loaded: Loaded, path: Path) -> Finding:
    """Compare the parameters with the published number, for a repository whose size is known."""
    repository = cache.origin(path)
    row = by_id().get(repository or "")
    parameters = [parameter.numel() for parameter in loaded.model.parameters()]
    packed = any(type(module).__name__.startswith("Packed") for module in loaded.model.modules())
    if row is None or packed:
        return Finding("parameters", True, note="no published number to compare with")
    return Finding("parameters", sum(parameters) == row.params, note=f"{sum(parameters):,}")
