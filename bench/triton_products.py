"""Triton's int8 and float8 products beside the CUDA kernel, torch._scaled_mm and bf16."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from gpu_timing import READ, other_us, time_replay
from torch import Tensor

from fastinfer.testing.kernels_package import load_kernels

load_kernels()
from fastinfer.kernels.codes import Codes  # noqa: E402
from fastinfer.kernels.fp8_linear import fp8_linear, fp8_linear_ref  # noqa: E402
from fastinfer.kernels.int8_linear import Int8Weight, int8_linear  # noqa: E402
from fastinfer.kernels.quantize_rows import quantize_rows  # noqa: E402


def random_half(*shape: int) -> Tensor:
    return torch.randn(shape, device="cuda", dtype=torch.float16)


def int8_rows() -> Iterator[dict[str, Any]]:
    """Yield the figures of int8_linear beside those of the CUDA kernel, both checked."""
    for m, n, k in ((1, 4096, 4096), (128, 4096, 4096), (1024, 4096, 4096), (4096, 4096, 4096)):
        x = torch.randint(0, 256, (m, k), device="cuda", dtype=torch.uint8)
        weight = torch.randint(-127, 128, (n, k), device="cuda", dtype=torch.int8)
        bias = torch.randint(-5000, 5000, (n,), device="cuda", dtype=torch.int32)
        multiplier = (0.5 + torch.rand(n, device="cuda")) * 64 / (74 * 37 * k**0.5)
        layer = Int8Weight(weight, bias, multiplier, out_zero_point=117)
        inf = float("inf")
        packed = torch.ops.fastinfer.int8_prepack(
            "linear", weight, bias, multiplier, None, None, None, 1, 128, 117, 0, 255, -inf, inf,
            False,
        )  # fmt: skip

        def cuda(x: Tensor = x, packed: Tensor = packed, n: int = n) -> Tensor:
            return torch.ops.fastinfer.int8_linear(x, packed, None, n, False)

        def ours(x: Tensor = x, layer: Int8Weight = layer) -> Tensor:
            return int8_linear(x, layer)

        shape = f"{m}x{n}x{k}"
        if not torch.equal(ours(), cuda()):
            raise AssertionError(f"int8_linear {shape}: Triton and CUDA differ")
        us, reasons = time_replay(ours, flush=READ).median, {}
        cuda_us = other_us("cuda", cuda, reasons)
        yield {
            "shape": shape,
            "us": us,
            "TOPS": 2e-6 * m * n * k / us,
            "cuda us": cuda_us,
            "vs cuda": cuda_us / us if cuda_us else None,
            "not captured": reasons,
        }


def fp8_rows() -> Iterator[dict[str, Any]]:
    """Yield the figures of fp8_linear, each row of x and of the weight with a scale of its own.

    Judged by torch._scaled_mm's distance from the float32 product. It takes the same scales.
    """
    for m, n, k in (
        (16, 4096, 4096), (64, 4096, 4096), (1024, 4096, 4096), (4096, 4096, 4096),
        (4096, 3072, 768), (8192, 14336, 4096),
    ):  # fmt: skip
        x, weight = random_half(m, k), random_half(n, k)
        q, w = (quantize_rows(t, Codes(float8=True)) for t in (x, weight))
        half, half_weight = x.bfloat16(), weight.bfloat16()
        arguments = (q.codes, w.codes, q.scale, w.scale)

        def ours(arguments: tuple[Tensor, ...] = arguments) -> Tensor:
            return fp8_linear(*arguments, out=torch.bfloat16)

        def own(q: Any = q, w: Any = w) -> Tensor:
            return torch._scaled_mm(
                q.codes, w.codes.t(), scale_a=q.scale[:, None], scale_b=w.scale[None],
                out_dtype=torch.bfloat16,
            )  # fmt: skip

        def product(half: Tensor = half, weight: Tensor = half_weight) -> Tensor:
            return F.linear(half, weight)

        shape = f"{m}x{n}x{k}"
        want = fp8_linear_ref(*arguments, out=torch.bfloat16).float()
        error = float((ours().float() - want).abs().max())
        reasons: dict[str, str] = {}
        own_us, product_us = other_us("scaled_mm", own, reasons), other_us("bf16", product, reasons)
        own_error = float((own().float() - want).abs().max()) if own_us else None
        if own_error is not None and not error <= 4 * own_error + 1e-2 * float(want.abs().max()):
            raise AssertionError(f"fp8_linear {shape}: off by {error}, torch by {own_error}")
        us = time_replay(ours, flush=READ).median
        yield {
            "shape": shape,
            "us": us,
            "TFLOPS": 2e-6 * m * n * k / us,
            "scaled_mm us": own_us,
            "vs scaled_mm": own_us / us if own_us else None,
            "bf16 us": product_us,
            "vs bf16": product_us / us if product_us else None,
            "off": error,
            "scaled_mm off": own_error,
            "not captured": reasons,
        }
