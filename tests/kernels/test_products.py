"""Triton's int8 products: equal to the op's reference; and weight-only ones to a bound."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from device import DEVICE, IS_INTERPRETED

from fastinfer.ops.int8_linear import int8_linear_ref as int8_linear_op
from fastinfer.testing.case import generator
from fastinfer.testing.cases import OUTPUTS, UNBOUNDED, linear_case, random_weight
from fastinfer.testing.compare import assert_equal, sixteen_bit_bound
from fastinfer.testing.kernels_package import load_kernels
from fastinfer.types.packed import FLAG_FLOAT_OUTPUT, unpack

load_kernels()
from fastinfer.kernels.int4_linear import (  # noqa: E402
    dequantize_int4,
    int4_linear,
    int4_linear_ref,
    quantize_int4,
)
from fastinfer.kernels.int8_linear import (  # noqa: E402
    Int8Weight,
    int8_linear,
    int8_linear_ref,
)
from fastinfer.kernels.tiles import (  # noqa: E402
    INT4_CONFIGS,
    INT8_CONFIGS,
    MOST_SPLITS,
    WEIGHT_ONLY_CONFIGS,
    int4_config,
    int8_config,
    split_of_k,
    weight_only_config,
)
from fastinfer.kernels.weight_only_linear import (  # noqa: E402
    weight_only_linear,
    weight_only_linear_ref,
)


def layer_of(packed, device):
    """Return a packed weight as the kernel takes it."""
    parts = unpack(packed)
    h = parts.header

    def there(part):
        return part.to(device) if part.numel() else None

    return Int8Weight(
        parts.weight.to(device), parts.bias.to(device), parts.multiplier.to(device),
        there(parts.residual_multiplier), there(parts.table), h.out_zero_point, h.qmin, h.qmax,
        h.clamp_min, h.clamp_max, h.has(FLAG_FLOAT_OUTPUT),
    )  # fmt: skip


CASES = (
    *(linear_case((9,), 24, 40, output) for output in (*OUTPUTS, *UNBOUNDED)),
    linear_case((1,), 8, 16),
    linear_case((0,), 8, 16),
    linear_case((65,), 70, 144, OUTPUTS[1]),
    linear_case((3, 5), 33, 70, OUTPUTS[4]),
    linear_case((20,), 33, 257, weights="extreme"),
    # Enough tiles of each size.
    linear_case((1300,), 1300, 48, OUTPUTS[2]),
)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_int8_linear_is_the_op(case):
    x, packed, residual, n, float_output = case.build()
    want = int8_linear_op(x, packed, residual, n, float_output)
    layer = layer_of(packed, DEVICE)
    there = None if residual is None else residual.to(DEVICE)
    assert_equal(int8_linear(x.to(DEVICE), layer, there).cpu(), want)
    assert_equal(int8_linear_ref(x, layer_of(packed, "cpu"), residual), want)


def test_strided_rows():
    x, packed, *_ = linear_case((6,), 24, 40).build()
    layer, x = layer_of(packed, DEVICE), x.to(DEVICE)
    assert_equal(int8_linear(x.repeat(1, 2)[:, :40], layer), int8_linear(x, layer))


def test_every_tile_is_chosen():
    assert {int8_config(m, n) for m in (1, 17, 2000) for n in (1024, 3000)} == set(INT8_CONFIGS)
    assert {weight_only_config(m) for m in (1, 32, 64, 65)} == set(WEIGHT_ONLY_CONFIGS)
    assert {int4_config(m) for m in (1, 32, 64, 65)} == set(INT4_CONFIGS)


def test_parts_of_k_cover_it():
    for config in WEIGHT_ONLY_CONFIGS:
        found = set()
        for m, n, k in ((1, 64, 128), (1, 64, 4096), (64, 64, 5000), (16, 1 << 20, 4096)):
            splits, part = split_of_k(config, m, n, k)
            assert part % config.k == 0 and splits * part >= k
            assert splits == 1 or part >= 2 * config.k
            found.add(splits)
        assert found >= {1, MOST_SPLITS}


#: The interpreter of Triton 3.8 multiplies bfloat16 as float32, which its results are cut from.
DTYPES = (torch.float16, *(() if IS_INTERPRETED else (torch.bfloat16,)))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("m", "n", "k", "has_bias"),
    [(1, 40, 256, False), (16, 32, 70, True), (33, 70, 300, True), (70, 64, 128, False),
     (20, 70, 1030, True), (64, 130, 2100, False), (0, 8, 16, False)],
)  # fmt: skip
def test_weight_only(m, n, k, has_bias, dtype):
    g = generator(f"{m}.{n}.{k}")
    x = torch.randn(m, k, generator=g).to(dtype)
    weight = random_weight(g, "normal", n, k)
    scale = torch.rand(n, generator=g) * 0.01 + 0.001
    bias = torch.randn(n, generator=g).to(dtype) if has_bias else None
    there = [t if t is None else t.to(DEVICE) for t in (x, weight, scale, bias)]
    got = weight_only_linear(*there)
    want = weight_only_linear_ref(x.float(), weight, scale, bias)
    assert got.dtype == dtype and got.shape == want.shape
    if m:
        own = F.linear(x, (weight.float() * scale[:, None]).to(dtype), bias)
        bound = sixteen_bit_bound(want, own)
        assert float((got.cpu().float() - want).abs().max()) <= bound


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("m", "n", "k", "has_bias"),
    [(1, 40, 256, False), (16, 33, 128, True), (33, 70, 384, True), (70, 64, 128, False),
     (20, 70, 1152, True), (64, 130, 2176, False), (0, 8, 128, False)],
)  # fmt: skip
def test_int4(m, n, k, has_bias, dtype):
    g = generator(f"int4 {m}.{n}.{k}")
    x = torch.randn(m, k, generator=g).to(dtype)
    weight = quantize_int4(torch.randn(n, k, generator=g) * 0.05)
    bias = torch.randn(n, generator=g).to(dtype) if has_bias else None
    there = type(weight)(*(t.to(DEVICE) for t in weight))
    got = int4_linear(x.to(DEVICE), there, bias if bias is None else bias.to(DEVICE))
    want = int4_linear_ref(x.float(), weight, bias)
    assert got.dtype == dtype and got.shape == want.shape
    if m:
        bound = sixteen_bit_bound(want, F.linear(x, dequantize_int4(weight).to(dtype), bias))
        assert float((got.cpu().float() - want).abs().max()) <= bound


def test_int4_codes_are_half_a_step_from_the_weight():
    weight = torch.randn(9, 256, generator=generator("int4 codes"))
    weight[3] = 0
    packed = quantize_int4(weight)
    step = packed.scale.t().repeat_interleave(128, 1)
    eps = torch.finfo(torch.float32).eps
    assert ((dequantize_int4(packed) - weight).abs() <= step * (0.5 + 8 * eps)).all()
    with pytest.raises(ValueError, match=r"quantize_int4: expected weight \[N, K\]"):
        quantize_int4(weight[:, :100])


def test_bad_input_is_named():
    x, packed, *_ = linear_case((6,), 24, 40).build()
    layer, x = layer_of(packed, DEVICE), x.to(DEVICE)
    with pytest.raises(TypeError, match=r"int8_linear: expected x uint8, got torch.float32"):
        int8_linear(x.float(), layer)
    with pytest.raises(ValueError, match=r"int8_linear: expected x \[\*, 40\]"):
        int8_linear(x[:, :39], layer)
    with pytest.raises(ValueError, match=r"int8_linear: residual: the layer has none"):
        int8_linear(x, layer, x)
    with pytest.raises(ValueError, match=r"Int8Weight: expected bias torch.int32 \[24\]"):
        Int8Weight(layer.weight, layer.bias[:3], layer.multiplier)
    with pytest.raises(TypeError, match=r"weight_only_linear: expected x float16 or bfloat16"):
        weight_only_linear(x, layer.weight, layer.multiplier)
    with pytest.raises(ValueError, match=r"weight_only_linear: expected x \[\*, K\]"):
        weight_only_linear(x.half()[:, :39], layer.weight, layer.multiplier)
