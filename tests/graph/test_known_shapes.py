"""Batch norms are traced by an op of a known shape, and are torch's own in the graph."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fastinfer.graph.capture import capture
from fastinfer.graph.known_shapes import MEANT

KINDS = {
    "2d": (nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), (2, 3, 9, 8)),
    "1d": (nn.Linear(6, 5), nn.BatchNorm1d(5), (4, 6)),
    "3d": (nn.Conv3d(2, 5, 1), nn.BatchNorm3d(5), (2, 2, 3, 4, 5)),
    "not affine": (nn.Identity(), nn.BatchNorm2d(3, affine=False), (2, 3, 5, 4)),
    "of the batch": (nn.Identity(), nn.BatchNorm2d(3, track_running_stats=False), (2, 3, 5, 4)),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("channels_last", [False, True])
def test_it_is_torchs_own_in_the_graph(kind, channels_last):
    first, norm, shape = KINDS[kind]
    model = nn.Sequential(first, norm, nn.ReLU()).eval()
    with torch.no_grad():
        for statistic in (norm.running_mean, norm.running_var):
            if statistic is not None:
                statistic.uniform_(0.5, 2)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    if channels_last and x.dim() == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    program = capture(model, (x,))
    targets = [node.target for node in program.graph_module.graph.nodes]
    assert torch.ops.aten.batch_norm.default in targets
    assert not any(target in MEANT for target in targets)
    (node,) = (n for n in program.graph_module.graph.nodes if "batch_norm" in str(n.target))
    with torch.no_grad():
        torch.testing.assert_close(program.graph_module(x)[0], model(x), rtol=0, atol=0)
        wanted = norm(first(x))
    assert node.meta["val"].dtype == wanted.dtype and node.meta["val"].dim() == wanted.dim()
    assert node.meta["val"].shape[1] == wanted.shape[1]
    assert (node.meta["val"].is_contiguous()) == wanted.is_contiguous()
