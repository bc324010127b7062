"""What a model writes and what a file holds is text: nothing of it runs, and nothing of it asks anybody.

Besides what runs and what is asked for, which every test of the page watches, each element, attribute and
address that is shown is judged (judge.js): what does not run in this Chromium might in another browser.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from playwright.sync_api import Page

from tests.serve.page.asking import asked
from tests.serve.page.canned import Answer, Canned

pytestmark = pytest.mark.browser

_ROWS = [json.loads(line) for line in (Path(__file__).parent / "payloads.jsonl").read_text().splitlines()]
TEXTS = [row["text"] for row in _ROWS]
# Each is played as a stream and out of a file every night; for every change, one in five.
_SOME = [
    pytest.param(TEXTS[::5], id="some"),
    pytest.param(TEXTS, id="all", marks=pytest.mark.nightly),
]


def split(text: str) -> tuple[str, ...]:
    """A text in pieces that end anywhere, as tokens do."""
    return tuple(text[i : i + 7] for i in range(0, len(text), 7))


def imported(page: Page, lines: list[str]) -> None:
    """Give the page a file to import."""
    data = "".join(f"{line}\n" for line in lines).encode()
    page.set_input_files("#file", {"name": "x.jsonl", "mimeType": "application/jsonl", "buffer": data})
    page.wait_for_selector("#import-said p")


def test_there_are_three_hundred_payloads() -> None:
    assert len(set(TEXTS)) == len(TEXTS) >= 300
    assert len({row["kind"] for row in _ROWS}) >= 12


def test_every_beginning_of_a_payload_is_text(page: Page) -> None:
    assert page.evaluate("(texts) => grow(texts)", TEXTS) == []


@pytest.mark.parametrize("texts", _SOME)
def test_payloads_as_output_are_text(page: Page, canned: Canned, texts: list[str]) -> None:
    page.click("#show-prompt")
    canned.answers = [Answer(split(text)) for text in texts]
    assert page.evaluate("(texts) => play(texts)", texts) == []
    # A field for text makes one kind of line break of all.
    lines = [text.replace("\r\n", "\n").replace("\r", "\n") for text in texts]
    assert [body["messages"][0]["content"] for body in canned.bodies("chat")] == lines


@pytest.mark.parametrize("texts", _SOME)
def test_payloads_in_a_file_are_text(page: Page, texts: list[str]) -> None:
    roles = ("system", "user", "assistant")
    lines = [json.dumps({"messages": [{"role": role, "content": text} for role in roles]}) for text in texts]
    imported(page, lines)
    assert page.locator("#import-said").inner_text() == f"Imported: {len(texts)}."
    assert page.evaluate("() => browse()") == []


def test_payloads_in_place_of_a_file_are_refused(page: Page) -> None:
    wrapped = [json.dumps({text: "x", "messages": []}) for text in TEXTS[:200]]
    imported(page, [*(text.replace("\n", " ") for text in TEXTS), *wrapped])
    assert f"Refused: {len(TEXTS) + len(wrapped)}." in page.locator("#import-said").inner_text()
    assert page.evaluate("() => judge()") == []
    assert page.locator("#list .title").count() == 0


def test_payloads_in_errors_are_text(page: Page, canned: Canned) -> None:
    for text in TEXTS[::40]:
        canned.answers = [Answer(status=400, error=text)]
        page.fill("#say", "x")
        page.press("#say", "Enter")
        page.wait_for_selector("#notice p")
        assert text.strip()[:40].split()[0][:10] in page.locator("#notice").text_content()  # type: ignore[operator]
        assert page.evaluate("() => judge()") == []


def test_a_link_opens_nothing_before_it_is_followed(page: Page, canned: Canned) -> None:
    canned.answers = [Answer(split("[bank](http://foreign.test/x) ![pic](http://foreign.test/y.png)"))]
    assert asked(page, "x") == "bank (http://foreign.test/x) image: pic (http://foreign.test/y.png)"
    assert page.locator("article a").count() == 2
    assert page.locator("img").count() == 0


def test_long_answers_leave_the_page_usable(page: Page, canned: Canned) -> None:
    marks = ("[", "> ", "*a ", "- a\n", "| ", "![", "`a` ", "<http://")
    canned.answers = [Answer((mark * 30_000,)) for mark in marks] + [Answer(("fine",))]
    for _ in marks:
        page.click("#new")
        asked(page, "x")
    assert asked(page, "y") == "fine"
