"""What a person does on the page."""

from __future__ import annotations

from playwright.sync_api import Locator, Page

ANSWERS = "article.assistant"
DONE = f"{ANSWERS}:last-of-type .figures"


def ask(page: Page, text: str) -> None:
    """Write a message and send it."""
    page.fill("#say", text)
    page.press("#say", "Enter")


def asked(page: Page, text: str) -> str:
    """Send a message, wait for the whole answer, and return what is shown of it."""
    ask(page, text)
    page.wait_for_selector(DONE)
    return said(page)


def said(page: Page) -> str:
    """What is shown of the last answer."""
    return page.locator(f"{ANSWERS} .said").last.inner_text()


def turns(page: Page) -> list[str]:
    """What is shown of every turn."""
    return page.locator("article .said").all_inner_texts()


def act(page: Page, name: str, turn: int = -1) -> Locator:
    """A button below a turn."""
    return page.locator("article").nth(turn).locator(f".acts [data-act={name}]")
