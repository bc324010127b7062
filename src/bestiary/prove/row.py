"""The certificate of a system of the roster: load, logits, tokens, prompt, scale, claim."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

from ..describe import empty
from ..errors import BestiaryError
from ..roster import Entry
from ..roster.published import by_id
from . import adopted, losses, prompts, reference, tokens, wire
from .finding import Certificate, Column, Finding
from .places import Places

COLUMNS = ("load", "logits", "tokens", "prompt", "scale", "claim")
_NOT_HERE = "not at hand: --references DIR names a folder of reference results"


def certificate(entry: Entry, places: Places) -> Certificate:
    """Return what can be shown of a system on this machine."""
    load, logits = _computed(entry, places)
    columns = (
        Column("load", load, "" if entry.proof.references else _nothing(entry)),
        Column("logits", logits, "" if entry.proof.references else _nothing(entry)),
        Column("tokens", _tokens(entry, places), "" if entry.tokenizer else "no tokenizer of its own"),
        Column("prompt", _prompt(entry), "" if _chats(entry) else "a base model: no form of questions"),
        Column("scale", _scale(entry), _nothing(entry)),
        Column("claim", _claim(entry, places)),
    )
    missing = [
        name for name in (*entry.proof.references, *entry.proof.tokenizers) if not _at_hand(name, places)
    ]
    note = f"{len(missing)} of its references {_NOT_HERE}" if missing else ""
    return Certificate(entry.id, columns, note)


def _at_hand(name: str, places: Places) -> bool:
    return places.case(name) is not None or places.tokenizer(name) is not None


def _nothing(entry: Entry) -> str:
    return entry.instead.en if entry.instead else ""


def _chats(entry: Entry) -> bool:
    return any(one.prompt for one in entry.checkpoints)


def _computed(entry: Entry, places: Places) -> tuple[tuple[Finding, ...], tuple[Finding, ...]]:
    """Load and compute the system's own cases, as far as they are at hand, and those of its families."""
    load: list[Finding] = []
    logits: list[Finding] = []
    found = {name: places.case(name) for name in entry.proof.references if not name.startswith("loss-")}
    own = [case for case in found.values() if case is not None]
    for case in dict.fromkeys([*own, *places.families(entry.family)]):
        if case.name.startswith("format-"):
            logits.append(adopted.compare(case))
            continue
        read, computed = compared(case)
        load += read
        logits += computed
    if found and not load:
        load = logits = [Finding("references", None, note=f"{', '.join(found)} {_NOT_HERE}")]
    return tuple(load), tuple(logits)


@cache
def compared(case: Path) -> tuple[list[Finding], list[Finding]]:
    """Return what a case shows; systems share their cases, and each is computed once."""
    return reference.compare(case)


def _tokens(entry: Entry, places: Places) -> tuple[Finding, ...]:
    found = []
    for name in entry.proof.tokenizers:
        place = places.tokenizer(name)
        found.append(
            tokens.compare(place) if place else Finding(f"{name}: texts and ids", None, note=_NOT_HERE)
        )
    if entry.tokenizer and not found:
        found.append(Finding("texts and ids", None, note="no reference of its tokenizer could be had"))
    return tuple(found)


def _prompt(entry: Entry) -> tuple[Finding, ...]:
    if not _chats(entry):
        return ()
    return tuple(prompts.compare(entry))


def _scale(entry: Entry) -> tuple[Finding, ...]:
    """Count the parameters of each published config, built at full size without memory."""
    ids = dict.fromkeys(one.like or one.id for one in entry.checkpoints)
    rows = dict.fromkeys(by_id()[id].ids[0] for id in ids if id in by_id())
    return tuple(counted(id) for id in rows)


@cache
def counted(id: str) -> Finding:
    """Compare the parameters of a published config, built on `meta`, with those that were published."""
    row = by_id()[id]
    try:
        got = sum(parameter.numel() for parameter in empty(row.config).parameters())
    except BestiaryError as error:
        return Finding(f"{id}: parameters", False, note=str(error))
    said = f"{got:,}" if got == row.params else f"{got:,}, and {row.params:,} were published"
    return Finding(f"{id}: parameters", got == row.params, note=said)


def _claim(entry: Entry, places: Places) -> tuple[Finding, ...]:
    pairs = [proof.partition(" ")[::2] for proof in entry.claim.proof]
    return tuple(_proven(kind, name, places) for kind, name in pairs)


def _proven(kind: str, name: str, places: Places) -> Finding:
    """Return whether one proof of a claim holds."""
    match kind:
        case "parameters":
            return counted(by_id()[name].ids[0])
        case "prompt":
            return prompts.rendered(name)
        case "wire":
            return wire.compare(name)
        case "loss" if name == "scaling-law":  # numbers that a paper prints: there is no case to read
            return losses.scaling_law()
    place = places.tokenizer(name) if kind == "tokenizer" else places.case(name)
    if place is None:
        return Finding(f"{kind} {name}", None, note=_NOT_HERE)
    by_kind: dict[str, Callable[[Path], Finding]] = {
        "reference": _logits,
        "adopt": adopted.compare,
        "tokenizer": tokens.compare,
        "loss": losses.compare,
    }
    return by_kind[kind](place)


def _logits(case: Path) -> Finding:
    both = Column("logits", tuple(finding for part in compared(case) for finding in part))
    allowed = next((one.allowed for one in both.findings if one.allowed is not None), None)
    said = ", ".join(one.what for one in both.findings if one.holds is not True)
    return Finding(f"reference {case.name}", both.holds, both.error, allowed, said)
