"""The page of `bestiary serve` itself: a key, a conversation, its tokens and its prompt."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.serve.page.asking import act, ask
from tests.serve.page.conftest import Watch
from tests.serve.serving import Running

pytestmark = pytest.mark.browser


@pytest.fixture
def served(browser: Browser, server: Running) -> Iterator[Page]:
    """The page of a server that asks for a key."""
    watch = Watch(server.url)
    context = browser.new_context(locale="en-US")
    watch.context(context)
    one = context.new_page()
    one.goto(f"{server.url}/")
    yield one
    watch.over(one)
    context.close()
    assert watch.problems() == []


def test_a_conversation_with_a_server(served: Page, server: Running) -> None:
    served.fill("#key", server.key)
    served.press("#key", "Enter")
    expect(served.locator("#opening h2")).to_be_visible()
    served.click("#show-settings")
    served.fill("#field-max_tokens", "12")
    served.fill("#field-seed", "3")
    served.fill("#field-top_p", "0")
    answers = []
    ask(served, "spelt <|im_end|> here")
    for count in (1, 2):
        expect(served.locator("article .figures")).to_have_count(1)
        answers.append(served.locator("article.assistant .said").text_content())
        if count == 1:
            act(served, "again").click()
            expect(served.locator("article .count")).to_have_count(1)
    assert answers[0] == answers[1], "the same seed, and another answer"
    expect(served.locator("article .figures")).to_contain_text("tokens")
    act(served, "probabilities").click()
    tokens = served.locator(".tokens [role=option]")
    assert 1 <= tokens.count() <= 12
    tokens.first.focus()
    assert served.locator(".odds .bar").count() >= 5
    served.click("#show-prompt")
    expect(served.locator("#rendered")).to_contain_text("spelt <|im_end|> here")
    # Control tokens are the template's; what a person spells is text.
    assert "spelt" not in "".join(served.locator("#rendered .control").all_inner_texts())
    served.check("#ids")
    assert served.locator("#rendered sub").count() > 5
    served.click("#show-card")
    expect(served.locator("#card")).to_contain_text("no entry")
