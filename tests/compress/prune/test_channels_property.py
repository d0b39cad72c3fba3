"""Random convolutional networks: pruned ones equal the dense ones with those channels at zero."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from fastinfer.compress.prune.channels import channel_report, prune_channels
from fastinfer.compress.prune.channels.groups import find_groups, removed_indices
from fastinfer.compress.prune.channels.surgery import without
from fastinfer.graph.capture import capture

WIDTHS = (16, 32, 48)
STEPS = st.sampled_from(
    ["conv", "pointwise", "depthwise", "grouped", "add", "cat", "gate", "chunk"]
)


class RandomNet(nn.Module):
    """Steps on the last of the tensors made so far; add, cat and gate also take an earlier one."""

    def __init__(self, steps, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.steps = steps
        self.layers = nn.ModuleList()
        width, widths = 16, []
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        widths.append(width)
        for step, choice in steps:
            before = widths[-1]
            after = WIDTHS[choice % len(WIDTHS)]
            other = widths[choice % len(widths)]
            if step == "conv":
                layer = nn.Conv2d(before, after, 3, padding=1)
            elif step == "depthwise":
                layer, after = nn.Conv2d(before, before, 3, padding=1, groups=before), before
            elif step == "grouped":
                layer, after = nn.Conv2d(before, before, 3, padding=1, groups=4), before
            elif step in ("add", "gate"):
                layer, after = nn.Conv2d(before, other, 1), other
            elif step == "cat":
                layer, after = nn.Conv2d(before, 16, 1), other + 16
            elif step == "chunk":
                layer = nn.Conv2d(before, 2 * after, 1)
            else:
                layer = nn.Conv2d(before, after, 1)
            norm = nn.BatchNorm2d(layer.out_channels)
            nn.init.normal_(norm.running_mean, std=0.3)
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias, std=0.3)
            self.layers.append(nn.Sequential(layer, norm))
            widths.append(after)
        self.head = nn.Linear(widths[-1], 3)

    def forward(self, x):
        made = [self.stem(x)]
        for (step, choice), layer in zip(self.steps, self.layers, strict=True):
            other, y = made[choice % len(made)], layer(made[-1])
            if step == "add":
                y = y + other
            elif step == "gate":
                y = y.sigmoid() * other
            elif step == "cat":
                y = torch.cat([other, functional.silu(y)], 1)
            elif step == "chunk":
                first, second = y.chunk(2, 1)
                y = first * second.tanh()
            else:
                y = y.relu()
            made.append(y)
        return self.head(made[-1].mean((2, 3)))


@settings(max_examples=12, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(STEPS, st.integers(0, 11)), min_size=1, max_size=5),
    st.integers(0, 2**16),
    st.sampled_from([0.3, 0.6]),
)
def test_equals_the_dense_model_with_channels_at_zero(steps, seed, sparsity):
    model = RandomNet(steps, seed).eval().double()
    x = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(seed)).double()
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    program = capture(model, (x,), freedoms=("no size",))
    groups = find_groups(program.graph_module, tensors, frozenset(tensors)).groups
    generator = torch.Generator().manual_seed(seed)
    chosen = {}
    for group in groups:
        count = int(sparsity * group.channels)
        chosen[group] = tuple(torch.randperm(group.channels, generator=generator)[:count].tolist())
    removed = removed_indices(chosen)
    small = without(model, removed)
    # The dense model with every removed slice at zero, in its own code: no graph, no labels.
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for (name, axis), indices in removed.items():
        if "running" not in name:
            state[name].index_fill_(axis, torch.from_numpy(indices), 0)
    zeroed = RandomNet(steps, seed).eval().double()
    zeroed.load_state_dict(state)
    wanted = zeroed(x).detach()
    # float64, sums in another order in at most 7 layers.
    bound = 1e-10 * max(1.0, float(wanted.abs().max()))
    assert float((small(x) - wanted).abs().max()) <= bound
    if any(chosen.values()):
        before, after = (sum(p.numel() for p in m.parameters()) for m in (model, small))
        assert after < before


def test_the_net_has_every_structure():
    """The property is about something: a net of all steps loses channels in every layer."""
    steps = [(s, i) for i, s in enumerate(["conv", "depthwise", "grouped", "cat", "gate", "chunk"])]
    model = RandomNet(steps, 3).eval()
    x = torch.randn(2, 3, 6, 6)
    pruned = prune_channels(
        model, x, sparsity=0.5, allocation="uniform", importance="magnitude", round_to=4
    )
    report = channel_report(pruned)
    assert {refusal.reason for refusal in report.refused} == {"the model's output"}
    assert len(report.groups) >= 4 and all(group.kept < group.channels for group in report.groups)
