"""Which files of a repository are taken, whatever it lists."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bestiary.errors import HubError
from bestiary.hub import cache
from bestiary.hub.choose import choose
from bestiary.hub.names import Name, is_inside, parse

NAME = Name("org/name")
_NAMES = (
    "model",
    "pytorch_model",
    "-00001-of-00002",
    "tokenizer",
    "LICENSE",
    "a",
    ".",
    "../",
    "/",
    "\\",
    "\0",
)
_ENDS = (".safetensors", ".bin", ".gguf", ".json", ".index.json", ".py")
_PARTS = st.sampled_from(_NAMES + _ENDS)
_PATHS = st.lists(_PARTS, min_size=1, max_size=5).map("".join)


@pytest.mark.parametrize(
    ("listed", "taken"),
    [
        ("model.safetensors model.bin model.gguf", "model.safetensors"),
        ("pytorch_model.bin model.gguf training_args.bin optimizer.bin", "pytorch_model.bin"),
        ("model.safetensors model.fp16.safetensors consolidated.safetensors", "model.safetensors"),
        ("adapter.safetensors", "adapter.safetensors"),
        ("model.gguf model.py config.json", "config.json model.gguf"),
        (
            "pytorch_model-00001-of-00001.bin pytorch_model.bin.index.json model.safetensors.index.json",
            "pytorch_model.bin.index.json pytorch_model-00001-of-00001.bin",
        ),
        ("ice_text.model spiece.model qwen.tiktoken vocab.txt merges.txt chat_template.jinja w.bin", None),
        ("special_tokens_map.json generation_config.json USE_POLICY.md NOTICE LICENSE-2.0.txt w.bin", None),
        (
            "trainer_state.json eval_results.json flax_model.msgpack tf_model.h5 requirements.txt w.bin",
            "w.bin",
        ),
        ("sub/model.safetensors w.bin onnx/config.json", "w.bin"),
        ("LICENSE.py README.gguf", "README.gguf"),
    ],
)
def test_what_is_taken(listed: str, taken: str | None) -> None:
    found = choose(dict.fromkeys(listed.split(), 1), NAME)
    assert found == (listed if taken is None else taken).split()


@pytest.mark.parametrize("listed", ["", "README.md config.json", "sub/model.safetensors", "model.onnx"])
def test_nothing_to_take(listed: str) -> None:
    with pytest.raises(HubError, match="holds no weights that can be read here"):
        choose(dict.fromkeys(listed.split(), 1), NAME)


@given(st.lists(_PATHS, max_size=8), st.none() | _PATHS)
def test_nothing_leaves_the_repository_and_no_code_is_taken(listed: list[str], file: str | None) -> None:
    wanted = Name("org/name", None, f"{file}.gguf" if file else None)
    sizes = dict.fromkeys([*listed, *([wanted.file] if wanted.file else [])], 1)
    try:
        found = choose(sizes, wanted)
    except HubError:
        return
    assert found
    assert len(set(found)) == len(found)
    for path in found:
        assert path in sizes
        assert is_inside(path)
        assert not path.endswith(".py")


@given(st.text() | st.from_regex(r"[a-z./@:-]{1,20}", fullmatch=True))
def test_a_name_is_refused_or_stays_in_the_cache(text: str) -> None:
    try:
        name = parse(text)
    except HubError:
        return
    assert parse(str(name)) == name
    folder = cache.repo_folder(name.repo)
    assert folder.parent == cache.hub_cache()
    for part in (name.revision, name.file):
        assert part is None or (folder / part).resolve().is_relative_to(folder.resolve())
