"""Published tensor names and layouts to ours, and back.

A rule maps the path of a module in the file to the path of a module in the model. `*` stands for a number,
`[...]` for a part that some files have, and the leaf (`weight`, `bias`, `weight_scale`) rides along; a path
that ends in `:leaf` names that too. What a file holds otherwise than the model is a layout: Stacked, ByHead,
Turned. The same table, read backwards, saves.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from .bricks import Slotted
from .errors import CheckpointError


@dataclass(frozen=True)
class Drop:
    """A rule's target for what a file holds and no model needs: buffers that are computed."""


DROP = Drop()


class Layout(Protocol):
    """How published tensors hold ours."""

    @property
    def targets(self) -> tuple[str, ...]:
        """Our paths, in the order in which they are held."""
        ...

    def split(self, whole: Tensor, shapes: Sequence[tuple[int, ...]], heads: int) -> list[Tensor]:
        """Return our tensors, of the shapes given. heads: key/value heads of the attention they are in.

        Raises ValueError or RuntimeError for a tensor that cannot be cut so.
        """
        ...

    def join(self, parts: Sequence[Tensor], heads: int) -> Tensor:
        """Return the published tensor: split, backwards."""
        ...


@runtime_checkable
class Packed(Protocol):
    """A module whose tensors do not all have their output channels first: packed integers, their scales.

    output_axes: by the tensor's own name, where it has them; None where all channels share the tensor. What
    is not named has them first, as every layout expects. repeats: how often each element of a published
    tensor stands in ours, one after another; once where it is not named. What packs a matrix packs it with
    its output channels first, also where the plain one is stored turned.
    """

    output_axes: ClassVar[Mapping[str, int | None]]
    repeats: Mapping[str, int]


@dataclass(frozen=True)
class Same:
    """The tensor itself."""

    target: str

    @property
    def targets(self) -> tuple[str, ...]:
        return (self.target,)

    def split(self, whole: Tensor, shapes: Sequence[tuple[int, ...]], heads: int) -> list[Tensor]:
        return [whole]

    def join(self, parts: Sequence[Tensor], heads: int) -> Tensor:
        return parts[0]


