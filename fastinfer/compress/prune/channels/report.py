"""What channel pruning did to a model: a row for each group, what stayed, and totals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import nn

from fastinfer.compress.prune.channels.groups import Refusal

ATTRIBUTE = "_channel_report"


@dataclass(frozen=True)
class GroupPruning:
    """Channels of a group before and after; importance_kept is a share.

    layers: those that make the channels. width: channels of their outputs that one of the group is.
    """

    name: str
    layers: tuple[str, ...]
    channels: int
    kept: int
    width: int
    importance_kept: float


@dataclass(frozen=True)
class ChannelReport:
    """How channels were pruned. Multiplications are of convolutions and linears on the example.

    compensated: layers that were refitted, and the share of their output's power that they miss.
    str() is a table for people.
    """

    importance: str
    groups: tuple[GroupPruning, ...]
    refused: tuple[Refusal, ...]
    parameters: tuple[int, int]
    multiplications: tuple[int, int]
    compensated: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as JSON-able values."""
        return asdict(self)

    def __str__(self) -> str:
        """Return a table for people."""
        before, after = self.parameters
        macs, macs_after = self.multiplications
        width = max([len(g.name) for g in self.groups] + [len(r.name) for r in self.refused] + [5])
        lines = [
            f"channels pruned by {self.importance}: parameters {before:,} -> {after:,} "
            f"({1 - after / max(before, 1):.1%} fewer), multiplications {macs:,} -> {macs_after:,} "
            f"({1 - macs_after / max(macs, 1):.1%} fewer)",
            f"{'group':<{width}}  {'before':>6}  {'after':>6}  importance kept",
        ]
        for group in self.groups:
            more = f"  with {len(group.layers) - 1} more" if len(group.layers) > 1 else ""
            lines.append(
                f"{group.name:<{width}}  {group.channels * group.width:>6}  "
                f"{group.kept * group.width:>6}  {group.importance_kept:.1%}{more}"
            )
        lines += [f"{r.name:<{width}}  {r.channels:>6}  stays: {r.reason}" for r in self.refused]
        return "\n".join([*lines, *(f"note: {text}" for text in self.notes)])


def channel_report(model: nn.Module) -> ChannelReport:
    """Return what `prune_channels` did to make this model.

    Raises:
        TypeError: the model was not returned by `prune_channels`.
    """
    found = getattr(model, ATTRIBUTE, None)
    if not isinstance(found, ChannelReport):
        raise TypeError(
            "channel_report: expected a model returned by prune_channels, "
            f"got {type(model).__module__}.{type(model).__qualname__}"
        )
    return found
