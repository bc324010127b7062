"""JSON: the standard library's reading of what is good, and bounds on what is not."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bestiary.errors import ConfigError
from bestiary.files import strict_json
from bestiary.files.paths import read_json
from tests.goldens import cases, meta

TEXT = st.text(st.characters(codec="utf-8"))
NUMBERS = st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)


@given(
    st.recursive(
        st.none() | st.booleans() | NUMBERS | TEXT,
        lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
        max_leaves=20,
    )
)
def test_json_is_read_as_the_standard_library_reads_it(value: object) -> None:
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=1)):
        assert strict_json.parse(text.encode()) == value
        assert strict_json.parse(text.encode(), lenient=True) == value


@given(st.text(alphabet='[]{}",:\\0a ', max_size=60))
def test_json_near_misses_are_judged_as_by_the_standard_library(text: str) -> None:
    def reject(_: list[tuple[str, object]]) -> dict[str, object]:
        pairs = dict(_)
        if len(pairs) != len(_):
            raise ValueError
        return pairs

    try:
        want = json.loads(text, object_pairs_hook=reject)
    except ValueError:
        with pytest.raises(strict_json.InvalidJSONError):
            strict_json.parse(text.encode())
    else:
        assert strict_json.parse(text.encode()) == want


@pytest.mark.parametrize("kinds", ["[", "{", "[{"])
def test_depth_is_exact(kinds: str) -> None:
    def nested(depth: int) -> bytes:
        opened = [kinds[i % len(kinds)] for i in range(depth)]
        inner = "".join(o + ('"k":' if o == "{" and i < depth - 1 else "") for i, o in enumerate(opened))
        return (inner + "".join("]" if o == "[" else "}" for o in reversed(opened))).encode()

    strict_json.parse(nested(64))
    with pytest.raises(strict_json.InvalidJSONError, match="deeper"):
        strict_json.parse(nested(65))


@pytest.mark.parametrize("end", ["", '"', '\\"', "\\"])
def test_unterminated_strings_take_linear_time(end: str) -> None:
    text = '{"' + '\\"[' * 400_000 + end
    with pytest.raises(strict_json.InvalidJSONError):
        strict_json.parse(text.encode())


# Config files.


@pytest.mark.optimised
@pytest.mark.parametrize(
    ("content", "saying"),
    [
        (b"", "not JSON"),
        (b"[]", "a list where an object"),
        (b"null", "a NoneType where"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "-Infinity"),
        (b'{"a": 1e400}', "past float64"),
        (b'{"a": 1' + b"0" * 400 + b"}", "past float64"),
        (b'{"a": ' + b"1" * 100_000 + b"}", "past float64"),
        (b'{"a": "\xff"}', "not UTF-8"),
        (b"\xff\xfe{\0}\0", "not UTF-8"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b'{"a": "\\ud83d"}', "surrogate"),
        (b'{"a":' * 65 + b"1" + b"}" * 65, "deeper than 64"),
        (b"[" * 1_000_000, "deeper than 64"),
        (b"[]" * 4_000_001, "more than 8,000,000"),
        (b'{"a": 1,}', "not JSON"),
        (b"{'a': 1}", "not JSON"),
        (b'{"a": 01}', "not JSON"),
        (b'{"a": 1} // x', "not JSON"),
        (b'{"a\n": 1}', "not JSON"),
    ],
)
def test_bad_configs_are_refused(tmp_path: Path, content: bytes, saying: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=saying) as raised:
        read_json(path)
    if "config.json" not in str(raised.value) or len(str(raised.value)) > 500:
        pytest.fail(str(raised.value))


def test_configs_are_read_as_published_ones_are_meant(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text(
        '{"a": 1, "a": null, "big": 1000000000000000019884624838656, "n": 9223372036854775808, "e": 1e-5}'
    )
    config = read_json(path)
    assert config == {"a": None, "big": 1e30, "n": 2**63, "e": 1e-5}
    assert isinstance(config["big"], float)
    assert math.isfinite(config["big"])
    assert isinstance(config["n"], int)


def test_the_limit_is_on_bytes(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"a": 1}')
    assert read_json(path, limit=8) == {"a": 1}
    with pytest.raises(ConfigError, match="more than 7 bytes"):
        read_json(path, limit=7)
    os.truncate(path, 1 << 40)
    with pytest.raises(ConfigError, match="more than"):
        read_json(path, limit=1 << 20)


@pytest.mark.parametrize("case", cases("aquila2-34b-16k-dupkey"), ids=lambda case: case.name)
def test_a_published_key_that_is_there_twice(case: Path) -> None:
    assert "TWICE" in " ".join(meta(case)["notes"])
    assert read_json(case / "config.json")["rope_scaling"] is None
