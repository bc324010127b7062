"""What a user may call a model on the Hugging Face hub: `[org/]name[@revision][:file.gguf]`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import HubError

# The hub's own rules for repository names; `--` is what its cache writes for `/`, so it cannot be in a name.
_PART = r"[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9_])?"
_NAME = re.compile(
    rf"(?P<repo>(?:{_PART}/)?{_PART})(?:@(?P<revision>[^:\s]+))?(?::(?P<file>[^:]+))?", re.ASCII
)
_MODEL_FILE = (".gguf", ".safetensors")


@dataclass(frozen=True)
class Name:
    """A repository on the hub, perhaps at a branch, tag or commit, perhaps one file of it."""

    repo: str
    revision: str | None = None
    file: str | None = None

    def __str__(self) -> str:
        at = f"@{self.revision}" if self.revision else ""
        return f"{self.repo}{at}:{self.file}" if self.file else f"{self.repo}{at}"


def parse(text: str) -> Name:
    """Read a hub name. Raises HubError when it cannot be one."""
    shown = repr(text[:200])
    if text.startswith(("bedrock:", "openai:")):
        raise HubError(f"{shown} is a hosted model: it is not here, and only chat, generate and embed ask it")
    found = _NAME.fullmatch(text)
    if found is None or "--" in found["repo"] or ".." in found["repo"]:
        raise HubError(f"{shown} is neither a path nor a name like org/name[@revision][:file.gguf]")
    for part in filter(None, (found["revision"], found["file"])):
        if not is_inside(part):
            raise HubError(f"{shown}: {part[:100]!r} points outside of the repository")
    if found["file"] and not found["file"].lower().endswith(_MODEL_FILE):
        raise HubError(f"{shown}: after the colon goes a file that ends in {' or '.join(_MODEL_FILE)}")
    return Name(found["repo"], found["revision"], found["file"])


def is_inside(path: str) -> bool:
    """Whether a path with forward slashes stays below the folder it is joined to, on every system."""
    parts = path.split("/")
    plain = all(part not in ("", ".", "..") and part[-1] not in " ." and len(part) <= 255 for part in parts)
    return plain and not re.search(r"[\x00-\x1f\x7f\\:]", path)


def is_path(text: str) -> bool:
    """Whether a name can only be meant as a path, so that looking for it on the hub would be no help."""
    return text.startswith((".", "/", "~", "\\")) or (":" not in text and text.lower().endswith(_MODEL_FILE))
