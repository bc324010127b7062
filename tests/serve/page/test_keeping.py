"""Conversations are kept in the browser, taken out as JSONL and put in again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from bestiary.serve.routes.page import HEADERS
from tests.serve.page.asking import act, asked, turns
from tests.serve.page.canned import Answer, Canned
from tests.serve.page.conftest import Opens
from tests.serve.page.test_payloads import imported

pytestmark = pytest.mark.browser

_CHINESE = [
    {"role": "system", "content": "简短回答。"},
    {"role": "user", "content": "什么是“缓存”？\n\t<b>"},
    {"role": "assistant", "content": "一种存储。\u2028🦊"},
]


def exported(page: Page, button: str) -> list[dict[str, object]]:
    """What the page gives to save, by the button that gives it."""
    with page.expect_download() as download:
        page.click(button)
    text = Path(download.value.path()).read_text(encoding="utf-8")
    assert download.value.suggested_filename.endswith(".jsonl")
    return [json.loads(line) for line in text.removesuffix("\n").split("\n")]


def test_conversations_last(page: Page, canned: Canned) -> None:
    canned.answers = [Answer((text,)) for text in ("one", "two", "three")]
    asked(page, "a")
    act(page, "again").click()
    expect(page.locator(".count")).to_have_count(1)
    page.click("#new")
    asked(page, "b")
    page.reload()
    page.get_by_role("button", name="a", exact=True).click()
    assert turns(page) == ["a", "two"]
    act(page, "earlier").click()
    assert turns(page) == ["a", "one"]


def test_a_title_is_changed_and_a_conversation_deleted(page: Page) -> None:
    asked(page, "a title\nof two lines")
    title = page.locator("#list .title")
    expect(title).to_have_text("a title of two lines")
    page.click("#list [data-act=rename]")
    page.keyboard.type("新 name")
    page.keyboard.press("Enter")
    expect(title).to_have_text("新 name")
    page.click("#list [data-act=remove]")
    expect(page.locator("#list [data-act=remove]")).to_have_text("Really delete?")
    page.keyboard.press("Tab")
    expect(page.locator("#list [data-act=remove]")).to_have_text("Delete")
    page.click("#list [data-act=remove]")
    page.click("#list [data-act=remove]")
    expect(title).to_have_count(0)
    expect(page.locator("#new")).to_be_focused()
    page.reload()
    expect(page.locator("#opening h2")).to_be_visible()
    expect(title).to_have_count(0)


def test_what_is_exported_can_be_imported(page: Page, opens: Opens, canned: Canned) -> None:
    canned.answers = [Answer(("good",)), Answer(("better",))]
    asked(page, "x")
    act(page, "again").click()
    expect(page.locator(".count")).to_have_count(1)
    imported(page, [json.dumps({"messages": _CHINESE}, ensure_ascii=False)])
    lines = exported(page, "#export")
    shown = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "better"}]
    assert lines == [{"messages": _CHINESE}, {"messages": shown}]
    assert exported(page, "#list [data-act=export]") == [{"messages": shown}]
    other = opens()
    imported(other, [json.dumps(line) for line in lines])
    assert exported(other, "#export") == lines
    other.click("#list .title >> nth=0")
    assert turns(other) == [_CHINESE[1]["content"], "一种存储。\u2028🦊"]
    other.click("#show-settings")
    assert other.input_value("#system") == "简短回答。"


def test_lines_that_are_no_conversation_are_refused_by_number(page: Page) -> None:
    user = {"role": "user", "content": "x"}
    wrong = {
        "{": "not JSON",
        "[]": "not an object",
        '{"messages": []}': "1 to 2048",
        '{"messages": "x"}': "1 to 2048",
        json.dumps({"messages": [user], "tools": []}): '"tools" is no field',
        '{"messages": [{"role": "user"}]}': "message 1 should have role and content",
        '{"messages": [{"role": "user", "content": 1}]}': "content of message 1",
        '{"messages": [{"role": "tool", "content": "x"}]}': 'role "tool"',
        json.dumps({"messages": [user, {"role": "system", "content": "x"}]}): "message 2 has role",
        json.dumps({"messages": [{"role": "system", "content": "x"}]}): "only a system message",
        '{"__proto__": {"messages": []}}': '"__proto__" is no field',
        '{"messages": [{"role": "user", "content": "x", "__proto__": {"a": 1}}]}': "nothing else",
        json.dumps({"messages": [{**user, "content": "x" * (2**20 + 1)}]}): "1048576 characters",
    }
    imported(page, [*wrong, "", json.dumps({"messages": [user]})])
    told = page.locator("#import-said").inner_text()
    assert f"Imported: 1. Refused: {len(wrong)}." in told
    lines = page.locator("#import-said li").all_inner_texts()
    for number, (line, why) in enumerate(zip(lines, wrong.values(), strict=True), 1):
        assert line.startswith(f"Line {number}: "), line
        assert why in line, line


def test_a_file_that_is_no_text_is_refused(page: Page) -> None:
    for data, why in ((b"\xff\xfe\x00", "not text in UTF-8"), (b"\n\n", "no line")):
        page.set_input_files("#file", {"name": "x", "mimeType": "", "buffer": data})
        expect(page.locator("#import-said")).to_contain_text(why)


def test_the_page_is_bound_by_its_headers(canned: Canned) -> None:
    """Every file of the package is served; the page names each of its modules, so that they come together."""
    folder = Path(__file__).parents[3] / "src" / "bestiary" / "serve" / "page"
    index = (folder / "index.html").read_text()
    modules = {path.name for path in folder.glob("*.js")} - {"theme.js", "page.js"}
    assert all(f'<link rel="modulepreload" href="{name}">' in index for name in modules)
    assert index.count("modulepreload") == len(modules)
    policy = HEADERS["content-security-policy"]
    assert "default-src 'self'; img-src 'self' data:" in policy
    assert "unsafe" not in policy + index
    scripts = "".join(path.read_text() for path in folder.glob("*.js"))
    for way in (
        "innerHTML",
        "outerHTML",
        "insertAdjacentHTML",
        "document.write",
        "eval(",
        "new Function",
        "DOMParser",
        "srcdoc",
    ):
        assert way not in scripts
