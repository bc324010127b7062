"""What is deployed: the application of one machine, with Ray Serve between the front and the engines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ray import serve
from ray.serve.config import AutoscalingConfig, RequestRouterConfig

from ...errors import RequestError
from ..app import application
from ..replicas import Workers
from ..service import Service
from ..settings import Settings
from .replica import Replica

if TYPE_CHECKING:
    from starlette.types import ASGIApp

ENGINE, FRONT = "engine", "front"
MOST_REPLICAS = 64
# A front refuses by its gate, in OpenAI's words, long before Ray Serve would.
_FRONT_REQUESTS = 8192
# Seconds of too much to do before a replica is started; Ray Serve waits 30.
_HURRY = 5.0


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How many replicas, and what each asks of a machine.

    least, most: replicas; between them there are as many as the answers under way need, each `streams` of
    them. cpus, gpus: of each. fronts: what speaks HTTP; with two the death of a machine takes none away for
    long. patience: seconds of little to do before a replica is taken away.
    """

    least: int = 1
    most: int = 1
    cpus: float = 1
    gpus: float = 0
    fronts: int = 1
    patience: float = 600.0

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.most <= MOST_REPLICAS:
            raise RequestError(
                f"--replicas {self.least} to --max-replicas {self.most} should be from 1 to {MOST_REPLICAS}, "
                "the lower number first"
            )
        if not 1 <= self.fronts <= 64:
            raise RequestError(f"fronts={self.fronts} should be from 1 to 64")


def build(settings: Settings, scale: Scale, *, name: str) -> serve.Application:
    """Return the application as Ray Serve deploys it. name: that it is deployed under."""
    streams = settings.opening.streams

    def front() -> ASGIApp:
        return application(Service(settings, workers=lambda service: _workers(service, name)), waits=True)

    engine = serve.deployment(Replica).options(
        name=ENGINE,
        # What waits beyond a second batch waits at the front, where a replica that is started later gets it.
        max_ongoing_requests=2 * streams,
        ray_actor_options={"num_cpus": scale.cpus, "num_gpus": scale.gpus},
        graceful_shutdown_timeout_s=settings.grace,
        max_constructor_retry_count=2,
        request_router_config=RequestRouterConfig(
            request_router_class="bestiary.serve.cluster.routing.PrefixRouter",
            request_router_kwargs={"slack": max(1, streams // 4)},
        ),
        **_size(scale, streams),
    )
    ingress = serve.deployment(serve.ingress(front)()).options(
        name=FRONT,
        num_replicas=scale.fronts,
        max_ongoing_requests=_FRONT_REQUESTS,
        ray_actor_options={"num_cpus": 0},  # it waits for others nearly always
        graceful_shutdown_timeout_s=settings.grace,
    )
    return ingress.bind(engine.bind(settings.opening))


def _size(scale: Scale, streams: int) -> dict[str, Any]:
    if scale.least == scale.most:
        return {"num_replicas": scale.least}
    config = AutoscalingConfig(
        min_replicas=scale.least,
        max_replicas=scale.most,
        target_ongoing_requests=streams,
        upscale_delay_s=_HURRY,
        downscale_delay_s=scale.patience,
    )
    return {"autoscaling_config": config}


def _workers(service: Service, name: str) -> Workers:
    from .workers import Deployed

    def running() -> int:
        states = serve.status().applications[name].deployments[ENGINE].replica_states
        return int(states.get("RUNNING", 0))

    handle = serve.get_deployment_handle(ENGINE, name)
    adapters = dict(service.settings.opening.adapters)
    return Deployed(handle, adapters=adapters, running=running, ready=service.ready)
