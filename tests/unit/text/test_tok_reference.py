"""Published tokenizers, token for token: ids, texts and streams that their authors' code gave."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bestiary.prove.tokens import Opened, Setting, opened, unpack, wrong
from bestiary.text import open_tokenizer
from tests import goldens

CASES = goldens.cases("tokenizers/*")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_published_tokenizer(case: Path, tmp_path: Path) -> None:
    each = opened(case, tmp_path)
    checked, unmet = wrong(each, case)
    assert checked > 100
    assert {key: len(failed) for key, failed in unmet.items()} == dict(each.setting.different), unmet


@pytest.mark.parametrize(
    "case", goldens.cases("tokenizers/llama", "tokenizers/t5"), ids=lambda case: case.name
)
def test_a_model_file_after_a_control_token(case: Path, tmp_path: Path) -> None:
    unpack(case, Setting(), tmp_path)
    class_name = "LlamaTokenizer" if case.name == "llama" else "T5Tokenizer"
    config = {"tokenizer_class": class_name, "legacy": True}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    each = Opened(open_tokenizer(next(tmp_path.glob("*.model"))), None, Setting())
    entries = json.loads((case / "vectors.json").read_text(encoding="utf-8"))
    entries = [one for one in entries if one["op"] == "encode" and one["by"] == "hfslow436legacy"]
    assert len(entries) >= 3
    assert [entry for entry in entries if not each.check(entry)[1]] == []


@pytest.mark.parametrize("case", goldens.cases("format-gguf-llama"), ids=lambda case: case.name)
def test_a_gguf_file(case: Path) -> None:
    entries = json.loads((case / "META.json").read_text(encoding="utf-8"))["tokenize"]
    tokenizer = open_tokenizer(case / "model-q8_0.gguf")
    assert tokenizer.add_bos
    assert len(entries) >= 10
    for entry in entries:
        assert tokenizer.encode(entry["text"]) == entry["ids"]
        assert [tokenizer.bos, *tokenizer.encode(entry["text"], control=True)] == entry["ids_bos_special"]
        assert tokenizer.decode(entry["ids"], continues=True) == entry["detokenized"]
