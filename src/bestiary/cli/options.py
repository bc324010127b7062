"""The options that several commands share, each declared once, in the spellings of llama.cpp and of vLLM."""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import roster
from ..errors import RequestError
from ..run import hosted
from .terminal import LoadingBar, amount, note

if TYPE_CHECKING:
    from ..run.llm import LLM
    from ..run.params import BeamParams, Constrained, SamplingParams

# Options that only sampling uses; keys of a generation_config.json that beam search uses, and that both do.
_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "seed", "stop")
_BEAMS, _BOTH = ("length_penalty", "early_stopping"), ("no_repeat_ngram_size",)
# Letter case matters, as for vLLM's --max-model-len: 4k is 4000 and 4K is 4096.
_SUFFIXES = {"k": 10**3, "K": 2**10, "m": 10**6, "M": 2**20}


def add_model(parser: argparse.ArgumentParser) -> None:
    """The model, in either of two places."""
    about = (
        "smollm2 (the default), a path to a model's folder or .gguf file, org/name[@revision][:file.gguf], "
        "or a hosted one, which is sent what you ask: bedrock:MODEL, openai:MODEL@https://host/v1"
    )
    parser.add_argument("model", metavar="MODEL", nargs="?", help=about)
    parser.add_argument("-m", "--model", dest="model_option", metavar="MODEL", help="the same as MODEL")


def add_loading(parser: argparse.ArgumentParser) -> None:
    """How to load the model. A variable gives the default of an option: BESTIARY_DEVICE, ..."""
    group = parser.add_argument_group(
        "loading", "BESTIARY_DEVICE, _DTYPE, _THREADS and _CTX_SIZE give defaults"
    )
    group.add_argument(
        "--adapter",
        metavar="FOLDER",
        action="append",
        help="put a PEFT adapter on it; may be repeated, in order",
    )
    group.add_argument("--device", help="cpu, cuda, cuda:1; auto (default) is a GPU where there is one")
    group.add_argument("--dtype", help="auto (default), float32, bfloat16 or float16: what is computed in")
    group.add_argument("-t", "--threads", metavar="N", help="threads (default: the physical cores)")
    group.add_argument(
        "-c",
        "--ctx-size",
        "--max-model-len",
        metavar="N",
        help="tokens of context, 4K is 4096 (default: the model's own)",
    )
    group.add_argument(
        "--trust-remote-code", action="store_true", help="ignored: there is no remote code here"
    )


def add_template(parser: argparse.ArgumentParser) -> None:
    """How a conversation is written for the model."""
    about = "a format's name (vicuna-v1.1), a Jinja file; unless given, the model's own, or the roster's"
    parser.add_argument("--chat-template", metavar="NAME", help=about)


def add_sampling(parser: argparse.ArgumentParser) -> None:
    """How to choose tokens. What is not given comes from the model's generation_config.json, else greedy."""
    told = "what is not given comes from the model's generation_config.json; without one, greedy"
    group = parser.add_argument_group("sampling", told)
    group.add_argument(
        "-n",
        "--max-tokens",
        "--n-predict",
        metavar="N",
        help="most tokens (chat: 1024, else 256); -1: the whole context",
    )
    group.add_argument("--temperature", "--temp", type=float, metavar="T", help="0 is greedy")
    group.add_argument("--top-k", type=int, metavar="K", help="keep the K most likely tokens; 0 is off")
    group.add_argument(
        "--top-p", type=float, metavar="P", help="keep the likeliest tokens that make up P in all"
    )
    group.add_argument("--min-p", type=float, metavar="P", help="keep tokens at least P times the likeliest")
    group.add_argument(
        "--repetition-penalty", "--repeat-penalty", type=float, metavar="R", help="above 1: repeat less"
    )
    group.add_argument(
        "-s", "--seed", type=int, metavar="N", help="same seed, same text; -1: a new one each time"
    )
    group.add_argument(
        "--stop", action="append", metavar="TEXT", help="end before this text; may be repeated"
    )
    group.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="any other field of SamplingParams"
    )


