"""fastinfer.prune end to end: what is pruned, how well, what stays, what convert makes of it."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

import fastinfer
from fastinfer.compress.prune.layers import find_layers
from fastinfer.compress.prune.residual import find_stream
from fastinfer.graph.capture import capture


class ConvNet(nn.Module):
    """Residual, strided, grouped and depthwise convolutions, with BatchNorm and without."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64)
        self.block, self.block_norm = nn.Conv2d(64, 64, 1, bias=False), nn.BatchNorm2d(64)
        self.depthwise = nn.Conv2d(64, 64, 3, padding=1, groups=64)
        self.down = nn.Conv2d(64, 128, 3, stride=2, padding=1, groups=2)
        self.inner, self.head = nn.Linear(128, 96), nn.Linear(96, 10)

    def forward(self, x):
        x = self.norm(self.stem(x)).relu()
        x = x + self.block_norm(self.block(x))
        x = self.down(self.depthwise(x).relu()).relu().mean((2, 3))
        return self.head(self.inner(x).relu())


def made(kind=ConvNet, seed=0):
    torch.manual_seed(seed)
    model = kind()
    with torch.no_grad():
        for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
            norm.running_mean.normal_(std=0.3)
            norm.running_var.uniform_(0.3, 1)
            norm.weight.uniform_(0.5, 2)
    return model.eval()


def images(count, seed=0):
    noise = torch.randn(count, 3, 12, 12, generator=torch.Generator().manual_seed(seed))
    return functional.avg_pool2d(noise, 3, 1, 1) * 3


def batches(count=6):
    return [images(8, seed) for seed in range(count)]


def error(model, pruned, x):
    with torch.no_grad():
        wanted, found = model(x), pruned(x)
    return float((wanted - found).square().sum() / wanted.square().sum())


@pytest.mark.parametrize("pattern, sparsity", [("nm64", 0.5), ("nm64x2", 0.75), ("2:4", None)])
def test_methods_in_their_order(pattern, sparsity):
    model, x = made(), images(32, 99)
    before = copy.deepcopy(model.state_dict())
    errors = {}
    for method in ("magnitude", "sparsegpt", "obs"):
        pruned = fastinfer.prune(
            model, x[:1], pattern=pattern, sparsity=sparsity, method=method, calibration=batches()
        )
        errors[method] = error(model, pruned, x)
        report = fastinfer.pruning_report(pruned)
        assert type(pruned) is ConvNet
        assert {row.name for row in report.pruned} == {"block", "down", "inner"}
        for row in report.pruned:
            weight = pruned.get_submodule(row.name).weight
            assert int((weight == 0).sum()) == row.zeros
            assert row.sparsity == pytest.approx(report.sparsity)
    assert errors["obs"] < errors["sparsegpt"] < errors["magnitude"]
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_reasons_why_layers_stay_dense():
    pruned = fastinfer.prune(
        made(), images(2), pattern="nm64", sparsity=0.5, method="magnitude", ignore=["bl*"]
    )
    rows = {row.name: row for row in fastinfer.pruning_report(pruned).layers}
    assert rows["stem"].reason == "few inputs: 27 of a channel"
    assert rows["depthwise"].reason == "few inputs: 9 of a channel"
    assert rows["head"].reason == "the last layer" and rows["block"].reason == "ignored"
    assert not rows["block"].zeros and rows["down"].zeros
    assert "ignored" in str(fastinfer.pruning_report(pruned))


def test_the_first_convolution_stays_dense():
    model = nn.Sequential(
        nn.Conv2d(16, 32, 3), nn.ReLU(), nn.Conv2d(32, 64, 3), nn.Conv2d(64, 8, 1)
    )
    pruned = fastinfer.prune(
        model, torch.zeros(1, 16, 9, 9), pattern="2:4", sparsity=0.5, method="magnitude"
    )
    reasons = [row.reason for row in fastinfer.pruning_report(pruned).layers]
    assert reasons[0] == "the first convolution" and reasons[2] == "the last layer"
    assert (pruned[2].weight == 0).float().mean() == 0.5


