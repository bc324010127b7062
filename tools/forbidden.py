"""What must not stand anywhere in the package: each is a way for a file or a name to become code.

A model's files are data. Where no path from data to code exists there is none to get past a flag, so this is
a gate on the source and not a check at run time. It would have stopped CVE-2025-32434 (torch.load),
CVE-2026-4372 (a name in config.json was imported) and CVE-2026-41523 (an `assert` that -O removed).
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

from tools.sources import Source

# Reading these formats runs what the file says.
MODULES = frozenset(
    """
    pickle _pickle cPickle dill cloudpickle joblib marshal shelve imp runpy
    torch.hub torch.package torch.serialization
    """.split()
)
CALLS = frozenset(
    """
    eval exec compile __import__ builtins.eval builtins.exec builtins.compile builtins.__import__
    torch.load torch.jit.load numpy.load pandas.read_pickle yaml.load yaml.full_load yaml.unsafe_load
    os.system os.popen ctypes.PyDLL ctypes.pythonapi
    """.split()
)
KEYWORDS = frozenset({"trust_remote_code", "allow_pickle"})
# After a pull nothing but a hosted model's name opens a connection, so only they may know how.
# The proof of the wire speaks to boto3's own stub.
NETWORK = frozenset(
    """
    socket ssl http urllib.request urllib3 ftplib smtplib requests httpx aiohttp huggingface_hub
    boto3 botocore
    """.split()
)
NETWORK_IN = ("src/bestiary/hub/", "src/bestiary/run/hosted/", "src/bestiary/prove/wire.py")
# File -> why it may import by a name that is not written in the call.
IMPORT_BY_NAME = {"src/bestiary/families/__init__.py": "the names are those of its own table, FAMILIES"}


def problems(sources: Iterable[Source]) -> Iterator[str]:
    """Yield one line for each thing that must not be there."""
    for source in sources:
        names = _names(source.tree)
        for node in ast.walk(source.tree):
            for what in _found(node, names, source.path):
                line = getattr(node, "lineno", 0)
                yield f"{source.path}:{line}: {what} is not allowed (tools/forbidden.py says why)"


def _names(tree: ast.Module) -> dict[str, str]:
    """Return what each imported name stands for: {"t": "torch", "load": "torch.load"}."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            # `import a.b` binds a, `import a.b as c` binds a.b.
            names |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _found(node: ast.AST, names: dict[str, str], path: str) -> Iterator[str]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        yield from _imports(node, path)
    elif isinstance(node, ast.Name | ast.Attribute):
        full = _dotted(node, names)
        if full in CALLS:
            yield full
    elif isinstance(node, ast.Call):
        yield from _call(node, names, path)
    elif isinstance(node, ast.Assert):
        yield "an assert (gone under python -O; raise an error)"


def _imports(node: ast.Import | ast.ImportFrom, path: str) -> Iterator[str]:
    if isinstance(node, ast.Import):
        wanted = [alias.name for alias in node.names]
    elif node.level or node.module is None:
        return
    else:
        wanted = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    for name in wanted:
        prefixes = {name.rsplit(".", cut)[0] for cut in range(name.count(".") + 1)} | {name}
        if prefixes & MODULES or name in CALLS:
            yield f"import of {name}"
        if prefixes & NETWORK and not path.startswith(NETWORK_IN):
            yield f"the network ({name}) outside the hub"


def _call(node: ast.Call, names: dict[str, str], path: str) -> Iterator[str]:
    for keyword in node.keywords:
        if keyword.arg in KEYWORDS:
            yield f"{keyword.arg}="
        shut = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
        if keyword.arg == "shell" and not shut:
            yield "shell="
    if _dotted(node.func, names) in ("importlib.import_module", "importlib.util.spec_from_file_location"):
        constant = bool(node.args) and isinstance(node.args[0], ast.Constant)
        if not constant and path not in IMPORT_BY_NAME:
            yield "import of a name that is not written here"


def _dotted(node: ast.expr, names: dict[str, str]) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value, names)}.{node.attr}"
    return names.get(node.id, node.id) if isinstance(node, ast.Name) else ""
