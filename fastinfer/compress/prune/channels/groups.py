"""Channels that go together, as values: which slices of which tensors one channel of a group is."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, fx

from fastinfer.compress.prune.channels.labels import Axis, Classes
from fastinfer.compress.prune.channels.trace import Product, Trace, trace

#: What a tensor's axis is to a channel: its rows make it, its columns read it, or it goes along.
ROLES = ("makes", "reads", "follows")


@dataclass(frozen=True)
class Member:
    """`indices[c]` along `axis` of the model's tensor `name` belong to channel c of the group."""

    name: str
    axis: int
    role: str
    indices: tuple[tuple[int, ...], ...]

    def table(self) -> NDArray[np.int64]:
        """Return the indices as [channels, indices of each]."""
        return np.array(self.indices, dtype=np.int64)


@dataclass(frozen=True)
class ChannelGroup:
    """Channels of equal form, any of which can be removed without the others.

    name: the first layer that makes them. residual: they are sums of several layers' outputs.
    renormalized: a norm takes statistics over them, so removing some changes the others.
    modules: submodules whose code may name the number of channels.
    """

    name: str
    members: tuple[Member, ...]
    residual: bool = False
    renormalized: bool = False
    modules: tuple[str, ...] = ()

    @property
    def channels(self) -> int:
        """How many channels the group has."""
        return len(self.members[0].indices)

    @property
    def width(self) -> int:
        """How many channels of a tensor one of the group is: head_dim where it is a head."""
        return min(len(m.indices[0]) for m in self.members)


@dataclass(frozen=True)
class Refusal:
    """Channels that stay, by the layer that makes them, and why."""

    name: str
    channels: int
    reason: str


@dataclass(frozen=True)
class Structure:
    """What of a model can go: its groups, what stays, and sizes to count with.

    shapes: of every tensor; products: of layers, to count multiplications; statistics: names of
    running means and variances. `found` and `classes` are what it was made from.
    """

    groups: tuple[ChannelGroup, ...]
    refused: tuple[Refusal, ...]
    shapes: Mapping[str, tuple[int, ...]]
    products: tuple[Product, ...]
    parameters: frozenset[str]
    found: Trace
    classes: Classes


def find_groups(
    graph_module: fx.GraphModule,
    tensors: Mapping[str, Tensor],
    parameters: frozenset[str],
) -> Structure:
    """Return the groups of channels of a graph that was captured with fixed sizes.

    Args:
        graph_module: its tensors are under their names in `tensors`.
        tensors: parameters and buffers of the model by name.
        parameters: the names that are parameters.
    """
    found, classes = trace(graph_module, tensors)
    slices = _slices(found, classes)
    made, read = _labels(found.made), _labels(found.read)
    roles = {
        key: "makes" if _any(axis, made) else "reads" if _any(axis, read) else "follows"
        for key, axis in found.tensors.items()
    }
    streams = _classes_of(found.streams, classes)
    norms = _classes_of(list(found.norms.values()), classes)
    places = [(path, _classes_of([axis], classes)) for path, axis in found.reshapes]
    forms: dict[tuple[tuple[tuple[str, int], int], ...], list[int]] = defaultdict(list)
    refused: dict[tuple[str, str], int] = defaultdict(int)
    for root, parts in slices.items():
        has = {roles[key] for key, _ in parts}
        if "makes" not in has:
            continue
        name = _layer(next(key for key, _ in parts if roles[key] == "makes"))
        reason = classes.reasons.get(root)
        if reason is None and "reads" not in has:
            reason = "no layer reads it"
        if reason is not None:
            refused[name, reason] += 1
            continue
        form = tuple((key, len(indices)) for key, indices in parts)
        forms[form].append(root)
    groups = []
    for form, roots in forms.items():
        keys = [key for key, _ in form]
        members = tuple(
            Member(*key, roles[key], tuple(slices[root][i][1] for root in roots))
            for i, key in enumerate(keys)
        )
        name = _layer(next(key for key in keys if roles[key] == "makes"))
        if len(roots) == 1:
            refused[name, "all its channels go together"] += 1
            continue
        own = set(roots)
        modules = tuple(dict.fromkeys(path for path, labels in places if labels & own))
        groups.append(ChannelGroup(name, members, bool(streams & own), bool(norms & own), modules))
    return Structure(
        tuple(groups),
        tuple(Refusal(name, count, reason) for (name, reason), count in refused.items()),
        {name: tuple(tensor.shape) for name, tensor in tensors.items()},
        tuple(found.products),
        parameters,
        found,
        classes,
    )


def _slices(
    found: Trace, classes: Classes
) -> dict[int, list[tuple[tuple[str, int], tuple[int, ...]]]]:
    """Return for each class the indices of each tensor axis that are of it."""
    slices: dict[int, list[tuple[tuple[str, int], tuple[int, ...]]]] = defaultdict(list)
    for key, axis in found.tensors.items():
        roots = classes.of(axis)
        by_root = np.argsort(roots, kind="stable")
        starts = np.flatnonzero(np.diff(roots[by_root], prepend=-1))
        for indices in np.split(by_root, starts[1:]):
            slices[int(roots[indices[0]])].append((key, tuple(indices.tolist())))
    return slices


def _labels(axes: list[Axis]) -> set[int]:
    return {int(label) for axis in axes for label in axis}


def _any(axis: Axis, labels: set[int]) -> bool:
    return int(axis[0]) in labels


def _classes_of(axes: list[Axis], classes: Classes) -> set[int]:
    return {int(root) for axis in axes for root in np.unique(classes.of(axis))}


def _layer(key: tuple[str, int]) -> str:
    return key[0].rpartition(".")[0] or key[0]


def removed_indices(
    structure_groups: Mapping[ChannelGroup, tuple[int, ...]],
) -> dict[tuple[str, int], NDArray[np.int64]]:
    """Return for each tensor axis the indices that go, from the channels of each group that do."""
    gone: dict[tuple[str, int], list[NDArray[np.int64]]] = defaultdict(list)
    for group, channels in structure_groups.items():
        for member in group.members if channels else ():
            gone[member.name, member.axis].append(member.table()[list(channels)].reshape(-1))
    return {key: np.unique(np.concatenate(parts)) for key, parts in gone.items()}


def shapes_after(
    shapes: Mapping[str, tuple[int, ...]], removed: Mapping[tuple[str, int], NDArray[np.int64]]
) -> dict[str, tuple[int, ...]]:
    """Return the tensors' shapes without the removed indices."""
    result = {name: list(shape) for name, shape in shapes.items()}
    for (name, axis), indices in removed.items():
        result[name][axis] -= len(indices)
    return {name: tuple(shape) for name, shape in result.items()}


def count_parameters(structure: Structure, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Return how many parameters a model of these shapes has."""
    return sum(math.prod(shapes[name]) for name in structure.parameters)


def count_multiplications(structure: Structure, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Return the multiplications of convolutions and linears on the example, with these shapes."""
    return sum(math.prod(shapes[p.weight]) * p.positions for p in structure.products)
