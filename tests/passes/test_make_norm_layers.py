"""make_norm_layers: which BatchNorms become layers, and that the answers stay."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from test_float_passes import apply, aten, example, layers, randomize, targets
from torch import nn

from fastinfer.graph.layer import Layer
from fastinfer.passes import FLOAT_PASSES, STATIC_FLOAT_PASSES
from fastinfer.passes.fold_batch_norm import fold_batch_norm
from fastinfer.passes.make_layers import make_layers
from fastinfer.passes.make_norm_layers import make_norm_layers
from fastinfer.types.epilogue import RELU

STEPS = (fold_batch_norm, make_layers, make_norm_layers)


class Dense(nn.Module):
    """Two convolutions, joined and normalised, as DenseNet does; behind is what reads the norm."""

    def __init__(self, behind, affine=True):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1), nn.Conv2d(6, 3, 1)
        self.norm = nn.BatchNorm2d(6, affine=affine)
        self.behind = behind

    def forward(self, x):
        y = self.a(x)
        return self.behind(self, self.norm(torch.cat([y, self.b(y)], 1)))


@pytest.mark.parametrize("affine", [False, True])
def test_between_layers(affine):
    model = Dense(lambda m, x: m.c(F.avg_pool2d(F.relu(x), 2)), affine)
    program, count = apply(randomize(model), example(2, 3, 6, 6), *STEPS)
    assert count == 1 and aten.batch_norm.default not in targets(program)
    spec = layers(program)["norm"]
    assert spec.is_depthwise and (spec.out_features, spec.kernel_size) == (6, (1, 1))


def test_its_activation_is_fused():
    model = randomize(Dense(lambda m, x: m.c(F.relu(x))))
    program, _ = apply(model, example(2, 3, 6, 6), *STATIC_FLOAT_PASSES)
    assert layers(program)["norm"].epilogue.activation == RELU
    program, _ = apply(model, example(2, 3, 6, 6), *FLOAT_PASSES)
    assert "norm" not in layers(program)


@pytest.mark.parametrize(
    "behind", [lambda m, x: x, lambda m, x: m.c(x.cumsum(1)), lambda m, x: F.relu(x).sum()]
)
def test_that_no_layer_reads_stays(behind):
    program, count = apply(randomize(Dense(behind)), example(2, 3, 6, 6), *STEPS)
    assert count == 0 and aten.batch_norm.default in targets(program)


def test_of_the_input_stays():
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3, padding=1))
    assert apply(randomize(model), example(2, 3, 6, 6), *STEPS)[1] == 0


def test_of_a_vector_stays():
    class Vector(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.norm = nn.Linear(3, 4), nn.Linear(4, 2), nn.BatchNorm1d(4)

        def forward(self, x):
            return self.b(self.norm(F.relu(self.a(x))))

    assert apply(randomize(Vector()), example(5, 3), *STEPS)[1] == 0


def test_weights_are_exact_in_int8():
    """One weight a channel is 127 steps of its own scale."""
    from fastinfer.compress.quantize.weights import quantize_weight

    model = Dense(lambda m, x: m.c(F.relu(x)))
    program, _ = apply(randomize(model), example(2, 3, 6, 6), *STEPS)
    layer = program.graph_module.get_submodule("norm")
    assert isinstance(layer, Layer)
    q, scale = quantize_weight(layer.weight.detach().double())
    assert q.abs().eq(127).all()
    assert torch.allclose(q.flatten() * scale, layer.weight.flatten().double(), rtol=1e-12)
