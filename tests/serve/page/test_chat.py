"""To ask, to stop, to ask again, to edit: what is sent, and what is shown."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from bestiary.serve.schemas.sampling import Sampling
from tests.serve.page.asking import act, ask, asked, said, turns
from tests.serve.page.canned import CONTEXT, NAME, Answer, Canned
from tests.serve.page.conftest import READY, Opens, Watch

pytestmark = pytest.mark.browser

_ENDLESS = Answer(("more ", "and "), pause=0.01, endless=True)


def test_an_answer_is_shown_as_it_comes(page: Page, canned: Canned) -> None:
    canned.answers = [Answer(("**one** ", "two ", "three "), pause=0.4)]
    ask(page, "count")
    expect(page.locator("article.writing .said")).to_have_text(re.compile("^one"))
    expect(page.locator("article.writing strong")).to_have_text("one")
    expect(page.locator("#stop")).to_be_visible()
    expect(page.locator(".figures")).to_have_text(re.compile(r"^3 tokens · .*/s · first after 0\.\d+ s$"))
    assert said(page) == "one two three"
    expect(page.locator("#send")).to_be_visible()
    assert page.locator("#used").inner_text() == f"33 of {CONTEXT:,} tokens"


def test_what_is_sent_is_openais(page: Page, canned: Canned) -> None:
    asked(page, "hello")
    body = canned.bodies("chat")[0]
    assert body == {
        "model": NAME, "messages": [{"role": "user", "content": "hello"}], "stream": True,
        "stream_options": {"include_usage": True}, "logprobs": True, "top_logprobs": 5,
        "temperature": 0.7, "top_p": 0.95,
    }  # fmt: skip
    asked(page, "again")
    assert [one["role"] for one in canned.bodies("chat")[1]["messages"]] == ["user", "assistant", "user"]


def test_what_the_models_authors_say_of_sampling_is_left_to_the_server(page: Page, canned: Canned) -> None:
    canned.sampling = {"temperature": 0.6}
    page.reload()
    expect(page.locator("#field-temperature")).to_have_attribute("placeholder", "0.6")
    page.wait_for_selector(READY)
    asked(page, "hello")
    assert {"temperature", "top_p"}.isdisjoint(canned.bodies("chat")[0])


def test_escape_and_the_button_stop_an_answer(page: Page, canned: Canned) -> None:
    canned.answers = [_ENDLESS, _ENDLESS]
    for stopped, stop in enumerate((lambda: page.keyboard.press("Escape"), lambda: page.click("#stop")), 1):
        ask(page, "go on")
        expect(page.locator("article.writing .said")).to_contain_text("more")
        stop()
        expect(page.locator("#send")).to_be_visible()
        expect(page.locator("article").last.locator(".note")).to_have_text("Stopped.")
        page.wait_for_timeout(100)
        assert canned.ended == stopped
    length = len(said(page))
    page.wait_for_timeout(100)
    assert len(said(page)) == length


def test_to_ask_again_keeps_what_was_said(page: Page, canned: Canned) -> None:
    canned.answers = [Answer((text,)) for text in ("first", "second", "third", "behind")]
    asked(page, "x")
    for count in (2, 3):
        act(page, "again").click()
        expect(page.locator("article .count").last).to_have_text(re.compile(f"^{count}/{count}"))
    assert said(page) == "third"
    assert [len(body["messages"]) for body in canned.bodies("chat")] == [1, 1, 1]
    act(page, "earlier").click()
    assert said(page) == "second"
    # The focus stays, so that the next press goes on.
    page.keyboard.press("Enter")
    assert said(page) == "first"
    expect(act(page, "earlier")).to_be_disabled()
    # What is said now stands behind the first alone.
    asked(page, "y")
    assert canned.bodies("chat")[-1]["messages"][1]["content"] == "first"
    act(page, "later", 1).click()
    assert turns(page) == ["x", "second"]
    act(page, "earlier").click()
    assert turns(page) == ["x", "first", "y", "behind"]


def test_an_edit_is_a_branch(page: Page, canned: Canned) -> None:
    canned.answers = [Answer((text,)) for text in ("one", "two", "three")]
    asked(page, "a")
    asked(page, "b")
    act(page, "edit", 0).click()
    field = page.locator("textarea.edited")
    expect(field).to_be_focused()
    field.fill("A")
    field.press("Enter")
    expect(page.locator("article")).to_have_count(2)
    expect(page.locator(".figures")).to_have_count(1)
    assert turns(page) == ["A", "three"]
    assert canned.bodies("chat")[-1]["messages"] == [{"role": "user", "content": "A"}]
    act(page, "earlier", 0).click()
    assert turns(page) == ["a", "one", "b", "two"]
    act(page, "edit", 1).click()
    field.fill("other")
    page.get_by_role("button", name="Keep").click()
    assert turns(page) == ["a", "other"]
    act(page, "edit", 1).click()
    field.press("Escape")
    assert turns(page) == ["a", "other"]


_NUMBERS = {"temperature": 0.5, "top_p": 0.9, "top_k": 40, "min_p": 0.05, "max_tokens": 9, "seed": 7}
_WRONG = {"temperature": 2.1, "top_p": 1.1, "top_k": 1.5, "min_p": -1, "max_tokens": 0, "seed": 1e99}


def test_sampling_is_sent_and_kept(page: Page, canned: Canned) -> None:
    page.click("#show-settings")
    for name, value in _NUMBERS.items():
        page.fill(f"#field-{name}", str(value))
    page.fill("#field-stop", "END\n###")
    page.fill("#system", "Be brief.")
    page.uncheck("#logprobs")
    asked(page, "x")
    body = canned.bodies("chat")[0]
    assert {name: body[name] for name in _NUMBERS} == _NUMBERS
    assert body["stop"] == ["END", "###"]
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert "logprobs" not in body
    page.reload()
    page.click("#show-settings")
    assert page.input_value("#field-stop") == "END\n###"
    page.click("#defaults")
    assert page.input_value("#field-stop") == ""


def test_sampling_out_of_its_bounds_is_not_sent(page: Page, canned: Canned) -> None:
    page.click("#show-settings")
    for name, value in _WRONG.items():
        page.fill(f"#field-{name}", str(value))
        expect(page.locator(f"#wrong-{name}")).to_have_text(re.compile("^A (whole )?number"))
        ask(page, "y")
        expect(page.locator("#notice")).to_contain_text(name)
        page.fill(f"#field-{name}", "")
    assert canned.bodies("chat") == []


def test_bounds_are_the_apis(page: Page) -> None:
    fields = page.evaluate("import(new URL('sampling.js', location.href)).then(({ FIELDS }) => FIELDS)")
    schema = Sampling.model_json_schema()["properties"]
    for field in fields:
        kinds = schema[field["name"]]["anyOf"]
        if field["kind"] == "texts":
            assert kinds[1]["maxItems"] == 16
            continue
        # -1 of top_k means 0; and a number of a browser is exact to 2^53.
        assert field["low"] == max(kinds[0]["minimum"], 0), field
        assert field["high"] == min(kinds[0]["maximum"], 2**53 - 1), field


def test_an_adapter_is_asked_by_its_name(opens: Opens, canned: Canned) -> None:
    canned.adapters = ["pirate"]
    page = opens()
    page.click("#show-settings")
    assert page.locator("#model option").all_inner_texts() == [f"{NAME} (no adapter)", "pirate"]
    page.select_option("#model", "pirate")
    asked(page, "x")
    assert canned.bodies("chat")[0]["model"] == "pirate"
    assert page.locator("article .who").last.inner_text() == "pirate"


def test_a_base_model_continues_a_text(opens: Opens, canned: Canned) -> None:
    canned.chats = False
    canned.answers = [Answer((" upon", " a <b>time</b>")), Answer((" there",)), Answer((" was",))]
    page = opens()
    expect(page.locator("#opening")).to_contain_text("it continues a text")
    asked(page, "Once")
    assert canned.bodies("completion")[0]["prompt"] == "Once"
    assert canned.bodies("completion")[0]["max_tokens"] == 256
    assert turns(page) == ["Once", " upon a <b>time</b>"]
    # Nothing is written: the text goes on as it is.
    page.press("#say", "Enter")
    expect(page.locator("article")).to_have_count(3)
    expect(page.locator(".figures")).to_have_count(2)
    assert canned.bodies("completion")[1]["prompt"] == "Once upon a <b>time</b>"
    asked(page, " a fox")
    assert canned.bodies("completion")[2]["prompt"] == "Once upon a <b>time</b> there a fox"


def test_a_model_that_embeds_says_so(opens: Opens, canned: Canned) -> None:
    canned.abilities = ["embed"]
    page = opens()
    expect(page.locator("#notice")).to_contain_text("/v1/embeddings")
    expect(page.locator("#say")).to_be_disabled()


def test_a_key_is_asked_for_and_kept_in_the_tab(opens: Opens, canned: Canned) -> None:
    canned.key = "sesame"
    page = opens(ready=False)
    expect(page.locator("#key-dialog")).to_be_visible()
    expect(page.locator("#key")).to_be_focused()
    page.fill("#key", "wrong")
    page.press("#key", "Enter")
    expect(page.locator("#key-why")).to_have_text("The server does not know this key.")
    page.fill("#key", "smörgås")
    page.press("#key", "Enter")
    expect(page.locator("#key-why")).to_contain_text("ASCII")
    page.fill("#key", "sesame")
    page.press("#key", "Enter")
    expect(page.locator("#opening h2")).to_be_visible()
    assert asked(page, "x") == "Hello there."
    assert page.evaluate("JSON.stringify(localStorage)").count("sesame") == 0
    assert page.evaluate("Object.values(sessionStorage)") == ["sesame"]
    page.click("#show-settings")
    page.click("#forget")
    ask(page, "y")
    expect(page.locator("#key-dialog")).to_be_visible()


def test_errors_say_what_to_do(page: Page, canned: Canned, watch: Watch) -> None:
    notice = page.locator("#notice")
    canned.answers = [Answer(status=429, error="2 wait", headers={"retry-after": "2"}), Answer(("late",))]
    ask(page, "x")
    expect(notice).to_contain_text("busy. It says to ask again in 2 s")
    expect(notice.get_by_role("button")).to_be_disabled()
    expect(notice.get_by_role("button")).to_be_enabled()
    notice.get_by_role("button").click()
    expect(page.locator(".figures")).to_have_count(1)
    assert turns(page) == ["x", "late"]

    canned.answers = [
        Answer(status=400, error="the prompt has 9000 tokens, the context 8192"),
        Answer(("well",)),
    ]
    ask(page, "y")
    expect(notice).to_contain_text("9000 tokens, the context 8192")
    assert turns(page) == ["x", "late", "y"]
    notice.get_by_role("button").click()
    expect(page.locator(".figures")).to_have_count(2)

    canned.answers = [Answer(("half ", "an "), breaks=True), Answer(("half",), fails="the worker was lost")]
    ask(page, "z")
    expect(notice).to_contain_text("broke off")
    assert said(page) == "half an"
    act(page, "again").click()
    expect(notice).to_contain_text("the worker was lost")

    watch.allowed.add("console error: Failed to load resource: net::ERR")
    page.route("**/v1/chat/completions", lambda route: route.abort("connectionrefused"))
    ask(page, "gone")
    expect(notice).to_contain_text("The server does not answer")
    page.unroute("**/v1/chat/completions")
    notice.get_by_role("button").click()
    expect(notice).to_be_empty()


def test_an_answer_goes_on_behind_another_conversation(page: Page, canned: Canned) -> None:
    canned.answers = [Answer(("slow ",) * 8, pause=0.05)]
    ask(page, "first")
    expect(page.locator("article.writing .said")).to_contain_text("slow")
    page.click("#new")
    expect(page.locator("article")).to_have_count(0)
    assert asked(page, "second") == "Hello there."
    page.get_by_role("button", name="first", exact=True).click()
    expect(page.locator(".figures")).to_contain_text("8 tokens")
    assert said(page) == ("slow " * 8).strip()


def test_the_end_is_followed_by_who_is_there(page: Page, canned: Canned) -> None:
    canned.answers = [Answer(("line\n\n",) * 40), Answer(("line\n\n",) * 60, pause=0.02)]
    asked(page, "x")
    box = "document.querySelector('#scroller')"
    gap = f"{box}.scrollHeight - {box}.scrollTop - {box}.clientHeight"
    assert page.evaluate(gap) < 2
    ask(page, "y")
    expect(page.locator("article.writing")).to_have_count(1)
    page.mouse.move(700, 400)
    page.mouse.wheel(0, -900)
    expect(page.locator("#to-end")).to_be_visible()
    top = page.evaluate(f"{box}.scrollTop")
    expect(page.locator(".figures")).to_have_count(2)
    assert page.evaluate(f"{box}.scrollTop") == top
    page.click("#to-end")
    assert page.evaluate(gap) < 2
