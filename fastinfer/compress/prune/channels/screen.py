"""Which groups the model's own code can lose: found by running pruned copies of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import fx, nn

from fastinfer.compress.prune.channels.groups import (
    ChannelGroup,
    Refusal,
    Structure,
    removed_indices,
)
from fastinfer.compress.prune.channels.surgery import Attributes
from fastinfer.compress.prune.channels.verify import difference
from fastinfer.types.call import Call, CallSpec

#: Of groups whose code is of one class, all fail where one fails; up to so many are tried alone.
TRIED_ALONE = 4

#: Ways that code names a number of channels, tried in this order: (number, name of the attribute).
_WAYS = ("shapes", "heads", "heads and widths", "every size")


@dataclass(frozen=True)
class Trial:
    """A model and its graph, on which pruned copies are tried."""

    model: nn.Module
    graph_module: fx.GraphModule
    spec: CallSpec
    structure: Structure
    call: Call

    def difference(
        self, removed: Mapping[ChannelGroup, Sequence[int]], ways: Mapping[ChannelGroup, str]
    ) -> str:
        """Return how a copy without these channels differs from what it should be, or ""."""
        indices = removed_indices({g: tuple(c) for g, c in removed.items()})
        attributes = attributes_after(self.model, removed, ways)
        return difference(
            self.model,
            self.graph_module,
            self.spec,
            self.structure,
            indices,
            attributes,
            self.call,
        )


def attributes_after(
    model: nn.Module,
    removed: Mapping[ChannelGroup, Sequence[int]],
    ways: Mapping[ChannelGroup, str],
) -> Attributes:
    """Return the attributes of the user's modules that name the size of a group, and their values.

    ways: how the group's modules name it: from "shapes" there is nothing to do; "heads" are
    integers that count heads or groups by their name, equal to the number of channels; "widths" are
    integers equal to channels x width; "every size" are all integers equal to either.
    """
    result: dict[tuple[str, str], int] = {}
    for group, channels in removed.items():
        way = ways.get(group, "shapes")
        kept = group.channels - len(channels)
        for path in group.modules if way != "shapes" else ():
            module = model.get_submodule(path)
            for name, value in vars(module).items():
                if type(value) is not int:
                    continue
                counts = _counts(name) or way == "every size"
                if counts and value == group.channels:
                    result[path, name] = kept
                elif way in ("heads and widths", "every size") and (
                    value == group.channels * group.width
                ):
                    result[path, name] = kept * group.width
    return result


def _counts(name: str) -> bool:
    """Return True for num_heads and n_groups, and not for head_dim."""
    is_count = "head" in name or "group" in name
    return is_count and not any(part in name for part in ("dim", "size", "width"))


def usable(
    trial: Trial, groups: Sequence[ChannelGroup]
) -> tuple[list[ChannelGroup], dict[ChannelGroup, str], list[Refusal]]:
    """Return the groups that the model's code can lose, how it names their sizes, and the others.

    Groups whose channels go through a reshape, split or slice may be named in code. They are tried
    together where the code is of one class, and alone where that fails and they are few.
    """
    good = [group for group in groups if not group.modules]
    ways: dict[ChannelGroup, str] = {}
    refused: list[Refusal] = []
    kinds: dict[tuple[type, ...], list[ChannelGroup]] = defaultdict(list)
    for group in groups:
        if group.modules:
            modules = {type(trial.model.get_submodule(path)) for path in group.modules}
            kinds[tuple(sorted(modules, key=lambda t: t.__qualname__))].append(group)
    for alike in kinds.values():
        batches = [alike] if len(alike) > TRIED_ALONE else [[g] for g in alike]
        for batch in batches:
            way, reason = _way(trial, batch)
            if way is None:
                refused += [Refusal(g.name, g.channels * g.width, reason) for g in batch]
            else:
                good += batch
                ways.update(dict.fromkeys(batch, way))
    order = {group: i for i, group in enumerate(groups)}
    return sorted(good, key=order.__getitem__), ways, refused


def _way(trial: Trial, batch: Sequence[ChannelGroup]) -> tuple[str | None, str]:
    """Return the way in which a copy works that loses half of each group, or None and why none."""
    removed = {group: _half(group) for group in batch}
    first = ""
    tried: set[frozenset[tuple[tuple[str, str], int]]] = set()
    for way in _WAYS:
        ways = dict.fromkeys(batch, way)
        attributes = frozenset(attributes_after(trial.model, removed, ways).items())
        if attributes in tried:
            continue
        tried.add(attributes)
        reason = trial.difference(removed, ways)
        if not reason:
            return way, ""
        first = first or reason
    return None, first


def _half(group: ChannelGroup) -> tuple[int, ...]:
    """Return half of the channels, spread, the same every time."""
    generator = torch.Generator().manual_seed(group.channels)
    order = torch.randperm(group.channels, generator=generator)
    return tuple(sorted(order[: max(1, group.channels // 2)].tolist()))


def failing(
    trial: Trial, removed: Mapping[ChannelGroup, Sequence[int]], ways: Mapping[ChannelGroup, str]
) -> Iterator[tuple[ChannelGroup, str]]:
    """Yield the groups that fail on their own, and why."""
    for group, channels in removed.items():
        reason = trial.difference({group: channels}, ways)
        if reason:
            yield group, reason
