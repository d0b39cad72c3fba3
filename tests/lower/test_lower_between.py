"""Operations between int8 layers stay in int8: small graphs, and torchvision's families."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
import torchvision.models as tv
from layer_graph import random_batches
from torch import nn
from torchvision.models.densenet import DenseNet
from torchvision.models.efficientnet import EfficientNet
from torchvision.models.efficientnet import MBConvConfig as MB
from torchvision.models.googlenet import BasicConv2d, Inception
from torchvision.models.mobilenetv2 import MobileNetV2
from torchvision.models.mobilenetv3 import InvertedResidualConfig as IR
from torchvision.models.mobilenetv3 import MobileNetV3
from torchvision.models.regnet import BlockParams, RegNet
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.models.shufflenetv2 import ShuffleNetV2

from fastinfer.compress.quantize import Calibrator, quantize
from fastinfer.compress.quantize.bias_correction import simulate
from fastinfer.config import Config
from fastinfer.graph.capture import capture
from fastinfer.lower import lower
from fastinfer.passes import INT8_PASSES, STATIC_FLOAT_PASSES, run_passes
from fastinfer.program import Program
from fastinfer.testing.compare import sqnr_db

ops = torch.ops.fastinfer
INT8 = Config(precision="int8")
BATCHES = random_batches((4, 3, 32, 32), 3)
#: Random weights, biases not corrected, and the last maps of 32 pixels are a single one.
FLOOR_DB = 12.0


def planned(model, batches=BATCHES, config=INT8):
    """Return (float program, planned program, calibrator)."""
    program = capture(model, (batches[0],))
    program = run_passes(program, STATIC_FLOAT_PASSES)
    calibrator = Calibrator(program, config).run(batches)
    return quantize(program, calibrator, config), calibrator


def lowered(program):
    made = Program(lower(program), program.plan, program.report, program.call)
    return run_passes(made, INT8_PASSES).graph_module


def targets(graph_module):
    return [n.target for n in graph_module.graph.nodes if n.op == "call_function"]


def round_trips(graph_module):
    """Return the dequantize nodes from which a quantize is reached, through anything."""
    return [
        node
        for node in graph_module.graph.nodes
        if node.target is ops.dequantize.default and _reaches(node, ops.quantize.default)
    ]


def _reaches(node, target):
    seen, pending = set(), [node]
    while pending:
        for user in pending.pop().users:
            if user.target is target:
                return True
            if user not in seen:
                seen.add(user)
                pending.append(user)
    return False


class Ends(nn.Module):
    """conv -> body -> conv: what the body is made of stands between int8 layers."""

    def __init__(self, body, channels=8):
        super().__init__()
        torch.manual_seed(1)
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(3, 8, 1)
        self.gate, self.last = nn.Conv2d(8, 8, 1), nn.Conv2d(channels, 5, 1)
        self.body = body

    def forward(self, x):
        return self.last(self.body(self, self.first(x), self.second(x)))


BODIES = {
    # cumsum has no int8 form: it alone stands between a dequantize and a quantize.
    "cumsum": (lambda m, a, b: a.cumsum(3) + a, 8, [ops.int8_add]),
    "functions": (
        lambda m, a, b: (1 - a.abs()) * 0.5 + F.hardshrink(b.square(), 0.1), 8,
        [ops.int8_lookup, ops.int8_lookup, ops.int8_lookup, ops.int8_add],
    ),
    "hardswish_by_hand": (
        lambda m, a, b: a * (F.relu6(a + 3) / 6), 8,
        [ops.int8_lookup, ops.int8_lookup, ops.int8_lookup, ops.int8_mul],
    ),
    "add_relu": (
        lambda m, a, b: torch.relu(F.max_pool2d(a, 2) + F.avg_pool2d(b, 2)), 8,
        [ops.int8_max_pool2d, ops.int8_avg_pool2d, ops.int8_add],
    ),
    "add_silu": (
        lambda m, a, b: F.silu(F.max_pool2d(a, 2) + F.max_pool2d(b, 2)), 8,
        [ops.int8_max_pool2d, ops.int8_max_pool2d, ops.int8_add],
    ),
    "squeeze_excite": (
        lambda m, a, b: a * torch.sigmoid(m.gate(a.mean((2, 3), keepdim=True))), 8,
        [ops.int8_adaptive_avg_pool2d, ops.int8_mul],
    ),
    "swish": (lambda m, a, b: a * torch.sigmoid(a), 8, [ops.int8_lookup, ops.int8_mul]),
    "cat": (lambda m, a, b: torch.cat([torch.relu(a), b, F.hardswish(a)], 1), 24,
            [ops.int8_lookup, ops.int8_lookup, ops.int8_cat]),
    "pools": (
        lambda m, a, b: F.adaptive_avg_pool2d(F.avg_pool2d(F.relu(a), 3, 2, 1, True, False), 5), 8,
        [ops.int8_avg_pool2d, ops.int8_adaptive_avg_pool2d],
    ),
    "upsample": (
        lambda m, a, b: a + F.interpolate(
            F.max_pool2d(b, 2), size=a.shape[2:], mode="bilinear", align_corners=True
        ), 8, [ops.int8_max_pool2d, ops.int8_upsample2d],  # the addition is the layer's residual
    ),
    "upsample_factor": (
        lambda m, a, b: F.interpolate(F.relu(a), scale_factor=1.5, mode="bilinear"), 8,
        [ops.int8_upsample2d],
    ),
    "mean": (
        lambda m, a, b: F.relu6(a).mean((2, 3))[:, :, None, None] * m.gate(b), 8,
        [ops.int8_adaptive_avg_pool2d, ops.int8_mul],
    ),
}  # fmt: skip


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("name", BODIES)
def test_body(name, per_channel):
    body, channels, wanted = BODIES[name]
    program, calibrator = planned(
        Ends(body, channels).eval(), config=Config(precision="int8", per_channel=per_channel)
    )
    module = lowered(program)
    made = [t for t in targets(module) if "int8_" in str(t)]
    assert made == [t.default for t in wanted]
    left = 1 if name == "cumsum" else 0
    assert len(round_trips(module)) == targets(module).count(ops.dequantize.default) == left
    # The simulation sees what the ops round, to within what an unlucky tie makes.
    expected = simulate(program, calibrator.samples).output_sqnr_db
    with torch.no_grad():
        floats = torch.cat([program.graph_module(x)[0] for x in BATCHES])
        got = torch.cat([module(x)[0] for x in BATCHES])
    assert abs(sqnr_db(floats, got) - expected) < 0.5
    assert expected > 25


def test_one_quantize_of_a_float_operand():
    """A tensor from outside meets int8 in an addition: quantized once, nothing dequantized."""

    class Outside(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

        def forward(self, x):
            return self.b(F.avg_pool2d(self.a(x), 1) + x.tanh())

    program, _ = planned(Outside().eval())
    module = lowered(program)
    assert targets(module).count(ops.quantize.default) == 2  # x, and tanh(x)
    assert targets(module).count(ops.dequantize.default) == 0


def test_operations_at_the_edge_stay_float():
    """The input's pool would only be quantized, the answer's dequantized."""

    class Edges(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)

        def forward(self, x):
            return F.avg_pool2d(self.b(self.a(F.avg_pool2d(x, 2))), 2)

    program, calibrator = planned(Edges().eval())
    assert len(calibrator.betweens) == 2 and not program.between
    module = lowered(program)
    assert targets(module).count(ops.quantize.default) == 1
    assert targets(module).count(ops.dequantize.default) == 0
    assert (program.report.between_int8, program.report.between_total) == (0, 2)


@pytest.mark.parametrize("precision", ["int8-dynamic", "int8-weight-only", "bf16", "fp32"])
def test_other_precisions_have_none(precision):
    body, channels, _ = BODIES["squeeze_excite"]
    program, calibrator = planned(Ends(body, channels).eval(), config=Config(precision=precision))
    assert not calibrator.betweens and not program.between
    assert not any("int8_" in str(t) for t in targets(lowered(program)))


class GoogLeNet(nn.Module):
    """torchvision's parts, two modules deep: the whole takes 20 s to export."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(
            BasicConv2d(3, 16, kernel_size=7, stride=2, padding=3),
            nn.MaxPool2d(3, 2, ceil_mode=True),
        )
        self.a, self.b = Inception(16, 8, 8, 12, 4, 8, 8), Inception(36, 8, 8, 12, 4, 8, 8)
        self.pool, self.head = nn.AdaptiveAvgPool2d((1, 1)), nn.Linear(36, 10)

    def forward(self, x):
        x = F.max_pool2d(self.a(self.stem(x)), 3, 2, ceil_mode=True)
        return self.head(torch.flatten(self.pool(self.b(x)), 1))


