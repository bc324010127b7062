"""`bestiary env`: everything about this machine that a report of a problem should say."""

from __future__ import annotations

import argparse
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ..hub import cache
from .terminal import BOLD, columns, paint, print_json, printable, size

_PACKAGES = (
    "bestiary torch numpy safetensors tokenizers sentencepiece tiktoken jinja2 huggingface_hub".split()
)
_VARIABLES = """
BESTIARY_CACHE BESTIARY_DEBUG BESTIARY_NATIVE BESTIARY_MODEL BESTIARY_DEVICE BESTIARY_DTYPE BESTIARY_THREADS
BESTIARY_CTX_SIZE HF_HOME HF_HUB_CACHE HF_TOKEN HF_ENDPOINT HF_HUB_OFFLINE TRANSFORMERS_OFFLINE
HF_HUB_DOWNLOAD_TIMEOUT HF_HUB_DISABLE_TELEMETRY DO_NOT_TRACK CUDA_VISIBLE_DEVICES OMP_NUM_THREADS
PYTORCH_CUDA_ALLOC_CONF NO_COLOR FORCE_COLOR HTTPS_PROXY HTTP_PROXY
""".split()
_SECRET = ("HF_TOKEN", "HTTPS_PROXY", "HTTP_PROXY")  # a proxy's address may hold a password
# Of /proc/cpuinfo: those that some kernel, here or in PyTorch, asks for.
_FEATURES = """
avx avx2 fma f16c avx_vnni avx512f avx512bw avx512vl avx512_vnni avx512_bf16 avx512_fp16 amx_tile amx_int8
amx_bf16 asimd asimddp bf16 i8mm sve sve2
""".split()


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def run(options: argparse.Namespace) -> int:
    """Print versions, processor, kernels, caches and variables."""
    sections = {
        "versions": _versions(),
        "processor": _processor(),
        "kernels": _kernels(),
        "caches": _caches(),
        "variables": _variables(),
    }
    if options.json:
        print_json(sections)
        return 0
    for title, values in sections.items():
        print(paint(title, BOLD))
        for line in columns([(key, printable(value)) for key, value in values.items()] or [("none", "")]):
            print(f"  {line}")
    return 0


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "system": platform.platform()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _processor() -> dict[str, str]:
    import torch

    from ..run.threads import available

    about = _cpuinfo()
    flags = set(about.get("flags", about.get("Features", "")).split())
    found = {
        "name": about.get("model name") or platform.processor() or platform.machine(),
        "logical processors": str(os.cpu_count()),
        "threads used": str(available()),
        "features": " ".join(name for name in _FEATURES if name in flags) or "unknown",
        "PyTorch uses": torch.backends.cpu.get_cpu_capability(),
    }
    for i in range(torch.cuda.device_count()):
        found[f"cuda:{i}"] = torch.cuda.get_device_name(i)
    if torch.backends.mps.is_available():
        found["mps"] = "available"
    return found


def _cpuinfo() -> dict[str, str]:
    """The first processor of /proc/cpuinfo; empty where there is none."""
    try:
        first = Path("/proc/cpuinfo").read_text("utf-8").split("\n\n", 1)[0]
    except OSError:
        return {}
    return {
        key.strip(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())
    }


def _kernels() -> dict[str, str]:
    """What each operation runs on here, and why each faster implementation is absent."""
    from .. import kernels

    return {
        f"{verdict.operation}: {verdict.kernel}": f"{'runs' if verdict.serves else 'absent'}: {verdict.note}"
        for verdict in kernels.explain()
    }


def _caches() -> dict[str, str]:
    found = {}
    for name, folder in {"bestiary": cache.own_cache(), "hugging face": cache.hub_cache()}.items():
        held = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
        state = size(sum(path.stat().st_size for path in held)) if folder.is_dir() else "not made yet"
        found[name] = f"{folder} ({state})"
    return found


def _variables() -> dict[str, str]:
    given = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
    return {name: "set" if name in _SECRET and value else value for name, value in given.items()}