def add_beams(parser: argparse.ArgumentParser) -> None:
    """How to search by beams, in place of sampling."""
    group = parser.add_argument_group("beam search", "in place of sampling; --set takes BeamParams' fields")
    group.add_argument("--beams", type=int, metavar="N", help="follow N hypotheses; --json prints them all")
    group.add_argument(
        "--length-penalty", type=float, metavar="P", help="above 0 favours long answers, below 0 short ones"
    )
    group.add_argument(
        "--early-stopping",
        choices=("true", "false", "never"),
        help="stop at once when N have ended; or once better ones are unlikely; or impossible",
    )


def model_name(options: argparse.Namespace) -> str:
    """The model that was asked for. Raises RequestError when it was asked for twice."""
    if options.model is not None and options.model_option is not None:
        raise RequestError(f"two models are named, {options.model!r} and --model {options.model_option!r}")
    return str(options.model or options.model_option or os.environ.get("BESTIARY_MODEL") or roster.DEFAULT)


def loading(options: argparse.Namespace) -> dict[str, Any]:
    """The options of `add_loading` as LLM's keywords; an option wins over its variable."""
    if options.trust_remote_code:
        note("--trust-remote-code is ignored: no code of a model is ever run")
    return {
        "adapter": options.adapter,
        "device": options.device or os.environ.get("BESTIARY_DEVICE") or "auto",
        "dtype": options.dtype or os.environ.get("BESTIARY_DTYPE") or "auto",
        "threads": _given(options.threads, "--threads", "BESTIARY_THREADS"),
        "context": _given(options.ctx_size, "--ctx-size", "BESTIARY_CTX_SIZE"),
        "chat_template": getattr(options, "chat_template", None),
    }


def open_llm(options: argparse.Namespace) -> LLM:
    """Load the model that was asked for, with a bar when it takes long."""
    name = model_name(options)
    if hosted.named(name) is not None:
        return _open_hosted(name, options)
    how = loading(options)
    from ..run.llm import LLM

    with LoadingBar(name) as bar:
        llm = LLM(name, progress=bar, **how)
    for adapter in llm.tuning.adapters:
        whole = f" and {len(adapter.whole)} whole tensors" if adapter.whole else ""
        what = f"{amount(adapter.parameters)} parameters on {len(adapter.factors)} layers{whole}"
        note(f"adapter {adapter.path}: {what}")
    return llm


def _open_hosted(name: str, options: argparse.Namespace) -> LLM:
    """Open a hosted model. Variables such as BESTIARY_DEVICE do not concern it; options are refused."""
    from ..run.llm import LLM

    for option in ("adapter", "device", "dtype", "threads", "ctx_size"):
        if getattr(options, option) is not None:
            raise RequestError(f"--{option.replace('_', '-')} has no effect on {name}: its operator computes")
    return LLM(name, chat_template=getattr(options, "chat_template", None))


def folder(llm: LLM) -> Path | None:
    """Where a model's own files are; None for a hosted one, which has none."""
    from ..run.hosted.model import Hosted

    return None if isinstance(llm, Hosted) else llm.path


def sampling(options: argparse.Namespace, model: Path | None, *, max_tokens: int) -> SamplingParams:
    """The options of `add_sampling`, over what the model's folder says, over greedy.

    max_tokens: of an answer, where the user does not say. Raises RequestError, which names the field.
    """
    from ..run.params import SamplingParams

    _refuse(options, {"length_penalty": None, "early_stopping": None}, "only --beams N")
    given: dict[str, Any] = {
        "temperature": options.temperature,
        "top_k": options.top_k,
        "top_p": options.top_p,
        "min_p": options.min_p,
        "repetition_penalty": options.repetition_penalty,
        "stop": options.stop,
    }
    chosen: dict[str, Any] = {"max_tokens": _most(options, max_tokens), **_published(model)}
    chosen |= {key: value for key, value in given.items() if value is not None}
    if options.seed is not None:
        chosen["seed"] = None if options.seed == -1 else options.seed
    return SamplingParams(**{**chosen, **dict(map(assignment, options.set))})