def test_convolutions_are_pruned_in_the_order_of_their_taps():
    pruned = fastinfer.prune(made(), images(2), pattern="nm64", sparsity=0.75, method="magnitude")
    # down has 32 channels of input a group: two taps' make a group of 64.
    kept = (pruned.down.weight != 0).movedim(1, -1).flatten(1)
    assert kept.shape == (128, 288) and (kept[:, :256].view(128, 4, 64).sum(2) == 16).all()
    row = next(r for r in fastinfer.pruning_report(pruned).layers if r.name == "down")
    assert row.reason == "the last group has 32 of 64 inputs"


def test_the_result_trains_and_keeps_its_mode():
    model = made()
    for is_training in (False, True):
        model.train(is_training)
        model.norm.eval()
        pruned = fastinfer.prune(
            model, images(4), pattern="nm64", sparsity=0.5, calibration=batches(2)
        )
        assert pruned.training is is_training and not pruned.norm.training
        assert model.training is is_training
        notes = fastinfer.pruning_report(pruned).notes
        assert any("train mode" in note for note in notes) is is_training
    assert pruned.state_dict().keys() == model.state_dict().keys()
    pruned(images(4)).square().mean().backward()
    for name, parameter in pruned.named_parameters():
        assert parameter.requires_grad and parameter.grad is not None, name


def test_convert_takes_the_result():
    model, x = made(), images(8, 5)
    pruned = fastinfer.prune(model, x, pattern="nm64x2", sparsity=0.75, calibration=batches(4))
    fast = fastinfer.convert(pruned, x, config=fastinfer.Config("int8", mode="dynamic"))
    with torch.no_grad():
        wanted, found = pruned(x), fast(x)
    # Dynamic int8 of three layers in a row: 30 dB is what dense ones keep, less a margin.
    assert float((wanted - found).square().sum() / wanted.square().sum()) < 10**-2.5


def test_means_come_out_exactly():
    """A mean that pruning moved goes to the bias, or to the BatchNorm behind."""
    model, data = made(), batches(4)
    pruned = fastinfer.prune(
        model, data[0], pattern="nm64", sparsity=0.75, calibration=data, ignore=["down", "inner"]
    )
    seen = {}
    for name, net in (("dense", model), ("pruned", pruned)):
        handle = net.block_norm.register_forward_hook(
            lambda _m, _a, y, name=name: seen.setdefault(name, []).append(y)
        )
        with torch.no_grad():
            for x in data:
                net(x)
        handle.remove()
    dense, found = (torch.cat(seen[name]).double().mean((0, 2, 3)) for name in ("dense", "pruned"))
    # Means of 4608 values of order 1 in float32.
    torch.testing.assert_close(found, dense, rtol=1e-4, atol=1e-4)
    assert not torch.equal(model.block_norm.running_mean, pruned.block_norm.running_mean)


def test_a_layer_without_bias_is_fitted_without_one(monkeypatch):
    monkeypatch.setattr("fastinfer.compress.prune.solve.DAMPINGS", (1e-4,))
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64, bias=False), nn.ReLU(), nn.Linear(64, 4)).eval()
    data = [torch.randn(64, 64) + 2 for _ in range(4)]
    pruned = fastinfer.prune(model, data[0], pattern="nm64", sparsity=0.5, calibration=data)
    assert pruned[0].bias is None
    x = torch.cat(data)
    with torch.no_grad():
        mask, wanted = pruned[0].weight != 0, model[0](x).double()
        found = float((pruned[0](x) - wanted).square().sum())
        best = 0.0
        for row, keep in enumerate(mask):
            solved = torch.linalg.lstsq(x[:, keep].double(), wanted[:, row]).solution
            best += float((x[:, keep].double() @ solved - wanted[:, row]).square().sum())
    # A ridge of 0.1 % of each input's power, and twenty steps, against least squares itself.
    assert best * (1 - 1e-6) <= found < 1.01 * best


