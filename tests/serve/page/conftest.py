"""A Chromium, a page in it, and what that page must never do: fail, run what it is told, ask others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Dialog, Page, expect, sync_playwright

from tests.browsers import FLAGS, chromium
from tests.serve.page.canned import Canned, serving

WIDTH, HEIGHT, _WAIT = 1400, 900, 60_000
# What a payload would call; and alert and its like, which would stop the page.
_SCRIPTS = [Path(__file__).parent / name for name in ("judge.js", "access.js")]
_CANARY = """
window.ran = 0;
window.canary = () => { window.ran += 1; console.log("canary"); };
for (const name of ["alert", "confirm", "prompt", "print"]) window[name] = window.canary;
"""


@dataclass
class Watch:
    """What pages did that they must not do."""

    origin: str
    allowed: set[str] = field(default_factory=set)  # beginnings of what a test expects on the console
    seen: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def context(self, context: BrowserContext) -> None:
        """Watch every page of a context."""
        context.add_init_script(_CANARY)
        for script in _SCRIPTS:
            context.add_init_script(path=script)
        context.on("request", lambda request: self._request(request.url))
        context.on("page", self._page)

    def problems(self) -> list[str]:
        """What should not have been."""
        return [one for one in self.seen if not any(one.startswith(begin) for begin in self.allowed)]

    def _request(self, url: str) -> None:
        self.requests.append(url)
        if not url.startswith((self.origin, f"blob:{self.origin}")):
            self.seen.append(f"asked {url[:200]}")

    def _dialog(self, dialog: Dialog) -> None:
        self.seen.append(f"dialog {dialog.message}")
        dialog.dismiss()

    def _console(self, text: str) -> None:
        # Chromium says so of every refusal of the server; the page says it to the reader.
        if not text.startswith("error: Failed to load resource: the server responded with a status of"):
            self.seen.append(f"console {text}")

    def _page(self, page: Page) -> None:
        if page.opener() is not None:
            self.seen.append("opened another page")
        page.on("pageerror", lambda error: self.seen.append(f"error {error}"))
        page.on("dialog", self._dialog)
        page.on("console", lambda said: self._console(f"{said.type}: {said.text}"))
        page.on("worker", lambda worker: self.seen.append(f"worker {worker.url}"))


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """The Chromium that is installed."""
    expect.set_options(timeout=_WAIT)
    with sync_playwright() as playwright:
        one = playwright.chromium.launch(executable_path=chromium(), args=list(FLAGS))
        yield one
        one.close()


@pytest.fixture(scope="session")
def _canned() -> Iterator[Canned]:
    with serving() as one:
        yield one


@pytest.fixture
def canned(_canned: Canned) -> Canned:
    """The server of canned answers, as at first."""
    _canned.clear()
    return _canned


@pytest.fixture
def watch(canned: Canned) -> Watch:
    """What the page did; a test may allow some of it."""
    return Watch(canned.url)


Opens = Callable[..., Page]


@pytest.fixture
def opens(browser: Browser, canned: Canned, watch: Watch) -> Iterator[Opens]:
    """Open the page in a context of its own: opens(width=360, locale="zh-CN", color_scheme="dark")."""
    contexts: list[BrowserContext] = []

    def fresh(*, width: int = WIDTH, ready: bool = True, **options: Any) -> Page:
        size: Any = {"width": width, "height": HEIGHT}
        context = browser.new_context(viewport=size, **{"locale": "en-US", **options})
        context.set_default_timeout(_WAIT)
        contexts.append(context)
        watch.context(context)
        page = context.new_page()
        page.goto(canned.url)
        if ready:
            page.wait_for_selector("#opening:not([hidden]) h2")
        return page

    yield fresh
    ran = [page.evaluate("window.ran") for context in contexts for page in context.pages]
    for context in contexts:
        context.close()
    assert not any(ran), "something ran that came as text"
    assert watch.problems() == []


@pytest.fixture
def page(opens: Opens) -> Page:
    """The page, of a server that answers, in English and light colours."""
    return opens()
