"""One vector for a text from the states of its tokens, made as a sentence-transformers folder says.

modules.json names the steps in order: the transformer, a pooling of its states, and what follows it: a dense
layer, a division by the length. Reimers and Gurevych, 2019, arXiv 1908.10084.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..config import Activation, Config
from ..errors import CheckpointError, ConfigError, RequestError
from ..files import open_checkpoint
from ..files.paths import read_json, read_json_list, resolve

# States (B, T, width) float32 and which of them are of real tokens, bool (B, T) -> (B, width).
Mode = Callable[[Tensor, Tensor], Tensor]
# Vectors (B, dim) -> vectors (B, other dim).
Step = Callable[[Tensor], Tensor]


def first(states: Tensor, seen: Tensor) -> Tensor:
    """Return the state of each text's first token, which is [CLS] in BERT."""
    return states[torch.arange(len(states), device=states.device), seen.int().argmax(-1)]


def last(states: Tensor, seen: Tensor) -> Tensor:
    """Return the state of each text's last token."""
    places = torch.arange(seen.shape[1], device=seen.device) * seen
    return states[torch.arange(len(states), device=states.device), places.argmax(-1)]


def largest(states: Tensor, seen: Tensor) -> Tensor:
    """Return the largest number of each channel."""
    return states.masked_fill(~seen[..., None], -torch.inf).amax(1)


def mean(states: Tensor, seen: Tensor) -> Tensor:
    """Return the mean of the states."""
    return _weighed(states, seen.float())


def root_mean(states: Tensor, seen: Tensor) -> Tensor:
    """Return the sum of the states over the root of how many there are."""
    return mean(states, seen) * seen.float().sum(-1, keepdim=True).sqrt()


def later_more(states: Tensor, seen: Tensor) -> Tensor:
    """Return the mean with weights 1, 2, 3, ... by position: SGPT, arXiv 2202.08904."""
    return _weighed(states, seen.cumsum(-1) * seen.float())


def _weighed(states: Tensor, weights: Tensor) -> Tensor:
    # Not a matrix product: in TF32 that would keep 10 bits.
    kept = torch.where(weights[..., None] > 0, states, 0)  # what padding holds may be NaN
    return (kept * weights[..., None]).sum(1) / weights.sum(-1, keepdim=True)


# By their published names, in the order in which several are laid side by side.
MODES: Mapping[str, Mode] = {
    "cls": first,
    "max": largest,
    "mean": mean,
    "mean_sqrt_len_tokens": root_mean,
    "weightedmean": later_more,
    "lasttoken": last,
}
# Files before sentence-transformers 5.4 have a flag for each.
FLAGS: Mapping[str, str] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
# The published names end so: of torch.nn.modules.activation and .linear.
_ACTIVATIONS: Mapping[str, Activation] = {
    "Tanh": torch.tanh,
    "Identity": lambda x: x,
    "ReLU": F.relu,
    "GELU": F.gelu,
    "SiLU": F.silu,
    "Sigmoid": torch.sigmoid,
}
# What the first step's own settings are called, in a model's first days after its kind.
_SETTINGS = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)


@dataclass(frozen=True, eq=False)
class Dense:
    """act(weight x + bias). weight (outputs, inputs), bias (outputs,), both float32."""

    weight: Tensor
    bias: Tensor | None
    act: Activation

    def __call__(self, vectors: Tensor) -> Tensor:
        """Return (B, outputs) of (B, inputs)."""
        bias = None if self.bias is None else self.bias.to(vectors.device)
        return self.act(F.linear(vectors, self.weight.to(vectors.device), bias))


def unit(vectors: Tensor) -> Tensor:
    """Return vectors of length 1."""
    return F.normalize(vectors, dim=-1)


@dataclass(frozen=True, eq=False)
class Pooling:
    """How the vector of a text is made of its tokens' states, and what the folder says of the text.

    modes: their results stand side by side. steps: what follows, in order. max_tokens: how many tokens of a
    text were to be read; None where the folder does not say. prompts: what to put before a text, by the use
    it is for; prompt: what to put there unless told. lower: whether a text is to be in small letters first,
    whatever its tokenizer does. assumed: whether the folder says nothing, and the mean is a guess.
    """

    modes: tuple[Mode, ...] = (mean,)
    steps: tuple[Step, ...] = ()
    max_tokens: int | None = None
    prompts: Mapping[str, str] = field(default_factory=dict)
    prompt: str = ""
    lower: bool = False
    assumed: bool = False

    @property
    def normalised(self) -> bool:
        """Whether vectors have length 1, so that a dot product is a cosine."""
        return bool(self.steps) and self.steps[-1] is unit

    def __call__(self, states: Tensor, seen: Tensor) -> Tensor:
        """Return vectors, float32 (B, dim). states (B, T, width). seen: which tokens are real, bool (B, T).

        Raises RequestError for a text without tokens.
        """
        seen = seen.bool()
        if not seen.any(-1).all():
            row = int(seen.any(-1).int().argmin())
            raise RequestError(f"text {row} of the batch has no tokens, and so no vector; leave it out")
        vectors = torch.cat([mode(states.float(), seen) for mode in self.modes], -1)
        for step in self.steps:
            vectors = step(vectors)
        return vectors


