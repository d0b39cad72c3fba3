"""Networks of torchvision lose channels, run, and are smaller."""

from __future__ import annotations

import pytest
import torch
import torchvision

import fastinfer
from fastinfer.compress.prune.channels import channel_report, prune_channels

QUICK = ["resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5", "squeezenet1_1"]
SLOW = [
    *("mobilenet_v2", "densenet121", "googlenet", "efficientnet_b0", "regnet_y_400mf"),
    *("convnext_tiny", "swin_t", "vit"),
]
OPTIONS = {"googlenet": {"init_weights": False, "aux_logits": False}}
CONVERTED = {"resnet18", "mobilenet_v2"}
#: What stays besides the output, and a word of why.
STAYS = {
    "shufflenet_v2_x0_5": "all its channels go together",
    "vit": "the pruned copy fails",
    "swin_t": "the pruned copy fails",
}

#: What is left at the most, where it is not 0.8: their streams and heads stay.
LEFT = {"vit": 0.95, "swin_t": 0.95}


def build(name):
    torch.manual_seed(0)
    if name == "vit":  # as vit_b_16 is built, smaller
        return torchvision.models.VisionTransformer(
            image_size=64, patch_size=16, num_layers=2, num_heads=4, hidden_dim=64, mlp_dim=128
        ).eval()
    builder = torchvision.models.get_model_builder(name)
    return builder(weights=None, **OPTIONS.get(name, {})).eval()


@pytest.mark.parametrize(
    "name", [*QUICK, *(pytest.param(n, marks=pytest.mark.models) for n in SLOW)]
)
def test_half_of_the_channels_go(name):
    model = build(name)
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    pruned = prune_channels(
        model, x, sparsity=0.5, allocation="uniform", importance="magnitude", round_to=8
    )
    assert type(pruned) is type(model) and pruned(x).shape == model(x).shape
    report = channel_report(pruned)
    assert report.parameters[1] == sum(p.numel() for p in pruned.parameters())
    left = LEFT.get(name, 0.8)
    assert report.parameters[1] < left * report.parameters[0]
    assert report.multiplications[1] < left * report.multiplications[0]
    other = [r for r in report.refused if r.reason != "the model's output"]
    assert all(STAYS.get(name, "nothing") in refusal.reason for refusal in other), other
    if name in CONVERTED:
        config = fastinfer.Config(precision="int8")
        fast = fastinfer.convert(pruned, x, config=config)
        assert fastinfer.report(fast).path == "graph" and fast(x).shape == (2, 1000)
