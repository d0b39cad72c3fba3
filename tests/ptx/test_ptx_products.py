"""Triton's products, run from their PTX for sm_80 and sm_90, agree with their references."""

from __future__ import annotations

import os
import re
import sys
from typing import Any

import pytest
import torch

pytest.importorskip("triton", reason="Triton is missing: its kernels' PTX is not run")
# As in test_ptx_triton.py: only where somebody sets it for the whole run.
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("interpreted by Triton: nothing is compiled", allow_module_level=True)
from host.triton_launch import launch, reference
from interpreter import AHEAD, BEHIND, Fault
from interpreter.faults import OUT_OF_BOUNDS, RACE

from fastinfer.testing.case import generator
from fastinfer.testing.cases import OUTPUTS, UNBOUNDED, linear_case
from fastinfer.testing.compare import assert_equal, sixteen_bit_bound
from fastinfer.testing.kernels_package import load_kernels
from fastinfer.types.packed import FLAG_FLOAT_OUTPUT, unpack

load_kernels()
from fastinfer.kernels import (  # noqa: E402
    fp8_linear,
    int4_linear,
    int8_linear,
    quantize_rows,
    weight_only_linear,
)
from fastinfer.kernels.codes import Codes  # noqa: E402
from fastinfer.kernels.tiles import (  # noqa: E402
    FP8_CONFIGS,
    INT4_CONFIGS,
    INT8_CONFIGS,
    WEIGHT_ONLY_CONFIGS,
)

#: mma.sync, wgmma.
ARCHS = (80, 90)
F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16


def layer_of(packed: torch.Tensor) -> Any:
    """Return a packed weight as the kernel takes it."""
    parts = unpack(packed)
    h = parts.header
    residual, table = (t if t.numel() else None for t in (parts.residual_multiplier, parts.table))
    return int8_linear.Int8Weight(
        parts.weight, parts.bias, parts.multiplier, residual, table, h.out_zero_point, h.qmin,
        h.qmax, h.clamp_min, h.clamp_max, h.has(FLAG_FLOAT_OUTPUT),
    )  # fmt: skip


FLAT, SMALL, LARGE = INT8_CONFIGS
#: More steps of K than copies under way; several tiles each way; rows of no whole 16 bytes.
DEEP = linear_case((20,), 70, 720, OUTPUTS[1])
INT8 = (
    (linear_case((9,), 24, 40), FLAT),
    (linear_case((3,), 65, 752, OUTPUTS[4]), FLAT),
    (DEEP, SMALL),
    (linear_case((65,), 33, 257, weights="extreme"), SMALL),
    (linear_case((129,), 130, 400, OUTPUTS[3]), LARGE),
    *((linear_case((9,), 24, 48, output), SMALL) for output in (*OUTPUTS[5:], *UNBOUNDED)),
)


def run_int8(case, tile, monkeypatch, **more):
    monkeypatch.setattr(int8_linear, "int8_config", lambda m, n: tile)
    x, packed, residual, *_ = case.build()
    layer = layer_of(packed)
    got = launch(int8_linear, x, layer, residual, **more)
    assert_equal(got, int8_linear.int8_linear_ref(x, layer, residual))


@pytest.mark.parametrize(
    ("case", "tile"), INT8, ids=lambda v: f"{v.m}x{v.n}" if v in INT8_CONFIGS else str(v)
)
def test_int8_linear(case, tile, monkeypatch):
    run_int8(case, tile, monkeypatch)


@pytest.mark.parametrize("order", [BEHIND, AHEAD])
@pytest.mark.parametrize("arch", ARCHS)
def test_int8_linear_in_both_orders(arch, order, monkeypatch):
    run_int8(DEEP, SMALL, monkeypatch, order=order, arch=arch)


@pytest.mark.parametrize("dtype", [F16, BF16], ids=str)
@pytest.mark.parametrize(("m", "n", "k"), [(1, 33, 1100), (17, 70, 144), (70, 40, 176)])
def test_weight_only(m, n, k, dtype):
    g = generator(f"{m}.{n}.{k}")
    x = torch.randn(m, k, generator=g).to(dtype)
    weight = torch.randint(-127, 128, (n, k), generator=g, dtype=torch.int8)
    scale = torch.rand(n, generator=g) * 0.01 + 0.001
    bias = torch.randn(n, generator=g).to(dtype) if m > 1 else None
    check_product(weight_only_linear, x, weight, scale, bias)


@pytest.mark.parametrize("dtype", [F16, BF16], ids=str)
@pytest.mark.parametrize(("m", "n", "k"), [(1, 33, 1024), (17, 70, 256), (70, 40, 128)])
def test_int4(m, n, k, dtype):
    g = generator(f"int4 {m}.{n}.{k}")
    x = torch.randn(m, k, generator=g).to(dtype)
    weight = int4_linear.quantize_int4(torch.randn(n, k, generator=g) * 0.05)
    bias = torch.randn(n, generator=g).to(dtype) if m > 1 else None
    check_product(int4_linear, x, weight, bias)


@pytest.mark.parametrize("codes", [Codes(float8=True), Codes(0.02, float8=True)], ids=str)
@pytest.mark.parametrize(("shape", "dtype"), [((70, 50), F32), ((3, 300), F16)])
def test_quantize_rows_to_float8(shape, dtype, codes):
    x = (torch.randn(shape, generator=generator(str(shape))) * 3).to(dtype)
    x.view(-1)[:4] = torch.tensor([float("nan"), 1e-42, 0.5, -float("inf")], dtype=dtype)
    x[-1, 1:] = 0
    got, want = launch(quantize_rows, x, codes, arch=90), quantize_rows.quantize_rows_ref(x, codes)
    assert_equal(got.codes.view(torch.uint8), want.codes.view(torch.uint8))
    assert (got.scale is None) == (want.scale is None)
    if got.scale is not None:
        assert_equal(got.scale, want.scale)


