"""What a check found: did it hold, and by how much."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any


def worst(errors: Iterable[float]) -> float:
    """Return the largest of some differences. One that is no number counts as the largest."""
    return max(errors, key=lambda error: math.inf if math.isnan(error) else error)


@dataclass(frozen=True)
class Finding:
    """One check. error, allowed: the largest absolute difference, and what it may be, where it is a number.

    holds: None where it could not be checked here; `note` says why.
    """

    what: str
    holds: bool | None
    error: float | None = None
    allowed: float | None = None
    note: str = ""

    @classmethod
    def near(cls, what: str, error: float, allowed: float, note: str = "") -> Finding:
        """Return a check of a difference. One that is no number fails."""
        return cls(what, error <= allowed, error, allowed, note)


@dataclass(frozen=True)
class Column:
    """What a row of the table says of one thing. empty: what it says where there is nothing to check."""

    name: str
    findings: tuple[Finding, ...]
    empty: str = ""

    @property
    def holds(self) -> bool | None:
        """Whether every check held; None where one could not be made, and none failed."""
        found = [finding.holds for finding in self.findings]
        if False in found:
            return False
        return None if None in found or not (found or self.empty) else True

    @property
    def error(self) -> float | None:
        """The largest difference that was found."""
        found = [finding.error for finding in self.findings if finding.error is not None]
        return worst(found) if found else None

    def json(self) -> dict[str, Any]:
        """Return it as plain data."""
        findings = [{**asdict(one), "error": _number(one.error)} for one in self.findings]
        return {
            "holds": self.holds,
            "error": _number(self.error),
            "nothing": self.empty or None,
            "findings": findings,
        }


@dataclass(frozen=True)
class Certificate:
    """What was shown of a system, or of a checkpoint on this machine. note: what was not looked at."""

    name: str
    columns: tuple[Column, ...]
    note: str = ""

    @property
    def holds(self) -> bool | None:
        """Whether every column holds."""
        found = [column.holds for column in self.columns]
        return False if False in found else None if None in found else True

    def json(self) -> dict[str, Any]:
        """Return it as plain data."""
        columns = {column.name: column.json() for column in self.columns}
        return {"name": self.name, "holds": self.holds, "note": self.note, "columns": columns}


def _number(error: float | None) -> float | None:
    """Return a difference as JSON has it, which knows neither NaN nor infinity."""
    return error if error is not None and math.isfinite(error) else None
