"""`bestiary serve`: a model behind OpenAI's API, and a page to talk to it in a browser."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import RequestError
from ..run import hosted
from .options import add_model, add_template, count, loading, model_name
from .terminal import LoadingBar, note

if TYPE_CHECKING:
    from ..serve.service import Service
    from ..serve.settings import Opening, Settings

_KEY, _MOST_KEY_FILE = "BESTIARY_API_KEY", 1 << 16


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    add_model(parser)
    _add_network(parser)
    _add_engine(parser)
    _add_scale(parser)
    _add_watching(parser)
    add_template(parser)
    group = parser.add_argument_group(
        "loading", "BESTIARY_DEVICE, _DTYPE, _THREADS and _CTX_SIZE give defaults"
    )
    group.add_argument(
        "--adapter",
        metavar="NAME=PATH",
        action="append",
        default=[],
        help="a PEFT adapter, asked for as model NAME; may be repeated",
    )
    group.add_argument(
        "--allow-adapters",
        metavar="FOLDER",
        help="adapters under this folder may be loaded and unloaded while serving",
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


def _add_network(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("network", "without a key only this machine may ask")
    group.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    group.add_argument(
        "--port", type=int, default=8000, metavar="N", help="port (default: 8000); 0 is any free one"
    )
    group.add_argument(
        "--served-name",
        "--served-model-name",
        metavar="NAME",
        action="append",
        default=[],
        help="what the model is called in requests (default: MODEL); may be repeated",
    )
    group.add_argument(
        "--api-key",
        metavar="KEY",
        action="append",
        default=[],
        help=f"ask for this key; may be repeated. Other users see it in ps: better {_KEY} or a file",
    )
    group.add_argument("--api-key-file", metavar="FILE", help="ask for one of the keys in a file, one a line")
    group.add_argument(
        "--allow-host",
        metavar="NAME",
        action="append",
        default=[],
        help="a name in the Host header beside localhost; may be repeated",
    )
    group.add_argument(
        "--allow-origin",
        metavar="ORIGIN",
        action="append",
        default=[],
        help="let pages of another server ask (https://chat.example.org); may be repeated",
    )


def _add_engine(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("engine")
    group.add_argument(
        "--max-streams",
        type=int,
        default=16,
        metavar="N",
        help="answers that a replica computes at once (default: 16)",
    )
    group.add_argument(
        "--queue",
        type=int,
        default=128,
        metavar="N",
        help="answers that may wait; more get 429 (default: 128)",
    )
    group.add_argument(
        "--cache-tokens", metavar="N", help="tokens of the cache in all (default: as they fit)"
    )
    group.add_argument("--cache-type", metavar="TYPE", help="of keys and values: the model's own, or int8")
    group.add_argument(
        "--chunk", type=int, default=512, metavar="N", help="most tokens of a step (default: 512)"
    )
    group.add_argument(
        "--deterministic", action="store_true", help="the same answer whatever else is computed beside it"
    )
    group.add_argument(
        "--guess",
        type=int,
        default=0,
        metavar="N",
        help="guess N tokens at a time from what an answer repeats; the answer is the same (default: 0)",
    )
    group.add_argument("--draft", metavar="MODEL", help="a smaller model with the same tokens guesses them")
    group.add_argument(
        "--no-prefix-cache",
        action="store_true",
        help="compute each prompt anew, also where it begins as another",
    )


def _add_scale(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("more than one worker")
    group.add_argument(
        "--replicas",
        type=int,
        default=1,
        metavar="N",
        help="processes that have the model, each a GPU of its own or a share of the cores (default: 1)",
    )
    group.add_argument(
        "--ray",
        metavar="ADDRESS",
        nargs="?",
        const="",
        help="on a Ray cluster: HOST:PORT, auto for the one that this machine is part of; without one a "
        "cluster is started here (pip install bestiary[ray])",
    )
    group.add_argument(
        "--max-replicas",
        type=int,
        metavar="N",
        help="with --ray: start more replicas up to N while there is work for them",
    )


def _add_watching(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("watching and stopping")
    group.add_argument(
        "--grace",
        type=float,
        default=30.0,
        metavar="SECONDS",
        help="after SIGTERM open answers may take so long (default: 30); a second one ends them",
    )
    group.add_argument("--journal", metavar="FILE", help="write each sampled token down, as JSONL")
    group.add_argument(
        "--log-prompts", action="store_true", help="put prompts into the log; without it they never are"
    )
    group.add_argument(
        "-q", "--quiet", action="store_true", help="no line for each request on standard error"
    )


def run(options: argparse.Namespace) -> int:
    """Serve until Ctrl-C or SIGTERM."""
    if options.ray is not None:
        _run_on_ray(options)
        return 0
    if options.max_replicas is not None:
        raise RequestError("--max-replicas is of a cluster: give --ray too, or --replicas alone")
    settings = _settings(options)
    from ..serve.server import serve

    with LoadingBar(settings.opening.model) as bar:

        def told(port: int, service: Service) -> None:
            bar.__exit__(None, None, None)
            _print_ready(settings, port, service)

        serve(settings, told=told, progress=bar)
    return 0


def _run_on_ray(options: argparse.Namespace) -> None:
    for name, given in (("--journal", options.journal), ("--allow-adapters", options.allow_adapters)):
        if given is not None:
            raise RequestError(f"{name} is of one machine, and with --ray there may be several; leave it out")
    if options.port == 0:
        raise RequestError("--port 0: Ray Serve takes no free port by itself; name one")
    if (path := Path(model_name(options)).expanduser()).exists():
        options.model = str(path.absolute())  # a replica has another working directory
    try:
        from ..serve.cluster import app, command
    except ImportError as error:
        raise RequestError(
            "--ray needs Ray, which is not installed\nTry: pip install 'bestiary[ray]'"
        ) from error
    least = options.replicas
    options.replicas = most = least if options.max_replicas is None else options.max_replicas
    settings = _settings(options)
    device, threads = settings.opening.device, settings.opening.threads
    if device.startswith("cuda:"):
        raise RequestError(f"--device {device}: with --ray the cluster chooses which GPU\nTry: --device cuda")
    scale = app.Scale(least=least, most=most, cpus=threads or 1, gpus=1 if device == "cuda" else 0)
    note("deploying; Ray's own log is in /tmp/ray/session_latest/logs")

    def told(port: int) -> None:
        name = settings.names[0] if settings.names else Path(settings.opening.model).name
        _print_addresses(settings, port, f"{name} is ready on a Ray cluster: {least} to {most} replicas")

    command.run(settings, scale, options.ray or None, told=told)


def _settings(options: argparse.Namespace) -> Settings:
    name = model_name(options)
    if hosted.named(name) is not None:
        raise RequestError(f"{name} is computed by its operator, who serves it already")
    from ..serve.settings import Settings

    return Settings(
        opening=_opening(options, name),
        host=options.host,
        port=options.port,
        names=tuple(options.served_name),
        keys=_keys(options),
        hosts=tuple(options.allow_host),
        origins=tuple(options.allow_origin),
        replicas=options.replicas,
        queue=options.queue,
        grace=options.grace,
        adapters_under=_folder(options.allow_adapters),
        log_prompts=options.log_prompts,
        quiet=options.quiet,
    )


def _opening(options: argparse.Namespace, name: str) -> Opening:
    from ..serve.settings import Opening

    given, options.adapter = options.adapter, None
    how = loading(options)
    return Opening(
        model=name,
        device=how["device"],
        dtype=how["dtype"],
        threads=how["threads"],
        context=how["context"],
        chat_template=_template(how["chat_template"]),
        adapters=dict(map(_adapter, given)),
        streams=options.max_streams,
        tokens=None if options.cache_tokens is None else count(options.cache_tokens, "--cache-tokens"),
        chunk=_chunk(options.chunk),
        deterministic=options.deterministic,
        share=not options.no_prefix_cache,
        cache_dtype=options.cache_type,
        guesses=options.guess,
        draft=options.draft,
        journal=None if options.journal is None else str(Path(options.journal).expanduser().absolute()),
    )


def _adapter(text: str) -> tuple[str, str]:
    name, equals, path = text.partition("=")
    if not equals or not name or not path:
        raise RequestError(f"--adapter {text[:80]!r} should be NAME=PATH: requests ask for it by that name")
    return name, str(Path(path).expanduser().absolute()) if Path(path).expanduser().exists() else path


def _template(given: str | None) -> str | None:
    """A template's file is named as this process sees it."""
    if given is not None and Path(given).expanduser().is_file():
        return str(Path(given).expanduser().absolute())
    return given


