"""Channels through operators that move, cut and join axes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import fx

from fastinfer.compress.prune.channels.labels import Axis, MaybeAxis
from fastinfer.compress.prune.channels.rules_values import no_channels
from fastinfer.compress.prune.channels.trace import Axes, Split, Trace

Named = Mapping[str, Any]

#: Operators of 1, 2 or 3 spatial axes, which they may resize; the axes before stay as they are.
SPATIAL = (
    *(f"{kind}_pool{n}d" for kind in ("max", "avg", "lp") for n in (1, 2, 3)),
    *(f"adaptive_{kind}_pool{n}d" for kind in ("max", "avg") for n in (1, 2, 3)),
    "upsample_",
    "_upsample_",
    "reflection_pad",
    "replication_pad",
)


def spatial(trace: Trace, node: fx.Node, named: Named) -> Any:
    """Keep the axes before the spatial ones."""
    axes = trace.of(node.args[0])
    count = next(int(c) for c in str(node.target).replace("_with_indices", "") if c in "123")
    for axis in axes[len(axes) - count :]:
        trace.labels.freeze(axis, "an axis that a filter slides along")
    result = (*axes[: len(axes) - count], *(None,) * count)
    value = node.meta.get("val")
    return [result] * len(value) if isinstance(value, (list, tuple)) else result


def reshape(trace: Trace, node: fx.Node, named: Named) -> Axes:
    """Follow channels through axes that are merged and split; see `_block`."""
    source = node.args[0]
    axes, sizes, shape = trace.of(source), trace.shape(source), trace.shape(node)
    result: list[MaybeAxis] = [None] * len(shape)
    if math.prod(sizes) == 0:
        return tuple(result)
    for number, (old, new) in enumerate(_matching(sizes, shape)):
        if len(old) == 1 and len(new) == 1:
            result[new[0]] = axes[old[0]]
            continue
        flat = _merged(trace, node, [(axes[i], sizes[i]) for i in old])
        if flat is None:
            continue
        trace.code_sizes(node, flat)
        owner, labels = _owner(trace, (node.name, number), flat, [shape[i] for i in new])
        result[new[owner]] = labels
    return tuple(result)


def _matching(sizes: tuple[int, ...], shape: tuple[int, ...]) -> list[tuple[list[int], list[int]]]:
    """Return the smallest runs of axes (before, after) that hold the same values."""
    old = [i for i, s in enumerate(sizes) if s != 1]
    new = [i for i, s in enumerate(shape) if s != 1]
    runs = []
    while old and new:
        left, right = [old.pop(0)], [new.pop(0)]
        a, b = sizes[left[0]], shape[right[0]]
        while a != b:
            if a < b:
                left.append(old.pop(0))
                a *= sizes[left[-1]]
            else:
                right.append(new.pop(0))
                b *= shape[right[-1]]
        runs.append((left, right))
    return runs


def _merged(trace: Trace, node: fx.Node, axes: list[tuple[MaybeAxis, int]]) -> MaybeAxis:
    """Return labels of the axes as one. Of several with channels the largest keeps them."""
    held = [i for i, (axis, _) in enumerate(axes) if axis is not None]
    if not held:
        return None
    owner = max(held, key=lambda i: axes[i][1])
    for i in held:
        if i != owner:
            trace.labels.freeze(axes[i][0], "merged into an axis with other channels")
    inner = math.prod(size for _, size in axes[owner + 1 :])
    outer = math.prod(size for _, size in axes[:owner])
    axis = axes[owner][0]
    assert axis is not None
    return np.tile(np.repeat(axis, inner), outer)


def _owner(trace: Trace, key: tuple[str, int], flat: Axis, sizes: list[int]) -> tuple[int, Axis]:
    """Return which of the axes that `flat` is split into has the channels, and their labels.

    Where an axis was only merged before, it is the one along which labels differ. Otherwise every
    axis could be; `trace` tries them, the largest first.
    """
    grid = flat.reshape(sizes)
    for owner in range(len(sizes)):
        columns = np.moveaxis(grid, owner, 0).reshape(sizes[owner], -1)
        if bool((columns == columns[:, :1]).all()):
            return owner, columns[:, 0]
    candidates = sorted(range(len(sizes)), key=lambda i: -sizes[i])
    owner = candidates[min(trace.choices.get(key, 0), len(sizes) - 1)]
    columns = np.moveaxis(grid, owner, 0).reshape(sizes[owner], -1)
    first = np.ascontiguousarray(columns[:, 0])
    others = columns[:, 1:]
    trace.labels.unite(
        np.repeat(first, others.shape[1]), others.reshape(-1), "split off from what is no channel"
    )
    trace.splits.append(Split(key, len(sizes), first))
    return owner, first


def permute(trace: Trace, node: fx.Node, named: Named) -> Axes:
    """Reorder the axes."""
    axes = trace.of(node.args[0])
    rank = len(axes)
    positions = list(range(rank))
    if "dims" in named:
        positions = [int(d) % rank for d in named["dims"]]
    elif "dim0" in named:
        a, b = int(named["dim0"]) % rank, int(named["dim1"]) % rank
        positions[a], positions[b] = b, a
    elif "source" in named:
        source = _listed(named["source"], rank)
        target = _listed(named["destination"], rank)
        rest = iter(i for i in range(rank) if i not in source)
        positions = [source[target.index(i)] if i in target else next(rest) for i in range(rank)]
    else:
        positions = positions[::-1]
    return tuple(axes[i] for i in positions)


def _listed(dims: Any, rank: int) -> list[int]:
    return [int(d) % rank for d in (dims if isinstance(dims, (list, tuple)) else [dims])]


def unsqueeze(trace: Trace, node: fx.Node, named: Named) -> Axes:
    """Insert an axis of size 1."""
    axes = list(trace.of(node.args[0]))
    axes.insert(int(named["dim"]) % (len(axes) + 1), None)
    return tuple(axes)


def squeeze(trace: Trace, node: fx.Node, named: Named) -> Axes:
    """Drop axes of size 1."""
    axes, sizes = trace.of(node.args[0]), trace.shape(node.args[0])
    dims = _listed(named["dim"], len(axes)) if "dim" in named else range(len(axes))
    return tuple(a for i, a in enumerate(axes) if not (i in dims and sizes[i] == 1))


def expand(trace: Trace, node: fx.Node, named: Named) -> Axes:
    """Keep axes that are not expanded."""
    axes, sizes, shape = trace.of(node.args[0]), trace.shape(node.args[0]), trace.shape(node)
    new = (None,) * (len(shape) - len(axes))
    kept = tuple(
        a if size == wanted else None
        for a, size, wanted in zip(axes, sizes, shape[len(new) :], strict=True)
    )
    for axis in kept:
        trace.code_sizes(node, axis)
    return (*new, *kept)


def repeat(trace: Trace, node: fx.Node, named: Named) -> Axes:
    """Keep axes that are repeated once."""
    axes, sizes, shape = trace.of(node.args[0]), trace.shape(node.args[0]), trace.shape(node)
    new = (None,) * (len(shape) - len(axes))
    result: list[MaybeAxis] = list(new)
    for axis, size, wanted in zip(axes, sizes, shape[len(new) :], strict=True):
        if size != wanted:
            trace.labels.freeze(axis, "repeated")
        result.append(axis if size == wanted else None)
    return tuple(result)


def cat(trace: Trace, node: fx.Node, named: Named) -> Axes:
    """Put the channels of all tensors behind each other along one axis, and unite the others."""
    tensors = [n for n in node.args[0] if len(trace.shape(n)) == len(trace.shape(node))]  # type: ignore[union-attr]
    rank = len(trace.shape(node))
    dim = int(named["dim"]) % rank
    result: list[MaybeAxis] = []
    for i in range(rank):
        parts = [(trace.of(n)[i], trace.shape(n)[i]) for n in tensors]
        if i == dim:
            result.append(_joined(parts))
            continue
        found = parts[0][0]
        for axis, _ in parts[1:]:
            found = trace.labels.unite(found, axis, "joined with what are no channels")
        result.append(found)
    return tuple(result)


def _joined(parts: list[tuple[MaybeAxis, int]]) -> MaybeAxis:
    if all(axis is None for axis, _ in parts):
        return None
    return np.concatenate(
        [np.zeros(size, np.int64) if axis is None else axis for axis, size in parts]
    )


def stack(trace: Trace, node: fx.Node, named: Named) -> Axes:
    """Unite the channels of all tensors, along a new axis."""
    tensors = list(node.args[0])  # type: ignore[arg-type]
    axes = list(trace.of(tensors[0]))
    for other in tensors[1:]:
        axes = [
            trace.labels.unite(a, b, "joined with what are no channels")
            for a, b in zip(axes, trace.of(other), strict=True)
        ]
    axes.insert(int(named["dim"]) % (len(axes) + 1), None)
    return tuple(axes)


def split(trace: Trace, node: fx.Node, named: Named) -> list[Axes]:
    """Cut an axis. Equal pieces are cut by their share, so they must go on to be equal."""
    axes = trace.of(node.args[0])
    values = node.meta["val"]
    dim = int(named["dim"]) % len(axes)
    sizes = [int(v.shape[dim]) for v in values]
    axis = axes[dim]
    if axis is None:
        return [axes] * len(sizes)
    trace.code_sizes(node, axis)
    ends = np.cumsum(sizes)
    pieces: list[MaybeAxis] = list(np.split(axis, ends[:-1]))
    if len(set(sizes)) == 1:
        for piece in pieces[1:]:
            trace.labels.unite(pieces[0], piece, "cut from what is no channel")
    return [(*axes[:dim], piece, *axes[dim + 1 :]) for piece in pieces]


def unbind(trace: Trace, node: fx.Node, named: Named) -> list[Axes]:
    """Drop an axis whose indices go separate ways."""
    axes = trace.of(node.args[0])
    dim = int(named["dim"]) % len(axes)
    trace.labels.freeze(axes[dim], "its indices go separate ways")
    return [(*axes[:dim], *axes[dim + 1 :])] * len(node.meta["val"])


def select(trace: Trace, node: fx.Node, named: Named) -> Axes:
    """Drop an axis of which one index is taken."""
    axes = trace.of(node.args[0])
    dim = int(named["dim"]) % len(axes)
    trace.labels.freeze(axes[dim], "one index of it is taken")
    return (*axes[:dim], *axes[dim + 1 :])


def slice_axis(trace: Trace, node: fx.Node, named: Named) -> Axes:
    """Cut a range out of an axis."""
    axes = list(trace.of(node.args[0]))
    dim = int(named["dim"]) % len(axes)
    axis = axes[dim]
    if axis is not None:
        start, end = named["start"], named["end"]
        bounds = [None if b is None else int(b) for b in (start, end)]
        axes[dim] = axis[slice(bounds[0], bounds[1], int(named["step"]))]
        if trace.shape(node) != trace.shape(node.args[0]):
            trace.code_sizes(node, axis)
    return tuple(axes)


def pad(trace: Trace, node: fx.Node, named: Named) -> Axes:
    """Add indices that stay at both ends of axes."""
    axes = list(trace.of(node.args[0]))
    widths = [int(w) for w in named["pad"]]
    for back, (before, after) in enumerate(zip(widths[::2], widths[1::2], strict=True), 1):
        axis = axes[-back]
        if axis is None or (before, after) == (0, 0):
            continue
        if before < 0 or after < 0 or named.get("mode", "constant") != "constant":
            trace.labels.freeze(axis, "cut or mirrored by a pad")
            axes[-back] = None
            continue
        axes[-back] = np.pad(axis, (before, after))
        trace.code_sizes(node, axis)
    return tuple(axes)


def pixel_shuffle(trace: Trace, node: fx.Node, named: Named) -> Axes:
    """Unite the channels that become one."""
    axes = trace.of(node.args[0])
    axis = axes[-3]
    if axis is None:
        return no_channels(trace, node)
    squares = axis.reshape(-1, int(named["upscale_factor"]) ** 2)
    first = np.ascontiguousarray(squares[:, 0])
    repeated = np.repeat(first, squares.shape[1] - 1)
    trace.labels.unite(repeated, squares[:, 1:].reshape(-1), "shuffled with what is no channel")
    return (*axes[:-3], first, None, None)


def channel_shuffle(trace: Trace, node: fx.Node, named: Named) -> Axes:
    """Interleave groups of channels; all groups lose the same ones."""
    axes = list(trace.of(node.args[0]))
    if axes[1] is None:
        return tuple(axes)
    groups = axes[1].reshape(int(named["groups"]), -1)
    for other in groups[1:]:
        trace.labels.unite(groups[0], other, "shuffled with what is no channel")
    axes[1] = np.ascontiguousarray(groups.T).reshape(-1)
    return tuple(axes)


def index(trace: Trace, node: fx.Node, named: Named) -> Axes:
    """Keep the axes beside a single indexed one, whose channels stay."""
    axes = trace.of(node.args[0])
    indices = list(named["indices"])
    used = [i for i, value in enumerate(indices) if value is not None]
    for i in used if len(used) == 1 else range(len(axes)):
        trace.labels.freeze(axes[i], "indexed by values")
    if len(used) != 1:
        return no_channels(trace, node)
    new = (None,) * len(trace.shape(indices[used[0]]))
    return (*axes[: used[0]], *new, *axes[used[0] + 1 :])


def moved_within(trace: Trace, node: fx.Node, named: Named) -> Axes:
    """Keep the axes beside those whose indices move; channels of those stay."""
    axes = trace.of(node.args[0])
    dims = _listed(named["dims"], len(axes)) or list(range(len(axes)))
    for dim in dims:
        trace.labels.freeze(axes[dim], f"{node.target} along channels")
    return tuple(None if i in dims else a for i, a in enumerate(axes))
