"""Each float pass alone: how often it rewrites, and that the answers stay."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from fastinfer.graph.capture import capture
from fastinfer.graph.layer import Layer
from fastinfer.passes import FLOAT_PASSES, run_passes
from fastinfer.passes.common_subexpressions import common_subexpressions
from fastinfer.passes.dead_code import dead_code
from fastinfer.passes.fold_batch_norm import fold_batch_norm
from fastinfer.passes.fold_constants import fold_constants
from fastinfer.passes.fuse_activation import fuse_activation
from fastinfer.passes.fuse_residual import fuse_residual
from fastinfer.passes.make_layers import make_layers
from fastinfer.passes.remove_identity import remove_identity
from fastinfer.testing.compare import sqnr_db

#: Folding rounds weights once more to float32: far above what an error of a pass would leave.
SAME_DB = 110.0


def randomize(model, seed=0):
    """Give norms statistics that change something; return the model in eval mode."""
    g = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.running_mean.copy_(torch.randn(module.num_features, generator=g))
            module.running_var.copy_(torch.rand(module.num_features, generator=g) + 0.2)
            if module.affine:
                module.weight.data.copy_(torch.randn(module.num_features, generator=g))
                module.bias.data.copy_(torch.randn(module.num_features, generator=g))
    return model.eval()


def example(*shape, seed=7):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def apply(model, x, *passes):
    """Run passes; return the program and the last pass's count, checked against the model."""
    program = capture(model, (x,))
    count = 0
    for one in passes:
        count = one(program)
        assert one(program) == 0, f"{one.__name__} finds more when run again"
    with torch.no_grad():
        for batch in (x, torch.cat([x, x])[1:]):
            assert sqnr_db(model(batch), program.graph_module(batch)[0]) > SAME_DB
    return program, count


def layers(program):
    found = {}
    for node in program.graph_module.graph.nodes:
        if node.op == "call_module":
            module = program.graph_module.get_submodule(node.target)
            if isinstance(module, Layer):
                found[node.target] = module.spec
    return found


def targets(program):
    return [n.target for n in program.graph_module.graph.nodes if n.op == "call_function"]


aten = torch.ops.aten
CONV = (2, 3, 8, 8)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("affine", [False, True])
def test_fold_conv_batch_norm(bias, affine):
    model = nn.Sequential(nn.Conv2d(3, 6, 3, bias=bias), nn.BatchNorm2d(6, affine=affine))
    program, count = apply(randomize(model), example(*CONV), fold_batch_norm)
    assert count == 1 and aten.batch_norm.default not in targets(program)


def test_fold_linear_and_conv1d_batch_norm():
    linear = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7))
    assert apply(randomize(linear), example(4, 5), fold_batch_norm)[1] == 1
    conv = nn.Sequential(nn.Conv1d(3, 4, 3, groups=1), nn.BatchNorm1d(4))
    assert apply(randomize(conv), example(2, 3, 9), fold_batch_norm)[1] == 1
    grouped = nn.Sequential(nn.Conv2d(4, 8, 3, groups=2), nn.BatchNorm2d(8))
    assert apply(randomize(grouped), example(2, 4, 6, 6), fold_batch_norm)[1] == 1


def test_linear_over_tokens_keeps_its_norm():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.norm = nn.Linear(5, 4), nn.BatchNorm1d(3)

        def forward(self, x):
            return self.norm(self.linear(x))  # normalises dimension 1, the tokens

    assert apply(randomize(Tokens()), example(2, 3, 5), fold_batch_norm)[1] == 0


class SharedNorm(nn.Module):
    """The convolution's output is used beside its norm, so its weights must stay."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, x):
        y = self.conv(x)
        return self.norm(y) + y


class SharedConv(nn.Module):
    """One convolution, two norms: each fold needs weights of its own."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.first, self.second = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x):
        return self.second(self.conv(self.first(self.conv(x))))


def test_fold_batch_norm_and_sharing():
    assert apply(randomize(SharedNorm()), example(*CONV), fold_batch_norm)[1] == 0
    program, count = apply(randomize(SharedConv()), example(*CONV), fold_batch_norm, make_layers)
    assert count == 2 and aten.batch_norm.default not in targets(program)


