"""Open `bestiary list --html` in a headless Chromium and use it: `python -m tools.page_check [FOLDER]`.

Run by `make nightly`. Where there is no Chromium it says how to get one, and that is all. FOLDER: where
pictures of the page go, at each width, light and dark.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bestiary import roster
from bestiary.cli.page import page

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
WIDTHS, _HEIGHT = (360, 800, 1400), 1600
# What is done on the page, and what must come of it.
SHOWN = "[...document.querySelectorAll('#systems tbody tr')].filter((row) => !row.hidden).length"
CARDS = "[...document.querySelectorAll('article')].filter((card) => !card.hidden).length"
SEARCH = "document.forms[0].words.value = {!r}; document.forms[0].dispatchEvent(new Event('input'));"
RESET = "document.forms[0].reset(); await new Promise((done) => setTimeout(done, 50));"
SORT = "document.querySelector('th.c-size button').click();"
SIZES = "[...document.querySelectorAll('#systems tbody tr')].map((row) => +row.cells[2].dataset.value)"


class Browser:
    """A Chromium that is told what to do through two pipes: its DevTools protocol, JSON with a zero byte."""

    def __init__(self, program: str, profile: str) -> None:
        (to_read, self._write), (self._read, to_write) = os.pipe(), os.pipe()
        for number in (to_read, to_write):
            os.set_inheritable(number, True)
        # The protocol's pipes are 3 and 4.
        shell = f'exec "$0" "$@" 3<&{to_read} 4>&{to_write}'
        flags = ("--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe")
        self._process = subprocess.Popen(
            ["sh", "-c", shell, program, *flags, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(to_read, to_write),
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(to_write)
        self._number, self._rest, self._session = 0, b"", ""
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and return its result. RuntimeError for one that failed."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        for answer in self._messages():
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result
            self.events.append(answer)
        raise RuntimeError("the browser went away")

    def open(self, address: str) -> None:
        """Open a page in a new tab, and wait until it is there."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime"):
            self.call(f"{domain}.enable")
        self.call("Page.navigate", url=address)
        self.run("await new Promise((done) => document.readyState === 'complete' ? done() : onload = done)")

    def run(self, script: str, value: str = "null") -> Any:
        """Run a script in the page and return what `value` is then."""
        code = f"(async () => {{ {script}; return {value}; }})()"
        told = self.call("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in told:
            raise RuntimeError(f"{script}: {told['exceptionDetails']}")
        return told["result"].get("value")

    def close(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(10)

    def _messages(self) -> Iterator[dict[str, Any]]:
        while True:
            while b"\0" in self._rest:
                line, _, self._rest = self._rest.partition(b"\0")
                yield json.loads(line)
            if not (read := os.read(self._read, 1 << 16)):
                return
            self._rest += read


def problems(browser: Browser, pictures: Path | None) -> Iterator[str]:
    """Yield a line for each thing that is not as it should be."""
    count = len(roster.entries())
    yield from _wrong(browser, "", SHOWN, count)
    yield from _wrong(browser, "", "document.forms[0].hidden", False)
    yield from _wrong(browser, SEARCH.format("smollm"), SHOWN, 1)
    yield from _wrong(browser, SEARCH.format("羊驼"), f"{SHOWN} > 0 && {SHOWN} === {CARDS}", True)
    yield from _wrong(browser, SEARCH.format("no such words"), f"{SHOWN} + {CARDS}", 0)
    hidden = "location.hash = '#smollm2'; await new Promise((done) => setTimeout(done, 300));"
    yield from _wrong(browser, hidden, "document.querySelector('#smollm2').hidden", False)
    yield from _wrong(browser, RESET, SHOWN, count)
    least = "document.forms[0].use.value = 'no'; document.forms[0].dispatchEvent(new Event('input'));"
    yield from _wrong(browser, least, f"{SHOWN} > 0 && {SHOWN} < {count}", True)
    yield from _wrong(
        browser, f"{RESET} {SORT}", f"String({SIZES}) === String({SIZES}.sort((a, b) => a - b))", True
    )
    yield from _wrong(browser, SORT, f"String({SIZES}) === String({SIZES}.sort((a, b) => b - a))", True)
    yield from _wrong(
        browser, "document.querySelector('#language').click();", "document.documentElement.lang", "zh"
    )
    near = "document.querySelector('svg [data-name=llama2]').dispatchEvent(new Event('focus'));"
    yield from _wrong(browser, near, "document.querySelectorAll('svg .lines .near').length > 3", True)
    yield from _widths(browser, pictures)
    for event in browser.events:
        if event["method"] == "Log.entryAdded":
            yield f"the browser says: {event['params']['entry']['text']}"
        if event["method"] == "Runtime.exceptionThrown":
            yield f"the script failed: {event['params']['exceptionDetails']}"
        if event["method"] == "Network.requestWillBeSent":
            address = event["params"]["request"]["url"]
            if not address.startswith("file:"):
                yield f"the page asked for {address[:100]}"


def _wrong(browser: Browser, script: str, value: str, wanted: object) -> Iterator[str]:
    if (found := browser.run(script, value)) != wanted:
        yield f"after {script or 'opening it'!r} {value} is {found!r}, not {wanted!r}"


def _widths(browser: Browser, pictures: Path | None) -> Iterator[str]:
    """The page is no wider than the window; what is wider scrolls by itself."""
    browser.run("location.hash = ''; scrollTo(0, 0)")
    for width in WIDTHS:
        for scheme in ("light", "dark"):
            browser.call(
                "Emulation.setDeviceMetricsOverride",
                width=width,
                height=1000,
                deviceScaleFactor=1,
                mobile=False,
            )
            media = [{"name": "prefers-color-scheme", "value": scheme}]
            browser.call("Emulation.setEmulatedMedia", features=media)
            found = browser.run("", "document.documentElement.scrollWidth")
            if found > width:
                yield f"the page is {found} wide in a window of {width}"
            if pictures is not None:
                data = browser.call("Page.captureScreenshot")["data"]
                (pictures / f"{width}-{scheme}.png").write_bytes(base64.b64decode(data))


def main(pictures: Path | None) -> int:
    """Check the page; print what is wrong, and return whether anything is."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        print("no Chromium is here to open the page with: apt-get install chromium")
        return 0
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        file = Path(folder) / "roster.html"
        file.write_text(page(list(roster.entries().values())), encoding="utf-8")
        browser = Browser(program, f"{folder}/profile")
        try:
            browser.open(file.as_uri())
            found = list(problems(browser, pictures))
        finally:
            browser.close()
    print("\n".join(found) or f"the page of {len(roster.entries())} systems works in {program}")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else None))
