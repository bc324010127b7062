"""The reader of pages finds what is there, and its comparison can fail."""

from __future__ import annotations

import pytest

from tests.docs.blocks import blocks, matches

PAGE = """\
# A page

```console
$ bestiary generate \\
    "one"
two
$ true
```

<!-- run: needs smollm2 -->
```python
print(1)
```

```text
1
```

  <!-- not run: it is large -->
  ```console
  $ make chat
  ```

<!-- run: exits with 2 -->
```console
$ false
```

```toml
not = "checked"
```
<!-- from src/a.py -->
```python
x = 1
```
"""


def test_blocks_are_found_with_what_is_said_about_them() -> None:
    found = list(blocks("page.md", PAGE))
    assert [str(block) for block in found] == [f"page.md:{line}" for line in (3, 11, 20, 25, 33)]
    console, script, large, failing, quotation = found
    assert list(console.commands()) == [('bestiary generate "one"', "two\n"), ("true", None)]
    assert console.status == 0
    assert script.needs == ("smollm2",)
    assert (script.text, script.output) == ("print(1)\n", "1\n")
    assert large.reason_not_run == "it is large"
    assert list(large.commands()) == [("make chat", None)]
    assert failing.status == 2
    assert failing.reason_not_run is None
    assert quotation.quoted == "src/a.py"


@pytest.mark.parametrize(
    "text",
    [
        "```python\nprint(1)\n",
        "<!-- ran: twice -->\n```python\n1\n```\n",
        "<!-- not run: -->\n```python\n```\n",
    ],
)
def test_a_broken_page_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"page\.md:"):
        list(blocks("page.md", text))


@pytest.mark.parametrize(
    ("expected", "actual", "same"),
    [
        ("Paris.\n", "Paris.", True),
        ("Paris.\n", "\nParis.  \n\n", True),
        ("Paris.\n", "Paris, I think.", False),
        ("Paris.\n", "Paris.\nMore", False),
        ("took ... s\n", "took 1.5 s", True),
        ("took ... s\n", "took 1.5 h", False),
        ("a\n...\nd\n", "a\nb\nc\nd\n", True),
        ("a\n...\nd\n", "a\nd\n", True),
        ("a\n...\nd\n", "a\nb\n", False),
        ("...\n", "", True),
        ("a (b) [c]\n", "a (b) [c]\n", True),
    ],
)
def test_output_is_compared(expected: str, actual: str, *, same: bool) -> None:
    assert matches(expected, actual) is same