def regnet_y():
    params = BlockParams(
        depths=[1, 2], widths=[16, 32], group_widths=[8, 8], bottleneck_multipliers=[1.0, 1.0],
        strides=[2, 2], se_ratio=0.25,
    )  # fmt: skip
    return RegNet(params, num_classes=10)


def mobilenet_v3():
    settings = [
        IR(16, 3, 16, 16, True, "RE", 2, 1, 1.0),
        IR(16, 3, 40, 24, False, "RE", 2, 1, 1.0),
        IR(24, 5, 64, 24, True, "HS", 1, 1, 1.0),
    ]
    return MobileNetV3(settings, 64, num_classes=10)


def efficientnet():
    settings = [MB(1, 3, 1, 32, 16, 1, 1.0, 1.0), MB(6, 3, 2, 16, 24, 2, 1.0, 1.0)]
    return EfficientNet(settings, dropout=0.2, last_channel=64, num_classes=10)


#: torchvision's own blocks in the order its models have them, fewer of each.
FAMILIES = {
    "mobilenet_v2": lambda: MobileNetV2(10, 0.5, [[1, 16, 1, 1], [6, 24, 2, 2], [6, 32, 2, 2]]),
    "resnet18": lambda: ResNet(BasicBlock, [1, 1, 1, 1], num_classes=10),
    "resnet50": lambda: ResNet(Bottleneck, [1, 2, 1, 1], num_classes=10),
    "mobilenet_v3_large": mobilenet_v3,
    "efficientnet_b0": efficientnet,
    "shufflenet_v2": lambda: ShuffleNetV2([2, 3, 2], [16, 24, 32, 48, 64], num_classes=10),
    "regnet_y_400mf": regnet_y,
    "squeezenet1_1": lambda: tv.squeezenet1_1(num_classes=10),
    "googlenet": GoogLeNet,
    "densenet121": lambda: DenseNet(8, (2, 3, 2), 16, num_classes=10),
}


def with_statistics(model):
    """Return the model with BatchNorms that have seen the data, as after training."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, 0, 0.3)
        norm.train()
    with torch.no_grad():
        for batch in BATCHES:
            model(batch)
    return model.eval()


@pytest.mark.parametrize("name", FAMILIES)
def test_no_round_trip_in(name):
    torch.manual_seed(0)
    program, calibrator = planned(with_statistics(FAMILIES[name]().eval()))
    assert all(plan.precision == "int8" for plan in program.plan.values())
    module = lowered(program)
    assert round_trips(module) == []
    # The input in, and nothing out: the last layer, or what stands behind it, answers in float.
    assert targets(module).count(ops.quantize.default) == 1
    assert targets(module).count(ops.dequantize.default) == 0
    edge = 1 if name.startswith("squeezenet") else 0  # it ends with a pool
    assert program.report.between_int8 == program.report.between_total - edge > 0
    with torch.no_grad():
        floats = torch.cat([program.graph_module(x)[0] for x in BATCHES])
        got = torch.cat([module(x)[0] for x in BATCHES])
    assert got.dtype == torch.float32
    assert sqnr_db(floats, got) > FLOOR_DB
    assert simulate(program, calibrator.samples).output_sqnr_db > FLOOR_DB
