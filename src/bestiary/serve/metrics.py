"""What the server counts, as Prometheus reads it. The names are vLLM's with our prefix, where it has one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from .replicas import Health

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_FIRST = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_BETWEEN = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
_GAUGES = {
    "running": "Sequences that are computed.",
    "waiting": "Sequences that wait.",
    "pages": "Pages of the cache.",
    "free": "Pages of the cache that are free.",
    "cached": "Pages that no sequence holds and whose prompt is remembered.",
    "preempted": "Sequences that lost their pages and were computed again, since the worker started.",
}


_REPLICA = {
    "ready": "1 where it computes, 0 while its worker is started.",
    "restarts": "Workers of it that died.",
    "prompt_tokens": "Tokens of prompts that were computed, since the worker started.",
    "new_tokens": "Tokens of answers, since the worker started.",
    "reused_tokens": "Tokens of prompts that were found computed, since the worker started.",
}


class Metrics:
    """Counts since the server started, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "bestiary_requests", "Requests answered.", ["route", "status"], registry=registry
        )
        self.prompt_tokens = Counter("bestiary_prompt_tokens", "Tokens of prompts.", registry=registry)
        self.new_tokens = Counter("bestiary_generation_tokens", "Tokens of answers.", registry=registry)
        self.reused_tokens = Counter(
            "bestiary_reused_tokens", "Tokens of prompts that were computed before.", registry=registry
        )
        self.first = Histogram(
            "bestiary_time_to_first_token_seconds",
            "From a request to its first token.",
            buckets=_FIRST,
            registry=registry,
        )
        self.between = Histogram(
            "bestiary_inter_token_seconds",
            "Between two tokens of an answer.",
            buckets=_BETWEEN,
            registry=registry,
        )
        self.restarts = Gauge("bestiary_worker_restarts", "Workers that died.", registry=registry)
        self.open = Gauge("bestiary_open_requests", "Requests that are being answered.", registry=registry)
        self._engine = {
            name: Gauge(f"bestiary_engine_{name}", about, registry=registry)
            for name, about in _GAUGES.items()
        }
        self._replica = {
            name: Gauge(f"bestiary_replica_{name}", about, ["replica"], registry=registry)
            for name, about in (_GAUGES | _REPLICA).items()
        }

    def text(self, replicas: Mapping[str, Health]) -> bytes:
        """Return all counts as Prometheus's text. replicas: how each is, by its name."""
        self.restarts.set(sum(one.restarts for one in replicas.values()))
        for name, gauge in self._engine.items():
            gauge.set(sum(one.stats.get(name, 0) for one in replicas.values()))
        for gauge in self._replica.values():
            gauge.clear()  # those that there are no more
        for replica, one in replicas.items():
            counts = {**one.stats, "ready": one.ready, "restarts": one.restarts}
            for name, gauge in self._replica.items():
                gauge.labels(replica).set(counts.get(name, 0))
        return generate_latest(self.registry)
