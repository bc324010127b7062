"""By keyboard, by ear, in Chinese, in the dark, on a narrow screen."""

from __future__ import annotations

import re
from typing import Literal

import pytest
from playwright.sync_api import CDPSession, Page, expect

from tests.serve.page.asking import act, ask, asked, turns
from tests.serve.page.canned import Answer, Canned
from tests.serve.page.conftest import Opens
from tests.serve.page.test_payloads import split

pytestmark = pytest.mark.browser

_PROSE = (
    "Some **bold** `code`, [a link](http://example.org/x) and\n\n```py\nx = 1\n```\n\n"
    "| a | b |\n|--|--|\n| c | d |\n\n> said"
)
_CONTROLS = set("button textbox checkbox combobox spinbutton link listbox option dialog region".split())
_LANDMARKS = set("banner main navigation complementary article heading status alert".split())
_VIEWS = ("card", "prompt", "settings")


def nodes(page: Page) -> list[dict[str, str]]:
    """The accessibility tree: role and name of each node that is not ignored."""
    session: CDPSession = page.context.new_cdp_session(page)
    tree = session.send("Accessibility.getFullAXTree")["nodes"]
    session.detach()
    return [
        {"role": node["role"]["value"], "name": node.get("name", {}).get("value", "")}
        for node in tree
        if not node["ignored"]
    ]


def crowded(page: Page, canned: Canned) -> None:
    """Bring everything that the page has to show into view, one after the other being there."""
    canned.answers = [Answer(split(_PROSE)), Answer(split(_PROSE)), Answer(status=400, error="no")]
    asked(page, "x")
    act(page, "again").click()
    expect(page.locator(".count")).to_have_count(1)
    act(page, "probabilities").click()
    page.locator(".tokens [role=option]").first.hover()
    ask(page, "y")
    expect(page.locator("#notice")).not_to_be_empty()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read(opens: Opens, canned: Canned, scheme: Literal["light", "dark"]) -> None:
    page = opens(color_scheme=scheme)
    pale = page.evaluate("pale()")
    crowded(page, canned)
    for view in _VIEWS:
        page.click(f"#show-{view}")
        pale += page.evaluate("pale()")
    act(page, "probabilities", 1).click()
    pale += page.evaluate("pale()")
    assert pale == []
    # The switch does what the system does, and lasts.
    ground = "getComputedStyle(document.body).backgroundColor"
    before = page.evaluate(ground)
    page.click("#theme")
    after = page.evaluate(ground)
    assert before != after
    page.reload()
    assert page.evaluate(ground) == after


def test_every_control_has_a_name_and_every_part_a_landmark(page: Page, canned: Canned) -> None:
    crowded(page, canned)
    for view in _VIEWS:
        page.click(f"#show-{view}")
        found = nodes(page)
        assert [node for node in found if node["role"] in _CONTROLS and not node["name"].strip()] == []
        assert {node["role"] for node in found} >= _LANDMARKS
        assert page.evaluate("lost()") == []
    names = [node["name"] for node in found if node["role"] == "article"]
    assert len(set(names)) == len(names) == 3
    assert page.evaluate("levels()")[0] == 1
    assert page.evaluate("levels()").count(1) == 1


def test_a_whole_conversation_by_keyboard(page: Page, canned: Canned) -> None:
    """No mouse: to send, to ask again, to step back, to change a setting, to switch the language."""
    expect(page.locator("#say")).to_be_focused()
    canned.answers = [Answer(("one",)), Answer(("two",))]
    page.keyboard.type("hi")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("there")
    page.keyboard.press("Enter")
    expect(page.locator(".figures")).to_have_count(1)
    assert canned.bodies("chat")[0]["messages"][0]["content"] == "hi\nthere"
    order = []
    for _ in range(40):
        page.keyboard.press("Shift+Tab")
        order.append(page.evaluate("focused()"))
        if order[-1] == "Regenerate":
            break
    assert order[-1] == "Regenerate", order
    page.keyboard.press("Enter")
    expect(page.locator(".count")).to_have_count(1)
    assert turns(page)[-1] == "two"
    # The order of tabs is the order on the screen, and each stop is to be seen.
    page.locator(".skip").focus()
    places, unseen = [page.evaluate("focused()")], []
    while len(places) < 60:  # round once
        unseen += [] if page.evaluate("ringed()") else [page.evaluate("focused()")]
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('body, .skip')"):
            break
        places.append(page.evaluate("focused()"))
    assert unseen == []
    wanted = ["Skip to the conversation", "Conversations", "show-card", "show-prompt", "show-settings"]
    wanted += ["new", "Conversation", "Copy", "Edit", "Previous version", "say", "send"]
    assert [place for place in dict.fromkeys(places) if place in wanted] == [
        one for one in wanted if one in places
    ]
    assert {"show-card", "new", "Conversation", "Previous version", "say", "send"} <= set(places)


