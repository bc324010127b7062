"""What the package shows is what it says it shows."""

from __future__ import annotations

import ast
import re
import tomllib
from importlib.metadata import version

import bestiary
from tools.sources import ROOT


def test_the_public_names_are_those_of_all() -> None:
    """Everything that the package's __init__ imports or defines for its users, and nothing else."""
    bound: list[str] = []
    for node in ast.walk(ast.parse((ROOT / "src/bestiary/__init__.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.col_offset <= 4 and node.level:
            bound += [alias.asname or alias.name for alias in node.names]
    assert sorted(bound) == sorted(bestiary.__all__)
    assert {name for name in dir(bestiary) if not name.startswith("_")} == set(bestiary.__all__)


def test_every_public_name_is_there_and_explained() -> None:
    for name in bestiary.__all__:
        value = getattr(bestiary, name)
        assert value.__doc__, f"bestiary.{name} has no docstring"
        assert value.__module__.startswith("bestiary."), f"bestiary.{name} is not of this package"


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(bestiary, "no_such_name")


def test_the_version_is_the_newest_change() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert newest is not None
    assert newest[1] == project["version"] == bestiary.__version__ == version("bestiary")
