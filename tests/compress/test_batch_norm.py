"""reestimate_batch_norm: statistics of the data given, and of nothing else."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from fastinfer.compress.batch_norm import reestimate_batch_norm


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(4, 3, 1),
        nn.BatchNorm2d(3, track_running_stats=False), nn.Flatten(),
    ).eval()  # fmt: skip


def test_means_over_all_batches():
    model = network()
    with torch.no_grad():
        model[1].running_mean.fill_(100)
    model[2].train()
    batches = [torch.randn(8, 2, 6, 6) + i for i in range(4)]
    assert reestimate_batch_norm(model, batches) is model
    with torch.no_grad():
        seen = [model[0](x).movedim(1, -1).flatten(0, -2) for x in batches]
    mean = torch.stack([x.mean(0) for x in seen]).mean(0)
    var = torch.stack([x.var(0) for x in seen]).mean(0)
    assert torch.allclose(model[1].running_mean, mean, atol=1e-5)
    assert torch.allclose(model[1].running_var, var, atol=1e-5)
    assert model[1].momentum == 0.1 and model[2].training
    assert not model[0].training and not model[1].training


def test_tuples_dicts_and_models_without_any():
    class Two(nn.Module):
        def forward(self, x, y):
            return x + y

    x = torch.ones(2)
    reestimate_batch_norm(Two(), [(x, x), {"x": x, "y": x}])


@pytest.mark.parametrize(
    ("batches", "error", "text"),
    [
        ([], ValueError, "expected at least one, got none"),
        (torch.ones(4, 2, 6, 6), TypeError, "got one tensor; put it in a list"),
        ([torch.full((4, 2, 6, 6), torch.nan)], ValueError, "a running_mean with NaN"),
        ([torch.ones(4, 2)], RuntimeError, "Expected 3D"),
    ],
)
def test_what_fails_leaves_the_old_ones(batches, error, text):
    model = network()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(error, match=text):
        reestimate_batch_norm(model, batches)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert model[1].momentum == 0.1 and not model[1].training


def test_no_model():
    with pytest.raises(TypeError, match=r"expected an nn\.Module, got int"):
        reestimate_batch_norm(3, [])
