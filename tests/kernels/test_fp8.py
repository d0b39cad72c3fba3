"""Float8 products and codes against their references."""

from __future__ import annotations

import pytest
import torch
from device import DEVICE, IS_INTERPRETED

from fastinfer.testing.case import generator
from fastinfer.testing.compare import assert_equal
from fastinfer.testing.kernels_package import load_kernels

load_kernels()
from fastinfer.kernels.codes import Codes  # noqa: E402
from fastinfer.kernels.fp8_linear import fp8_linear, fp8_linear_ref  # noqa: E402
from fastinfer.kernels.layer_norm import layer_norm, layer_norm_ref  # noqa: E402
from fastinfer.kernels.quantize_rows import quantize_rows, quantize_rows_ref  # noqa: E402
from fastinfer.kernels.tiles import FP8_CONFIGS, fp8_config  # noqa: E402

# Tensor cores multiply e4m3 from 8.9 on; what is said below is tested in test_ptx_products.py.
if DEVICE == "cuda" and torch.cuda.get_device_capability() < (8, 9):
    pytest.skip("float8: this GPU has none", allow_module_level=True)

OF_ROW = Codes(float8=True)
STATIC = Codes(0.02, float8=True)
rounds = pytest.mark.skipif(
    IS_INTERPRETED,
    reason="float8 rounding: Triton 3.8's interpreter makes 64 of 127; tests/ptx runs it",
)


@rounds
@pytest.mark.parametrize("codes", [OF_ROW, STATIC], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_quantize_rows(dtype, codes):
    x = (torch.randn(70, 300, generator=generator("float8")) * 3).to(dtype)
    x[0, :4] = torch.tensor([float("nan"), 1e-30, 0.5, -float("inf")], dtype=dtype)
    x[3] = 0
    got, want = quantize_rows(x.to(DEVICE), codes), quantize_rows_ref(x, codes)
    assert_equal(got.codes.cpu().view(torch.uint8), want.codes.view(torch.uint8))
    assert (got.scale is None) == (want.scale is None)
    if got.scale is not None:
        assert_equal(got.scale.cpu(), want.scale)


def one_code_apart(got, want):
    """Return whether values are equal or neighbours: an eighth apart, or the least step."""
    got, want = got.float().cpu(), want.float()
    return bool(((got - want).abs() <= want.abs() / 8 + 2.0**-9).all())


@rounds
@pytest.mark.parametrize("codes", [OF_ROW, STATIC], ids=str)
def test_layer_norm(codes):
    x = torch.randn(9, 300, generator=generator("norm"))
    got, want = layer_norm(x.to(DEVICE), codes=codes), layer_norm_ref(x, codes=codes)
    assert one_code_apart(got.codes, want.codes)


CASES = (
    ((9, 33, 144), torch.float16, "identity", False, True),
    ((1, 70, 400), torch.bfloat16, "gelu_tanh", True, True),
    ((70, 130, 272), torch.float16, "relu", True, False),
    ((300, 70, 1040), torch.float16, "silu", False, False),
    ((0, 16, 32), torch.float16, "identity", False, True),
)


@pytest.mark.parametrize(("sizes", "out", "activation", "has_bias", "by_row"), CASES, ids=str)
def test_fp8_linear(sizes, out, activation, has_bias, by_row):
    m, n, k = sizes
    g = generator(str(sizes))
    x = quantize_rows_ref(torch.randn(m, k, generator=g), OF_ROW)
    weight = quantize_rows_ref(torch.randn(n, k, generator=g), OF_ROW)
    x_scale = x.scale if by_row else weight.scale[0]
    bias = torch.randn(n, generator=g) if has_bias else None
    residual = torch.randn(m, n, generator=g).to(out) if has_bias else None
    tensors = (x.codes, weight.codes, x_scale, weight.scale, bias, residual)
    there = [t if t is None else t.to(DEVICE) for t in tensors]
    got = fp8_linear(*there, activation, out)
    want = fp8_linear_ref(*tensors, activation, out)
    assert got.dtype == out and got.shape == want.shape
    if not m:
        return
    sums = x.codes.float().abs() @ weight.codes.float().abs().t()
    sums = sums * (x_scale[:, None] if by_row else x_scale) * weight.scale
    # Hopper keeps 14 bits of the sums of a step of 128; the interpreter rounds them to float32.
    eps = 2.0**-13 if DEVICE == "cuda" else 2 * (k + 8) * torch.finfo(torch.float32).eps
    bound = 1.2 * eps * sums + 2 * torch.finfo(out).eps * want.float().abs() + 2.0**-18
    assert ((got.float().cpu() - want.float()).abs() <= bound).all()


@rounds
def test_float8_results():
    g = generator("float8 results")
    x = quantize_rows_ref(torch.randn(20, 256, generator=g), OF_ROW)
    weight = quantize_rows_ref(torch.randn(64, 256, generator=g), OF_ROW)
    tensors = (x.codes, weight.codes, x.scale, weight.scale)
    got = fp8_linear(*(t.to(DEVICE) for t in tensors), out=STATIC)
    want = fp8_linear_ref(*tensors, out=STATIC)
    assert got.dtype == torch.float8_e4m3fn and one_code_apart(got, want)


def test_every_tile_is_chosen():
    sizes = ((1, 4096), (64, 16384), (4096, 4096))
    assert {fp8_config(m, n) for m, n in sizes} == set(FP8_CONFIGS)


def test_bad_input_is_named():
    x = torch.zeros(2, 32, device=DEVICE).to(torch.float8_e4m3fn)
    weight, one = x[:1], torch.ones(1, device=DEVICE)
    with pytest.raises(TypeError, match=r"fp8_linear: expected x and weight torch.float8_e4m3fn"):
        fp8_linear(x.float(), weight, one[0], one)
    with pytest.raises(ValueError, match=r"fp8_linear: expected x \[\*, K\] and weight \[N, K\]"):
        fp8_linear(x[:, :16], weight, one[0], one)
    with pytest.raises(ValueError, match=r"fp8_linear: expected x_scale \[2\], got \[1\]"):
        fp8_linear(x, weight, one, one)
    with pytest.raises(TypeError, match=r"fp8_linear: expected out float16, bfloat16 or Codes"):
        fp8_linear(x, weight, one[0], one, out=torch.float32)
    with pytest.raises(ValueError, match=r"fp8_linear: expected out Codes\(scale, float8=True\)"):
        fp8_linear(x, weight, one[0], one, out=OF_ROW)
    with pytest.raises(ValueError, match=r"Codes: expected signed or float8, got both"):
        Codes(signed=True, float8=True)
