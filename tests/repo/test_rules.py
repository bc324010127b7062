"""The repository keeps its own rules, and each rule notices when it is broken."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from textwrap import dedent

import pytest

from tools import families, forbidden, layers, size, words
from tools.sources import Source, python, tracked

RULES: dict[str, Callable[[], Iterator[str]]] = {
    "imports": lambda: layers.problems(python("src")),
    "forbidden": lambda: forbidden.problems(python("src")),
    "sizes": lambda: size.problems(python("src", "tests", "tools", "bench", "examples")),
    "words": lambda: words.problems(tracked()),
    "families": families.problems,
}


@pytest.mark.parametrize("rule", RULES)
def test_the_tree_keeps_the_rule(rule: str) -> None:
    assert "\n".join(RULES[rule]()) == ""


def test_the_rules_see_the_whole_package() -> None:
    seen = {source.path for source in python("src")}
    assert {"src/bestiary/__init__.py", "src/bestiary/bricks/attention.py"} <= seen
    assert {path.name for path in tracked()} >= {"pyproject.toml", "attention.py", "test_rules.py"}


# One line of source, and a word of the complaint about it.
FORBIDDEN = {
    "import pickle": "import of pickle",
    "from pickle import loads": "import of pickle",
    "import torch.package": "import of torch.package",
    "import torch\ntorch.load(path)": "torch.load",
    "import torch as t\nt.load(path)": "torch.load",
    "from torch import load as read\nread(path)": "torch.load",
    "import torch\nread = torch.jit.load": "torch.jit.load",
    "import numpy as np\nnp.load(path)": "numpy.load",
    "import yaml\nyaml.load(text)": "yaml.load",
    "import marshal": "import of marshal",
    "import shelve": "import of shelve",
    "eval(text)": "eval",
    "exec(text)": "exec",
    "run = eval": "eval",
    "import builtins\nbuiltins.exec(text)": "builtins.exec",
    "compile(text, '', 'exec')": "compile",
    "__import__(name)": "__import__",
    "import importlib\nimportlib.import_module(name)": "name that is not written",
    "from importlib import import_module\nimport_module(f'x.{name}')": "name that is not written",
    "import subprocess\nsubprocess.run(line, shell=True)": "shell=",
    "import subprocess\nsubprocess.run(line, shell=flag)": "shell=",
    "import os\nos.system(line)": "os.system",
    "from os import popen": "os.popen",
    "AutoModel.from_pretrained(name, trust_remote_code=True)": "trust_remote_code",
    "load(path, allow_pickle=True)": "allow_pickle",
    "import socket": "network (socket)",
    "from urllib.request import urlopen": "network (urllib.request",
    "def f():\n    import huggingface_hub.file_download": "network (huggingface_hub.",
    "assert limit > 0": "assert",
}

ALLOWED = [
    "import pickletools",  # reads opcodes, runs none
    "import re\nre.compile('a')",
    "model.eval()",
    "import torch\nmodel = torch.compile(model)",
    "import importlib\nimportlib.import_module('.llama', __package__)",
    "import subprocess\nsubprocess.run(arguments, shell=False)",
    "from urllib.parse import urlsplit",
    "checkpoint.load(path)",
]


@pytest.mark.parametrize("text", FORBIDDEN)
def test_a_forbidden_call_is_found(text: str) -> None:
    found = list(forbidden.problems([Source("src/bestiary/files/new.py", text)]))
    assert any(FORBIDDEN[text] in line for line in found), found


@pytest.mark.parametrize("text", ALLOWED)
def test_what_only_looks_like_it_is_allowed(text: str) -> None:
    assert list(forbidden.problems([Source("src/bestiary/files/new.py", text)])) == []


def test_only_the_hub_may_know_the_network() -> None:
    assert list(forbidden.problems([Source("src/bestiary/hub/download.py", "import huggingface_hub")])) == []


@pytest.mark.parametrize(
    ("path", "text", "target"),
    [
        ("bricks/new.py", "from ..models import Decoder", "models"),
        ("bricks/new.py", "from bestiary.models import Decoder", "models"),
        ("bricks/new.py", "import bestiary.models", "models"),
        ("bricks/new.py", "def f():\n    from .. import models", "models"),
        ("bricks/__init__.py", "from ..families.llama import build", "families"),
        ("files/new.py", "from ..kernels import attention", "kernels"),
        ("errors.py", "from . import config", "config"),
        ("roster/new.py", "from ..models import Decoder", "models"),
        ("run/new.py", "from bestiary import LLM", "bestiary"),
    ],
)
def test_an_import_against_the_order_is_found(path: str, text: str, target: str) -> None:
    found = list(layers.problems([Source(f"src/bestiary/{path}", text)]))
    assert len(found) == 1
    assert found[0].endswith(f"must not import {target}")


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (
            "bricks/new.py",
            "from ..context import Context\nfrom .norms import RMSNorm\nfrom ..errors import ConfigError",
        ),
        ("cli/new.py", "from ..run.llm import LLM\nfrom bestiary import errors\nimport torch"),
        ("__init__.py", "from .run.llm import LLM"),
    ],
)
def test_an_import_with_the_order_is_allowed(path: str, text: str) -> None:
    assert list(layers.problems([Source(f"src/bestiary/{path}", text)])) == []


def test_a_package_without_a_row_is_found() -> None:
    assert "no row" in next(layers.problems([Source("src/bestiary/wings/new.py", "")]))


def test_long_files_and_functions_are_found() -> None:
    body = "    x = 1\n" * 40
    text = f"class A:\n    def f(self):\n{body.replace('    x', '        x')}\ndef g():\n{body[:-10]}"
    source = Source("src/bestiary/new.py", text + "y = 1\n" * 400)
    found = [line.partition(": ")[0] for line in size.problems([source], longer={})]
    assert found == ["src/bestiary/new.py", "src/bestiary/new.py::A.f"]
    reasons = dict.fromkeys(found, "one table")
    assert list(size.problems([source], longer=reasons)) == []
    assert "remove it" in next(size.problems([source], longer={**reasons, "src/bestiary/old.py": "gone"}))


def test_names_and_paths_of_one_machine_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        dedent("""\
        See `/{0}/ada/notes.txt` and https://example.org/home/ada/ and ~/models and $HOME/models
        src/bestiary/work/out.txt
    """).format("home")
    )
    assert [line.split(": ")[0] for line in words.problems([page])] == ["page.md:1"]
    module = tmp_path / "utils.py"
    module.write_text("")
    assert "says nothing" in next(words.problems([module]))


def test_families_that_are_long_or_proven_by_nothing_and_an_old_page_are_found() -> None:
    rows = families.rows()
    long = [replace(row, lines=row.lines + families.MEAN_LINES) for row in rows]
    assert ["60 at most" in line for line in families.problems(long)] == [True, False]
    bare = [replace(rows[0], cases=(), live=()), *rows[1:]]
    assert [line.partition(": ")[0] for line in families.problems(bare)] == [
        f"src/bestiary/families/{rows[0].name}.py",
        "docs/families.md",
    ]
