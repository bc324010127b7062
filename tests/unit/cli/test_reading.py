"""The commands that read: what they print for people and for programs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
import torch
from safetensors.torch import load_file

from bestiary import LLM
from bestiary.cli import terminal, texts
from tests.unit.run import reader_model

from .conftest import Bestiary

NOTES = ["A cat sleeps in the sun.", "Interest rates rose again.", "", "The train is late."]


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    """A file of notes, one a line, one of them empty."""
    (tmp_path / "notes.txt").write_text("\n".join(NOTES))
    return tmp_path / "notes.txt"


def test_the_nearest_lines_of_a_file(bestiary: Bestiary, minilm: Path, notes: Path) -> None:
    code, out, err = bestiary("embed", minilm, "--nearest", notes, "--top", "2", "a kitten naps", "railway")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert [lines[0], lines[3]] == ["a kitten naps", "railway"]
    assert lines[1].endswith(NOTES[0])
    assert lines[4].endswith(NOTES[3])
    told = json.loads(bestiary("embed", minilm, "--nearest", notes, "--json", "a kitten naps").out)
    first, *others = told[0]["nearest"]
    assert first["text"] == NOTES[0]
    assert len(others) == 2


@pytest.mark.parametrize("kind", [".npy", ".jsonl", ".safetensors"])
def test_vectors_are_written(bestiary: Bestiary, minilm: Path, notes: Path, kind: str) -> None:
    out = notes.with_suffix(kind)
    code, printed, err = bestiary("embed", minilm, "--file", notes, "--out", out)
    assert (code, printed) == (0, "")
    assert err == f"1 of 4 lines hold nothing and are left out\n3 vectors of 384 numbers in {out}\n"
    with LLM(minilm) as llm:
        wanted = llm.embed([line for line in NOTES if line])
    if kind == ".npy":
        got = torch.from_numpy(numpy.load(out, allow_pickle=False))
    elif kind == ".jsonl":
        got = torch.tensor([json.loads(line)["vector"] for line in out.read_text().splitlines()])
    else:
        got = load_file(out)["vectors"]
    torch.testing.assert_close(got, wanted, atol=1e-6, rtol=0)


def test_vectors_for_people(bestiary: Bestiary, minilm: Path) -> None:
    code, out, err = bestiary("embed", minilm, *NOTES[:2])
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()] == ["1", "1", "2"]
    assert out.splitlines()[1].startswith("1  1.00")
    assert "cosine" in err
    code, out, err = bestiary("embed", minilm, stdin="one text\n\n")
    assert out.endswith("…  one text\n")
    assert err.startswith("384 numbers each")
    told = json.loads(bestiary("embed", minilm, "--json", stdin="one\ntwo\n").out)
    assert [(one["text"], len(one["vector"])) for one in told] == [("one", 384), ("two", 384)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a", "--file", "b"), "texts come from the command line or from --file, not from both"),
        ((), "there is no text"),
        (("a", "--out", "b.txt"), "b.txt should end in .npy, .jsonl, .safetensors"),
        (("a", "--top", "0"), "--top 0 should be 1 or more"),
        (("a", "--out", "no-such-folder/b.npy"), "no-such-folder is no folder to write b.npy into"),
        (("a", "--nearest", "/dev/null"), "/dev/null holds no text"),
    ],
)
def test_what_is_wrong_is_said_before_a_model_is_loaded(
    bestiary: Bestiary, arguments: tuple[str, ...], message: str
) -> None:
    code, out, err = bestiary("embed", "no-such-model", *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {message}")


def test_a_line_is_what_stands_between_line_feeds(bestiary: Bestiary, minilm: Path, tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_bytes("\ufeffone\u2028half\r\n\r\ntwo\x0chalf\n".encode())
    for source in (("--file", tmp_path / "lines.txt"), ("-",)):
        code, out, err = bestiary(
            "embed", minilm, "--json", *source, stdin="\ufeffone\u2028half\n\ntwo\x0chalf\n"
        )
        assert (code, err) == (0, "1 of 3 lines hold nothing and are left out\n")
        assert [one["text"] for one in json.loads(out)] == ["one\u2028half", "two\x0chalf"]


@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_input_that_is_not_utf8_is_named(locale: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "bestiary", "embed", "no-such-model"],
        input=b"caf\xe9 au lait\n",
        capture_output=True,
        env={"LC_ALL": locale, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    assert ran.returncode == 2
    assert ran.stderr.startswith(b"error: standard input is not utf-8 text: byte 3 is an")


def test_classes(bestiary: Bestiary, tmp_path: Path) -> None:
    folder = reader_model.publish(tmp_path, "SequenceClassification", id2label={0: "no", 1: "yes"})
    with LLM(folder) as llm:
        one, pair = llm.classify(["a lazy dog", ("a dog", "the fox")])
    told = json.loads(bestiary("classify", folder, "a lazy dog", "--json").out)
    assert told[0]["label"] == one.label
    assert told[0]["scores"] == pytest.approx(one.scores)
    told = json.loads(bestiary("classify", folder, "--pairs", "a dog\tthe fox", "--json").out)
    assert told[0]["text"] == ["a dog", "the fox"]
    assert told[0]["scores"] == pytest.approx(pair.scores)
    lines = bestiary("classify", folder, "a lazy dog").out.splitlines()
    assert lines[0] == "a lazy dog"
    assert lines[1].split()[0] == f"{one.score:.3f}"
    assert lines[1].endswith(one.label)
    code, _, err = bestiary("classify", folder, "--pairs", "no tab")
    assert (code, err) == (2, "error: 'no tab' should be two texts with one tab between them\n")


def test_entities(bestiary: Bestiary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = reader_model.publish(tmp_path, "TokenClassification", id2label={0: "B-X", 1: "B-Y"})
    text = "a lazy dog"
    told = json.loads(bestiary("classify", folder, text, "--json").out)
    assert [e["text"] for e in told[0]["entities"]] == ["a", "lazy", "dog"]
    lines = bestiary("classify", folder, text).out.splitlines()
    assert lines[0] == text
    assert lines[2].split()[0] == "2-6"
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert bestiary("classify", folder, text).out.count("\x1b[30;4") == 3


def test_masks(bestiary: Bestiary, tmp_path: Path) -> None:
    folder = reader_model.publish(tmp_path, "MaskedLM")
    text = "the [MASK] fox [MASK]"
    with LLM(folder) as llm:
        (filled,) = llm.fill_mask(text, top=2)
    told = json.loads(bestiary("fill-mask", folder, text, "--top", "2", "--json").out)
    assert (told[0]["text"], told[0]["filled"]) == (text, filled.text)
    assert told[0]["masks"][1][0]["id"] == filled.masks[1][0].id
    lines = bestiary("fill-mask", folder, text, "--top", "2").out.splitlines()
    assert [lines[0], lines[1], lines[4]] == [text, "  mask 1", "  mask 2"]
    assert len(lines) == 7


def test_scores(bestiary: Bestiary, model: Path) -> None:
    with LLM(model) as llm:
        (whole,) = llm.score("hello world")
        choices = llm.score("hello", choices=[" world", " he"])
    told = json.loads(bestiary("score", model, "hello world", "--json").out)
    assert told[0]["logprob"] == pytest.approx(whole.logprob)
    assert told[0]["perplexity"] == pytest.approx(whole.perplexity)
    code, out, _ = bestiary("score", model, "hello", "--choice", " world", "--choice", " he")
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "hello"
    best = max(choices, key=lambda one: one.logprob)
    assert lines[2].split()[0] == f"{best.logprob:.2f}"
    code, _, err = bestiary("score", model, "a", "b", "--choice", "c")
    assert (code, err) == (2, "error: --choice goes after one text, and 2 were given\n")


def test_what_reads_slowly_is_announced_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(terminal, "_PATIENCE", 0.0)
    with terminal.ReadingBar("1,000 texts") as bar:
        bar(1, 1000)
        bar(2, 1000)
    assert capsys.readouterr() == ("", "reading 1,000 texts\n")


@pytest.mark.parametrize(
    ("text", "width", "fitted"),
    [
        ("abc", 3, "abc"),
        ("abcd", 3, "ab…"),
        ("a\n b", 9, "a b"),
        ("天气好", 6, "天气好"),
        ("天气好", 5, "天气…"),
    ],
)
def test_a_text_fits_its_columns(text: str, width: int, fitted: str) -> None:
    assert terminal.fit(text, width) == fitted


@pytest.mark.parametrize(("columns", "left"), [("80", 40), ("40", 16), ("10", 16)])
def test_a_narrow_terminal_still_shows_which_text_it_is(
    columns: str, left: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", columns)
    assert texts.room(40) == left


@pytest.mark.parametrize(
    ("share", "bar"), [(0, "    "), (1, "████"), (2, "████"), (-1, "    "), (0.5, "██  "), (0.53, "██▏ ")]
)
def test_a_gauge_is_exact_to_an_eighth(share: float, bar: str) -> None:
    assert terminal.gauge(share, 4) == bar