def open_pooling(folder: str | Path) -> Pooling:
    """Read how a model's folder says that the vector of a text is made.

    Where it says nothing (no modules.json: Contriever, any language model) the mean is taken, without
    normalisation, as sentence-transformers does, and `assumed` tells so. Raises ConfigError for a module, a
    mode or a setting that is not computed here, and CheckpointError for weights that cannot be read.
    """
    folder = Path(folder)
    folder = folder if folder.is_dir() else folder.parent
    if not (folder / "modules.json").is_file():
        return Pooling(assumed=True)
    parts = [_part(folder, each) for each in read_json_list(folder / "modules.json")]
    kinds = [kind for kind, _ in parts]
    if kinds[:2] != ["Transformer", "Pooling"]:
        said = ", ".join(kinds[:10])
        raise ConfigError(
            f"{folder}/modules.json: begins with {said}; only a Transformer and a Pooling are computed"
        )
    text = _settings(parts[0][1])
    prompts, prompt = _prompts(folder)
    return Pooling(
        _modes(parts[1][1]),
        tuple(_step(kind, place) for kind, place in parts[2:] if kind != "Dropout"),
        max_tokens=text.optional("max_seq_length"),
        prompts=prompts,
        prompt=prompt,
        lower=text.flag("do_lower_case", False),
    )


def _part(folder: Path, said: object) -> tuple[str, Path]:
    """Return a module's kind and the folder of its files."""
    c = Config(said if isinstance(said, dict) else {}, f"{folder}/modules.json")
    path, kind = c.text("path", ""), c.text("type")
    if not kind.startswith("sentence_transformers."):
        raise ConfigError(f"{c.where}: type = {kind[:80]!r} is code of the model's own, which is never run")
    return kind.rpartition(".")[2], resolve(folder, path) if path else folder


def _settings(place: Path) -> Config:
    """Return what the first step's own file says of the text."""
    file = next((place / name for name in _SETTINGS if (place / name).is_file()), None)
    c = Config({} if file is None else read_json(file), str(file))
    c.must("transformer_task", "feature-extraction")
    return c


def _modes(place: Path) -> tuple[Mode, ...]:
    c = Config(read_json(place / "config.json"), f"{place}/config.json")
    c.get(c.either("embedding_dimension", "word_embedding_dimension"), None)
    c.must("include_prompt", True)
    flagged = [mode for key, mode in FLAGS.items() if c.flag(key, False)]
    listed = isinstance(c.get("pooling_mode", None), list)
    named = c.values("pooling_mode", str) if listed else [c.text("pooling_mode", "mean")]
    modes = named if "pooling_mode" in c else flagged or ["mean"]
    c.finish()
    unknown = [mode for mode in modes or () if mode not in MODES]
    if unknown or not modes:
        raise ConfigError(
            f"{c.where}: pooling_mode = {unknown!r:.80} is not computed here; known: {', '.join(MODES)}"
        )
    return tuple(MODES[mode] for mode in modes)


def _step(kind: str, place: Path) -> Step:
    if kind not in ("Dense", "Normalize"):
        raise ConfigError(
            f"{place}: a {kind[:80]} is not computed here; only Dense, Normalize and Dropout are"
        )
    file = place / "config.json"  # a Normalize had none, and no folder, before it had settings
    c = Config(read_json(file) if kind == "Dense" or file.is_file() else {}, str(file))
    c.must("module_input_name", "sentence_embedding")
    c.must("module_output_name", "sentence_embedding")
    step = _dense(c, place) if kind == "Dense" else unit
    c.finish()
    return step


def _dense(c: Config, place: Path) -> Dense:
    c.must("use_residual", False)
    said = c.text("activation_function", "torch.nn.modules.activation.Tanh")
    act = _ACTIVATIONS.get(said.rpartition(".")[2]) if said.startswith("torch.nn.") else None
    if act is None:
        known = ", ".join(_ACTIVATIONS)
        raise ConfigError(
            f"{c.where}: activation_function = {said[:80]!r} is not computed here; torch.nn has {known}"
        )
    outputs, inputs = c.count("out_features"), c.count("in_features")
    bias = {"linear.bias": (outputs,)} if c.flag("bias", True) else {}
    shapes: dict[str, tuple[int, ...]] = {"linear.weight": (outputs, inputs), **bias}
    entries = open_checkpoint(place).entries
    if {name: entry.shape for name, entry in entries.items()} != shapes:
        raise CheckpointError(
            f"holds other tensors than {c.where} tells of, which are {shapes}",
            file=place,
            remedy="Download the folder again",
        )
    tensors = {name: entry.read().float() for name, entry in entries.items()}
    return Dense(tensors["linear.weight"], tensors.get("linear.bias"), act)


def _prompts(folder: Path) -> tuple[Mapping[str, str], str]:
    """Return the prompts by name, and the one that stands before every text unless told."""
    file = folder / "config_sentence_transformers.json"
    c = Config(read_json(file) if file.is_file() else {}, str(file))
    c.must("model_type", "SentenceTransformer")
    said = c.section("prompts")
    prompts = {} if said is None else {name: said.text(name, "") for name in said}
    name = c.text("default_prompt_name", "")
    if name and name not in prompts:
        raise ConfigError(f"{file}: default_prompt_name = {name[:80]!r} is none of {list(prompts)[:10]}")
    return prompts, prompts.get(name, "")
