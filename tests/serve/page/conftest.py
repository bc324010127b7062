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
READY = "#opening:not([hidden]) h2"
_OPTIONS: dict[str, Any] = {"locale": "en-US"}
_KEPT = "local_storage,indexeddb"
_SCRIPTS = [Path(__file__).parent / name for name in ("judge.js", "access.js")]
# What a payload would call; and alert and its like, which would stop the page.
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

    def context(self, context: BrowserContext) -> None:
        """Watch every page of a context."""
        context.set_default_timeout(_WAIT)
        context.add_init_script(_CANARY)
        for script in _SCRIPTS:
            context.add_init_script(path=script)
        context.on("request", lambda request: self._request(request.url))
        context.on("page", self._page)

    def over(self, page: Page) -> None:
        """See whether something ran in a page."""
        if page.evaluate("window.ran"):
            self.seen.append("something ran that came as text")

    def problems(self) -> list[str]:
        """What should not have been."""
        return [one for one in self.seen if not any(one.startswith(begin) for begin in self.allowed)]

    def clear(self) -> None:
        """Begin anew, for the next test."""
        self.allowed.clear()
        self.seen.clear()

    def _request(self, url: str) -> None:
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


@pytest.fixture(scope="module")
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


@pytest.fixture(scope="session")
def _watch(_canned: Canned) -> Watch:
    return Watch(_canned.url)


@pytest.fixture
def watch(_watch: Watch) -> Iterator[Watch]:
    """What pages did; a test may allow some of it."""
    _watch.clear()
    yield _watch
    assert _watch.problems() == []


Opens = Callable[..., Page]


@pytest.fixture
def opens(browser: Browser, canned: Canned, watch: Watch) -> Iterator[Opens]:
    """Open the page in a context of its own: opens(width=360, locale="zh-CN", color_scheme="dark")."""
    contexts: list[BrowserContext] = []

    def fresh(*, width: int = WIDTH, ready: bool = True, **options: Any) -> Page:
        context = browser.new_context(
            **{**_OPTIONS, "viewport": {"width": width, "height": HEIGHT}, **options}
        )
        contexts.append(context)
        watch.context(context)
        page = context.new_page()
        page.goto(canned.url)
        if ready:
            page.wait_for_selector(READY)
        return page

    yield fresh
    for context in contexts:
        for page in context.pages:
            watch.over(page)
        context.close()


@pytest.fixture(scope="module")
def _shared(browser: Browser, _watch: Watch) -> Iterator[Page]:
    """A tab for many tests: a browser that has read the page's files once opens it three times as fast."""
    context = browser.new_context(**_OPTIONS, viewport={"width": WIDTH, "height": HEIGHT})
    _watch.context(context)
    yield context.new_page()
    context.close()


@pytest.fixture
def page(_shared: Page, canned: Canned, watch: Watch) -> Iterator[Page]:
    """The page, of a server that answers, in English and light colours; nothing is kept from another test."""
    _shared.goto(canned.url)
    _shared.wait_for_selector(READY)
    yield _shared
    watch.over(_shared)
    _shared.evaluate("sessionStorage.clear()")
    _shared.goto("about:blank")
    session = _shared.context.new_cdp_session(_shared)
    session.send("Storage.clearDataForOrigin", {"origin": canned.url[:-1], "storageTypes": _KEPT})
    session.detach()
