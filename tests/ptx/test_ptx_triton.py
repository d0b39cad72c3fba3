"""Every Triton kernel, run from its PTX for sm_80 and sm_90, agrees with its reference."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch

pytest.importorskip("triton", reason="Triton is missing: its kernels' PTX is not run")
# Only where somebody sets it for the whole run: `triton.jit` then makes no kernel that could be
# compiled. No target of the Makefile does; tests/kernels/test_interpreted.py starts a process.
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("interpreted by Triton: nothing is compiled", allow_module_level=True)
import triton
import triton.language as tl
from host.build import ROOT
from host.runs import Mismatch
from host.triton_launch import Interpreted, launch, reference
from interpreter import Counters, Fault
from interpreter.faults import OUT_OF_BOUNDS, RACE, READ_ONLY

from fastinfer.testing.case import generator
from fastinfer.testing.compare import assert_equal, row_bound, sixteen_bit_bound
from fastinfer.testing.kernels_package import load_kernels

load_kernels()
from fastinfer.kernels import (  # noqa: E402
    bias_act_residual,
    gated,
    layer_norm,
    quantize_rows,
    rms_norm,
    rotary,
    softmax,
)
from fastinfer.kernels.codes import Codes  # noqa: E402

#: mma.sync, wgmma.
ARCHS = (80, 90)
F32, F16, BF16 = torch.float32, torch.float16, torch.bfloat16


@dataclass(frozen=True)
class Rows:
    """Rows of a kernel: shape and dtype of x; what else it takes; the codes it leaves as."""

    module: Any
    shape: tuple[int, ...]
    others: Callable[[torch.Tensor, torch.Generator], tuple[Any, ...]]
    dtype: torch.dtype = F32
    codes: Codes | None = None

    def __str__(self) -> str:
        shape, dtype = "x".join(map(str, self.shape)), str(self.dtype).partition(".")[2]
        return f"{self.module.__name__.rpartition('.')[2]}-{shape}_{dtype}_{self.codes}"

    def inputs(self) -> tuple[Any, ...]:
        g = generator(str(self))
        x = (torch.randn(self.shape, generator=g) * 3 + 0.5).to(self.dtype)
        return x, *self.others(x, g)


def vector(x, g):
    return torch.randn(x.shape[-1], generator=g).to(x.dtype)


def like(x, g):
    return torch.randn(x.shape, generator=g).to(x.dtype)


def norm(x, g):
    return vector(x, g), vector(x, g), 1e-5


def geglu(x, g):
    return like(x, g), "gelu"


def bias_gelu(x, g):
    return vector(x, g), like(x, g), "gelu_tanh"


STATIC = Codes(0.03, 117)
ROWS = (
    Rows(layer_norm, (70, 50), norm),
    Rows(layer_norm, (1, 1), lambda x, g: ()),
    Rows(layer_norm, (2, 3, 300), norm, F16),
    Rows(layer_norm, (9, 64), norm, F32, Codes()),
    Rows(layer_norm, (1, 1030), norm, F32, STATIC),
    Rows(rms_norm, (9, 70), lambda x, g: (vector(x, g),), BF16),
    Rows(rms_norm, (33, 5), lambda x, g: ()),
    Rows(softmax, (70, 50), lambda x, g: (1.5,)),
    Rows(softmax, (3, 1030), lambda x, g: (-0.5,)),
    Rows(softmax, (5, 300), lambda x, g: (), F16),
    Rows(softmax, (9, 64), lambda x, g: (), F32, Codes(signed=True)),
    Rows(gated, (9, 70), lambda x, g: (like(x, g),), F16, Codes()),
    Rows(gated, (3, 5), geglu),
    Rows(bias_act_residual, (9, 70), bias_gelu, BF16),
    Rows(bias_act_residual, (33, 50), lambda x, g: (None, None, "relu"), F32, STATIC),
    # Parts of rows, the last of them short; codes that need the whole row.
    Rows(gated, (3, 1100), lambda x, g: (like(x, g),), F16),
    Rows(bias_act_residual, (2, 2056), bias_gelu, F16, STATIC),
    Rows(gated, (2, 1100), lambda x, g: (like(x, g),), F16, Codes(signed=True)),
)


@pytest.mark.parametrize("case", ROWS, ids=str)
def test_rows(case):
    x, *others = case.inputs()
    got = launch(case.module, x, *others, codes=case.codes)
    wide = [t.float() if isinstance(t, torch.Tensor) else t for t in (x, *others)]
    if case.codes is not None:
        want = reference(case.module)(x, *others, codes=case.codes)
        assert got.codes.dtype == want.codes.dtype
        assert int((got.codes.int() - want.codes.int()).abs().max()) <= 1
        return
    want = reference(case.module)(*wide)
    assert got.dtype == case.dtype and got.shape == want.shape
    if case.dtype == F32:
        tensors = [want, *(t for t in others if isinstance(t, torch.Tensor))]
        bound = row_bound(x.shape[-1], sum(float(t.abs().max()) for t in tensors))
    else:
        bound = sixteen_bit_bound(want, reference(case.module)(x, *others))
    assert float((got.float() - want).abs().max()) <= bound


@pytest.mark.parametrize("codes", [Codes(), Codes(signed=True), STATIC, Codes(0.02, signed=True)],
                         ids=str)  # fmt: skip
@pytest.mark.parametrize(("shape", "dtype"), [((70, 50), F32), ((2, 3, 300), F16), ((1, 7), BF16)])
def test_quantize_rows(shape, dtype, codes):
    x = (torch.randn(shape, generator=generator(str(shape))) * 3).to(dtype)
    x.view(-1)[:4] = torch.tensor([float("nan"), 1e-42, 0.5, -float("inf")], dtype=dtype)
    x[-1, ..., 1:] = 0
    # Only for sm_90 bfloat16 is compared as it is.
    got = launch(quantize_rows, x, codes, arch=90 if dtype == BF16 else 80)
    want = quantize_rows.quantize_rows_ref(x, codes)
    for ours, theirs in zip(got, want, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            assert_equal(ours, theirs)


def test_halves_are_read_where_they_lie():
    both = torch.randn(5, 3, 80, generator=generator("both"))
    gate, up = both.chunk(2, -1)
    assert_equal(launch(gated, gate, up), launch(gated, gate.contiguous(), up.contiguous()))
    odd = torch.randn(9, 51, generator=generator("odd"))[:, 1:]
    assert_equal(launch(quantize_rows, odd).codes, quantize_rows.quantize_rows_ref(odd).codes)


@pytest.mark.parametrize(
    ("shape", "dtype"), [((5, 3, 64), F16), ((2, 17, 20), F32), ((1, 1, 2), BF16)], ids=str
)
def test_rotary(shape, dtype):
    g = generator(str(shape))
    x = torch.randn(shape, generator=g).to(dtype)
    angle = torch.randn(shape[0], shape[2] // 2, generator=g)
    assert_equal(launch(rotary, x, angle.cos(), angle.sin()),
                 rotary.rotary_ref(x, angle.cos(), angle.sin()))  # fmt: skip


def test_every_kernel_has_cases():
    """A kernel that no case here launches would never run."""
    texts = [path.read_text() for path in (ROOT / "kernels").glob("*.py")]
    kernels = {name for text in texts for name in re.findall(r"^def (_\w+_kernel)\(", text, re.M)}
    mine = {f"_{case.module.__name__.rpartition('.')[2]}_kernel" for case in ROWS}
    products = {"_int8_linear_kernel", "_weight_only_linear_kernel", "_int4_linear_kernel",
                "_fp8_linear_kernel"}  # fmt: skip
    others = {"_quantize_rows_kernel", "_rotary_kernel", "_sum_parts_kernel"}
    assert kernels == mine | products | others


def without_barriers(ptx: str) -> str:
    return re.sub(r"bar\.sync\s+0;", "", ptx)


def test_rows_without_barriers():
    x = torch.randn(3, 1030, generator=generator("rows"))
    with pytest.raises(Fault) as found:
        launch(layer_norm, x, change=without_barriers)
    assert found.value.kind == RACE


@triton.jit
def _copy_kernel(x_ptr, out_ptr, n, LOADED: tl.constexpr, STORED: tl.constexpr, BACK: tl.constexpr):
    at = tl.program_id(0) * 128 + tl.arange(0, 128)
    x = tl.load(x_ptr + at, mask=at < LOADED)
    tl.store(out_ptr + at, x, mask=at < STORED)
    if BACK:
        tl.store(x_ptr + at, x, mask=at < n)


def test_masks_and_buffers_are_checked():
    x = torch.randn(200)

    def copy(*sizes: int, back: bool = False) -> Counters:
        out = torch.empty(200)
        kernel = Interpreted(_copy_kernel)
        kernel[(2,)](x, out, 200, *sizes, back)
        assert torch.equal(out, x)
        return kernel.launches[0]

    assert copy(200, 200).issued.any()
    for sizes, back, kind in (
        ((256, 200), False, OUT_OF_BOUNDS),
        ((200, 256), False, OUT_OF_BOUNDS),
        ((200, 200), True, READ_ONLY),
    ):
        with pytest.raises(Fault) as found:
            copy(*sizes, back=back)
        assert found.value.kind == kind
    with pytest.raises(Mismatch, match="400 of 800 bytes were not written"):
        copy(200, 100)