def test_a_dialog_over_the_page_holds_the_focus(opens: Opens) -> None:
    page = opens(width=360)
    page.focus("#show-settings")
    page.keyboard.press("Enter")
    expect(page.locator("#panel")).to_be_visible()
    for _ in range(25):
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.matches('body, #panel, #panel *')")
    page.keyboard.press("Escape")
    expect(page.locator("#panel")).not_to_be_visible()
    expect(page.locator("#show-settings")).to_be_focused()


def test_enter_that_ends_a_chinese_word_does_not_send(page: Page, canned: Canned) -> None:
    session = page.context.new_cdp_session(page)
    page.focus("#say")
    session.send("Input.imeSetComposition", {"text": "ni hao", "selectionStart": 6, "selectionEnd": 6})
    composing = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 229}
    session.send("Input.dispatchKeyEvent", {"type": "rawKeyDown", **composing})
    session.send("Input.insertText", {"text": "你好"})
    # Safari's order: the composition has ended, and the key is still that of the word.
    page.dispatch_event(
        "#say", "keydown", {"key": "Enter", "keyCode": 229, "bubbles": True, "cancelable": True}
    )
    page.dispatch_event(
        "#say", "keydown", {"key": "Enter", "isComposing": True, "bubbles": True, "cancelable": True}
    )
    page.wait_for_timeout(100)
    assert canned.bodies("chat") == []
    assert page.input_value("#say") == "你好"
    page.keyboard.press("Enter")
    expect(page.locator(".figures")).to_have_count(1)
    assert canned.bodies("chat")[0]["messages"][0]["content"] == "你好"


def test_a_screen_reader_hears_sentences_not_tokens(page: Page, canned: Canned) -> None:
    page.evaluate("listen()")
    pieces = ("One", " two", " three.", " Four", " five", " six.", " Seven.")
    canned.answers = [Answer(pieces, pause=0.01)]
    asked(page, "x")
    heard = page.evaluate("heard")
    assert heard[0] == "Answering."
    assert heard[-1] == "The answer is complete."
    assert "".join(heard[1:-1]) == "".join(pieces)
    assert len(heard) < len(pieces)
    assert page.locator("#live").get_attribute("aria-live") == "polite"


def test_the_page_is_in_chinese_for_who_reads_it(opens: Opens, canned: Canned) -> None:
    page = opens(locale="zh-CN")
    crowded(page, canned)
    page.click("#show-settings")
    assert page.evaluate("document.documentElement.lang") == "zh"
    text = page.evaluate("document.body.innerText")
    assert [
        words for words in ("新对话", "重新生成", "系统提示词", "概率", "服务器的回复") if words not in text
    ] == []
    page.click("#language")
    text = page.evaluate("document.body.innerText")
    assert "Regenerate" in text
    assert re.findall("[\u4e00-\u9fff]+", text.replace("中文", "")) == []
    page.reload()
    expect(page.locator("#new")).to_have_text("New conversation")


@pytest.mark.parametrize("width", [360, pytest.param(800, marks=pytest.mark.nightly), 1400])
def test_nothing_is_wider_than_the_screen(opens: Opens, canned: Canned, width: int) -> None:
    page = opens(width=width)
    crowded(page, canned)
    long = ("w" * 500, " ", "http://example.org/" + "a" * 300, "\n\n```\n" + "c" * 500 + "\n```")
    canned.answers = [Answer(long)]
    asked(page, "u" * 500)
    assert not page.evaluate("wide()")
    for view in _VIEWS:
        page.click(f"#show-{view}")
        assert not page.evaluate("wide()")
        if width < 1024:
            page.keyboard.press("Escape")
    assert page.evaluate("small()") == []


def test_nothing_moves_for_who_asks_for_it(opens: Opens, canned: Canned) -> None:
    motions: list[tuple[Literal["reduce", "no-preference"], set[str]]]
    motions = [("reduce", {"none"}), ("no-preference", {"none", "blink"})]
    for motion, names in motions:
        canned.answers = [Answer(("more ",), pause=0.02, endless=True)]
        page = opens(reduced_motion=motion)
        ask(page, "x")
        expect(page.locator("article.writing .said")).to_contain_text("more")
        assert set(page.evaluate("animations()")) == names
        page.keyboard.press("Escape")
        expect(page.locator("#send")).to_be_visible()


def test_words_are_there_in_both_languages(page: Page) -> None:
    assert page.evaluate("unsaid()") == []
