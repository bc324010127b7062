"""Which Chromium there is to open pages with."""

from __future__ import annotations

import shutil

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
# --disable-background-networking: a browser asks its maker for news of its own accord.
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking")


def chromium() -> str | None:
    """Return the path of the Chromium that is installed; None where there is none."""
    return next((path for path in map(shutil.which, _NAMES) if path is not None), None)
