"""generate and bench: one text as it comes, many from JSONL, and how fast."""

from __future__ import annotations

import csv
import io
import json
import statistics
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from bestiary import LLM, SamplingParams
from bestiary.cli import batch, options, parser
from bestiary.text.chat import Message

from .conftest import Bestiary

TEXT = "hello world"


@pytest.fixture(scope="module")
def expected(model: Path) -> str:
    """What transformers' greedy search makes of TEXT in 12 tokens."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    reference: Any = transformers.LlamaForCausalLM.from_pretrained(model)
    ids = tokenizer(TEXT, return_tensors="pt").input_ids
    with torch.no_grad():
        out = reference.generate(ids, max_new_tokens=12, do_sample=False, pad_token_id=0)
    return str(tokenizer.decode(out[0, ids.shape[1] :], skip_special_tokens=True))


def test_text_from_an_argument_a_file_and_standard_input(
    bestiary: Bestiary, model: Path, tmp_path: Path, expected: str
) -> None:
    assert len(expected) > 5
    (tmp_path / "text").write_text(TEXT)
    told = (0, expected + "\n", "")
    assert bestiary("generate", model, TEXT, "-n", 12) == told
    assert bestiary("generate", model, "--file", tmp_path / "text", "-n", 12) == told
    assert bestiary("generate", model, "-", "-n", 12, stdin=TEXT) == told
    assert bestiary("generate", "-m", model, "-n", 12, stdin=TEXT) == told
    assert bestiary("generate", "-m", model, TEXT, "-n", 12) == told
    assert bestiary("generate", "-m", model, "-p", TEXT, "-n", 12) == told


def test_json(bestiary: Bestiary, model: Path, expected: str) -> None:
    told = json.loads(bestiary("generate", model, TEXT, "-n", 12, "--json").out)
    assert told["prompt"] == TEXT
    assert told["outputs"][0]["text"] == expected
    assert told["outputs"][0]["finish_reason"] == "length"
    assert len(told["outputs"][0]["token_ids"]) == 12


def test_sampling_options_reach_the_model(bestiary: Bestiary, model: Path) -> None:
    params = SamplingParams(
        temperature=1.5, top_k=50, top_p=0.95, min_p=0.01, repetition_penalty=1.1, seed=3, max_tokens=9
    )
    wanted = LLM(model).generate(TEXT, params)[0].text
    both = ["--top-k", 50, "--top-p", 0.95, "--min-p", 0.01]
    llama = [*both, "--temp", 1.5, "--repeat-penalty", 1.1, "-s", 3, "-n", 9]
    vllm = [*both, "--temperature", 1.5, "--repetition-penalty", 1.1, "--seed", 3, "--max-tokens", 9]
    assert bestiary("generate", model, TEXT, *llama).out == wanted + "\n"
    assert bestiary("generate", model, TEXT, *vllm).out == wanted + "\n"
    assert bestiary("generate", model, TEXT, *llama, "--seed", 4).out != wanted + "\n"


def test_stop_and_set(bestiary: Bestiary, model: Path, expected: str) -> None:
    stop = expected[4]
    cut = expected[: expected.index(stop)]
    assert bestiary("generate", model, TEXT, "-n", 12, "--stop", stop).out == cut + "\n"
    assert bestiary("generate", model, TEXT, "-n", 12, "--set", f"stop={stop}").out == cut + "\n"
    assert bestiary("generate", model, TEXT, "--set", "max_tokens=12").out == expected + "\n"
    several = bestiary("generate", model, TEXT, "-n", 3, "--temp", 1, "--set", "n=2", "--seed", 1)
    assert several.err == "(1 of 2: length)\n(2 of 2: length)\n"
    assert len(set(several.out.split("\n"))) > 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "tempreture=1"], "'tempreture=1' is not KEY=VALUE with a known key\n  try: temperature"),
        (["--set", "n"], "'n' is not KEY=VALUE"),
        (["--temp", "9"], "error: temperature=9.0 should be a number from 0 to 2\n"),
        (["-n", "few"], "error: --max-tokens 'few' should be a number such as 4096 or 4K\n"),
        (["-c", "1M"], "error: context=1048576 should be a whole number from 1 to 4096"),
        (["-t", "0x"], "error: --threads '0x' should be a number"),
        (["--dtype", "int3"], "error: dtype = 'int3' is not known; choose auto, float32"),
        (["--device", "abacus"], "error: device='abacus' is none that PyTorch knows"),
        (
            ["-c", "4", "--set", "max_tokens=1"],
            "error: the prompt has 6 tokens, and the context of 4 must hold it",
        ),
    ],
)
def test_values_out_of_bounds(bestiary: Bestiary, model: Path, arguments: list[str], message: str) -> None:
    code, out, err = bestiary("generate", model, TEXT, *arguments)
    assert (code, out) == (2, "")
    assert message in err


def test_a_file_that_is_no_text(bestiary: Bestiary, model: Path, tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"ab\xff")
    ran = bestiary("generate", model, "--file", tmp_path / "text")
    assert (ran.code, ran.err) == (
        2,
        f"error: {tmp_path}/text is not UTF-8 text: byte 2 is an invalid start byte\n",
    )


def _loading(*arguments: str) -> dict[str, Any]:
    """The options that have variables."""
    found = options.loading(parser("generate").parse_args(list(arguments)))
    return {key: found[key] for key in ("device", "dtype", "threads", "context")}


def test_an_option_wins_over_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _loading() == {"device": "auto", "dtype": "auto", "threads": None, "context": None}
    for name, value in {"DEVICE": "cpu", "DTYPE": "float32", "THREADS": "1", "CTX_SIZE": "4k"}.items():
        monkeypatch.setenv(f"BESTIARY_{name}", value)
    assert _loading() == {"device": "cpu", "dtype": "float32", "threads": 1, "context": 4000}
    given = _loading("--device", "auto", "--dtype", "auto", "-t", "2", "--max-model-len", "4K")
    assert given == {"device": "auto", "dtype": "auto", "threads": 2, "context": 4096}
    assert _loading("-c", "auto", "-t", "0") == {
        "device": "cpu",
        "dtype": "float32",
        "threads": None,
        "context": None,
    }


def test_the_model_named_by_a_variable(
    bestiary: Bestiary, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BESTIARY_MODEL", str(model))
    assert bestiary("generate", "-n", 1, stdin="hello").code == 0


def test_remote_code_is_not_trusted(bestiary: Bestiary, model: Path) -> None:
    ran = bestiary("generate", model, TEXT, "-n", 1, "--trust-remote-code")
    assert ran.code == 0
    assert ran.err == "--trust-remote-code is ignored: no code of a model is ever run\n"


def test_generation_config_gives_the_defaults(tmp_path: Path) -> None:
    def sampling(said: dict[str, Any], *arguments: str) -> SamplingParams:
        (tmp_path / "generation_config.json").write_text(json.dumps(said))
        given = parser("generate").parse_args(list(arguments))
        return options.sampling(given, tmp_path, max_tokens=7)

    said: dict[str, Any] = {
        "do_sample": True,
        "temperature": 0.6,
        "top_p": 0.9,
        "eos_token_id": 2,
        "top_k": None,
    }
    assert sampling(said) == SamplingParams(temperature=0.6, top_p=0.9, max_tokens=7)
    assert sampling(said, "--temp", "0", "-n", "-1") == SamplingParams(
        temperature=0, top_p=0.9, max_tokens=None
    )
    # transformers does not sample unless do_sample says so, whatever the other keys are.
    assert sampling({"temperature": 0.6}) == SamplingParams(temperature=0, max_tokens=7)
    assert sampling(said, "--seed", "-1", "--set", "top_p=1").seed is None
    (tmp_path / "generation_config.json").unlink()
    given = parser("generate").parse_args([])
    assert options.sampling(given, tmp_path, max_tokens=7) == SamplingParams(temperature=0, max_tokens=7)


def _batch(
    bestiary: Bestiary, model: Path, folder: Path, rows: list[object], *more: object
) -> tuple[int, str]:
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    (folder / "in.jsonl").write_text("\n".join(lines) + "\n\n")
    ran = bestiary(
        "generate", model, "--jsonl", folder / "in.jsonl", "--out", folder / "out.jsonl", "-n", 12, *more
    )
    assert ran.out == ""
    return ran.code, ran.err


def _rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def test_batch_keeps_order_and_keys(bestiary: Bestiary, model: Path, tmp_path: Path, expected: str) -> None:
    turns: list[Message] = [{"role": "user", "content": "hello"}]
    rows: list[object] = [{"prompt": TEXT, "id": "a"}, {"messages": turns, "id": 7}, {"prompt": "he\u2028"}]
    code, err = _batch(bestiary, model, tmp_path, rows)
    assert (code, err) == (0, f"3 lines in {tmp_path}/out.jsonl\n")
    first, second, third = _rows(tmp_path / "out.jsonl")
    counted = {"text": expected, "finish_reason": "length", "prompt_tokens": 6, "tokens": 12}
    assert first == {"prompt": TEXT, "id": "a", **counted}
    assert (second["id"], second["messages"]) == (7, turns)
    assert second["text"] == LLM(model).chat(turns, SamplingParams(temperature=0, max_tokens=12))[0].text
    assert third["prompt"] == "he\u2028"  # a line end to str.splitlines, not to JSON Lines
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["in.jsonl", "out.jsonl"]


def test_batch_goes_on_after_an_error_of_one_line(bestiary: Bestiary, model: Path, tmp_path: Path) -> None:
    code, err = _batch(bestiary, model, tmp_path, [{"prompt": "x" * 5000}, {"prompt": ""}, {"prompt": TEXT}])
    assert code == 1
    assert err.endswith(f"3 lines in {tmp_path}/out.jsonl, 2 of them with an error\n")
    long, empty, good = _rows(tmp_path / "out.jsonl")
    assert "the prompt has 5000 tokens" in long["error"]
    assert "empty" in empty["error"]
    assert good["text"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "in.jsonl, line 2 is not JSON"),
        ("[" * 5000, "in.jsonl, line 2 is not JSON"),
        ("3", 'in.jsonl, line 2 should be {"prompt": "..."} or {"messages": [...]}'),
        ('{"prompt": 3}', "line 2 should be"),
        ('{"prompt": "a", "messages": []}', "line 2 should be"),
    ],
)
def test_batch_checks_every_line_first(
    bestiary: Bestiary, model: Path, tmp_path: Path, row: str, message: str
) -> None:
    code, err = _batch(bestiary, model, tmp_path, [{"prompt": TEXT}, row])
    assert code == 2
    assert message in err
    assert not (tmp_path / "out.jsonl").exists()


def test_batch_goes_on_where_it_was_cut_off(
    bestiary: Bestiary, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[object] = [{"prompt": word} for word in ("hello", "he", "world")]
    assert _batch(bestiary, model, tmp_path, rows)[0] == 0
    whole = (tmp_path / "out.jsonl").read_bytes()
    (tmp_path / "out.jsonl").unlink()

    answered: list[str] = []
    real = batch._answer

    def answer(llm: LLM, row: dict[str, Any], params: SamplingParams) -> dict[str, Any]:
        if len(answered) == 2:
            answered.append("")
            raise KeyboardInterrupt
        answered.append(row["prompt"])
        return real(llm, row, params)

    monkeypatch.setattr(batch, "_answer", answer)
    assert _batch(bestiary, model, tmp_path, rows) == (
        130,
        "2 of 3 are done; the same command does the rest\n",
    )
    (partial,) = tmp_path.glob(".out.jsonl.*.partial")
    assert whole.startswith(partial.read_bytes())
    with partial.open("ab") as file:
        file.write(b'{"prompt": "wor')  # as a kill in the middle of a write leaves it
    # Other parameters are another run.
    assert _batch(bestiary, model, tmp_path, rows, "--temp", 1)[1] == f"3 lines in {tmp_path}/out.jsonl\n"
    (tmp_path / "out.jsonl").unlink()
    answered.append("")
    code, err = _batch(bestiary, model, tmp_path, rows)
    assert (code, err) == (0, f"2 of 3 were done before\n3 lines in {tmp_path}/out.jsonl\n")
    assert answered[-1:] == ["world"]
    assert (tmp_path / "out.jsonl").read_bytes() == whole
    assert not list(tmp_path.glob(".out*"))


def test_bench_measures_what_it_says(bestiary: Bestiary, model: Path) -> None:
    arguments = ["bench", model, "-p", "16,8", "-n", "4", "-r", "3"]
    told = json.loads(bestiary(*arguments, "--json").out)
    assert [row["test"] for row in told] == ["pp16", "pp8", "tg4"]
    for row in told:
        assert len(row["samples"]) == 3
        assert row["mean"] == pytest.approx(statistics.fmean(row["samples"]))
        assert row["stdev"] == pytest.approx(statistics.stdev(row["samples"]))
        assert min(row["samples"]) > 0
    assert told[0]["nbytes"] == sum(t.nbytes for t in LLM(model).model.state_dict().values())
    table = bestiary(*arguments).out.splitlines()
    assert [cell.strip() for cell in table[0].split("|")[1:-1]] == [
        "model",
        "size",
        "device",
        "threads",
        "test",
        "t/s",
    ]
    assert set(table[1]) == set("|-: ")
    assert len({len(line) for line in table}) == 1
    rows = list(csv.DictReader(io.StringIO(bestiary(*arguments, "-o", "csv").out)))
    assert [row["test"] for row in rows] == ["pp16", "pp8", "tg4"]


def test_bench_with_nothing_or_too_much_to_do(bestiary: Bestiary, model: Path) -> None:
    assert (
        bestiary("bench", model, "-p", 0, "-n", 0).err
        == "error: there is nothing to time: -p, -n and -r are 0\n"
    )
    ran = bestiary("bench", model, "-p", "8K")
    assert (ran.code, ran.err) == (2, "error: pp8192 does not fit the context of 4096 tokens\n")


# Beam search.


def test_beams(bestiary: Bestiary, model: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    reference: Any = transformers.LlamaForCausalLM.from_pretrained(model)
    ids = tokenizer(TEXT, return_tensors="pt").input_ids
    options: dict[str, Any] = {"num_beams": 3, "num_return_sequences": 3, "length_penalty": 2.0}
    out = reference.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=8,
        do_sample=False,
        early_stopping="never",
        return_dict_in_generate=True,
        output_scores=True,
        pad_token_id=0,
        **options,
    )
    given: list[Any] = ["generate", model, TEXT, "-n", 8, "--beams", 3]
    given += ["--length-penalty", 2, "--early-stopping", "never"]
    told = json.loads(bestiary(*given, "--json").out)
    texts = [str(tokenizer.decode(row[ids.shape[1] :], skip_special_tokens=True)) for row in out.sequences]
    assert [one["text"] for one in told["outputs"]] == texts
    assert [one["score"] for one in told["outputs"]] == pytest.approx(out.sequences_scores.tolist(), abs=1e-4)
    assert bestiary(*given) == (0, texts[0] + "\n", "")
    assert bestiary(*given, "--set", "n=2").out == f"{texts[0]}\n{texts[1]}\n"


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--beams", 2, "--temperature", 1], "--temperature has no effect here: only sampling uses it"),
        (["--beams", 2, "--stop", "x"], "--stop has no effect"),
        (["--length-penalty", 1], "--length-penalty has no effect here: only --beams N uses it"),
        (["--beams", 0], "width=0"),
        (["--beams", 2, "--set", "top_k=1"], "not KEY=VALUE with a known key"),
    ],
)
def test_options_without_an_effect_are_refused(
    bestiary: Bestiary, model: Path, more: list[Any], named: str
) -> None:
    ran = bestiary("generate", model, TEXT, *more)
    assert ran.code != 0
    assert named in ran.err


def test_choices_by_set(bestiary: Bestiary, model: Path) -> None:
    choice = 'choice=["hello world", "he", "ähnlich"]'
    for search in ((), ("--beams", 2)):
        out = bestiary("generate", model, TEXT, *search, "--set", choice).out
        assert out in ("hello world\n", "he\n", "ähnlich\n")
