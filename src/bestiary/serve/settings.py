"""What a server was told: one frozen value, made by the command line or by whoever embeds the application."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from ..errors import RequestError

LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
MOST_NAMES, MOST_KEYS = 16, 1024
_SHORTEST_KEY = 8


@dataclass(frozen=True, kw_only=True)
class Opening:
    """How the worker opens the model and makes its engine.

    model, device, dtype, threads, context, chat_template: as LLM takes them. adapters: name -> folder;
    mixes: whether others may come.
    streams: most sequences computed at once. tokens: of the cache in all; None is as many as `streams`
    contexts need, at most 65,536. chunk: most tokens of a step. deterministic: the same answer whatever else
    runs. share: keep what prompts have in common. cache_dtype: of keys and values; None is the model's own.
    guesses: tokens of an answer that are guessed at a time; draft: a smaller model that guesses them.
    """

    model: str
    device: str = "auto"
    dtype: str = "auto"
    threads: int | None = None
    context: int | None = None
    chat_template: str | None = None
    adapters: Mapping[str, str] = field(default_factory=dict)
    mixes: bool = False
    streams: int = 16
    tokens: int | None = None
    chunk: int = 512
    deterministic: bool = False
    share: bool = True
    cache_dtype: str | None = None
    guesses: int = 0
    draft: str | None = None
    journal: str | None = None


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the front does with requests.

    names: what the model is called in requests, the first one in answers. keys: API keys; none asks for none,
    which is only for a loopback address. hosts: names in the Host header beside the loopback's own. origins:
    pages of other servers that may ask. replicas: workers that have the model. queue: sequences that may
    wait; more are answered 429. grace: seconds that open answers have after SIGTERM. adapters_under: the
    folder that adapters may be loaded from while running; None is no loading.
    """

    opening: Opening
    host: str = "127.0.0.1"
    port: int = 8000
    names: tuple[str, ...] = ()
    keys: tuple[str, ...] = field(default=(), repr=False)
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    replicas: int = 1
    queue: int = 128
    grace: float = 30.0
    adapters_under: Path | None = None
    log_prompts: bool = False
    quiet: bool = False

    def __post_init__(self) -> None:
        _check_keys(self.keys)
        if not self.loopback and not self.keys:
            raise RequestError(
                f"--host {self.host} is reached from other machines, and there is no key\n"
                "Try: --api-key-file FILE (or BESTIARY_API_KEY), or --host 127.0.0.1"
            )
        for origin in self.origins:
            scheme, found, rest = origin.partition("://")
            if scheme not in ("http", "https") or not found or not rest or "/" in rest or "*" in rest:
                raise RequestError(f"--allow-origin {origin[:80]!r} should be like https://chat.example.org")
        for name, value, low, high in (
            ("--queue", self.queue, 0, 4096),
            ("--max-streams", self.opening.streams, 1, 4096),
            ("--replicas", self.replicas, 1, 64),
        ):
            if not low <= value <= high:
                raise RequestError(f"{name} {value} should be from {low} to {high}")
        if taken := self.opening.adapters.keys() & {self.opening.model, *self.names}:
            raise RequestError(
                f"--adapter {min(taken)}=...: the model itself is called so; choose another name"
            )
        if not 0 <= self.grace <= 3600:
            raise RequestError(f"--grace {self.grace} should be from 0 to 3600 seconds")
        if not 0 <= self.port <= 65535:
            raise RequestError(f"--port {self.port} should be from 0 (any free one) to 65535")

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        if self.host == "localhost":
            return True
        try:
            return ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return False


def _check_keys(keys: tuple[str, ...]) -> None:
    if len(keys) > MOST_KEYS:
        raise RequestError(f"{len(keys)} API keys; {MOST_KEYS} are the most")
    for number, key in enumerate(keys, 1):
        if len(key) < _SHORTEST_KEY or len(key) > 512 or not key.isascii() or not key.isprintable():
            raise RequestError(
                f"API key {number} has {len(key)} characters: it should have {_SHORTEST_KEY} to 512 of ASCII"
                "\nTry: openssl rand -hex 24"
            )
        if key != key.strip():
            raise RequestError(f"API key {number} begins or ends in a space")
