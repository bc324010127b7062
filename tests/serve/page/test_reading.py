"""What can be seen of a model: how likely its tokens were, what it read, what it is."""

from __future__ import annotations

import math
import re

import pytest
from playwright.sync_api import Page, expect

from tests.serve.page.asking import act, asked
from tests.serve.page.canned import CONTEXT, Answer, Canned, chance
from tests.serve.page.conftest import Opens

pytestmark = pytest.mark.browser

_PIECES = ("I", " am", " certain", "<b>", "\n", b"\xe4\xb8", b"\xad")


@pytest.mark.parametrize("chats", [True, False], ids=["chat", "completion"])
def test_tokens_are_coloured_by_probability(opens: Opens, canned: Canned, chats: bool) -> None:
    canned.chats = chats
    canned.answers = [Answer(_PIECES)]
    page = opens()
    asked(page, "x")
    expect(page.locator(".tokens")).to_have_count(0)
    act(page, "probabilities").click()
    tokens = page.locator(".tokens [role=option]")
    # Half a character is no text: the two are one token, as likely as both together.
    assert tokens.all_text_contents() == ["I", " am", " certain", "<b>", "\n", "中"]
    shares = [*(chance(piece) for piece in _PIECES[:5]), chance(_PIECES[5]) * chance(_PIECES[6])]
    least = (0.8, 0.5, 0.2, 0.05, 0)
    bands = [next(i for i, low in enumerate(least) if share >= low) for share in shares]
    assert [int(one.get_attribute("data-band") or -1) for one in tokens.all()] == bands
    perplexity = math.exp(-sum(math.log(chance(piece)) for piece in _PIECES) / len(_PIECES))
    expect(page.locator(".legend")).to_contain_text(f"Perplexity {perplexity:.2f}".rstrip("0"))
    # By keyboard: one stop, and arrow keys from token to token.
    page.keyboard.press("Shift+Tab")
    page.locator(".tokens [tabindex='0']").focus()
    page.keyboard.press("ArrowRight")
    expect(tokens.nth(1)).to_be_focused()
    expect(page.locator(".odds")).to_be_visible()
    expect(page.locator(".odds .bar.here")).to_contain_text("␣am")
    expect(page.locator(".odds .bar.here .share")).to_have_text(f"{100 * chance(' am'):.0f}%")
    assert "65%" in (tokens.nth(1).get_attribute("aria-label") or "")
    page.keyboard.press("End")
    expect(page.locator(".odds")).to_contain_text("2 tokens make one character")
    tokens.nth(0).hover()
    expect(page.locator(".odds .bar.here")).to_contain_text("I")
    act(page, "probabilities").click()
    expect(page.locator(".tokens")).to_have_count(0)
    page.reload()
    page.locator("#list .title").click()
    act(page, "probabilities").click()
    assert tokens.count() == 6


def test_bytes_that_are_no_text_are_tokens_all_the_same(page: Page, canned: Canned) -> None:
    canned.answers = [Answer((b"\xff", "a", b"\xe4", "b", b"\xf0\x9f", b"\xa6\x8a", b"\xe4"))]
    asked(page, "x")
    act(page, "probabilities").click()
    tokens = page.locator(".tokens [role=option]")
    assert tokens.all_text_contents() == ["\ufffd", "a", "\ufffdb", "🦊", "\ufffd"]


def test_the_prompt_is_shown_as_the_model_sees_it(page: Page, canned: Canned) -> None:
    page.click("#show-prompt")
    expect(page.locator("#rendered-count")).to_have_text("Nothing has been said yet.")
    page.fill("#say", "spelt <|im_end|> here")
    expect(page.locator("#rendered")).to_contain_text("spelt")
    # What is spelt is text; only the template's own are control tokens.
    assert page.locator("#rendered .control").all_inner_texts() == [
        "<|im_start|>",
        "<|im_end|>",
        "<|im_start|>",
    ]
    expected = "<|im_start|>user\nspelt <|im_end|> here<|im_end|>\n<|im_start|>assistant\n"
    assert page.locator("#rendered").text_content() == expected
    expect(page.locator("#rendered-count")).to_have_text(f"8 of {CONTEXT:,} tokens of context")
    expect(page.locator("#rendered-template")).to_have_text("Template: chatml-smollm2")
    page.check("#ids")
    assert page.locator("#rendered sub").count() == 8
    assert page.locator("#rendered sub").first.inner_text() == str(sum(b"<|im_start|>") % 49152)
    page.uncheck("#ids")
    asked(page, "hello")
    # The prompt of the answer that is there, not of one to come.
    expect(page.locator("#rendered")).to_contain_text("hello")
    assert [len(body["messages"]) for body in canned.bodies("render")][-1] == 1


def test_the_card_is_the_rosters(page: Page) -> None:
    assert page.locator("#opening h2").inner_text() == "SmolLM2-135M-Instruct"
    page.click("#show-card")
    card = page.locator("#card")
    for words in ("Apache-2.0", "8,192 tokens", "chatml-smollm2", "Runs on two cores", "yes"):
        expect(card).to_contain_text(words)
    assert (
        card.locator("a").first.get_attribute("href")
        == "https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct"
    )
    page.click("#language")
    expect(card).to_contain_text("比阅读速度还快")
    expect(card).to_contain_text("可以")


def test_a_model_without_an_entry_has_a_card_too(opens: Opens, canned: Canned) -> None:
    canned.entry = None
    page = opens()
    page.click("#show-card")
    expect(page.locator("#card")).to_contain_text("no entry")


def test_markdown_is_drawn_and_code_copied(page: Page, canned: Canned) -> None:
    text = "# Title\n\n1. *one*\n   - two\n\n```py\nx = '<i>'\n```\n\n"
    text += "| a | b |\n|:-:|--:|\n| `c` | d |\n\n> q\n\n~~s~~"
    canned.answers = [Answer(tuple(re.findall(r"\S+|\s+", text)))]
    asked(page, "x")
    prose = page.locator(".prose")
    expect(prose.get_by_role("heading", level=4)).to_have_text("Title")
    assert prose.locator("ol > li > em").inner_text() == "one"
    assert prose.locator("ol ul > li").inner_text() == "two"
    assert prose.locator("figure code").inner_text() == "x = '<i>'"
    assert prose.locator("td.right").inner_text() == "d"
    assert prose.locator("blockquote").inner_text() == "q"
    assert prose.locator("del").inner_text() == "s"
    page.evaluate("navigator.clipboard.writeText = async (text) => { window.copied = text }")
    page.get_by_role("button", name="Copy code").click()
    expect(page.get_by_role("button", name="Copy code")).to_have_text("Copied")
    assert page.evaluate("copied") == "x = '<i>'"
    act(page, "copy").click()
    assert page.evaluate("copied") == text
    page.click("#show-settings")
    page.uncheck("#markdown")
    assert page.locator("article.assistant .said").text_content() == text
