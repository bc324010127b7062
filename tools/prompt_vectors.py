"""Write src/bestiary/prove/prompts.json: hashes of the published renderings that our formats were held to.

    python -m tools.prompt_vectors

Needs the folder of reference results (tests/goldens.py says where it is looked for). A rendering that our
format does not write to the byte, where it should, is an error.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from bestiary.prove.prompts import bare_template, sha256
from bestiary.text import prompts
from tests.roster import test_prompts as held
from tools.sources import ROOT

FILE = ROOT / "src/bestiary/prove/prompts.json"


def vectors() -> dict[str, Any]:
    """Return what the file says. Raises ValueError for a rendering that is not met."""
    folder = Path(tempfile.mkdtemp())
    talks: list[Any] = []
    formats: dict[str, list[list[Any]]] = {}
    for file in held.FILES:
        known = held.rows(file.stem)
        for entry in json.loads(file.read_text("utf-8")):
            row = next((row for row in known if row.says(entry)), None)
            if row is None or row.differs or row.format is None or entry.get("raises"):
                continue
            if (problem := held.compared(entry, row, folder)) is not None:
                raise ValueError(f"{file.stem}, {entry['case']}: {problem}")
            messages, options = held.conversation(entry, row)
            # The text that is compared later is of a tokenizer of bytes, whose BOS and EOS are these.
            text = bare_template(row.format).encode(messages, **options).text
            if messages not in talks:
                talks.append(messages)
            said: list[Any] = [talks.index(messages), options["generation"], sha256(text)]
            said += (
                [options["tools"], options["values"] or {}] if options["tools"] or options["values"] else []
            )
            rows = formats.setdefault(row.format, [])
            if said not in rows:
                rows.append(said)
    return {"conversations": talks, "formats": dict(sorted(formats.items()))}


def main() -> None:
    """Write the file, a line a vector."""
    said = vectors()
    lines = [",\n".join(f"  {json.dumps(talk, ensure_ascii=False)}" for talk in said["conversations"])]
    for name, rows in said["formats"].items():
        inside = ",\n".join(f"   {json.dumps(row, ensure_ascii=False)}" for row in rows)
        lines.append(f"  {json.dumps(name)}: [\n{inside}\n  ]")
    text = f'{{\n "conversations": [\n{lines[0]}\n ],\n "formats": {{\n' + ",\n".join(lines[1:]) + "\n }\n}\n"
    json.loads(text)
    FILE.write_text(text, encoding="utf-8")
    unknown = prompts.named().keys() - said["formats"].keys()
    count = sum(map(len, said["formats"].values()))
    print(f"{FILE}: {count} renderings; without any: {', '.join(sorted(unknown))}")


if __name__ == "__main__":
    main()
