"""Ray Serve's choice of a replica, by what each was sent before. It runs where the front runs."""

from __future__ import annotations

from typing import Any

from ray.serve.request_router import RequestRouter

from ..prefixes import Prefixes, names


class PrefixRouter(RequestRouter):  # type: ignore[misc]
    """Sends a job to the replica that was sent most of its beginning, within a bound on load (prefixes).

    The load is what this front has under way. With several fronts each sees its own, and what they choose for
    a beginning that nobody was sent is the same.
    """

    def initialize_state(self, slack: int) -> None:
        """Begin without memories. slack: of Prefixes."""
        self._prefixes: Prefixes[str] = Prefixes(slack)
        self._open: dict[str, tuple[str, int]] = {}  # request -> its replica, and how many answers it has

    async def choose_replicas(
        self, candidate_replicas: list[Any], pending_request: Any = None
    ) -> list[list[Any]]:
        """Return the replicas in the order in which they should be tried."""
        if not candidate_replicas:
            return []
        job, _, avoid = _asked(pending_request)
        by_name = {one.replica_id.unique_id: one for one in candidate_replicas}
        usable = by_name.keys() - set(avoid) or by_name.keys()
        loads = dict.fromkeys(sorted(usable), 0)
        for replica, answers in self._open.values():
            if replica in loads:
                loads[replica] += answers
        first = self._prefixes.choose(_pages(job), loads)
        rest = [by_name[one] for one in loads if one != first]
        return [[by_name[first]], rest] if rest else [[by_name[first]]]

    def on_request_routed(self, pending_request: Any, replica_id: Any, result: Any) -> None:
        """Remember what a replica was sent."""
        job, answers, _ = _asked(pending_request)
        if answers:
            self._prefixes.remember(_pages(job), replica_id.unique_id)
            self._open[pending_request.metadata.internal_request_id] = (replica_id.unique_id, answers)

    def on_request_completed(self, replica_id: Any, internal_request_id: str) -> None:
        """Hear that a request is over, however it ended."""
        self._open.pop(internal_request_id, None)

    def update_replicas(self, replicas: list[Any]) -> None:
        """Hear which replicas there are."""
        super().update_replicas(replicas)
        names = {one.replica_id.unique_id for one in replicas}
        self._prefixes.keep(names)
        self._open = {request: one for request, one in self._open.items() if one[0] in names}


def _asked(pending: Any) -> tuple[dict[str, Any], int, list[str]]:
    """Return the arguments of Replica.answer; of no job for what is asked beside it."""
    if pending is not None and len(pending.args) == 3:
        job, answers, avoid = pending.args
        return job, answers, avoid
    return {}, 0, []


def _pages(job: dict[str, Any]) -> list[bytes]:
    return names(job.get("prompt", ()), salt=job.get("salt", ""), adapter=job.get("adapter"))
