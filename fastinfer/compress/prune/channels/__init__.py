"""Channel pruning: channels that go together, how much they matter, and a smaller model."""

from __future__ import annotations

from fastinfer.compress.prune.channels.groups import ChannelGroup, Member, Refusal
from fastinfer.compress.prune.channels.prune_channels import prune_channels
from fastinfer.compress.prune.channels.report import ChannelReport, GroupPruning, channel_report

__all__ = [
    "ChannelGroup",
    "ChannelReport",
    "GroupPruning",
    "Member",
    "Refusal",
    "channel_report",
    "prune_channels",
]
