"""Which operations between layers are int8, whose map is whose, and the numbers of their calls."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from layer_graph import random_batches
from torch import nn

import fastinfer  # noqa: F401  (registers the ops)
from fastinfer.compress.quantize import Calibrator, quantize
from fastinfer.compress.quantize.between import int8_betweens
from fastinfer.compress.quantize.bias_correction import simulate
from fastinfer.compress.quantize.decide import plan_layers
from fastinfer.compress.quantize.fold_between import fold_between
from fastinfer.compress.quantize.simulate import fake_quantize, simulate_between
from fastinfer.config import Config
from fastinfer.graph.between import BetweenSpec
from fastinfer.graph.capture import capture
from fastinfer.passes import STATIC_FLOAT_PASSES, run_passes
from fastinfer.program import BetweenPlan
from fastinfer.types import Activation, TensorQuant

INT8 = Config(precision="int8")
BATCHES = random_batches((2, 3, 8, 8))


class Ends(nn.Module):
    """Two convolutions, a body, and a convolution."""

    def __init__(self, body, channels):
        super().__init__()
        torch.manual_seed(1)
        self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)
        self.c, self.last = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(channels, 4, 1)
        self.body = body

    def forward(self, x):
        return self.last(self.body(self, self.a(x), self.b(x)))


def planned(body, channels=4, config=INT8):
    program = run_passes(capture(Ends(body, channels).eval(), (BATCHES[0],)), STATIC_FLOAT_PASSES)
    calibrator = Calibrator(program, config).run(BATCHES)
    return quantize(program, calibrator, config), calibrator


def test_max_pooling_keeps_the_map():
    program, _ = planned(lambda m, a, b: F.max_pool2d(a, 3, 2, 1))
    (plan,) = program.between.values()
    assert plan.inputs == (plan.output,) == (program.plan["last"].input,)
    assert plan.output.is_per_tensor and program.plan["a"].output == plan.output


def test_maps_of_other_operations_are_their_own():
    program, _ = planned(lambda m, a, b: F.avg_pool2d(a, 3, 1, 1) * b)
    pool, mul = program.between.values()
    assert pool.output == mul.inputs[0] != pool.inputs[0]
    assert mul.inputs[1] == program.plan["b"].output
    assert program.plan["last"].input == mul.output
    assert all(m.is_per_tensor for plan in (pool, mul) for m in (*plan.inputs, plan.output))


def test_what_only_a_cat_reads_shares_its_map():
    config = Config(precision="int8", per_channel=False)
    program, _ = planned(lambda m, a, b: torch.cat([a, b * a], 1), 8, config)
    cat = list(program.between.values())[-1]
    assert cat.inputs[1] == cat.output  # the product has no other reader
    assert cat.inputs[0] == program.plan["a"].output


@pytest.mark.parametrize(("gain", "shared"), [(1.0, True), (8.0, False)])
def test_a_part_that_others_read_shares_only_a_like_range(gain, shared):
    config = Config(precision="int8", per_channel=False)
    model = Ends(lambda m, a, b: torch.cat([a, m.c(a)], 1), 8).eval()
    with torch.no_grad():
        model.a.bias.zero_()
        model.c.weight.zero_()
        model.c.weight[:, :, 1, 1] = gain * torch.eye(4)
        model.c.bias.zero_()
    program = run_passes(capture(model, (BATCHES[0],)), STATIC_FLOAT_PASSES)
    program = quantize(program, Calibrator(program, config).run(BATCHES), config)
    (cat,) = program.between.values()
    assert (cat.inputs[0] == cat.output) == shared
    assert cat.inputs[1] == cat.output


def test_a_cat_that_layers_read_keeps_the_scales_of_its_parts():
    program, _ = planned(lambda m, a, b: torch.cat([a.relu(), m.c(b).relu()], 1), 8)
    (cat,) = program.between.values()
    assert cat.output == program.plan["last"].input and len(cat.output.scale) == 8
    assert cat.output.scale == (*cat.inputs[0].scale * 4, *cat.inputs[1].scale * 4)
    folded = fold_between(BetweenSpec("cat", dim=1, sizes=(4, 4)), cat)
    assert folded.numbers == (1, [1.0, 1.0], [0, 0], 0)


class GrowingCats(nn.Module):
    """Two cats with parts in common, as in a dense block; `other` reads the first part, too."""

    def __init__(self, other):
        super().__init__()
        torch.manual_seed(1)
        self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 5, 1)
        self.c, self.last = nn.Conv2d(9, 4, 3, padding=1), nn.Conv2d(13, 4, 1)
        self.other = other

    def forward(self, x):
        a, b = self.a(x).relu(), self.b(x)
        c = self.c(torch.cat([a, b], 1))
        y = self.last(torch.cat([a, b, c], 1))
        return self.other(self, a, y)


@pytest.mark.parametrize("is_read", [False, True])
def test_cats_with_parts_in_common_copy_codes(is_read):
    """All have one zero point; a part that others read keeps its own and is converted."""

    def other(m, a, y):
        return m.c(torch.cat([a * y, y, y[:, :1]], 1)) if is_read else y

    program = run_passes(capture(GrowingCats(other).eval(), (BATCHES[0],)), STATIC_FLOAT_PASSES)
    program = quantize(program, Calibrator(program, INT8).run(BATCHES), INT8)
    small, large, *_ = (
        plan for plan in program.between.values() if len(plan.output.scale) in (9, 13)
    )
    assert small.output.zero_point == large.output.zero_point not in (0, 255)
    assert small.inputs == large.inputs[:2]
    for plan, sizes in ((small, (4, 5)), (large, (4, 5, 4))):
        _, multipliers, zeros, zero = fold_between(
            BetweenSpec("cat", dim=1, sizes=sizes), plan
        ).numbers
        assert multipliers[1:] == [1.0] * len(multipliers[1:]) and set(zeros[1:]) == {zero}
        assert (multipliers[0] == 1.0 and zeros[0] == zero) == (not is_read)
        assert (plan.inputs[0].zero_point == 0) == is_read


def test_sizes_do_not_join_maps():
    """Two views by one symbolic size are two tensors with maps of their own."""

    def body(m, a, b):
        n = a.shape[0]
        return a.reshape(n, 4, -1).reshape(n, 4, 8, 8) * b.reshape(n, 4, -1).reshape(n, 4, 8, 8)

    program, _ = planned(body)
    (mul,) = program.between.values()
    assert mul.inputs[0] != mul.inputs[1]


def test_float_neighbours_and_held_ones():
    body = lambda m, a, b: F.avg_pool2d(F.avg_pool2d(a, 2), 2)  # noqa: E731
    program, calibrator = planned(body)
    first, second = program.between
    layers = {str(n.target): n for n in calibrator.layers}
    everything = frozenset(layers.values())
    assert [n.name for n in int8_betweens(calibrator, everything)] == [first, second]
    # One float end, or one operation held, and the chain loses its other end too.
    assert not int8_betweens(calibrator, everything - {layers["a"]})
    assert not int8_betweens(calibrator, everything - {layers["last"]})
    assert not int8_betweens(calibrator, everything, frozenset({first}))
    chosen = {node: ("int8", "") for node in calibrator.layers}
    held = plan_layers(program, calibrator, INT8, chosen, frozenset({second}))
    assert not held.between and held.plan["a"].output is None


def test_infinity_stays_float():
    program, calibrator = planned(lambda m, a, b: a * (b - b).log())
    assert len(calibrator.betweens) == 1 and not program.between


def codes(shape, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


#: Scales that are no ratios of small integers, which would make half of all codes ties.
X, Y = TensorQuant((0.02137,), 100), TensorQuant((0.05171,), 30)
OUT = TensorQuant((0.03917,), 90)
RELU = Activation("clamp", (0.0, float("inf")))
IMAGE = (2, 4, 7, 6)
CALLS = {
    "add": (BetweenSpec("add"), (X, Y), OUT),
    "add_relu": (BetweenSpec("add", RELU), (X, Y), TensorQuant((0.04,), 0)),
    "mul": (BetweenSpec("mul"), (X, Y), OUT),
    "mul_relu6": (BetweenSpec("mul", Activation("clamp", (0.0, 6.0))), (X, Y), OUT),
    "cat": (BetweenSpec("cat", dim=1, sizes=(4, 4)), (X, Y), OUT),
    "cat_split": (
        BetweenSpec("cat", dim=1, sizes=(4, 4)),
        (X, Y),
        TensorQuant((0.03,) * 4 + (0.05,) * 4, 90),
    ),
    "max_pool": (BetweenSpec("max_pool", kernel_size=(3, 2), stride=(2, 1)), (X,), X),
    "avg_pool": (
        BetweenSpec("avg_pool", RELU, (3, 3), (2, 2), (1, 1), ceil_mode=True),
        (X,),
        TensorQuant((0.015,), 0),
    ),
    "adaptive": (BetweenSpec("adaptive_avg_pool", output_size=(2, 3)), (X,), OUT),
    "silu": (BetweenSpec("activation", Activation("silu")), (X,), OUT),
    "upsample": (BetweenSpec("upsample", scale_factors=(1.7, 0.6)), (X,), X),
}


@pytest.mark.parametrize("name", CALLS)
def test_call_computes_what_is_simulated(name):
    """To one code: the simulation multiplies real numbers, and a tie may fall either way."""
    spec, inputs, output = CALLS[name]
    plan = BetweenPlan(inputs, output)
    folded = fold_between(spec, plan)
    tensors = [codes(IMAGE, seed) for seed in range(len(inputs))]
    args = [tensors] if spec.kind == "cat" else list(tensors)
    if spec.kind == "upsample":
        args += [None, []]
    tail = [folded.table] if folded.table is not None or spec.kind == "add" else []
    got = getattr(torch.ops.fastinfer, folded.op)(*args, *folded.numbers, *tail)
    floats = [q.scale[0] * (t.float() - q.zero_point) for t, q in zip(tensors, inputs, strict=True)]
    wanted = simulate_between(spec, plan, floats)
    scale = torch.tensor(output.scale).reshape(-1, 1, 1)
    real = scale * (got.float() - output.zero_point)
    steps = ((real - wanted) / scale).abs()
    assert steps.max() < 1.01 and steps.gt(0.5).float().mean() < 0.01
    assert torch.allclose(fake_quantize(wanted, output, 1), wanted, atol=1e-6)


def test_add_with_a_table():
    silu, before = Activation("silu"), TensorQuant((0.06,), 110)
    folded = fold_between(BetweenSpec("add", silu), BetweenPlan((X, Y), OUT, before))
    assert folded.table is not None and folded.numbers[4:] == (110, 0, 255)
    assert folded.numbers[0] == torch.tensor(X.scale[0] / 0.06, dtype=torch.float32).item()


def test_a_multiplier_out_of_range_is_refused():
    tiny = TensorQuant((1e-30,), 0)
    with pytest.raises(ValueError, match="out of float32"):
        fold_between(BetweenSpec("mul"), BetweenPlan((tiny, tiny), OUT))


def test_simulation_sees_what_is_rounded():
    """A coarse map of a pool's result is a worse answer."""
    program, calibrator = planned(lambda m, a, b: F.avg_pool2d(a, 2))
    ((name, plan),) = program.between.items()
    fine = simulate(program, calibrator.samples).output_sqnr_db
    coarse = BetweenPlan(plan.inputs, TensorQuant((plan.output.scale[0] * 16,), 128))
    worse = simulate(program.with_plan(program.plan, {name: coarse}), calibrator.samples)
    assert worse.output_sqnr_db < fine - 6
