"""factorize: layers as two, by energy or rank, weighted by their inputs, where that is faster."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import fastinfer
from fastinfer.compress.prune.low_rank import factorize_layers, low_rank_report
from fastinfer.compress.prune.low_rank_factors import low_rank_factors, rank_of_energy


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def low_rank(n, k, rank):
    return random(n, rank, seed=1) @ random(rank, k, seed=2)


@pytest.mark.parametrize("method", ["svd", "random"])
def test_a_matrix_of_that_rank_is_met(method):
    matrix = low_rank(60, 90, 12)
    left, right = low_rank_factors(matrix, 12, method=method)
    torch.testing.assert_close(left @ right, matrix, rtol=1e-9, atol=1e-9)
    assert left.shape == (60, 12) and right.shape == (12, 90)
    assert rank_of_energy(matrix, 1.0) == 12


def test_close_to_the_best_there_is():
    matrix = random(60, 90) @ torch.diag(0.9 ** torch.arange(90, dtype=torch.float64))
    values = torch.linalg.svdvals(matrix)
    best = float(values[16:].square().sum())
    errors = {}
    for method in ("svd", "random"):
        left, right = low_rank_factors(matrix, 16, method=method)
        errors[method] = float((matrix - left @ right).square().sum())
    # Halko et al., theorem 10.5: one pass is in the mean within a factor of
    # 1 + r / (p - 1); power iterations bring it to the best but for a few parts in a thousand.
    assert best <= errors["svd"] * (1 + 1e-9) and errors["svd"] <= 1.01 * best
    assert errors["svd"] < errors["random"]


def test_weighting_keeps_outputs_on_the_inputs_there_are():
    matrix, inputs = random(40, 50), random(400, 50, seed=3) * (0.8 ** torch.arange(50))
    hessian = inputs.t() @ inputs / len(inputs)
    missed = {}
    for name, weighting in (("weighted", hessian), ("plain", None)):
        left, right = low_rank_factors(matrix, 12, hessian=weighting)
        missed[name] = float((inputs @ (matrix - left @ right).t()).square().sum())
    assert missed["weighted"] < 0.5 * missed["plain"]
    assert rank_of_energy(matrix, 0.95, hessian) < rank_of_energy(matrix, 0.95)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(16, 96, 3, stride=2, padding=2, dilation=2)
        self.depthwise = nn.Conv2d(96, 96, 3, groups=96)
        self.linear = nn.Linear(96, 128)
        self.head = nn.Linear(128, 4)
        self.unused = nn.Linear(96, 96)
        with torch.no_grad():
            self.conv.weight.copy_(low_rank(96, 16 * 9, 14).float().view(96, 16, 3, 3) / 20)
            self.linear.weight.copy_(low_rank(128, 96, 10).float() / 40)

    def forward(self, x):
        x = self.depthwise(self.conv(x).relu()).mean((2, 3))
        return self.head(self.linear(x).relu())


@pytest.fixture
def net():
    torch.manual_seed(2)
    return Net().eval()


IMAGE = torch.randn(2, 16, 12, 12, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("calibration", [None, [IMAGE, IMAGE + 1]])
def test_layers_of_low_rank_become_two(net, calibration):
    before = {key: value.clone() for key, value in net.state_dict().items()}
    small = factorize_layers(net, IMAGE, energy=0.999999, calibration=calibration)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    rows = {row.name: row for row in low_rank_report(small).layers}
    assert rows["conv"].rank == 16 and rows["linear"].rank == 16
    first, second = small.conv
    assert (first.stride, first.padding, first.dilation) == ((2, 2), (2, 2), (2, 2))
    assert first.bias is None and second.kernel_size == (1, 1) and second.bias is not None
    # The weights have rank 14 and 10: what is left is rounding, in float32, of sums of 144.
    bound = 144 * 4 * torch.finfo(torch.float32).eps * float(net(IMAGE).abs().max()) * 4
    assert float((small(IMAGE) - net(IMAGE)).abs().max()) <= bound
    assert "groups" in rows["depthwise"].reason and "never reaches" in rows["unused"].reason
    assert "takes fewer multiplications" in rows["head"].reason
    assert low_rank_report(small).parameters[1] == sum(p.numel() for p in small.parameters())
    assert "conv" in str(low_rank_report(small))


def test_the_bias_makes_up_for_the_mean(net):
    batches = [IMAGE + 3]
    small = factorize_layers(net, IMAGE, rank=0.2, round_to=4, calibration=batches, ignore=["conv"])
    assert isinstance(small.linear, nn.Sequential)
    seen = net.depthwise(net.conv(batches[0]).relu()).mean((2, 3))
    drift = (small.linear(seen) - net.linear(seen)).mean(0).abs().max()
    # Sums of 96 products in float32.
    assert float(drift) <= 96 * torch.finfo(torch.float32).eps * float(net.linear(seen).abs().max())


def test_what_is_not_faster_stays(net):
    asked = []

    def faster(layer, pair, x):
        asked.append((type(layer), len(pair), tuple(x.shape)))
        return isinstance(layer, nn.Linear)

    small = factorize_layers(net, IMAGE, rank=16, faster=faster)
    assert asked == [(nn.Conv2d, 2, (2, 16, 12, 12)), (nn.Linear, 2, (2, 96))]
    assert isinstance(small.conv, nn.Conv2d) and isinstance(small.linear, nn.Sequential)
    reasons = {row.name: row.reason for row in low_rank_report(small).layers}
    assert reasons["conv"] == "rank 16 is not faster here"


def test_a_shared_layer_stays_shared_and_trains():
    torch.manual_seed(0)
    layer = nn.Linear(64, 64)
    model = nn.Sequential(layer, nn.ReLU(), layer).train()
    small = factorize_layers(model, torch.randn(2, 64), rank=16)
    assert small[0] is small[2] and isinstance(small[0], nn.Sequential) and small.training
    small(torch.randn(2, 64)).sum().backward()
    assert all(p.grad is not None for p in small.parameters())


def test_measured_on_converted_layers():
    """A pair of rank 16 for 1024 x 1024 has 1/32 of the multiplications: that is measured."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(1024, 1024), nn.ReLU(), nn.Linear(1024, 48)).eval()
    x = torch.randn(64, 1024)
    small = fastinfer.factorize(model, x, rank=16)
    rows = low_rank_report(small).layers
    assert rows[0].rank in (16, 1024) and small(x).shape == (64, 48)
    assert rows[0].rank == 16 or "not faster here" in rows[0].reason


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({}, ValueError, "expected one of them, got rank=None, energy=None"),
        ({"rank": 4, "energy": 0.5}, ValueError, "expected one of them"),
        ({"rank": 0}, ValueError, "rank: expected an integer >= 1"),
        ({"rank": 1.5}, ValueError, "a share 0..1 as a float, got 1.5"),
        ({"energy": 0}, ValueError, "energy: expected 0 < energy <= 1"),
        ({"rank": 4, "method": "qr"}, ValueError, "method: expected one of"),
        ({"rank": 4, "round_to": 0}, ValueError, "round_to"),
        ({"rank": 4, "ignore": ["nothing"]}, ValueError, "matches none"),
        ({"rank": 4, "calibration": []}, ValueError, "at least one batch"),
    ],
)
def test_bad_requests(net, options, error, text):
    with pytest.raises(error, match=text):
        factorize_layers(net, IMAGE, **options)


def test_bad_factors():
    with pytest.raises(ValueError, match=r"rank: expected 1\.\.3, got 4"):
        low_rank_factors(random(3, 5), 4)
    with pytest.raises(ValueError, match="method"):
        low_rank_factors(random(3, 5), 2, method="qr")
    with pytest.raises(TypeError, match="low_rank_report: expected a model returned"):
        low_rank_report(nn.Linear(2, 2))
