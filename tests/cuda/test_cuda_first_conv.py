"""The kernel of first layers, and quantizing half floats for them, against their references."""

from __future__ import annotations

import pytest
import torch
from cuda_library import need_gpu

from fastinfer import runtime
from fastinfer.ops.catalog import OPS
from fastinfer.testing.case import generator
from fastinfer.testing.cases import OUTPUTS, UNBOUNDED, Conv, conv_case, dynamic_conv_case
from fastinfer.testing.compare import assert_equal
from fastinfer.testing.devices import on_device

need_gpu("the CUDA kernel of first layers is not run")

SPECS = {op.name: op for op in OPS}
SEVEN = {"kernel": (7, 7), "stride": (2, 2), "padding": (3, 3)}
#: Tiles of 1 to 8 rows and up to 128 columns, ragged; one to four channels; steps of both forms.
CONVS = (
    Conv(2, 3, (64, 224), 64, **SEVEN),
    Conv(5, 3, (33, 31), 64, **SEVEN),
    Conv(1, 3, (17, 600), 72, **SEVEN),
    Conv(40, 3, (40, 41), 33, **SEVEN),
    Conv(3, 3, (57, 59), 32, stride=(2, 2)),
    Conv(2, 4, (30, 130), 96, padding=(0, 1)),
    Conv(2, 1, (28, 28), 16, kernel=(3, 4), padding=(2, 1), stride=(2, 1)),
    Conv(2, 3, (64, 96), 96, kernel=(4, 4), stride=(4, 4), padding=(0, 0)),
    Conv(1, 2, (40, 41), 130, kernel=(7, 8), stride=(3, 3), padding=(2, 4)),
    Conv(0, 3, (33, 31), 64, **SEVEN),
)


def check(case, moved=None):
    args = case.build()
    want = SPECS[case.op].reference(*args)
    there = on_device(args, "cuda")
    got = getattr(torch.ops.fastinfer, case.op)(*(there if moved is None else moved(*there)))
    assert_equal(got.cpu(), want)
    assert got.stride() == want.stride() or got.numel() == 0


@pytest.mark.parametrize("output", [*OUTPUTS, UNBOUNDED[0]], ids=lambda o: o.name)
@pytest.mark.parametrize("conv", CONVS, ids=str)
def test_equals_reference(conv, output):
    check(conv_case(conv, output))


@pytest.mark.parametrize("conv", CONVS[:-1], ids=str)
def test_of_any_address_and_layout(conv):
    def at_1(x, *rest):
        rows = x.permute(0, 2, 3, 1)
        storage = torch.zeros(x.numel() + 1, dtype=torch.uint8, device="cuda")
        return storage[1:].view(rows.shape).copy_(rows).permute(0, 3, 1, 2), *rest

    check(conv_case(conv, zero_point=0), at_1)
    check(conv_case(conv, weights="extreme"), lambda x, *rest: (x.contiguous(), *rest))


@pytest.mark.parametrize("conv", CONVS, ids=str)
def test_dynamic(conv):
    if conv.c > 1:
        check(dynamic_conv_case(conv))


def test_equals_the_gemm():
    """Where a tile is forced, the GEMM does a first layer."""
    case = conv_case(CONVS[0], OUTPUTS[0])
    args = on_device(case.build(), "cuda")
    own = torch.ops.fastinfer.int8_conv2d(*args)
    kernels = runtime.require_cuda_kernels()
    kernels.force_config("mma", 64, 64)
    try:
        assert_equal(torch.ops.fastinfer.int8_conv2d(*args), own)
    finally:
        kernels.force_config("")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize(
    "shape", [(2, 3, 31, 33), (1, 4, 40, 40), (3, 130, 1, 65), (2, 64, 8, 8)], ids=str
)
def test_quantize_of_half_floats(shape, offset, dtype):
    x = (torch.randn(shape, generator=generator(str(shape))) * 3).to(dtype)
    x.view(-1)[0] = float("nan")
    storage = torch.empty(x.numel() + offset, device="cuda", dtype=dtype)
    there = storage[offset:].view(shape).copy_(x)
    for channels_last in (False, True):
        got = torch.ops.fastinfer.quantize(there, 0.02, 100, channels_last)
        assert_equal(got.cpu(), SPECS["quantize"].reference(x, 0.02, 100, channels_last))
