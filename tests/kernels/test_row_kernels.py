"""Triton kernels of whole rows against their references: ragged shapes, dtypes, codes, strides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from device import DEVICE, IS_INTERPRETED

from fastinfer.ops.quantize import quantize_rows as quantize_rows_op
from fastinfer.testing.case import generator
from fastinfer.testing.compare import assert_equal, row_bound, sixteen_bit_bound
from fastinfer.testing.kernels_package import load_kernels

load_kernels()
from fastinfer.kernels.bias_act_residual import (  # noqa: E402
    bias_act_residual,
    bias_act_residual_ref,
)
from fastinfer.kernels.codes import Codes, quantized_ref  # noqa: E402
from fastinfer.kernels.gated import gated, gated_ref  # noqa: E402
from fastinfer.kernels.layer_norm import layer_norm, layer_norm_ref  # noqa: E402
from fastinfer.kernels.quantize_rows import quantize_rows, quantize_rows_ref  # noqa: E402
from fastinfer.kernels.rms_norm import rms_norm, rms_norm_ref  # noqa: E402
from fastinfer.kernels.rotary import rotary, rotary_ref  # noqa: E402
from fastinfer.kernels.rows import (  # noqa: E402
    CODES_CONFIG,
    ROW_CONFIGS,
    VALUE_CONFIGS,
    row_config,
    value_config,
)
from fastinfer.kernels.softmax import softmax, softmax_ref  # noqa: E402


@dataclass(frozen=True)
class RowOp:
    """An op of rows: launcher, reference, what else it takes, torch's own at x's dtype."""

    name: str
    launch: Callable[..., Any]
    reference: Callable[..., Any]
    others: Callable[[torch.Tensor, torch.Generator], tuple[Any, ...]]
    own: Callable[..., torch.Tensor]
    has_sums: bool = True

    def __str__(self) -> str:
        return self.name


def vector(x, g):
    return torch.randn(x.shape[-1], generator=g).to(x.dtype)


def like(x, g):
    return torch.randn(x.shape, generator=g).to(x.dtype)


OPS = (
    RowOp(
        "layer_norm", layer_norm, layer_norm_ref,
        lambda x, g: (vector(x, g), vector(x, g), 1e-5),
        lambda x, w, b, eps: F.layer_norm(x, w.shape, w, b, eps),
    ),
    RowOp(
        "layer_norm_plain", layer_norm, layer_norm_ref, lambda x, g: (None, None, 0.3),
        lambda x, w, b, eps: F.layer_norm(x, x.shape[-1:], None, None, eps),
    ),
    RowOp(
        "rms_norm", rms_norm, rms_norm_ref, lambda x, g: (vector(x, g), 1e-6),
        lambda x, w, eps: F.rms_norm(x, w.shape, w, eps),
    ),
    RowOp("softmax", softmax, softmax_ref, lambda x, g: (1.5,),
          lambda x, factor: torch.softmax(x * factor, -1)),
    RowOp("swiglu", gated, gated_ref, lambda x, g: (like(x, g),), lambda x, up: F.silu(x) * up,
          has_sums=False),
    RowOp("geglu", gated, gated_ref, lambda x, g: (like(x, g), "gelu_tanh"),
          lambda x, up, _: F.gelu(x, approximate="tanh") * up, has_sums=False),
    RowOp(
        "bias_gelu_residual", bias_act_residual, bias_act_residual_ref,
        lambda x, g: (vector(x, g), like(x, g), "gelu"), lambda x, b, r, _: F.gelu(x + b + r),
        has_sums=False,
    ),
    RowOp(
        "relu", bias_act_residual, bias_act_residual_ref, lambda x, g: (None, None, "relu"),
        lambda x, b, r, _: torch.relu(x), has_sums=False,
    ),
)  # fmt: skip
#: Of kernels that are in the list: with less to do, so with fewer tests.
VARIANTS = ("layer_norm_plain", "relu")
SHAPES = ((3, 5), (1, 1), (70, 64), (2, 3, 300), (0, 7), (2, 1030))
#: The interpreter of Triton 3.8 cuts float32 to bfloat16 where a GPU rounds.
ROTARY_DTYPES = (torch.float32, torch.float16, *(() if IS_INTERPRETED else (torch.bfloat16,)))
#: With a scale of their own, and by row.
CODES = (Codes(), Codes(signed=True), Codes(0.03, 117), Codes(0.02, signed=True))


def on_device(values):
    return tuple(v.to(DEVICE) if isinstance(v, torch.Tensor) else v for v in values)


def inputs(op, shape, dtype=torch.float32):
    g = generator(f"{op}{shape}")
    x = (torch.randn(shape, generator=g) * 3 + 0.5).to(dtype)
    return x, op.others(x, g)


def check_float32(op, x, others):
    got = op.launch(*on_device((x, *others)))
    want = op.reference(x, *others)
    assert got.dtype == want.dtype and got.shape == want.shape
    if got.numel():
        largest = float(want.abs().max()) + sum(
            float(o.abs().max()) for o in others if isinstance(o, torch.Tensor)
        )
        bound = row_bound(x.shape[-1], largest)
        assert float((got.cpu() - want).abs().max()) <= bound
    return got


@pytest.mark.parametrize(
    ("op", "shape"),
    [(op, shape) for op in OPS for shape in (SHAPES[:2] if op.name in VARIANTS else SHAPES)],
    ids=str,
)
def test_float32(op, shape):
    check_float32(op, *inputs(op, shape))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("op", [op for op in OPS if op.name not in VARIANTS],
                         ids=str)  # fmt: skip
def test_sixteen_bits(op, dtype):
    x, others = inputs(op, (5, 300), dtype)
    got = op.launch(*on_device((x, *others)))
    wide = [o.float() if isinstance(o, torch.Tensor) else o for o in others]
    want = op.reference(x.float(), *wide)
    assert got.dtype == dtype
    bound = sixteen_bit_bound(want, op.own(x, *others))
    assert float((got.float().cpu() - want).abs().max()) <= bound


def steps_apart(got, want):
    assert got.dtype == want.dtype and got.shape == want.shape
    return int((got.int() - want.int()).abs().max()) if got.numel() else 0


@pytest.mark.parametrize("codes", CODES, ids=str)
@pytest.mark.parametrize("op", [op for op in OPS if op.name not in VARIANTS],
                         ids=str)  # fmt: skip
def test_codes_are_those_of_the_floats(op, codes):
    """Fused quantizing gives the integers of quantizing what the same kernel answers in floats."""
    x, others = inputs(op, (70, 64))
    got = op.launch(*on_device((x, *others)), codes=codes)
    want = quantized_ref(op.launch(*on_device((x, *others))).cpu(), codes)
    # A compiler may sum a row in another order where codes are stored.
    most = 1 if op.has_sums and not IS_INTERPRETED else 0
    assert steps_apart(got.codes.cpu(), want.codes) <= most
    assert steps_apart(got.codes.cpu(), op.reference(x, *others, codes=codes).codes) <= 1
    for ours, theirs in ((got.scale, want.scale), (got.zero_point, want.zero_point)):
        assert (ours is None) == (theirs is None)
        if ours is not None and most == 0:
            assert_equal(ours.cpu(), theirs)


@pytest.mark.parametrize("shape", [(3, 5), (70, 64), (2, 3, 300), (0, 7), (4, 1)], ids=str)
def test_quantize_rows_is_the_op(shape):
    x = torch.randn(shape, generator=generator(str(shape))) * 3
    if x.numel():
        x.view(-1)[0] = float("nan")
        x[-1] = 0
    got = quantize_rows(x.to(DEVICE))
    q, scale, zero_point = quantize_rows_op(x.reshape(-1, shape[-1]))
    assert_equal(got.codes.cpu(), q.reshape(shape))
    assert_equal(got.scale.cpu(), scale.reshape(shape[:-1]))
    assert_equal(got.zero_point.cpu(), zero_point.reshape(shape[:-1]))


@pytest.mark.parametrize("codes", CODES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_quantize_rows(dtype, codes):
    inf = float("inf")
    special = torch.tensor([0.5, -0.0, 1e-42, 2.5, -1e4, 6e4, 1.5, 0.0])
    rows = torch.randn(9, 40, generator=generator("rows"))
    endless = torch.tensor([inf, 1.0, -inf, float("nan")])
    few = [special.repeat(5), -special.abs().repeat(5), endless.repeat(10)]
    x = torch.cat([rows, torch.stack(few)]).to(dtype)
    got, want = quantize_rows(x.to(DEVICE), codes), quantize_rows_ref(x, codes)
    for ours, theirs in zip(got, want, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            assert_equal(ours.cpu(), theirs)


def test_halves_and_strided_rows_are_read_where_they_lie():
    both = torch.randn(5, 3, 80, generator=generator("both")).to(DEVICE)
    gate, up = both.chunk(2, -1)
    assert_equal(gated(gate, up), gated(gate.contiguous(), up.contiguous()))
    x = both.transpose(0, 1)
    assert_equal(rms_norm(x), rms_norm(x.contiguous()))
    assert_equal(softmax(both[..., ::2]), softmax(both[..., ::2].contiguous()))


def test_softmax_of_masked_rows():
    inf = float("inf")
    x = torch.tensor([[0.5, -inf, 2.0, -inf], [-inf] * 4, [88.0, -88.0, 1e30, 0.0]])
    got, want = softmax(x.to(DEVICE)).cpu(), torch.softmax(x, -1)
    assert torch.equal(got.isnan(), want.isnan())
    assert float((got - want).nan_to_num().abs().max()) <= row_bound(4, 1.0)


@pytest.mark.parametrize("dtype", ROTARY_DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(5, 3, 64), (2, 17, 20), (0, 2, 8), (1, 1, 2)], ids=str)
def test_rotary(shape, dtype):
    g = generator(str(shape))
    x = torch.randn(shape, generator=g).to(dtype)
    angle = torch.randn(shape[0], shape[2] // 2, generator=g)
    cos, sin = angle.cos(), angle.sin()
    assert_equal(rotary(*on_device((x, cos, sin))).cpu(), rotary_ref(x, cos, sin))


def test_rotary_of_a_part_of_a_projection():
    both = torch.randn(4, 6, 32, generator=generator("qkv")).to(DEVICE)
    angle = torch.randn(4, 16, generator=generator("angle")).to(DEVICE)
    q = both[:, 2:4]
    assert_equal(rotary(q, angle.cos(), angle.sin()),
                 rotary(q.contiguous(), angle.cos(), angle.sin()))  # fmt: skip


@pytest.mark.parametrize("codes", [None, Codes(0.04, 3), Codes(signed=True), Codes()], ids=str)
def test_parts_of_rows(codes):
    """Rows that are split over programs give what the reference does."""
    g = generator("parts")
    gate, up = (torch.randn(3, 2100, generator=g) for _ in range(2))
    got = gated(gate.to(DEVICE), up.to(DEVICE), codes=codes)
    want = gated_ref(gate, up, codes=codes)
    if codes is None:
        assert float((got.cpu() - want).abs().max()) <= row_bound(1, float(want.abs().max()))
    else:
        assert steps_apart(got.codes.cpu(), want.codes) <= 1


def test_every_row_has_a_config():
    for config in ROW_CONFIGS:
        assert row_config("op", config.columns, False) == config
        assert value_config("op", config.columns, True).columns == config.columns
    assert row_config("op", CODES_CONFIG.columns, True) == CODES_CONFIG
    for config in VALUE_CONFIGS:
        assert value_config("op", config.columns, False) == config
    assert value_config("op", 100_000, False) == VALUE_CONFIGS[-1]
    with pytest.raises(ValueError, match=r"op: expected rows of at most 16384 values, got 16385"):
        row_config("op", 16385, True)


def test_bad_input_is_named():
    x = torch.zeros(2, 8, device=DEVICE)
    with pytest.raises(TypeError, match=r"layer_norm: expected x float32, .* got torch.int32"):
        layer_norm(x.int())
    with pytest.raises(ValueError, match=r"layer_norm: expected weight \[8\], got \[7\]"):
        layer_norm(x, x[0, :7])
    with pytest.raises(
        TypeError, match=r"gated: expected up torch.float32 as x, got torch.float16"
    ):
        gated(x, x.half())
    with pytest.raises(ValueError, match=r"expected activation in .* got 'swish'"):
        gated(x, x, "swish")
    with pytest.raises(ValueError, match=r"softmax: expected x \[\*, n\] with n >= 1"):
        softmax(x[:, :0])
    with pytest.raises(ValueError, match=r"Codes: expected scale > 0, got 0"):
        Codes(0.0)
    with pytest.raises(ValueError, match=r"Codes: expected zero_point in 0..0, got 3"):
        Codes(zero_point=3)
    with pytest.raises(ValueError, match=r"rotary: expected cos \[2, 4\], got \[2, 3\]"):
        rotary(x.view(2, 1, 8), x[:, :3], x[:, :4])
