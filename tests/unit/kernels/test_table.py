"""The table of kernels: the best that supports a call serves it, and can say why."""

from __future__ import annotations

import pytest

from bestiary import kernels
from bestiary.errors import KernelError
from bestiary.kernels import Table, Verdict, explain


@pytest.fixture
def double() -> Table[str]:
    table: Table[str] = Table("double")
    table.add("small", lambda n: f"small {2 * n}", lambda n: None if n < 10 else f"{n} is not below 10")
    table.add("even", lambda n: f"even {2 * n}", lambda n: "odd" if n % 2 else None)
    return table


@pytest.fixture(autouse=True)
def _own_table_only(monkeypatch: pytest.MonkeyPatch) -> None:
    explain()  # imports what fills the table
    monkeypatch.setattr(kernels, "_TABLES", dict(kernels._TABLES))


def test_the_first_that_supports_a_call_serves_it(double: Table[str]) -> None:
    assert [double(3), double(4), double(12)] == ["small 6", "small 8", "even 24"]


def test_a_call_nobody_supports_names_every_reason(double: Table[str]) -> None:
    with pytest.raises(KernelError, match=r"double.*small: 11 is not below 10; even: odd"):
        double(11)


def test_forcing_one_by_name(double: Table[str]) -> None:
    with double.forced("even"):
        assert double(4) == "even 8"
        with double.forced("small"):
            assert double(4) == "small 8"
        assert double(4) == "even 8"
        with pytest.raises(KernelError, match="even, which refuses: odd"):
            double(3)
    assert double(4) == "small 8"
    with pytest.raises(KernelError, match="no implementation 'large'; it has small, even"):
        double.forced("large").__enter__()


def test_a_failure_ends_the_forcing(double: Table[str]) -> None:
    with pytest.raises(ZeroDivisionError), double.forced("even"):
        raise ZeroDivisionError
    assert double(4) == "small 8"


def test_a_call_is_explained_up_to_what_serves_it(double: Table[str]) -> None:
    assert double.explain(12) == [
        Verdict("double", "small", False, "12 is not below 10"),
        Verdict("double", "even", True, "PyTorch"),
    ]
    with double.forced("even"):
        assert double.explain(4) == [Verdict("double", "even", True, "PyTorch")]


def test_what_is_absent_says_why() -> None:
    def absent() -> str:
        raise KernelError("no such device")

    table: Table[int] = Table("nothing")
    table.add("fast", lambda: 1, lambda: "no such device", about=absent)
    table.add("plain", lambda: 2, about=lambda: "pencil and paper")
    assert table() == 2
    mine = [verdict for verdict in explain() if verdict.operation == "nothing"]
    assert mine == [
        Verdict("nothing", "fast", False, "no such device"),
        Verdict("nothing", "plain", True, "pencil and paper"),
    ]


def test_every_operation_ends_with_its_reference() -> None:
    last = {verdict.operation: verdict for verdict in explain()}
    assert {"packed_linear", "packed_decode", "attention"} <= set(last)
    for operation in ("packed_linear", "packed_decode", "attention"):
        assert last[operation].kernel == "reference"
        assert last[operation].serves
