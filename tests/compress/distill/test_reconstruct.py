"""Block-wise reconstruction, and how blocks are found."""

from __future__ import annotations

import copy

import bars
import pytest
import torch
from torch import nn
from torchvision.models import mobilenet_v2, resnet18

from fastinfer.compress.distill import reconstruct
from fastinfer.compress.distill.blocks import find_blocks


def images(count=64, size=16, seed=11):
    return [x for x, _ in bars.batches(count, size, seed)]


def test_a_handful_of_batches_without_labels(teacher):
    student = bars.pruned(teacher)
    before, zeros = bars.accuracy(student.eval()), bars.zeros(student)
    statistics = student[1].running_mean.clone()
    records = []
    student.train()
    returned = reconstruct(student, teacher, images(), steps=60, on_block=records.append)
    assert returned is student and student.training
    assert bars.accuracy(student.eval()) > before + 0.2
    for name, zero in zeros.items():
        assert torch.equal(student.get_parameter(name) == 0, zero)
    assert torch.equal(student[1].running_mean, statistics)
    assert [r.name for r in records] == ["0", "3", "7"]
    assert records[0].before == 0 and all(r.after <= r.before for r in records)
    assert records[1].after < 0.9 * records[1].before
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in student.modules())


def test_it_stops_when_held_out_batches_gain_no_more(teacher):
    records = []
    student = copy.deepcopy(teacher)
    reconstruct(student, teacher, images(), steps=200, blocks=["3"], on_block=records.append)
    assert records[0].before == records[0].after == 0 and records[0].steps == 4 * 10
    assert torch.equal(student[3].weight, teacher[3].weight)


class Residual(nn.Module):
    """Blocks that work in place, in an order that is not that of the attributes."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(8, 3)
        self.again = nn.Linear(8, 8)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.ReLU(inplace=True), nn.Linear(8, 8)) for _ in range(2)
        )

    def forward(self, x, scale=1.0):
        x = self.again(self.again(x))
        for block in self.blocks:
            x = x + block(x.clone()) * scale
        return self.head(x)


def noisy(teacher, seed=1):
    """Return a copy whose first block's weights are off."""
    student = copy.deepcopy(teacher)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        weight = student.blocks[0][1].weight
        weight += 0.3 * torch.randn(weight.shape, generator=generator)
    return student


def test_order_in_place_and_modules_called_twice():
    torch.manual_seed(0)
    teacher, records = Residual(), []
    batches = [{"x": torch.randn(16, 8), "scale": torch.tensor(0.5)} for _ in range(6)]
    student = noisy(teacher)
    reconstruct(student, teacher, batches, steps=150, lr=1e-2, on_block=records.append)
    assert [r.name for r in records] == ["blocks.0.1", "blocks.1.1", "head"]
    assert records[0].after < records[0].before / 4
    with torch.no_grad():
        x = torch.randn(200, 8)
        error = (student(x) - teacher(x)).square().mean()
        assert error < 0.25 * (noisy(teacher)(x) - teacher(x)).square().mean()
    with pytest.raises(ValueError, match="'again', which is called 2 times in the student"):
        reconstruct(noisy(teacher), teacher, batches, blocks=["again"])


def test_whole_blocks_by_name():
    torch.manual_seed(0)
    teacher, records = Residual(), []
    batches = [torch.randn(16, 8) for _ in range(6)]
    student = noisy(teacher)
    reconstruct(
        student, teacher, batches, blocks=["blocks.1", "blocks.0"], steps=50, lr=1e-2,
        on_block=records.append,
    )  # fmt: skip
    assert [r.name for r in records] == ["blocks.0", "blocks.1"]  # as they are called
    assert records[0].after < records[0].before
    assert torch.equal(student.head.weight, teacher.head.weight)


def test_blocks_of_known_networks():
    found = find_blocks(resnet18())
    assert found == ["conv1", *(f"layer{i}.{j}" for i in (1, 2, 3, 4) for j in (0, 1)), "fc"]
    assert find_blocks(mobilenet_v2()) == [*(f"features.{i}" for i in range(19)), "classifier.1"]
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    encoder = nn.Sequential(nn.Embedding(9, 8), nn.TransformerEncoder(layer, 2))
    assert find_blocks(encoder) == ["1"]
    assert find_blocks(encoder[1]) == ["layers.0", "layers.1"]


@pytest.mark.parametrize("build", [resnet18, mobilenet_v2])
def test_blocks_hold_every_layer_once(build):
    model = build()
    held = [p for name in find_blocks(model) for p in model.get_submodule(name).parameters()]
    layers = [p for p in model.parameters() if p.dim() > 1]
    assert {id(p) for p in layers} <= {id(p) for p in held}
    assert len({id(p) for p in held}) == len(held)
