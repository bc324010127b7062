"""list: every system of the roster, found by what it is, in any terminal."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import bestiary
from bestiary import roster
from bestiary.cli import labels, listing
from bestiary.cli.terminal import wide
from bestiary.roster.lineage import chain, verdict, verdicts
from bestiary.roster.published import by_id
from bestiary.roster.search import sizes

from .conftest import Bestiary

SOURCE = str(Path(bestiary.__file__).parents[1])


@pytest.mark.parametrize("columns", [60, 80, 100, 120, 200])
def test_every_system_has_a_line_that_fits(
    columns: int, bestiary: Bestiary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("NO_COLOR", "1")
    code, out, err = bestiary("list")
    assert code == 0
    lines = out.splitlines()
    named = {word for line in lines for word in line.split()[:2]}
    assert roster.entries().keys() <= named
    assert max(map(wide, lines + err.splitlines())) <= max(columns, 78)


def test_a_pipe_gets_whole_lines_without_colour(bestiary: Bestiary) -> None:
    out = bestiary("list").out
    assert "\x1b" not in out
    assert "…" not in out
    assert all(entry.organisation in out for entry in roster.entries().values())


def test_torch_is_not_needed() -> None:
    code = "import sys; from bestiary.cli import main; main(sys.argv[1:]); print('torch' in sys.modules)"
    for command in (["list"], ["list", "--json"], ["list", "nonesuch"]):
        ran = subprocess.run(
            [sys.executable, "-c", code, *command],
            env={**os.environ, "PYTHONPATH": SOURCE},
            capture_output=True,
            text=True,
            check=True,
        )
        assert ran.stdout.splitlines()[-1] == "False"


def _ids(bestiary: Bestiary, *asked: str) -> set[str]:
    return {row["id"] for row in json.loads(bestiary("list", "--json", *asked).out)}


def test_json_has_them_all(bestiary: Bestiary) -> None:
    rows = json.loads(bestiary("list", "--json").out)
    assert {row["id"] for row in rows} == roster.entries().keys()
    smollm = next(row for row in rows if row["id"] == "smollm2")
    assert smollm["parameters"] == [by_id()["HuggingFaceTB/SmolLM2-135M-Instruct"].params]
    assert smollm["commercial"] == "yes"
    assert smollm["here"] == []


@pytest.mark.parametrize(
    ("asked", "holds"),
    [
        (("--kind", "encoder"), lambda e: e.kind == "encoder"),
        (("--language", "zh"), lambda e: "zh" in e.languages),
        (("--feature", "chat"), lambda e: "chat" in e.features),
        (("--family", "llama"), lambda e: "llama" in e.family),
        (("--size", "<1b"), lambda e: any(n < 0.5e9 for n in sizes(e))),
        (("--size", ">=350m", "--size", "<400m"), lambda e: any(349.5e6 <= n <= 399.5e6 for n in sizes(e))),
        (
            ("--language", "en", "--feature", "chat"),
            lambda e: {"chat"} <= set(e.features) and "en" in e.languages,
        ),
    ],
)
def test_filters(asked: tuple[str, ...], holds: object, bestiary: Bestiary) -> None:
    wanted = {id for id, entry in roster.entries().items() if holds(entry)}  # type: ignore[operator]
    assert _ids(bestiary, *asked) == wanted


def test_sizes_are_rounded_as_they_are_written(bestiary: Bestiary) -> None:
    """SmolLM2-135M has 134.5 million."""
    for size in ("135m", "<=135m", ">=134.5m", "<=0.1b", "<1b"):
        assert "smollm2" in _ids(bestiary, "--size", size), size
    for size in ("134m", "<134m", ">135m", "<135m", "1b"):
        assert "smollm2" not in _ids(bestiary, "--size", size), size


def test_licences(bestiary: Bestiary) -> None:
    free, apache = _ids(bestiary, "--licence", "commercial"), _ids(bestiary, "--license", "apache 2")
    assert "smollm2" in free & apache
    for entry in roster.entries().values():
        allowed = set(verdicts(entry)) or {verdict(chain(entry))}
        assert (entry.id in free) == ("yes" in allowed)


def test_words_are_looked_for_in_all_that_is_said(bestiary: Bestiary) -> None:
    assert "smollm2" in _ids(bestiary, "hugging", "laptop")
    assert "smollm2" in _ids(bestiary, "笔记本")
    assert "smollm2" not in _ids(bestiary, "hugging", "no such word")
    ran = bestiary("list", "smolm")
    assert (ran.code, ran.out) == (0, "")
    assert ran.err == "no system of the roster is like that; did you mean smollm2?\n"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (("--size", "large"), "--size 'large' should be like 7b, '<=13b' or '>=350m'"),
        (("--feature", "chatt"), "has the feature 'chatt'\n  try: chat\n"),
        (("--kind", "decodr"), "has the kind 'decodr'\n  try: decoder"),
        (("--language", "klingon"), "has the language 'klingon'\n  try: "),
        (("--family", "lama"), "has the family 'lama'\n  try: llama"),
    ],
)
def test_what_no_system_can_be(asked: tuple[str, ...], message: str, bestiary: Bestiary) -> None:
    ran = bestiary("list", *asked)
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err


def test_chinese_where_the_locale_is(bestiary: Bestiary, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value, chinese in (("LANG", "zh_CN.UTF-8", True), ("LC_ALL", "C", False)):
        monkeypatch.setenv(name, value)
        assert ("入门: " in bestiary("list").out) is chinese
    assert labels.in_chinese("zh")
    assert not labels.in_chinese("en")


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ([], ""),
        ([134_515_008], "135M"),
        ([6_738_415_616, 13_015_864_320, 65_285_660_672], "6.7-65B"),
        ([463_987_712, 110_000_000_000], "464M-110B"),
        ([999, 7_000], "999-7k"),
        ([9_960_000_000], "10B"),
    ],
)
def test_sizes_in_little_room(counts: list[int], words: str) -> None:
    assert listing.size_words(counts) == words
