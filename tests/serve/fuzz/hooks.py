"""What schemathesis checks beside its own: OpenAI's shape of errors, and nothing of the server in them.

Read by `schemathesis run`, in a process of its own (SCHEMATHESIS_HOOKS). How often each operation was asked,
and what was answered, is written to the file that BESTIARY_FUZZ_COUNTS names.
"""

from __future__ import annotations

import atexit
import json
import os
from collections import Counter
from pathlib import Path

import schemathesis

from tests.serve.errors import problem

_counts: dict[str, Counter[str]] = {}


@schemathesis.check
def openai_errors(
    ctx: schemathesis.CheckContext, response: schemathesis.Response, case: schemathesis.Case
) -> None:
    """An error has OpenAI's shape, is the client's, and holds no path, class or traceback."""
    counts = _counts.setdefault(case.operation.label, Counter())
    counts["asked"] += 1
    counts[str(response.status_code)] += 1
    kinds = response.headers.get("content-type") or [""]
    sent = response.request.body or ""
    said = sent.decode(errors="replace") if isinstance(sent, bytes) else str(sent)
    found = problem(response.status_code, kinds[0], response.content, f"{said} {response.request.url}")
    assert found is None, found


def _write() -> None:
    if path := os.environ.get("BESTIARY_FUZZ_COUNTS"):
        Path(path).write_text(json.dumps(_counts, indent=1, sort_keys=True))


atexit.register(_write)