class Stream(nn.Module):
    """Two layers in turn add to a stream; the second can mend what the first did to it."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(64, 64), nn.Linear(64, 64)
        self.head = nn.Linear(64, 4)

    def forward(self, x):
        x = x + self.first(x.relu())
        return self.head(torch.tanh(x + self.second(x.tanh())))


def test_a_residual_layer_mends_the_stream(monkeypatch):
    model, data = made(Stream), [torch.randn(64, 64) for _ in range(8)]
    x = torch.randn(256, 64, generator=torch.Generator().manual_seed(7))
    with_streams = fastinfer.prune(model, x, pattern="nm64", sparsity=0.75, calibration=data)
    monkeypatch.setattr("fastinfer.compress.prune.walk.find_stream", lambda node: None)
    without = fastinfer.prune(model, x, pattern="nm64", sparsity=0.75, calibration=data)
    assert torch.equal(with_streams.first.weight, without.first.weight)
    assert error(model, with_streams, x) < error(model, without, x)


def test_streams_of_a_graph():
    model, x = made(), images(2)
    graph_module = capture(model, (x,)).graph_module
    calls = {layer.name: layer.calls[0] for layer in find_layers(graph_module)}
    stream = find_stream(calls["block"].node)
    assert len(stream.chain) == 1 and stream.other is calls["block"].source
    assert find_stream(calls["stem"].node) is None and find_stream(calls["down"].node) is None


class Shared(nn.Module):
    """One layer called twice, and one whose weight is also looked up."""

    def __init__(self):
        super().__init__()
        self.table, self.twice = nn.Embedding(50, 64), nn.Linear(64, 64)
        self.tied, self.head = nn.Linear(64, 50, bias=False), nn.Linear(50, 4)
        self.tied.weight = self.table.weight

    def forward(self, ids):
        x = self.twice(self.twice(self.table(ids)).relu()).relu()
        return self.head(self.tied(x).relu())


def test_shared_weights():
    model = made(Shared)
    data = [
        torch.randint(0, 50, (8, 6), generator=torch.Generator().manual_seed(i)) for i in range(6)
    ]
    errors = {}
    for method in ("magnitude", "obs"):
        pruned = fastinfer.prune(
            model, data[0], pattern="nm64", sparsity=0.5, method=method, calibration=data
        )
        rows = {row.name: row for row in fastinfer.pruning_report(pruned).layers}
        assert rows["twice"].sparsity == 0.5 and pruned.tied.weight is pruned.table.weight
        assert [r.reason for n, r in rows.items() if n != "twice" and n != "head"] == [
            "its weight is used elsewhere too"
        ]
        errors[method] = error(model, pruned, torch.randint(0, 50, (40, 6)))
    assert errors["obs"] < errors["magnitude"]


class Uncaptured(ConvNet):
    """A graph that depends on values: torch.export refuses it."""

    def forward(self, x):
        return super().forward(x if x.sum().item() > -1e9 else x + 1)


def test_without_a_graph_layers_are_pruned_by_hooks():
    model, x = made(Uncaptured), images(32, 99)
    errors = {}
    for method in ("magnitude", "sparsegpt", "obs"):
        pruned = fastinfer.prune(
            model, x[:1], pattern="nm64", sparsity=0.5, method=method, calibration=batches()
        )
        report = fastinfer.pruning_report(pruned)
        assert any("by hooks on the dense model" in note for note in report.notes)
        assert {row.name for row in report.pruned} == {"block", "down", "inner"}
        errors[method] = error(model, pruned, x)
    assert errors["obs"] < errors["sparsegpt"] < errors["magnitude"]
    assert not any(m._forward_hooks for m in pruned.modules())


def test_magnitude_needs_no_example():
    model = made()
    pruned = fastinfer.prune(model, None, pattern="nm64", sparsity=0.5, method="magnitude")
    same = fastinfer.prune(model, images(1), pattern="nm64", sparsity=0.5, method="magnitude")
    assert all(map(torch.equal, pruned.state_dict().values(), same.state_dict().values()))


def test_the_example_serves_and_the_report_says_so():
    pruned = fastinfer.prune(made(), images(8), pattern="nm64", sparsity=0.5)
    report = fastinfer.pruning_report(pruned)
    assert any("calibrated on the example alone" in note for note in report.notes)
    assert report.seconds > 0 and report.peak_bytes >= 0 and "MB at the most" in str(report)
    assert report.to_dict()["layers"][0]["name"] == "stem"


def test_batches_beyond_the_limit_are_left_out(monkeypatch):
    monkeypatch.setattr("fastinfer.compress.prune.calibration.ACTIVATION_BYTES", 2**20)
    pruned = fastinfer.prune(
        made(), images(8), pattern="nm64", sparsity=0.5, calibration=batches(6)
    )
    assert any("of 6 batches were used" in n for n in fastinfer.pruning_report(pruned).notes)