def beams(options: argparse.Namespace, model: Path | None, *, max_tokens: int) -> BeamParams:
    """The options of `add_beams`, over what the model's folder says; with --json, all hypotheses.

    max_tokens: of an answer, where the user does not say. Raises RequestError, which names the field, and for
    options of sampling.
    """
    from ..run.params import BeamParams

    _refuse(options, dict.fromkeys(_SAMPLING), "only sampling")
    said = _generation(model)
    chosen: dict[str, Any] = {key: said[key] for key in (*_BEAMS, *_BOTH) if said.get(key) is not None}
    chosen |= {"width": options.beams, "max_tokens": _most(options, max_tokens)}
    chosen["n"] = options.beams if options.json else 1
    if options.length_penalty is not None:
        chosen["length_penalty"] = options.length_penalty
    if options.early_stopping is not None:
        chosen["early_stopping"] = {"true": True, "false": False}.get(options.early_stopping, "never")
    return BeamParams(**{**chosen, **dict(assignment(text, BeamParams) for text in options.set)})


def _most(options: argparse.Namespace, default: int) -> int | None:
    if options.max_tokens is None:
        return default
    return None if options.max_tokens == "-1" else count(options.max_tokens, "--max-tokens")


def _refuse(options: argparse.Namespace, unset: Mapping[str, object], user: str) -> None:
    """Raise RequestError for an option that was given and has no effect here."""
    for name, value in unset.items():
        if getattr(options, name, value) != value:
            raise RequestError(f"--{name.replace('_', '-')} has no effect here: {user} uses it")


def _generation(model: Path | None) -> Mapping[str, Any]:
    """What the model's generation_config.json says; nothing where there is none."""
    from ..run.published import generation

    return {} if model is None else generation(model) or {}


def _published(model: Path | None) -> dict[str, Any]:
    """How the model's generation_config.json samples; greedy where it does not, or there is none."""
    said = _generation(model)
    keys = ("temperature", "top_k", "top_p", "min_p", "typical_p", "repetition_penalty", *_BOTH)
    chosen = {key: said[key] for key in keys if said.get(key) is not None}
    if said.get("do_sample") is not True:
        chosen["temperature"] = 0.0
    return chosen


def assignment(text: str, kind: type[Constrained] | None = None) -> tuple[str, Any]:
    """Read KEY=VALUE, where KEY is a field of SamplingParams and VALUE is JSON, or else plain text.

    kind: whose field it is, if not SamplingParams'. Raises RequestError for an unknown key, with the nearest
    ones.
    """
    from ..run.params import SamplingParams

    key, equals, value = text.partition("=")
    known = [field.name for field in dataclasses.fields(kind or SamplingParams)]
    name = key.strip().replace("-", "_")
    if not equals or name not in known:
        near = difflib.get_close_matches(name, known) or known
        raise RequestError(f"{text[:80]!r} is not KEY=VALUE with a known key\nTry: {', '.join(near)}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def count(text: str, where: str) -> int:
    """Read a number of tokens: 4096, 4K (4096) or 4k (4000). Raises RequestError."""
    number, factor = (text[:-1], _SUFFIXES[text[-1]]) if text[-1:] in _SUFFIXES else (text, 1)
    if not number.isdecimal() or len(number) > 12:
        raise RequestError(f"{where} {text[:40]!r} should be a number such as 4096 or 4K")
    return int(number) * factor


def _given(option: str | None, name: str, variable: str) -> int | None:
    """A number from an option, or else from its variable; None, 0 and auto leave it to the model."""
    text, where = (option, name) if option is not None else (os.environ.get(variable), variable)
    return None if text is None or text in ("", "auto") else count(text, where) or None
