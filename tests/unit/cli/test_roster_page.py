"""list --html: one page that asks nobody for anything, holds every system, and escapes what it is given."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from bestiary import roster
from bestiary.cli import graph
from bestiary.cli.markup import Markup, joined, tag
from bestiary.cli.page import page
from bestiary.roster.entry import Claim, Step, Words

from .conftest import Bestiary

VOID = {"meta", "input", "br"}
ENTRIES = list(roster.entries().values())
EVIL = "<script>alert(1)</script>\"'&</style>"


class Parsed(HTMLParser):
    """The elements of a page, with their attributes and all of their text; each must be closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        for name in set(self._open):
            self.texts[name][-1] += data

    def all(self, name: str) -> Iterator[dict[str, str | None]]:
        return (attributes for tag, attributes in self.elements if tag == name)


@pytest.fixture(scope="module")
def whole() -> Parsed:
    return Parsed(page(ENTRIES))


def test_every_system_has_a_row_a_card_and_its_words(whole: Parsed) -> None:
    assert [row["data-id"] for row in whole.all("tr") if "data-id" in row] == [entry.id for entry in ENTRIES]
    assert [card["id"] for card in whole.all("article")] == [entry.id for entry in ENTRIES]
    for entry, text in zip(ENTRIES, whole.texts["article"], strict=True):
        texts: list[Words | Claim] = [entry.about, entry.claim, *([entry.instead] if entry.instead else [])]
        for said in texts:
            assert said.en in text
            assert said.zh in text
        assert all(one.id in text for one in entry.checkpoints)
        assert entry.licence.clause in text


def test_nothing_is_fetched(whole: Parsed) -> None:
    """A link out is followed by who clicks it; nothing else has an address, and the policy allows none."""
    addresses = ("src", "href", "srcset", "data", "action", "poster", "xlink:href", "style", "background")
    for name, attributes in whole.elements:
        for key in addresses:
            value = attributes.get(key) or ""
            assert name == "a" or value == "", (name, key)
            assert name != "a" or key == "href" or value == ""
        assert not [key for key in attributes if key.startswith("on")]
        if name == "a" and not (attributes["href"] or "").startswith("#"):
            assert (attributes["href"] or "").startswith("https://")
            assert attributes["rel"] == "noreferrer noopener"
    assert {name for name, _ in whole.elements}.isdisjoint(
        {"link", "img", "iframe", "object", "embed", "base"}
    )
    (style,), (script,) = whole.texts["style"], whole.texts["script"]
    assert not re.search(r"url\(|@import|https?:", style)
    assert not re.search(r"https?:|fetch|XMLHttp|import\(|eval|innerHTML", script)
    (policy,) = [m["content"] for m in whole.all("meta") if m.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    for text in (style, script):
        assert base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() in policy


def test_links_within_the_page_lead_somewhere(whole: Parsed) -> None:
    ids = [attributes["id"] for _, attributes in whole.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {(a["href"] or "")[1:] for a in whole.all("a") if (a["href"] or "").startswith("#")}
    assert targets <= set(ids)


def test_a_reader_of_screens_is_told_what_is_what(whole: Parsed) -> None:
    assert next(whole.all("html"))["lang"] == "en"
    assert all(head.get("scope") in ("row", "col") for head in whole.all("th"))
    assert len(whole.texts["caption"]) == 1
    for name in ("input", "select"):
        assert all("name" in field for field in whole.all(name))
    assert len(whole.texts["label"]) == len(list(whole.all("input"))) + len(list(whole.all("select")))
    assert next(whole.all("svg"))["aria-label"]
    for attributes in whole.all("div"):
        assert "tabindex" not in attributes or attributes["aria-label"]  # what scrolls can be reached by keys
    assert next(whole.all("form"))["hidden"] is None  # no filter is shown that nothing works


def test_what_is_said_is_escaped() -> None:
    said = Words(EVIL, EVIL)
    smollm = roster.entries()["smollm2"]
    evil = dataclasses.replace(
        smollm, name=EVIL, organisation=EVIL, about=said, instead=said, claim=Claim(EVIL, EVIL, ("x",)),
        aliases=(f"坏{EVIL}",), languages=(EVIL,), features=(EVIL,), kind=EVIL, links=(f"https://{EVIL}",),
        lineage=(Step(EVIL.replace(" ", ""), "full", EVIL),),
        licence=dataclasses.replace(smollm.licence, clause=EVIL),
    )  # fmt: skip
    text = page([evil])
    parsed = Parsed(text)
    assert len(list(parsed.all("script"))) == 1
    assert len(list(parsed.all("style"))) == 1
    assert "<script>alert" not in text
    assert EVIL in parsed.texts["article"][0]


def test_elements() -> None:
    assert tag("p", "a<b", None, tag("br"), id='"') == '<p id="&quot;">a&lt;b<br></p>'
    assert (
        tag("a", class_="x", aria_label="y", hidden=True, title=None)
        == '<a class="x" aria-label="y" hidden></a>'
    )
    assert joined([tag("b", "1"), tag("b", "2")], "<") == "<b>1</b>&lt;<b>2</b>"
    assert isinstance(joined([]), Markup)


def test_the_drawing_has_every_step_from_left_to_right() -> None:
    placed = graph.nodes(ENTRIES)
    for node in placed.values():
        assert all(placed[name].column < node.column for name, _ in node.above)
    places = [(node.column, node.row) for node in placed.values()]
    assert len(places) == len(set(places))
    parsed = Parsed(graph.drawing(ENTRIES))
    assert len(list(parsed.all("path"))) == sum(len(node.above) for node in placed.values())
    for node in placed.values():
        if node.system is not None and node.column == 0:
            assert node.below


def test_boxes_do_not_overlap() -> None:
    by_column: dict[int, list[float]] = {}
    for node in graph.nodes(ENTRIES).values():
        by_column.setdefault(node.column, []).append(node.row)
    for rows in by_column.values():
        rows.sort()
        assert all(after - before >= 1 for before, after in pairwise(rows))


def test_the_command_writes_it_whole_and_overwrites_nothing_else(bestiary: Bestiary, tmp_path: Path) -> None:
    file = tmp_path / "roster.html"
    for _ in range(2):  # a page of ours may be written anew
        ran = bestiary("list", "--html", file)
        assert (ran.code, ran.out) == (0, "")
        assert ran.err.startswith(f"{len(ENTRIES)} systems in {file}, ")
    assert [path.name for path in tmp_path.iterdir()] == ["roster.html"]
    bestiary("list", "smollm2", "--html", tmp_path / "one.html")
    assert len(list(Parsed((tmp_path / "one.html").read_text("utf-8")).all("article"))) < len(ENTRIES)
    (tmp_path / "mine.html").write_text("<p>mine")
    for other in (tmp_path / "mine.html", tmp_path):
        ran = bestiary("list", "--html", other)
        assert ran.code == 2
        assert "is no page that was made by this command" in ran.err
    assert (tmp_path / "mine.html").read_text() == "<p>mine"
    assert bestiary("list", "--html", tmp_path / "no/such/folder.html").code == 1
    assert bestiary("list", "--html", "--json").code == 2
    assert bestiary("list", "no such words", "--html", tmp_path / "none.html").code == 2