@dataclass(frozen=True)
class Stacked:
    """Several of ours, one after another along the output channels, which come first.

    groups: how many equal pieces the output channels fall into, each with its share of every target in turn.
    """

    targets: tuple[str, ...]
    groups: int = 1

    def split(self, whole: Tensor, shapes: Sequence[tuple[int, ...]], heads: int) -> list[Tensor]:
        if self.groups == 1:  # views of the file
            return list(whole.split([shape[0] for shape in shapes]))
        pieces = whole.unflatten(0, (self.groups, -1)).split([shape[0] // self.groups for shape in shapes], 1)
        return [piece.flatten(0, 1) for piece in pieces]

    def join(self, parts: Sequence[Tensor], heads: int) -> Tensor:
        return torch.cat([part.unflatten(0, (self.groups, -1)) for part in parts], 1).flatten(0, 1)


@dataclass(frozen=True)
class ByHead:
    """q, k and v in as many groups as there are key/value heads: each its query heads, its key, its value."""

    attn: str

    @property
    def targets(self) -> tuple[str, ...]:
        return f"{self.attn}.q", f"{self.attn}.k", f"{self.attn}.v"

    def split(self, whole: Tensor, shapes: Sequence[tuple[int, ...]], heads: int) -> list[Tensor]:
        return Stacked(self.targets, heads).split(whole, shapes, heads)

    def join(self, parts: Sequence[Tensor], heads: int) -> Tensor:
        return Stacked(self.targets, heads).join(parts, heads)


@dataclass(frozen=True)
class Each:
    """Several of ours in one tensor with one dimension more, which comes first: one for each expert."""

    targets: tuple[str, ...]

    def split(self, whole: Tensor, shapes: Sequence[tuple[int, ...]], heads: int) -> list[Tensor]:
        return list(whole.unbind(0))

    def join(self, parts: Sequence[Tensor], heads: int) -> Tensor:
        return torch.stack(list(parts))


@dataclass(frozen=True)
class Taps:
    """The kernel of a convolution, (output channels, input channels, taps, 1): one matrix of ours each."""

    targets: tuple[str, ...]

    def split(self, whole: Tensor, shapes: Sequence[tuple[int, ...]], heads: int) -> list[Tensor]:
        return [tap.contiguous() for tap in whole.reshape(*whole.shape[:2], -1).unbind(-1)]

    def join(self, parts: Sequence[Tensor], heads: int) -> Tensor:
        return torch.stack(list(parts), -1)[..., None]


@dataclass(frozen=True)
class InRows:
    """A vector stored as a matrix of so many rows."""

    target: str
    rows: int

    @property
    def targets(self) -> tuple[str, ...]:
        return (self.target,)

    def split(self, whole: Tensor, shapes: Sequence[tuple[int, ...]], heads: int) -> list[Tensor]:
        if whole.shape[0] != self.rows:
            raise ValueError(f"{whole.shape[0]} rows, and there should be {self.rows}")
        return [whole.flatten()]

    def join(self, parts: Sequence[Tensor], heads: int) -> Tensor:
        return parts[0].view(self.rows, -1)


@dataclass(frozen=True)
class Turned:
    """A matrix stored (input channels, output channels), as GPT-2's Conv1D has it; vectors as they are."""

    inner: Layout | str

    @property
    def layout(self) -> Layout:
        return _layout(self.inner)

    @property
    def targets(self) -> tuple[str, ...]:
        return self.layout.targets

    def split(self, whole: Tensor, shapes: Sequence[tuple[int, ...]], heads: int) -> list[Tensor]:
        return [part.contiguous() for part in self.layout.split(_turn(whole), shapes, heads)]

    def join(self, parts: Sequence[Tensor], heads: int) -> Tensor:
        return _turn(self.layout.join(parts, heads)).contiguous()


def _turn(tensor: Tensor) -> Tensor:
    return tensor.mT if tensor.ndim > 1 else tensor


# Several published paths are one tensor that was cut along its output channels, in pieces that are equal, or
# of which the first have one more.
Rules = Mapping[str | tuple[str, ...], str | Layout | Drop]

# What training leaves beside the weights in published files of any family, by the last part of its name.
LEFTOVERS = frozenset({"position_ids", "steps"})


@dataclass(frozen=True)
class Use:
    """Published tensors, together, and the tensors of the model that they hold."""

    published: tuple[str, ...]
    ours: tuple[str, ...]
    layout: Layout

    def split(
        self, pieces: Sequence[Tensor], model: nn.Module, shapes: Sequence[tuple[int, ...]]
    ) -> list[Tensor]:
        """Return our tensors, of the shapes given, from the published ones.

        Raises ValueError or RuntimeError for a tensor that cannot be cut so.
        """
        axis, times, layout = self._stored(model)
        heads = _heads(model, self.ours[0])
        if axis is None:
            (shared,) = pieces
            return [shared] * len(shapes)
        whole = pieces[0] if len(pieces) == 1 else torch.cat(list(pieces), axis)
        if times > 1:  # the last may stand for fewer
            whole = whole.repeat_interleave(times, axis)[: sum(shape[axis] for shape in shapes)]
        if axis == 0:
            return layout.split(whole, shapes, heads)
        first = [(shape[axis], *shape[:axis], *shape[axis + 1 :]) for shape in shapes]
        parts = layout.split(whole.movedim(axis, 0), first, heads)
        return [part.movedim(0, axis).contiguous() for part in parts]

    def join(self, parts: Sequence[Tensor], model: nn.Module) -> dict[str, Tensor]:
        """Return the published tensors from ours."""
        axis, times, layout = self._stored(model)
        heads = _heads(model, self.ours[0])
        if axis is None:
            return dict.fromkeys(self.published, parts[0])
        whole = layout.join([part.movedim(axis, 0) for part in parts], heads)[::times].movedim(0, axis)
        pieces = whole.contiguous().tensor_split(len(self.published), axis)
        return dict(zip(self.published, pieces, strict=True))

    def _stored(self, model: nn.Module) -> tuple[int | None, int, Layout]:
        """Return where our tensors have output channels, how often elements are repeated, and the layout."""
        path, _, leaf = self.ours[0].rpartition(".")
        owner = model.get_submodule(path)
        if not isinstance(owner, Packed):
            return 0, 1, self.layout
        upright = self.layout.layout if isinstance(self.layout, Turned) else self.layout
        return owner.output_axes.get(leaf, 0), owner.repeats.get(leaf, 1), upright


@dataclass(frozen=True)
class Match:
    """Which published tensors fill which tensors of the model, and what was left over on either side."""

    uses: tuple[Use, ...]
    dropped: frozenset[str] = field(default_factory=frozenset)
    missing: tuple[str, ...] = ()  # published names
    stray: tuple[str, ...] = ()

    def check(self, file: object) -> None:
        """Raise CheckpointError unless every tensor of both sides has its counterpart."""
        if self.missing or self.stray:
            sides = [
                ("the model needs, the file lacks", self.missing),
                ("the file holds, the model lacks", self.stray),
            ]
            said = "; ".join(f"{what} {len(names)}: {some(names)}" for what, names in sides if names)
            raise CheckpointError(
                said,
                file=str(file),
                remedy="The config and the weights belong to different models, or the download is incomplete",
            )


def match(rules: Rules, published: Iterable[str], wanted: Mapping[str, object]) -> Match:
    """Pair the names of a file with the names of a model.

    wanted: our tensor names, each with the identity of its storage, so that one of several tied names is
    enough.
    """
    table, names = _compile(rules), list(published)
    known, done = set(names), set[str]()
    uses, dropped, stray, lacking = [], set[str](), list[str](), dict[object, str]()
    for name in names:
        if name in done:
            continue
        use = _use(name, table)
        if isinstance(use, Drop) or (use is None and name.rpartition(".")[2] in LEFTOVERS):
            dropped.add(name)
        elif use is None or not all(ours in wanted for ours in use.ours):
            stray.append(name)
        else:
            uses.append(use)
            done.update(use.published)
            lacking.update((other, other) for other in use.published if other not in known)
    filled = {wanted[ours] for use in uses for ours in use.ours}
    for name, storage in wanted.items():  # tied tensors under their first name
        if storage not in filled:
            lacking.setdefault(storage, _expected(rules, name, known))
    return Match(tuple(uses), frozenset(dropped), tuple(dict.fromkeys(lacking.values())), tuple(stray))


def places(rules: Rules, published: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return the tensors of ours that published ones hold, by name; without what no rule keeps."""
    table = _compile(rules)
    found = {name: _use(name, table) for name in published}
    return {name: use.ours for name, use in found.items() if isinstance(use, Use)}


def _expected(rules: Rules, ours: str, known: Collection[str]) -> str:
    """Return what this file would call our tensor, which its family may call in several ways."""
    kinds = {re.sub(r"\d+", "*", name) for name in known}
    roots, leaves = {name.partition(".")[0] for name in known}, {name.rpartition(".")[2] for name in known}
    modules = {name.rpartition(".")[0] for name in known}

    def nearest(forms: Sequence[str]) -> str:  # of one rule, with its `[...]` and without
        return max(forms, key=lambda name: (like(name), name.partition(".")[0] in roots))

    def like(name: str) -> tuple[bool, bool, bool]:
        module, _, leaf = name.rpartition(".")
        return re.sub(r"\d+", "*", name) in kinds, module in modules, leaf in leaves

    # The first of the likeliest: a table begins with what is published most.
    return max(map(nearest, _spellings(rules, ours)), key=like, default=ours)


def _spellings(rules: Rules, ours: str) -> Iterator[tuple[str, str]]:
    """Yield what each rule calls our tensor, without its `[...]` and with: the table, backwards."""
    for theirs, target in rules.items():
        paths = () if isinstance(target, Drop) else _layout(target).targets
        for hit in filter(None, (_pattern(path).fullmatch(ours) for path in paths)):
            source = theirs if isinstance(theirs, str) else theirs[-1]
            bare, full = re.sub(r"\[.*?\]", "", source), source.replace("[", "").replace("]", "")
            yield _fill(bare, hit), _fill(full, hit)


_Table = list[tuple[re.Pattern[str], tuple[str, ...], str | Layout | Drop]]


def _compile(rules: Rules) -> _Table:
    out: _Table = []
    for theirs, target in rules.items():
        sources = (theirs,) if isinstance(theirs, str) else theirs
        out.extend((_pattern(source), sources, target) for source in sources)
    return out


def _pattern(path: str) -> re.Pattern[str]:
    path, _, leaf = path.partition(":")
    wild = re.escape(path).replace(r"\*", r"(\d+)").replace(r"\[", "(?:").replace(r"\]", ")?")
    leaf = leaf or r"\w+"
    return re.compile(rf"{wild}{re.escape(_joint(path))}({leaf})" if path else f"({leaf})")


def _joint(path: str) -> str:
    """Return what stands between the parts of a path: TensorFlow's has slashes."""
    return "/" if "/" in path else "."


def _use(name: str, table: _Table) -> Use | Drop | None:
    for pattern, sources, target in table:
        if hit := pattern.fullmatch(name):
            if isinstance(target, Drop):
                return target
            single = len(sources) == 1
            use = _filled(sources, _layout(target), hit)
            return replace(use, published=(name,)) if single else use
    return None


def _filled(sources: Sequence[str], layout: Layout, hit: re.Match[str]) -> Use:
    published = tuple(_fill(source, hit) for source in sources)
    return Use(published, tuple(_fill(target, hit) for target in layout.targets), layout)


def _fill(path: str, hit: re.Match[str]) -> str:
    *numbers, leaf = hit.groups()
    path, _, own = path.partition(":")
    for number in numbers:
        path = path.replace("*", number, 1)
    return _joint(path).join(part for part in (path, own or leaf) if part)


def _layout(target: str | Layout) -> Layout:
    return Same(target) if isinstance(target, str) else target


def _heads(model: nn.Module, name: str) -> int:
    """Return the key/value heads of the attention that a tensor is in; 1 outside of any."""
    owner = model.get_submodule(name.rpartition(".")[0].rpartition(".")[0])
    return owner.slot.heads if isinstance(owner, Slotted) else 1


def some(names: Sequence[str]) -> str:
    """Return the first ten names, for an error."""
    return ", ".join(name[:200] for name in names[:10]) + (", ..." if len(names) > 10 else "")
