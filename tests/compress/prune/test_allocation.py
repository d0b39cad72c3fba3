"""prune(allocation="error") and target_ms: sparsities of layers' own, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import fastinfer
from fastinfer.allocation import prune_for
from fastinfer.compress.gram import Gram
from fastinfer.compress.prune.layer_errors import level_solutions
from fastinfer.compress.prune.layer_times import layer_module
from fastinfer.compress.prune.layers import find_layers
from fastinfer.compress.prune.nonuniform import KEPT, Goal, density
from fastinfer.compress.prune.request import PruningRequest
from fastinfer.compress.prune.solve import Grams, solve
from fastinfer.graph.capture import capture
from fastinfer.types.sparsity import NM


class Unlike(nn.Module):
    """A network of which one layer hardly matters: its gain is small."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 3, padding=1)
        self.strong, self.weak = nn.Conv2d(64, 64, 1), nn.Conv2d(64, 64, 1)
        self.head = nn.Linear(64, 8)

    def forward(self, x):
        x = self.stem(x).relu()
        x = self.strong(x).tanh() + 0.02 * self.weak(x).tanh()
        return self.head(x.mean((2, 3)))


class Attention(nn.Module):
    """A transformer's block whose feed-forward part hardly matters."""

    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(64, 64) for _ in range(4))
        self.up, self.down = nn.Linear(64, 128), nn.Linear(128, 64)
        self.norm, self.head = nn.LayerNorm(64), nn.Linear(64, 8)

    def forward(self, x):
        weights = (self.q(x) @ self.k(x).transpose(1, 2) / 8).softmax(-1)
        x = x + self.out(weights @ self.v(x))
        return self.head(self.norm(x + 0.02 * self.down(self.up(x).relu())))


def made(kind, seed=0):
    torch.manual_seed(seed)
    return kind().eval()


def conv_batches(count=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(8, 3, 8, 8, generator=generator) for _ in range(count)]


