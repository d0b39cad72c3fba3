"""How many channels each group keeps, and which."""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fastinfer.compress.prune.channels.groups import (
    ChannelGroup,
    Structure,
    count_multiplications,
    count_parameters,
)

ALLOCATIONS = ("global", "uniform")

#: Tensors at least this wide keep multiples of WIDE: the engine lays out channels in blocks of 64.
WIDE_FROM, WIDE = 256, 64


@dataclass(frozen=True)
class Choice:
    """The channels of a group that go, ascending, and the share of importance that is kept."""

    group: ChannelGroup
    removed: tuple[int, ...]
    importance_kept: float


def sizes_allowed(group: ChannelGroup, round_to: int, most: float) -> list[int]:
    """Return how many channels the group may keep, descending, the first being all of them.

    Kept tensor channels are a multiple of round_to, of 64 where the group is wide, and at least
    round_to and 1 - most of what there is.
    """
    width = group.channels * group.width
    step = max(round_to, WIDE) if width >= WIDE_FROM and WIDE % round_to == 0 else round_to
    step //= math.gcd(step, group.width)
    least = max(step, math.ceil((1 - most) * group.channels - 1e-9))
    fitting = [k for k in range(group.channels - 1, 0, -1) if k % step == 0 and k >= least]
    return [group.channels, *fitting]


def choose_uniform(
    groups: Sequence[ChannelGroup],
    importance: Sequence[Tensor],
    sparsity: float,
    round_to: int,
) -> list[Choice]:
    """Return choices that keep 1 - sparsity of the channels of every group, or the nearest size."""
    choices = []
    for group, values in zip(groups, importance, strict=True):
        wanted = (1 - sparsity) * group.channels
        allowed = sizes_allowed(group, round_to, 1.0)
        kept = min(allowed, key=lambda k: (abs(k - wanted), -k))
        choices.append(_choice(group, values, kept))
    return choices


def choose_global(
    structure: Structure,
    groups: Sequence[ChannelGroup],
    importance: Sequence[Tensor],
    sparsity: float,
    round_to: int,
    most: float,
) -> list[Choice]:
    """Return choices that remove `sparsity` of the model's parameters, the least important first.

    Steps between allowed sizes of all groups are ranked by the importance they lose, as a share of
    what the group still has, times what it had, divided by the share of parameters and of
    multiplications they save.

    Raises:
        ValueError: so many parameters cannot go; the text says how many can.
    """
    counter = _Counter(structure)
    target = (1 - sparsity) * counter.parameters
    steps: list[tuple[float, int, int]] = []
    sizes = [sizes_allowed(group, round_to, most) for group in groups]
    ordered = [values.sort().values.double() for values in importance]
    place = [0] * len(groups)

    def push(index: int) -> None:
        allowed = sizes[index]
        if place[index] + 1 == len(allowed):
            return
        before, after = allowed[place[index]], allowed[place[index] + 1]
        group, total = groups[index], groups[index].channels
        lost = float(ordered[index][total - before : total - after].sum())
        # Estimates hold for single channels; those that are left of few carry what went, too.
        lost *= float(ordered[index].sum()) / max(
            float(ordered[index][total - before :].sum()), 1e-30
        )
        saved = counter.share_of(group) * (before - after)
        heapq.heappush(steps, (lost / max(saved, 1e-30), index, place[index] + 1))

    for index in range(len(groups)):
        push(index)
    while counter.parameters_now() > target and steps:
        _, index, position = heapq.heappop(steps)
        gone = sizes[index][position - 1] - sizes[index][position]
        counter.remove(groups[index], gone)
        place[index] = position
        push(index)
    if counter.parameters_now() > target:
        reached = 1 - counter.parameters_now() / counter.parameters
        raise ValueError(
            f"prune_channels: sparsity: {sparsity:g} of the parameters cannot go; with "
            f"round_to={round_to}, max_sparsity={most:g} and what may be pruned at most "
            f"{math.floor(reached * 1000) / 1000:g} can"
        )
    return [
        _choice(group, values, sizes[i][place[i]])
        for i, (group, values) in enumerate(zip(groups, importance, strict=True))
    ]


def _choice(group: ChannelGroup, values: Tensor, kept: int) -> Choice:
    order = torch.argsort(values, stable=True)
    removed = order[: group.channels - kept]
    total = float(values.double().sum())
    lost = float(values.double()[removed].sum())
    share = 1 - lost / total if total > 0 else kept / group.channels
    return Choice(group, tuple(sorted(removed.tolist())), share)


class _Counter:
    """Counts the parameters of a model while channels go."""

    def __init__(self, structure: Structure) -> None:
        self._structure = structure
        self._shapes = {name: list(shape) for name, shape in structure.shapes.items()}
        self.parameters = count_parameters(structure, structure.shapes)
        self._now = self.parameters
        self._multiplications = max(count_multiplications(structure, structure.shapes), 1)
        self._positions: dict[str, int] = {}
        for product in structure.products:
            known = self._positions.get(product.weight, 0)
            self._positions[product.weight] = known + product.positions

    def parameters_now(self) -> int:
        return self._now

    def share_of(self, group: ChannelGroup) -> float:
        """Return the share of parameters and multiplications of one channel, in the dense model."""
        parameters = multiplications = 0.0
        for member in group.members:
            shape = self._structure.shapes[member.name]
            values = math.prod(shape) / shape[member.axis] * len(member.indices[0])
            if member.name in self._structure.parameters:
                parameters += values
            multiplications += values * self._positions.get(member.name, 0)
        return parameters / self.parameters + multiplications / self._multiplications

    def remove(self, group: ChannelGroup, channels: int) -> None:
        names = {m.name for m in group.members if m.name in self._structure.parameters}
        before = sum(math.prod(self._shapes[name]) for name in names)
        for member in group.members:
            self._shapes[member.name][member.axis] -= channels * len(member.indices[0])
        self._now += sum(math.prod(self._shapes[name]) for name in names) - before


def removed_by_group(choices: Sequence[Choice]) -> Mapping[ChannelGroup, tuple[int, ...]]:
    """Return the channels that go of each group that loses some."""
    return {choice.group: choice.removed for choice in choices if choice.removed}
