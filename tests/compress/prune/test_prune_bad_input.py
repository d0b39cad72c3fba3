"""fastinfer.prune refuses what it cannot do, before any work, naming the argument and the fix."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import fastinfer
from fastinfer.compress.prune.layers import is_ignored


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4)).eval()


X = torch.zeros(4, 64)
GOOD = {"pattern": "nm64", "sparsity": 0.5}


@pytest.mark.parametrize(
    "change, kind, text",
    [
        ({"pattern": "nm32"}, ValueError, "expected one of .* got 'nm32'"),
        ({"pattern": 64}, TypeError, "pattern: expected a name, got int"),
        ({"pattern": "0:4"}, ValueError, "got '0:4'"),
        ({"pattern": "5:4", "sparsity": None}, ValueError, "0 <= n <= m"),
        ({"pattern": "2:4", "sparsity": 0.75}, ValueError, "keeps 1 of 4 .* sparsity is 0.5"),
        ({"pattern": "channel", "method": "sparsegpt"}, ValueError, "for pattern 'channel'"),
        ({"sparsity": 0.51}, ValueError, "keeps 31.36 of 64 inputs.* nearest sparsity is 0.515625"),
        ({"sparsity": 0.999}, ValueError, "nearest sparsity is 0.984375"),
        ({"sparsity": 1.0}, ValueError, "expected 0 <= sparsity < 1"),
        ({"sparsity": "half"}, TypeError, "sparsity: expected a number, got str"),
        ({"sparsity": None}, TypeError, "sparsity: expected a number, got NoneType"),
        ({"method": "obc"}, ValueError, "method: expected one of .*'obs'.* got 'obc'"),
        ({"schedule": object()}, ValueError, "schedule: expected None"),
        ({"calibration": X}, TypeError, "calibration: .* put one batch in a list"),
        ({"calibration": 3}, TypeError, "calibration: expected an iterable"),
        ({"calibration": []}, ValueError, "expected at least one batch"),
        ({"calibration": [X, X / 0]}, ValueError, "batch 1 input 0 contains NaN"),
        ({"calibration": [object()]}, TypeError, "got object"),
        ({"ignore": "0"}, TypeError, "ignore: expected a sequence"),
        ({"ignore": [nn.Linear]}, TypeError, "ignore: expected names"),
        ({"ignore": ["nothing.*"]}, ValueError, "'nothing.*', which matches none"),
        ({"example_inputs": "text"}, TypeError, "expected at least one tensor"),
        ({"example_inputs": None}, ValueError, "'obs' needs inputs"),
        ({"example_inputs": X / 0}, ValueError, "tensor 0 holds NaN"),
        ({"model": "text"}, TypeError, "model: expected an nn.Module"),
    ],
)
def test_refused(change, kind, text):
    arguments = {"model": model(), "example_inputs": X, **GOOD, **change}
    with pytest.raises(kind, match=text):
        fastinfer.prune(**arguments)


def test_converted_models_and_their_parts():
    fast = fastinfer.convert(model(), X)
    with pytest.raises(ValueError, match="converted already; prune the original"):
        fastinfer.prune(fast, X, **GOOD)
    with pytest.raises(ValueError, match="its submodule '0' is converted already"):
        fastinfer.prune(nn.Sequential(fast), X, **GOOD)


def test_models_without_values():
    with pytest.raises(ValueError, match=r"call model\.cpu"):
        fastinfer.prune(model().to("meta"), X, **GOOD)
    with pytest.raises(ValueError, match="is not initialized"):
        fastinfer.prune(nn.Sequential(nn.LazyLinear(4)), X, **GOOD)
    broken = model()
    broken[0].weight.data[0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"'0\.weight' holds NaN"):
        fastinfer.prune(broken, X, **GOOD)
    with pytest.raises(TypeError, match="got TorchScript"):
        fastinfer.prune(torch.jit.trace(model(), X), X, **GOOD)


def test_a_report_is_of_a_pruned_model():
    with pytest.raises(TypeError, match=r"expected a model returned by fastinfer\.prune"):
        fastinfer.pruning_report(model())


def test_nothing_to_prune_warns():
    with pytest.warns(UserWarning, match="no layer was pruned"):
        pruned = fastinfer.prune(nn.Sequential(nn.Linear(8, 4)), torch.zeros(1, 8), **GOOD)
    assert "few inputs" in fastinfer.pruning_report(pruned).layers[0].reason


class Overflows(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second, self.head = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 4)

    def forward(self, x):
        return self.head(self.second(self.first(x) / 0 * 0).nan_to_num())


def test_a_layer_that_sees_nan_stays_dense():
    torch.manual_seed(0)
    dense = Overflows().eval()
    pruned = fastinfer.prune(dense, torch.randn(32, 64), **GOOD)
    rows = {row.name: row for row in fastinfer.pruning_report(pruned).layers}
    assert rows["first"].sparsity == 0.5
    assert not rows["second"].pattern and "NaN" in rows["second"].reason
    assert torch.equal(pruned.second.weight, dense.second.weight)


def test_weights_that_are_zero_already():
    zero = model()
    with torch.no_grad():
        zero[0].weight.zero_()
    for method in ("magnitude", "obd", "sparsegpt", "obs"):
        pruned = fastinfer.prune(zero, torch.randn(32, 64), **GOOD, method=method)
        assert not pruned[0].weight.any()
        assert "all weights were zero" in fastinfer.pruning_report(pruned).layers[0].reason


def test_other_inputs_than_tensors():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = model()

        def forward(self, x, *, scale=1.0, names=("a",)):
            return self.inner(x * scale), names

    pruned = fastinfer.prune(
        Scaled(), {"x": torch.randn(16, 64), "scale": 2.0, "names": ("b", "c")}, **GOOD
    )
    assert (pruned.inner[0].weight == 0).float().mean() == 0.5


def test_ignoring_covers_what_is_inside():
    assert is_ignored("head.fc.1", ["head"]) and is_ignored("head.fc.1", ["*.1"])
    assert not is_ignored("ahead.fc", ["head"])
