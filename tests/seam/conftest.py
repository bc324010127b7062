"""Every subject, for every test of a seam that asks for `it`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.subjects import NAMES, Subject, subject


@pytest.fixture(params=NAMES)
def it(request: pytest.FixtureRequest, tmp_path: Path) -> Subject:
    return subject(request.param, tmp_path)