class Basic(nn.Module):
    def __init__(self, inplace=False):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace)

    def forward(self, x):
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += x
        return self.relu(y)


@pytest.mark.parametrize("inplace", [False, True])
def test_conv_bn_add_relu_is_two_layers(inplace):
    model = randomize(Basic(inplace))
    program, _ = apply(model, example(2, 4, 6, 6), *FLOAT_PASSES)
    specs = layers(program)
    assert list(specs) == ["conv1", "conv2"] and targets(program) == []
    assert all(s.epilogue.activation.bounds[0] == 0 for s in specs.values())
    assert [s.epilogue.has_residual for s in specs.values()] == [False, True]


def test_run_passes_reports_counts():
    program = run_passes(capture(randomize(Basic()), (example(2, 4, 6, 6),)), FLOAT_PASSES)
    passes = program.report.passes
    assert passes["fold_batch_norm"] == 2 and passes["make_layers"] == 2
    assert passes["fuse_residual"] == 1 and passes["fuse_activation"] == 2


class TwoBranches(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)

    def forward(self, x):
        return F.relu(self.a(x) + self.b(x))


class Broadcast(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x):
        return self.a(x) + self.b(x.mean(0, keepdim=True))


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 4)

    def forward(self, x):
        y = self.a(x)
        return y + y


def test_fuse_residual_choices():
    model = TwoBranches().eval()
    program, count = apply(model, example(*CONV), make_layers, fuse_residual)
    assert count == 1
    assert [s.epilogue.has_residual for s in layers(program).values()] == [False, True]
    assert apply(Broadcast().eval(), example(3, 4), make_layers, fuse_residual)[1] == 0
    assert apply(Twice().eval(), example(3, 4), make_layers, fuse_residual)[1] == 0


ACTIVATIONS = {
    "relu": nn.ReLU(),
    "relu6": nn.ReLU6(),
    "clamp": nn.Hardtanh(-0.5, 2.0),
    "silu": nn.SiLU(),
    "gelu": nn.GELU(),
    "gelu_tanh": nn.GELU(approximate="tanh"),
    "hardswish": nn.Hardswish(),
    "hardsigmoid": nn.Hardsigmoid(),
    "sigmoid": nn.Sigmoid(),
    "tanh": nn.Tanh(),
    "leaky_relu": nn.LeakyReLU(0.2),
    "elu": nn.ELU(0.7),
    "mish": nn.Mish(),
    "softplus": nn.Softplus(),
    "selu": nn.SELU(),
    "celu": nn.CELU(0.6),
    "log_sigmoid": nn.LogSigmoid(),
    "hardshrink": nn.Hardshrink(0.3),
    "softshrink": nn.Softshrink(0.2),
    "threshold": nn.Threshold(0.1, -0.5),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_fuse_activation(name):
    model = nn.Sequential(nn.Linear(5, 6), ACTIVATIONS[name]).eval()
    program, count = apply(model, example(4, 5), make_layers, fuse_activation)
    (spec,) = layers(program).values()
    wanted = "clamp" if name in ("relu", "relu6") else name
    assert count == 1 and spec.epilogue.activation.name == wanted and targets(program) == []


class ActivationBeside(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(4, 4)

    def forward(self, x):
        y = self.a(x)
        return F.relu(y) * y


def test_activation_of_a_shared_value_stays():
    assert apply(ActivationBeside().eval(), example(3, 4), make_layers, fuse_activation)[1] == 0


def test_two_clamps_are_one():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Hardtanh(-1.0, 0.5)).eval()
    program, count = apply(model, example(3, 4), make_layers, fuse_activation)
    assert count == 2
    assert next(iter(layers(program).values())).epilogue.activation.bounds == (0.0, 0.5)


def test_two_tables_are_not_one():
    model = nn.Sequential(nn.Linear(4, 4), nn.SiLU(), nn.ReLU()).eval()
    assert apply(model, example(3, 4), make_layers, fuse_activation)[1] == 1


def test_dropout_is_removed():
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 4), nn.Dropout1d(0.3), nn.AlphaDropout(0.1))
    program, count = apply(model.eval(), example(3, 4), remove_identity)
    assert count >= 1 and not [t for t in targets(program) if "dropout" in str(t)]