def _chunk(value: int) -> int:
    if not 16 <= value <= 1 << 16:
        raise RequestError(f"--chunk {value} should be from 16 to 65536")
    return value


def _keys(options: argparse.Namespace) -> tuple[str, ...]:
    keys = list(options.api_key)
    if os.environ.get(_KEY):
        keys.append(os.environ[_KEY])
    if options.api_key_file is not None:
        from .terminal import read_file

        path = Path(options.api_key_file).expanduser()
        if path.stat().st_size > _MOST_KEY_FILE:
            raise RequestError(f"{path} has more than {_MOST_KEY_FILE} bytes: it is no file of keys")
        lines = [line.strip() for line in read_file(str(path)).splitlines()]
        found = [line for line in lines if line and not line.startswith("#")]
        if not found:
            raise RequestError(f"{path} holds no key\nTry: openssl rand -hex 24 > {path}")
        keys += found
    return tuple(dict.fromkeys(keys))


def _folder(given: str | None) -> Path | None:
    if given is None:
        return None
    path = Path(given).expanduser().absolute()
    if not path.is_dir():
        raise RequestError(f"--allow-adapters {given}: no such folder")
    return path


def _print_ready(settings: Settings, port: int, service: Service) -> None:
    facts = service.asker.facts
    _print_addresses(settings, port, f"{service.names[0]} is ready: {facts.room.context} tokens of context")


def _print_addresses(settings: Settings, port: int, ready: str) -> None:
    host = "localhost" if settings.loopback else settings.host
    address = f"http://{f'[{host}]' if ':' in host and not host.startswith('[') else host}:{port}"
    note(ready)
    key = "with a key" if settings.keys else "no key"
    note(f"page: {address}/   API: {address}/v1 ({key})   Ctrl-C stops")
