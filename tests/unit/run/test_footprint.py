"""What `fit` says a model takes, against what PyTorch's own profiler sees it take, to 5 %."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from bestiary import fit
from bestiary.adapters.lora import LoRA
from bestiary.config import Config
from bestiary.context import Cache, Full, Stream
from bestiary.describe import describe
from bestiary.fit import Plan
from bestiary.load import Loaded, load
from bestiary.models import Encoder, EncoderDecoder, Model
from bestiary.quant.fused import fuse
from bestiary.roster.published.shapes import Shape
from bestiary.run import footprint
from bestiary.run.shape import shape
from bestiary.swap import swap
from tests import goldens, tiny

TOLERANCE = 0.05
TOKENS = 40
# Formats of integers and old spellings have rows of their own; what is read here is the arithmetic.
LEFT_OUT = ("int4", "int8", "-tp2", "oldconfig", "dupkey", "native", "batch")


def _cases() -> Iterator[Path]:
    """One case of each family, with the longest context first: the memory of a step is that of its family."""
    seen = set()
    for case in [*goldens.decoders(), *goldens.readers()]:
        family = goldens.meta(case)["family"]
        if family not in seen and not any(word in case.name for word in LEFT_OUT):
            seen.add(family)
            yield case


def _peak(run: Callable[[], object]) -> int:
    """The most bytes that were allocated at once while a function ran, as the profiler counts them."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        run()
    assert seen.profiler is not None
    every = [event for event in seen.profiler.kineto_results.events() if event.name() == "[memory]"]
    alive = highest = 0
    for event in sorted(every, key=lambda event: event.start_ns()):
        alive += event.nbytes()
        highest = max(highest, alive)
    return highest


def _held(model: nn.Module) -> int:
    """Bytes of the tensors, tied ones once."""
    return sum({t.data_ptr(): t.nbytes for t in (*model.parameters(), *model.buffers())}.values())


def _wide(case: Path, folder: Path) -> Path:
    """The case with float32 weights, whatever it was stored in."""
    shutil.copytree(case, folder, dirs_exist_ok=True)
    for file in folder.glob("*.safetensors"):
        if not file.name.startswith("expected"):
            tensors = safetensors.torch.load_file(file)
            wide = {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}
            safetensors.torch.save_file(wide, file, {"format": "pt"})
    return folder


def _shape(loaded: Loaded, hints: dict[str, Any]) -> Shape:
    config, _, build = describe(loaded.checkpoint, hints)

    def made() -> Model:
        with torch.device("meta"):
            return build(Config(config)).eval()

    return shape(made, config)


def _ids(model: Model, count: int) -> Tensor:
    """One token again and again, so that a mixture sends all to the same experts; GLM's with its blank."""
    ids = torch.full((1, count), 5)
    reader: Any = getattr(model, "reader", None)
    if hasattr(reader, "masks"):
        ids[0, -2], ids[0, -1] = reader.masks[0], reader.start
    return ids


@torch.inference_mode()
def _step(model: Model, count: int) -> None:
    """A cache and a prompt; of an encoder-decoder a source, and the first token of its answer."""
    ids = _ids(model, count)
    if isinstance(model, Encoder):
        model.hidden(ids, Full.of(ids))
        return
    cache = Cache.empty(model, 1, fit.room(count))
    prompt = model.prompt(ids)
    if isinstance(model, EncoderDecoder):
        ids = ids[:, :1]
    model(ids, Stream.at(cache, 0, ids.shape[1], prompt), (slice(None), -1)).float()


@pytest.mark.parametrize("case", [*_cases()], ids=lambda case: case.name)
def test_weights_cache_and_activations_are_what_they_are_said_to_be(case: Path, tmp_path: Path) -> None:
    hints = goldens.hints(case)
    loaded = load(_wide(case, tmp_path / "wide"), config=hints)
    fuse(loaded.model)
    count = min(TOKENS, loaded.context - 1)
    plan = Plan("float32", count, threads=torch.get_num_threads())
    needs = fit.need(_shape(loaded, hints), plan)
    _step(loaded.model, count)  # what is made once is made now
    measured = _held(loaded.model) + _peak(lambda: _step(loaded.model, count))
    assert needs.total - needs.program == pytest.approx(measured, rel=TOLERANCE)
    assert needs.weights == pytest.approx(_held(loaded.model), rel=0.02)


@pytest.mark.parametrize(
    "name", ["llama", "falcon-7b", "gpt2", "bloom", "mpt", "gemma2", "t5", "bert", "mixtral"]
)
def test_a_longer_context_takes_what_it_is_said_to_take(name: str, tmp_path: Path) -> None:
    tiny.make(name, tmp_path)
    loaded = load(tmp_path)
    fuse(loaded.model)
    for count in (7, 60):
        needs = fit.need(_shape(loaded, {}), Plan("float32", count, threads=torch.get_num_threads()))
        _step(loaded.model, count)
        measured = _held(loaded.model) + _peak(partial(_step, loaded.model, count))
        assert needs.total - needs.program == pytest.approx(measured, rel=TOLERANCE)


def _learn(model: Model, ids: Tensor) -> None:
    if isinstance(model, Encoder):
        model.head(model.hidden(ids, Full.of(ids))).float().mean().backward()
        return
    logits = model(ids, Full.of(ids, None, model.prompt(ids)))
    F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten()).backward()


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("name", ["llama", "falcon-7b", "gpt2", "bloom", "gemma", "mixtral", "t5", "bert"])
def test_training_takes_what_it_is_said_to_take(name: str, lora: bool, tmp_path: Path) -> None:
    tiny.make(name, tmp_path)
    loaded = load(tmp_path)
    model = loaded.model.train().requires_grad_(not lora)
    needs = fit.need(_shape(loaded, {}), Plan("float32", 60, train="lora" if lora else "full"))
    if lora:
        make = partial(LoRA, rank=footprint.RANK, alpha=1.0)
        swap(model, footprint.ADAPTED, make)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    ids = torch.randint(0, 120, (1, 60))

    def step() -> None:
        _learn(model, ids)
        optimizer.step()
        optimizer.zero_grad()

    step()
    states = sum(t.nbytes for state in optimizer.state.values() for t in state.values())
    measured = _held(model) + states + _peak(step)
    assert needs.total - needs.program == pytest.approx(measured, rel=TOLERANCE)
    assert needs.optimizer == pytest.approx(states, rel=0.02)


def test_few_layers_stand_for_many(tmp_path: Path) -> None:
    for name in ("llama", "falcon-7b"):
        tiny.make(name, tmp_path / name)
        config, _, build = describe(load(tmp_path / name).checkpoint)

        def made(layers: int, config: Any = config, build: Any = build) -> Model:
            with torch.device("meta"):
                model: Model = build(Config({**config, "num_hidden_layers": layers}))
            return model

        for layers in (2, 7):
            few, _ = footprint.training(partial(made, layers))
            assert few == footprint.learnt(made(layers).requires_grad_())
        assert footprint.moments(partial(made, 2)) == footprint.moments(partial(made, 6))