FP8 = (
    ((9, 33, 144), {}, FP8_CONFIGS[0]),
    ((1, 70, 400), {"out": BF16, "activation": "gelu_tanh"}, FP8_CONFIGS[0]),
    ((65, 130, 272), {"by_row": False, "bias": True, "residual": True}, FP8_CONFIGS[1]),
    ((130, 70, 1040), {"bias": True, "activation": "relu"}, FP8_CONFIGS[2]),
    ((20, 64, 720), {"out": Codes(0.5, float8=True), "residual": True}, FP8_CONFIGS[1]),
)


@pytest.mark.parametrize(
    ("sizes", "more", "tile"), FP8, ids=lambda v: f"{v.m}x{v.n}" if v in FP8_CONFIGS else None
)
def test_fp8_linear(sizes, more, tile, monkeypatch):
    monkeypatch.setattr(fp8_linear, "fp8_config", lambda m, n: tile)
    m, n, k = sizes
    g = generator(str(sizes))
    of_row = Codes(float8=True)
    x = quantize_rows.quantize_rows_ref(torch.randn(m, k, generator=g), of_row)
    weight = quantize_rows.quantize_rows_ref(torch.randn(n, k, generator=g), of_row)
    out = more.get("out", F16)
    bias = torch.randn(n, generator=g) if more.get("bias") else None
    residual = torch.randn(m, n, generator=g).half() if more.get("residual") else None
    x_scale = x.scale if more.get("by_row", True) else x.scale[0]
    arguments = (
        x.codes, weight.codes, x_scale, weight.scale, bias, residual,
        more.get("activation", "identity"),
    )  # fmt: skip
    got = launch(fp8_linear, *arguments, out, arch=90)
    want = fp8_linear.fp8_linear_ref(*arguments, out)
    assert got.dtype == want.dtype and got.shape == want.shape
    if isinstance(out, Codes):
        # Sums in another order may fall on the other side of a middle: the next code, an eighth.
        off = (got.float() - want.float()).abs()
        assert (off <= want.float().abs() / 8 + 2.0**-9).all()
        assert (off > 0).float().mean() <= 0.01
        return
    # Both sum exact products in float32 and round once to out.
    terms = x.codes.float().abs() @ weight.codes.float().abs().t()
    sums = terms * (x_scale[:, None] if x_scale.dim() else x_scale) * weight.scale
    eps = torch.finfo(F32).eps
    bound = 2 * (k + 8) * eps * sums + 2 * torch.finfo(out).eps * want.float().abs() + 16 * eps
    assert ((got.float() - want.float()).abs() <= bound).all()


def test_float8_needs_a_gpu_that_has_it(monkeypatch):
    codes = sys.modules["fastinfer.kernels.codes"]
    x = torch.zeros(2, 16)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    monkeypatch.setattr(torch.Tensor, "is_cuda", True, raising=False)
    with pytest.raises(ValueError, match=r"op: expected a GPU of compute capability 8.9 or later"):
        codes.check_float8("op", x)


def check_product(module, x, *others):
    # One row is multiplied by mma.sync on every GPU.
    for arch in ARCHS[: 1 if x.shape[0] == 1 else 2]:
        check_product_on(arch, module, x, *others)


def check_product_on(arch, module, x, *others):
    got = launch(module, x, *others, arch=arch)
    want = reference(module)(x.float(), *others)
    assert got.dtype == x.dtype and got.shape == want.shape
    bound = sixteen_bit_bound(want, reference(module)(x, *others))
    assert float((got.float() - want).abs().max()) <= bound


def test_tiles_of_the_cases():
    """The rows of the cases above take every tile of float products."""
    tiles = sys.modules["fastinfer.kernels.tiles"]
    for choose, configs in (
        (tiles.weight_only_config, WEIGHT_ONLY_CONFIGS),
        (tiles.int4_config, INT4_CONFIGS),
    ):
        assert {choose(m) for m in (1, 17, 70)} == set(configs)


def without_barriers(ptx: str) -> str:
    return re.sub(r"bar\.sync\s+0;", "", ptx)


def waiting_less(ptx: str) -> str:
    return ptx.replace("cp.async.wait_group \t4", "cp.async.wait_group \t5")


def a_column_too_many(ptx: str) -> str:
    return ptx.replace("setp.lt.s32", "setp.le.s32")


@pytest.mark.parametrize("change", [without_barriers, waiting_less, a_column_too_many])
def test_mistakes_in_a_product(change, monkeypatch):
    with pytest.raises((Fault, AssertionError)) as found:
        run_int8(DEEP, SMALL, monkeypatch, change=change)
    wanted = OUT_OF_BOUNDS if change is a_column_too_many else RACE
    assert isinstance(found.value, Fault) and found.value.kind == wanted


def without_fences(ptx: str) -> str:
    return re.sub(r"fence\.proxy\.async\S*;", "", ptx)


def test_wgmma_without_a_fence(monkeypatch):
    """What cp.async has written is not yet there for wgmma."""
    with pytest.raises(Fault) as found:
        run_int8(DEEP, SMALL, monkeypatch, change=without_fences, arch=90)
    assert found.value.kind == RACE and found.value.where.startswith("wgmma.mma_async")