def token_batches(count=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(64, 64, generator=generator) / 8
    return [torch.randn(8, 12, 64, generator=generator) @ mix for _ in range(count)]


CASES = [(Unlike, conv_batches), (Attention, token_batches)]


def output_error(model, pruned, x):
    with torch.no_grad():
        wanted, found = model(x), pruned(x)
    return float((wanted - found).square().sum() / wanted.square().sum())


def zeros_of(pruned):
    rows = [r for r in fastinfer.pruning_report(pruned).layers if r.predicted_error is not None]
    return sum(r.zeros for r in rows) / sum(r.weights for r in rows), {r.name: r for r in rows}


@pytest.mark.parametrize("kind, batches", CASES, ids=["conv", "transformer"])
@pytest.mark.parametrize("pattern, method", [("nm64", "obs"), ("unstructured", "magnitude")])
def test_less_error_than_uniform_at_the_same_sparsity(kind, batches, pattern, method):
    model, data = made(kind), batches()
    unseen = torch.cat(batches(4, seed=9))
    arguments = {"pattern": pattern, "sparsity": 0.5, "method": method, "calibration": data}
    errors = {}
    for allocation in ("uniform", "error"):
        pruned = fastinfer.prune(model, data[0], allocation=allocation, **arguments)
        errors[allocation] = output_error(model, pruned, unseen)
    assert errors["error"] < errors["uniform"]
    share, rows = zeros_of(pruned)
    # The mean is what was asked for: at least, and less than a level of the smallest layer above.
    assert 0.5 <= share < 0.6
    assert len({round(row.sparsity, 3) for row in rows.values()}) > 1
    report = fastinfer.pruning_report(pruned)
    found = report.allocation
    assert found.sparsity == pytest.approx(share, abs=0.01)
    assert found.predicted_error == pytest.approx(sum(r.predicted_error for r in rows.values()))
    assert found.contenders[found.chosen] == min(found.contenders.values())
    assert "uniform" in found.contenders and "alone" in str(report)
    assert report.to_dict()["allocation"]["chosen"] == found.chosen


def test_the_weak_layer_gets_the_zeros():
    data = conv_batches()
    pruned = fastinfer.prune(
        made(Unlike), data[0], pattern="nm64", sparsity=0.5, calibration=data, allocation="error"
    )
    _, rows = zeros_of(pruned)
    assert rows["weak"].sparsity > rows["strong"].sparsity
    assert not fastinfer.pruning_report(pruned).notes


def test_uniform_is_as_before():
    model, data = made(Unlike), conv_batches()
    arguments = {"pattern": "nm64", "sparsity": 0.5, "calibration": data}
    one = fastinfer.prune(model, data[0], **arguments)
    two = fastinfer.prune(model, data[0], allocation="uniform", **arguments)
    assert all(map(torch.equal, one.state_dict().values(), two.state_dict().values()))
    assert fastinfer.pruning_report(one).allocation is None


@pytest.mark.parametrize("share", [1, 2])
def test_estimates_rank_as_what_pruning_comes_to(share):
    generator = torch.Generator().manual_seed(share)
    scales = torch.logspace(-1, 0.5, 3)
    levels = [None, *(NM(n, 64, share) for n in (48, 32, 16, 8))]
    estimated, real = [], []
    for scale in scales:  # inputs that are more and less alike
        common = torch.randn(256, 8, generator=generator) @ torch.randn(8, 128, generator=generator)
        x = scale * common + torch.randn(256, 128, generator=generator)
        weight = torch.randn(64, 128, generator=generator)
        grams = Grams(Gram(128, 64), Gram(128, 64))
        grams.fit.add(x[:192], x[:192] @ weight.t())
        grams.held.add(x[192:], x[192:] @ weight.t())
        estimated += [s.error for s in level_solutions(weight, grams, levels, "obs")[1:]]
        total = grams.fit.moments(grams.held)
        real += [
            total.relative_error(solve(weight, grams, level, "obs").matrix) for level in levels[1:]
        ]
    ranks = [torch.tensor(v).argsort().argsort().double() for v in (estimated, real)]
    # Spearman's rank correlation, and each layer's levels in order.
    assert float(torch.corrcoef(torch.stack(ranks))[0, 1]) > 0.95
    for first in range(0, len(estimated), 4):
        assert estimated[first : first + 4] == sorted(estimated[first : first + 4])


class Clock:
    """Says that time is kept weights; the whole model takes `rest` more, times `factor`."""

    def __init__(self, rest=1.0, factor=1.0):
        self.rest, self.factor, self.layers = rest, factor, 0

    def whole(self, model):
        kept = sum(
            int((m.weight != 0).sum()) for n, m in model.named_modules() if n in ("strong", "weak")
        )
        dense = all(bool((p != 0).all()) for p in model.parameters())
        return (self.rest + kept / 4096) * (1.0 if dense else self.factor)

    def of_layers(self, modules, x):
        self.layers += 1
        for module in modules:
            module(x)
        return [int((m.weight != 0).sum()) / 4096 for m in modules]


def pruned_for(clock, target_ms):
    data = conv_batches()
    request = PruningRequest("nm64", calibration=data)
    return prune_for(made(Unlike), data[0], request, target_ms, clock.whole, clock.of_layers)


def test_a_target_is_met_and_equal_shapes_are_timed_once():
    clock = Clock()
    pruned = pruned_for(clock, 2.0)  # rest 1, two layers of 1
    found = fastinfer.pruning_report(pruned).allocation
    assert clock.layers == 1
    assert found.dense_ms == 3.0 and found.target_ms == 2.0
    assert found.measured_ms == found.predicted_ms <= 2.0
    _, rows = zeros_of(pruned)
    assert rows["weak"].predicted_ms == 1 - rows["weak"].sparsity
    assert rows["weak"].sparsity > rows["strong"].sparsity
    assert "target 2.000, dense 3.000" in str(fastinfer.pruning_report(pruned))
    # Half of all weights is uniform's; the whole network's output decided against it.
    assert {"uniform", found.chosen} <= set(found.contenders)
    assert found.chosen == min(found.contenders, key=found.contenders.get) != "uniform"


def test_a_miss_tightens_the_target():
    clock = Clock(factor=1.1)
    pruned = pruned_for(clock, 2.2)
    report = fastinfer.pruning_report(pruned)
    assert report.allocation.target_ms == 2.2 and report.allocation.measured_ms <= 2.2 * 1.03
    assert any("tightened" in note for note in report.notes)
    assert clock.layers == 1
    assert report.allocation.chosen == min(
        report.allocation.contenders, key=report.allocation.contenders.get
    )


def test_a_target_that_holds_already_prunes_nothing():
    _, rows = zeros_of(pruned_for(Clock(), 5.0))
    assert all(r.zeros == 0 and r.reason == "dense by the allocation" for r in rows.values())


def test_an_unreachable_target_names_the_nearest():
    model, data = made(Unlike), conv_batches()
    before = [p.clone() for p in model.parameters()]
    # 1 for the rest, and a sixteenth of each of two layers.
    with pytest.raises(ValueError, match=r"target_ms: 0\.5 cannot be reached.*ask for 1\.125 "):
        clock, request = Clock(), PruningRequest("nm64", calibration=data)
        prune_for(model, data[0], request, 0.5, clock.whole, clock.of_layers)
    assert all(map(torch.equal, before, model.parameters()))


def test_times_are_measured_with_the_int8_kernels():
    data = conv_batches()
    pruned = fastinfer.prune(
        made(Unlike), data[0][:1], pattern="nm64", calibration=data, target_ms=1e4
    )
    found = fastinfer.pruning_report(pruned).allocation
    assert found.dense_ms > 0 and found.measured_ms > 0
    _, rows = zeros_of(pruned)
    assert all(row.predicted_ms > 0 for row in rows.values())


@pytest.mark.parametrize(
    "layer, shape",
    [
        (nn.Conv2d(8, 6, 3, stride=2, padding=1, dilation=2), (2, 8, 9, 9)),
        (nn.Conv2d(64, 64, 3, groups=2), (1, 64, 5, 5)),
        (nn.Conv1d(8, 6, 5, padding=2), (2, 8, 9)),
        (nn.Linear(8, 6), (2, 5, 8)),
    ],
    ids=["conv", "grouped", "conv1d", "linear"],
)
def test_a_timed_module_is_the_layer(layer, shape):
    model = nn.Sequential(layer).eval()
    x = torch.randn(shape)
    found = find_layers(capture(model, (x,)).graph_module)[0]
    geometry = found.calls[0].geometry
    flat = x.unsqueeze(-2) if layer.weight.dim() == 3 else x
    same = layer_module(geometry, layer.weight.detach())(flat)
    layer.bias.data.zero_()
    wanted = layer(x)
    torch.testing.assert_close(same.reshape(wanted.shape), wanted)


def test_levels_are_the_pattern_s():
    assert [density(level) for level in Goal("nm64x2", 0.5).levels()] == [n / 64 for n in KEPT]
    assert [density(level) for level in Goal("nm64x64", 0.5).levels()] == [1.0, 0.5, 0.25]
    assert all(level.share == 2 for level in Goal("nm64x2", 0.5).levels() if level)
    assert density(Goal("nm64", 0.51).uniform) == 31 / 64
    assert density(Goal("unstructured", 0.51).uniform) == pytest.approx(0.49)


@pytest.mark.parametrize(
    "change, kind, text",
    [
        ({"allocation": "best"}, ValueError, "allocation: expected one of .* got 'best'"),
        ({"pattern": "2:4"}, ValueError, "allocation 'error' expects one of .* got '2:4'"),
        ({"pattern": "channel"}, ValueError, "'channel' chooses channels over all layers itself"),
        ({"pattern": 3}, TypeError, "pattern: expected a name, got int"),
        ({"sparsity": None}, TypeError, "sparsity: expected a number, got NoneType"),
        ({"sparsity": 0.95}, ValueError, "sparsity <= 0.9375 .* got 0.95"),
        ({"pattern": "nm64x64", "sparsity": 0.9}, ValueError, "sparsity <= 0.75"),
        ({"method": "magnitude", "example_inputs": None}, ValueError, "pass inputs .* calibration"),
        ({"target_ms": 1.0}, ValueError, "sparsity: expected None with target_ms"),
        ({"target_ms": 0, "sparsity": None}, ValueError, "milliseconds above 0, got 0"),
        ({"target_ms": "1", "sparsity": None}, TypeError, "milliseconds as a number, got str"),
        ({"target_ms": 1.0, "sparsity": None, "pattern": "2:4"}, ValueError, "target_ms expects"),
    ],
)
def test_refused(change, kind, text):
    arguments = {
        "model": made(Unlike),
        "example_inputs": conv_batches(1)[0],
        "pattern": "nm64",
        "sparsity": 0.5,
        "allocation": "error",
        **change,
    }
    with pytest.raises(kind, match=text):
        fastinfer.prune(**arguments)


class Uncaptured(Unlike):
    """A graph that depends on values: torch.export refuses it."""

    def forward(self, x):
        return super().forward(x if x.sum().item() > -1e9 else x + 1)


def test_a_model_without_a_graph_is_refused():
    data = conv_batches(1)
    with pytest.raises(ValueError, match=r"captured graph, .*use allocation='uniform'"):
        fastinfer.prune(made(Uncaptured), data[0], pattern="nm64", sparsity=0.5, allocation="error")
