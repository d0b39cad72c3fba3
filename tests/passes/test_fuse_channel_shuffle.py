"""fuse_channel_shuffle: found as models write it, and only then."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import nn

from fastinfer.graph.capture import capture
from fastinfer.passes.fuse_channel_shuffle import fuse_channel_shuffle
from fastinfer.passes.remove_identity import remove_identity
from fastinfer.testing.compare import assert_equal

SHUFFLE = torch.ops.aten.channel_shuffle.default


class Shuffle(nn.Module):
    def __init__(self, groups, dims=(1, 2), reads_twice=False):
        super().__init__()
        self.conv = nn.Conv2d(12, 12, 1)  # says how many channels there are
        self.groups, self.dims, self.reads_twice = groups, dims, reads_twice

    def forward(self, x):
        x = self.conv(x)
        n, c, h, w = x.shape
        y = x.view(n, self.groups, c // self.groups, h, w)
        y = y.transpose(*self.dims)
        z = y.reshape(n, c, h, w)
        return (z, y) if self.reads_twice else z


def rewritten(model):
    x = torch.randn(2, 12, 5, 5)
    program = capture(model.eval(), (x,), {})
    remove_identity(program)  # copies between the moves
    count = fuse_channel_shuffle(program)
    assert fuse_channel_shuffle(program) == 0
    targets = [n.target for n in program.graph_module.graph.nodes]
    assert_equal(program.graph_module(x)[0], model(x)[0] if model.reads_twice else model(x))
    return count, targets


@pytest.mark.parametrize("groups", [2, 3, 6])
def test_shuffle(groups):
    count, targets = rewritten(Shuffle(groups))
    assert count == 1 and SHUFFLE in targets


def test_shufflenet_has_one_a_block():
    model = torchvision.models.shufflenet_v2_x0_5().eval()
    x = torch.randn(1, 3, 64, 64)
    program = capture(model, (x,), {})
    remove_identity(program)
    assert fuse_channel_shuffle(program) == 16
    assert_equal(program.graph_module(x)[0], model(x))


def test_other_moves_stay():
    assert rewritten(Shuffle(3, dims=(3, 4)))[0] == 0
    assert rewritten(Shuffle(3, reads_twice=True))[0] == 0
