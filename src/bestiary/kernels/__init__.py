"""The table of kernels: for each operation its implementations, best first and a readable reference last.

An operation is a `Table`, called like a function. It runs the first implementation that supports the
arguments, so a fast one is never a requirement: what it does not support, or where it is absent, the next one
serves.

    linear = Table("packed_linear")
    linear.add("native", fast, supports)          # supports(*arguments) -> None, or the reason why not
    linear.add("reference", plain)
    linear(x, weight, fmt, bias)
    with linear.forced("reference"): ...          # for tests and for hunting a difference

`explain()` lists every operation and why an implementation is absent; `Table.explain(*arguments)` says the
same about one call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from ..errors import KernelError

__all__ = ["Kernel", "Table", "Verdict", "explain"]

R = TypeVar("R")


@dataclass(frozen=True)
class Kernel(Generic[R]):
    """One implementation of an operation.

    supports takes the operation's arguments and returns None or the reason for a refusal. about takes nothing
    and returns what it runs on here, or raises KernelError with the reason why it is absent.
    """

    name: str
    function: Callable[..., R]
    supports: Callable[..., str | None] | None = None
    about: Callable[[], str] | None = None


@dataclass(frozen=True)
class Verdict:
    """Whether an implementation serves, and why not, or on what it runs."""

    operation: str
    kernel: str
    serves: bool
    note: str


class Table(Generic[R]):
    """The implementations of one operation, best first."""

    def __init__(self, operation: str) -> None:
        self.operation = operation
        self.kernels: list[Kernel[R]] = []
        self._forced: Kernel[R] | None = None
        _TABLES[operation] = self

    def add(
        self,
        name: str,
        function: Callable[..., R],
        supports: Callable[..., str | None] | None = None,
        *,
        about: Callable[[], str] | None = None,
    ) -> None:
        """Append an implementation, slower than those before it. See Kernel for supports and about."""
        self.kernels.append(Kernel(name, function, supports, about))

    def __call__(self, *arguments: Any) -> R:
        """Run the best implementation that supports the arguments. KernelError when none does."""
        if self._forced is not None:
            return self._run_forced(self._forced, arguments)
        for kernel in self.kernels:
            if kernel.supports is None or kernel.supports(*arguments) is None:
                return kernel.function(*arguments)
        reasons = "; ".join(f"{verdict.kernel}: {verdict.note}" for verdict in self.explain(*arguments))
        raise KernelError(f"no implementation of {self.operation} serves this call ({reasons})")

    def _run_forced(self, kernel: Kernel[R], arguments: tuple[Any, ...]) -> R:
        reason = kernel.supports(*arguments) if kernel.supports is not None else None
        if reason is not None:
            raise KernelError(f"{self.operation} was told to use {kernel.name}, which refuses: {reason}")
        return kernel.function(*arguments)

    @contextmanager
    def forced(self, name: str) -> Iterator[None]:
        """Use the implementation of this name alone, in the whole process, until the block ends.

        Raises KernelError when there is none of that name; a call it does not support raises it too.
        """
        found = next((kernel for kernel in self.kernels if kernel.name == name), None)
        if found is None:
            known = ", ".join(kernel.name for kernel in self.kernels)
            raise KernelError(f"{self.operation} has no implementation {name!r}; it has {known}")
        before, self._forced = self._forced, found
        try:
            yield
        finally:
            self._forced = before

    def explain(self, *arguments: Any) -> list[Verdict]:
        """Say which implementation serves a call with these arguments, and why each better one does not."""
        verdicts: list[Verdict] = []
        for kernel in self.kernels if self._forced is None else [self._forced]:
            reason = kernel.supports(*arguments) if kernel.supports is not None else None
            verdicts.append(Verdict(self.operation, kernel.name, reason is None, reason or _about(kernel)[1]))
            if reason is None:
                break
        return verdicts


_TABLES: dict[str, Table[Any]] = {}


def _about(kernel: Kernel[Any]) -> tuple[bool, str]:
    """Tell whether an implementation is here at all, and what it runs on or why it is absent."""
    try:
        return True, kernel.about() if kernel.about is not None else "PyTorch"
    except KernelError as absent:
        return False, str(absent)


def explain() -> list[Verdict]:
    """List every implementation of every operation, best first: what it runs on here, or why it is absent."""
    from . import attention, experts, matmul  # noqa: F401  # importing them fills the table

    verdicts = []
    for table in _TABLES.values():
        for kernel in table.kernels:
            here, note = _about(kernel)
            verdicts.append(Verdict(table.operation, kernel.name, here, note))
    return verdicts