class Same(nn.Module):
    def forward(self, x):
        return torch.sin(x) * 2 + torch.sin(x) * 2, torch.sin(x) * 2.0


class Random(nn.Module):
    def forward(self, x):
        return torch.rand_like(x) + torch.rand_like(x)


def test_common_subexpressions():
    program, count = apply_tuple(Same().eval(), example(2, 3), common_subexpressions)
    assert count == 3  # two sines and one product; 2 and 2.0 are told apart
    assert targets(program).count(aten.sin.default) == 1


def apply_tuple(model, x, one):
    program = capture(model, (x,))
    count = one(program)
    assert one(program) == 0
    with torch.no_grad():
        for got, wanted in zip(program.graph_module(x), model(x), strict=True):
            assert sqnr_db(wanted, got) > SAME_DB
    return program, count


class Constants(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("table", torch.arange(6.0).reshape(2, 3))

    def forward(self, x):
        return x @ (self.table.t() * 2 + 1)


def test_fold_constants():
    program, count = apply(Constants().eval(), example(4, 3), fold_constants)
    assert count == 1 and targets(program) == [aten.matmul.default]


class WeightNormed(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.utils.parametrizations.weight_norm(nn.Linear(4, 5))

    def forward(self, x):
        return self.linear(x)


def test_weight_norm_becomes_a_layer():
    program, _ = apply(WeightNormed().eval(), example(3, 4), *FLOAT_PASSES)
    assert len(layers(program)) == 1 and targets(program) == []


class Unused(nn.Module):
    def forward(self, x):
        torch.sin(x)
        return x + 1


def test_dead_code():
    model = Unused().eval()
    program, _ = apply(model, example(2, 3), dead_code)
    assert targets(program) == [aten.add.Tensor]


class SharedLinear(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x):
        return self.linear(F.relu(self.linear(x)))


def test_shared_weights_make_layers_with_one_memory():
    program, count = apply(SharedLinear().eval(), example(3, 4), make_layers)
    modules = [program.graph_module.get_submodule(name) for name in layers(program)]
    assert count == 2 and len({m.weight.data_ptr() for m in modules}) == 1


KINDS = {
    "linear": (nn.Linear(5, 6), (3, 5)),
    "linear tokens": (nn.Linear(5, 6, bias=False), (2, 3, 5)),
    "conv1d": (nn.Conv1d(4, 6, 3, stride=2, padding=1, dilation=2, groups=2), (2, 4, 12)),
    "conv2d": (nn.Conv2d(4, 6, (3, 1), stride=(2, 1), padding=(1, 0)), (2, 4, 7, 6)),
    "same": (nn.Conv2d(4, 6, 3, padding="same", dilation=2), (2, 4, 7, 6)),
    "depthwise": (nn.Conv2d(4, 4, 3, groups=4), (2, 4, 7, 6)),
}


@pytest.mark.parametrize("name", KINDS)
def test_make_layers(name):
    module, shape = KINDS[name]
    program, count = apply(nn.Sequential(module).eval(), example(*shape), make_layers)
    assert count == 1 and list(layers(program)) == ["0"]
    assert layers(program)["0"].is_depthwise == (name == "depthwise")


NOT_LAYERS = {
    "conv3d": (nn.Conv3d(2, 3, 2), (2, 2, 4, 4, 4)),
    "transposed": (nn.ConvTranspose2d(2, 3, 2), (2, 2, 4, 4)),
    "uneven same": (nn.Conv2d(2, 3, 2, padding="same"), (2, 2, 4, 4)),
}


@pytest.mark.parametrize("name", NOT_LAYERS)
def test_what_is_no_layer_stays(name):
    module, shape = NOT_LAYERS[name]
    assert apply(nn.Sequential(module).eval(), example(*shape), make_layers)[1] == 0


class Matmul(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 5, generator=torch.Generator().manual_seed(1)))
        self.bias = nn.Parameter(torch.ones(5))

    def forward(self, x):
        return torch.addmm(self.bias, x, self.weight) + x @ self.weight


def test_products_with_constants_are_layers():
    assert apply(Matmul().eval(), example(3, 4), make_layers)[1] == 2
