"""show and licence: the card of a system, its lineage, and what its licences allow."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import bestiary
from bestiary import hub, roster
from bestiary.cli import card, terminal
from bestiary.cli.labels import COMMERCIAL, HOW, LABELS
from bestiary.roster import Entry, entry, lineage
from bestiary.roster.entry import Checkpoint, Claim, Step, Words

from .conftest import Bestiary

SOURCE = str(Path(bestiary.__file__).parents[1])
ENTRIES = list(roster.entries().values())


def test_every_word_of_the_roster_has_a_label() -> None:
    assert tuple(HOW) == entry.HOW
    assert tuple(COMMERCIAL) == entry.COMMERCIAL


@pytest.mark.parametrize("system", ENTRIES, ids=lambda system: system.id)
@pytest.mark.parametrize("chinese", [False, True])
def test_a_card_says_all_and_fits(
    system: Entry, chinese: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    card.print_card(system, [], chinese=chinese, room=80)
    out = capsys.readouterr().out
    said: list[Words | Claim] = [system.about, system.claim, *([system.instead] if system.instead else [])]
    plain = "".join(out.split())
    for text in said:
        assert "".join((text.zh if chinese else text.en).split()) in plain
    for one in system.checkpoints:
        assert one.id in out
    labels = {words[chinese] for key, words in LABELS.items() if key not in ("instead", "into")}
    missing = {label for label in labels if f"\n  {label}" not in out}
    optional = {LABELS[key][chinese] for key in ("tokenizer", "stops", "training", "from")}
    assert missing <= optional
    # A path or a name is not cut: it is there to be copied.
    wide = [line for line in out.splitlines() if terminal.wide(line) > 80]
    assert all(len(line.split()[-1]) > 40 for line in wide), wide


def _worked_out(monkeypatch: pytest.MonkeyPatch, *systems: Entry) -> None:
    known = {system.id: system for system in systems}
    monkeypatch.setattr(lineage, "entries", lambda: known)
    owners = {one.id.lower(): system for system in systems for one in system.checkpoints}
    monkeypatch.setattr(lineage, "find", lambda name: owners.get(name.lower()))
    lineage.made_from.cache_clear()


def _system(id: str, commercial: str, *steps: Step, checkpoints: tuple[Checkpoint, ...] = ()) -> Entry:
    base = roster.entries()["smollm2"]
    said = dataclasses.replace(base.licence, commercial=commercial, weights=f"{id}'s")
    return dataclasses.replace(base, id=id, licence=said, lineage=steps, checkpoints=checkpoints)


def test_lineage_goes_up_to_the_roots_and_down_to_the_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = _system("a", "no", Step("its own data", "scratch")), _system("b", "no", Step("a", "full", "v1"))
    c = _system("c", "yes", Step("b", "lora"), Step("a", "delta"))
    _worked_out(monkeypatch, a, b, c)
    try:
        assert list(card.tree(lineage.ancestors(c), chinese=False)) == [
            "├─ b: LoRA, 2024",
            "│  └─ a: fine-tuned, 2024; v1",
            "│     └─ its own data: from scratch",
            "└─ a: delta, 2024",
            "   └─ its own data: from scratch",
        ]
        assert list(card.tree(lineage.descendants(a), chinese=True)) == [
            "├─ b: 全参数微调, 2024; v1",
            "│  └─ c: LoRA 微调, 2024",
            "└─ c: 差值, 2024",
        ]
    finally:
        lineage.made_from.cache_clear()


def test_a_circle_of_lineage_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = _system("a", "yes", Step("b", "full")), _system("b", "no", Step("a", "full"))
    _worked_out(monkeypatch, a, b)
    try:
        assert [node.name for node in lineage.ancestors(a)] == ["b"]
        assert [node.name for node in lineage.descendants(a)] == ["b"]
        assert lineage.verdict(lineage.chain(a)) == "no"
    finally:
        lineage.made_from.cache_clear()


def test_a_chain_is_as_free_as_its_worst_link(monkeypatch: pytest.MonkeyPatch) -> None:
    llama, llama2 = _system("llama", "no"), _system("llama2", "conditions")
    tuned = _system("tuned", "yes", Step("llama", "full"))
    own = _system("own", "yes", Step("llama", "scratch"), Step("llama2", "distil"))
    adapter = _system("adapter", "yes", Step("tuned", "lora"))
    _worked_out(monkeypatch, llama, llama2, tuned, own, adapter)
    assert [link.name for link in lineage.chain(adapter)] == ["adapter", "tuned", "llama"]
    assert lineage.verdict(lineage.chain(adapter)) == "no"
    # Another's architecture, or its answers, are not its weights.
    assert [link.name for link in lineage.chain(own)] == ["own"]


def test_each_checkpoint_has_the_chain_that_led_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    llama = _system("llama", "no", checkpoints=(Checkpoint("x/llama"),))
    llama2 = _system("llama2", "conditions")
    free = _system("free", "yes")
    steps = (Step("llama", "full"), Step("llama2", "full"), Step("free", "full"))
    new, old = Checkpoint("v/new"), Checkpoint("v/old", commercial="no", licence="old's")
    delta, apart = Checkpoint("v/delta", base=("X/llama",)), Checkpoint("v/apart", commercial="yes")
    vicuna = _system("vicuna", "conditions", *steps, checkpoints=(new, old, delta, apart))
    _worked_out(monkeypatch, llama, llama2, free, vicuna)
    names = {one.id: [link.name for link in lineage.chain(vicuna, one)][1:] for one in vicuna.checkpoints}
    assert names == {"v/new": ["llama2"], "v/old": ["llama"], "v/delta": ["llama"], "v/apart": ["free"]}
    assert {word: [one.id for one in ones] for word, ones in lineage.verdicts(vicuna).items()} == {
        "conditions": ["v/new"],
        "no": ["v/old", "v/delta"],
        "yes": ["v/apart"],
    }
    assert lineage.chain(vicuna, old)[0].licence == "old's"


def test_what_is_not_whole_is_said_first(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    system = dataclasses.replace(roster.entries()["smollm2"], instead=Words("closed: do this", "未公开"))
    card.print_card(system, [], chinese=False, room=80)
    out = capsys.readouterr().out
    assert out.index("closed: do this") < out.index("made by")


def test_show_of_a_name_that_is_not_here(bestiary: Bestiary) -> None:
    code, out, err = bestiary("show", "SmolLM 2")
    assert (code, err) == (0, "")
    assert out.startswith("SmolLM2-135M-Instruct (smollm2, 2024-11)\n")
    assert "no; bestiary pull smollm2" in out
    told = json.loads(bestiary("show", "smollm2", "--json").out)
    assert told["system"]["verdict"] == "yes"
    assert told["system"]["checkpoints"][0]["parameters"] == 134_515_008
    assert "weights" not in told


def test_the_language_of_a_card(bestiary: Bestiary, monkeypatch: pytest.MonkeyPatch) -> None:
    about = roster.entries()["smollm2"].about
    assert about.zh in bestiary("show", "--language", "zh").out
    monkeypatch.setenv("LANG", "zh_CN.UTF-8")
    assert about.zh in bestiary("show").out
    assert about.en in bestiary("show", "--language", "en").out


def test_names_and_cards_need_no_torch() -> None:
    code = "import sys; from bestiary.cli import main; main(sys.argv[1:]); print('torch' in sys.modules)"
    for command in (["show", "smollm2"], ["licence", "smollm2"], ["show", "nonesuch"]):
        ran = subprocess.run(
            [sys.executable, "-c", code, *command],
            env={**os.environ, "PYTHONPATH": SOURCE},
            capture_output=True,
            text=True,
            check=True,
        )
        assert ran.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize("command", ["show", "licence", "pull", "chat"])
@pytest.mark.parametrize(("asked", "meant"), [("smolm2", "smollm2"), ("min-lm", "minilm")])
def test_a_misspelt_name_is_answered_with_the_nearest(
    command: str, asked: str, meant: str, bestiary: Bestiary
) -> None:
    ran = bestiary(command, asked, *(("-p", "x") if command == "chat" else ()))
    assert ran.code == 3
    assert f"Did you mean {meant!r}" in ran.err


def test_licence(bestiary: Bestiary, model: Path) -> None:
    code, out, err = bestiary("licence", "smollm2")
    assert (code, err) == (0, "This repeats what was published, and is no legal advice.\n")
    assert out.startswith("SmolLM2-135M-Instruct: commercial use is allowed\n")
    assert "Apache-2.0" in out
    told = json.loads(bestiary("licence", "HuggingFaceTB/SmolLM2-135M-Instruct@main", "--json").out)
    assert (told["system"], told["verdict"]) == ("smollm2", "yes")
    assert told["checkpoint"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    code, out, err = bestiary("licence", model)
    assert (code, out) == (0, f"{model}: cc0-1.0\n")
    assert "the roster does not know it" in err


def test_pull_says_what_is_forbidden_before_it_downloads(
    bestiary: Bestiary, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = dataclasses.replace(
        roster.entries()["smollm2"].licence, commercial="no", weights="Closed-1.0", clause="only at home"
    )
    closed = dataclasses.replace(roster.entries()["smollm2"], id="closed", licence=said, wheel=None)
    monkeypatch.setattr(roster, "find", {"closed": closed}.get)

    def pull(*arguments: object, **options: object) -> Path:
        print("DOWNLOAD", file=sys.stderr)
        return model

    monkeypatch.setattr(hub, "pull", pull)
    err = bestiary("pull", "closed").err
    warned = "commercial use is forbidden (closed: Closed-1.0)\nonly at home\n"
    assert warned in err
    assert err.index(warned) < err.index("DOWNLOAD")
    ran = bestiary("pull", "closed", "--json")
    assert warned in ran.err
    assert json.loads(ran.out)["licence"] == "Closed-1.0"


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("", 10, [""]),
        ("one two three", 7, ["one two", "three"]),
        ("unbreakable", 4, ["unbreakable"]),
        ("一二三四五", 6, ["一二三", "四五"]),
        ("一二三，四五", 6, ["一二", "三，四", "五"]),
        ("用 LLaMA 微调", 9, ["用 LLaMA", "微调"]),
        ("a\x1b[31m b", 80, ["a\\x1b[31m b"]),
    ],
)
def test_wrapping(text: str, width: int, lines: list[str]) -> None:
    assert terminal.wrap(text, width) == lines
