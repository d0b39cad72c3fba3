"""Float to uint8 and back: static, and with ranges found on the spot."""

from __future__ import annotations

import torch
from torch import Tensor

from fastinfer.ops import triton_launchers
from fastinfer.ops.spec import OpSpec


def round_clamp(f: Tensor, zero_point: Tensor | int, qmin: int, qmax: int) -> Tensor:
    """Return clamp(rint(f) + zero_point, qmin, qmax) as uint8; f: float32, ties to even.

    Clamping first gives the same integers (the bounds are integers) and keeps rint in range;
    NaN becomes qmax, as the vector instruction min(NaN, bound) does.
    """
    zero = torch.as_tensor(zero_point, dtype=f.dtype, device=f.device)
    low, high = qmin - zero, qmax - zero
    clamped = torch.maximum(torch.minimum(torch.where(f.isnan(), high, f), high), low)
    return (torch.round(clamped).to(torch.int32) + zero_point).to(torch.uint8)


def _check_float(op: str, x: Tensor) -> None:
    if x.dtype != torch.float32:
        raise TypeError(f"{op}: expected x float32, got {x.dtype}; call x.float() first")


def _as_float32(op: str, x: Tensor) -> Tensor:
    if x.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise TypeError(f"{op}: expected x float32, float16 or bfloat16, got {x.dtype}")
    return x.float()


def _inverse(scale: float) -> Tensor:
    return torch.tensor(1.0, dtype=torch.float32) / torch.tensor(scale, dtype=torch.float32)


def memory_format_of(x: Tensor, channels_last: bool = False) -> torch.memory_format:
    """Return NHWC when it is asked for or x has it, else the contiguous format."""
    is_nhwc = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
    if channels_last or (is_nhwc and not x.is_contiguous()):
        return torch.channels_last
    return torch.contiguous_format


def quantize_fake(x: Tensor, scale: float, zero_point: int, channels_last: bool = False) -> Tensor:
    """Shape rule of quantize."""
    memory_format = memory_format_of(x, channels_last)
    return torch.empty(x.shape, dtype=torch.uint8, device=x.device, memory_format=memory_format)


def quantize_ref(x: Tensor, scale: float, zero_point: int, channels_last: bool = False) -> Tensor:
    """Return clamp(rint(x * (1/scale)) + zero_point, 0, 255), the product in float32.

    x: any shape; float32, or float16 and bfloat16, which are made float32 first. Result: same
    shape, uint8; channels_last asks for NHWC memory (4-D).
    """
    x = _as_float32("quantize", x)
    if scale <= 0 or not 0 <= zero_point <= 255:
        raise ValueError(
            f"quantize: expected scale > 0 and zero_point in 0..255, got {scale}, {zero_point}"
        )
    q = round_clamp(x * _inverse(scale).to(x.device), zero_point, 0, 255)
    return quantize_fake(x, scale, zero_point, channels_last).copy_(q)


def dequantize_fake(x: Tensor, scale: float, zero_point: int) -> Tensor:
    """Shape rule of dequantize."""
    return torch.empty(
        x.shape, dtype=torch.float32, device=x.device, memory_format=memory_format_of(x)
    )


def dequantize_ref(x: Tensor, scale: float, zero_point: int) -> Tensor:
    """Return (x - zero_point) * scale in float32; x: any shape, uint8, memory format kept."""
    if x.dtype != torch.uint8:
        raise TypeError(f"dequantize: expected x uint8, got {x.dtype}")
    value = (x.to(torch.int32) - zero_point).to(torch.float32)
    value = value * torch.tensor(scale, dtype=torch.float32, device=x.device)
    return dequantize_fake(x, scale, zero_point).copy_(value)


def dynamic_qparams(lo: Tensor, hi: Tensor) -> tuple[Tensor, Tensor]:
    """Return (scale float32, zero_point int32) that cover [min(lo, 0), max(hi, 0)]."""
    lo, hi = lo.clamp(max=0.0), hi.clamp(min=0.0)
    scale = (hi - lo) * _inverse(255.0).to(lo.device)
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))
    zero_point = round_clamp(-lo / scale, 0, 0, 255).to(torch.int32)
    return scale, zero_point


def quantize_rows(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Quantize each row of x [R, K] float32 with its own range: (q, scale [R], zero_point [R])."""
    if x.shape[1] == 0:
        lo = hi = x.new_zeros(x.shape[0])
    else:  # NaN is skipped by min and max, as by the vector instructions
        lo = torch.nan_to_num(x, nan=torch.inf, posinf=torch.inf, neginf=-torch.inf).amin(1)
        hi = torch.nan_to_num(x, nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf).amax(1)
    scale, zero_point = dynamic_qparams(lo, hi)
    inverse = torch.ones_like(scale) / scale
    return round_clamp(x * inverse[:, None], zero_point[:, None], 0, 255), scale, zero_point


def quantize_dynamic_fake(x: Tensor, per_token: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Shape rule of quantize_dynamic."""
    rows = x.shape[:-1] if per_token else ()
    return (
        torch.empty(x.shape, dtype=torch.uint8, device=x.device),
        torch.empty(rows, dtype=torch.float32, device=x.device),
        torch.empty(rows, dtype=torch.int32, device=x.device),
    )


def quantize_dynamic_ref(x: Tensor, per_token: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return (q uint8, scale float32, zero_point int32) with ranges taken from x itself.

    x: [*, K] float32. per_token: one range for each row of K (scale has x's leading shape);
    otherwise one for the tensor. A range always contains zero, so zero is exact.
    """
    _check_float("quantize_dynamic", x)
    x = x.contiguous()
    shape = x.shape[:-1] if per_token else torch.Size()
    columns = x.shape[-1] if per_token else x.numel()
    q, scale, zero_point = quantize_rows(x.reshape(shape.numel(), columns))
    return q.reshape(x.shape), scale.reshape(shape), zero_point.reshape(shape)


def quantize_dynamic_triton(x: Tensor, per_token: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Return what the reference does, by Triton; rows too long for it by the reference."""
    _check_float("quantize_dynamic", x)
    served = triton_launchers.quantize_dynamic(x, per_token)
    return quantize_dynamic_ref(x, per_token) if served is None else served


QUANTIZE = OpSpec(
    "quantize",
    "(Tensor x, float scale, int zero_point, bool channels_last=False) -> Tensor",
    quantize_fake,
    quantize_ref,
)
DEQUANTIZE = OpSpec(
    "dequantize",
    "(Tensor x, float scale, int zero_point) -> Tensor",
    dequantize_fake,
    dequantize_ref,
)
QUANTIZE_DYNAMIC = OpSpec(
    "quantize_dynamic",
    "(Tensor x, bool per_token) -> (Tensor, Tensor, Tensor)",
    quantize_dynamic_fake,
    quantize_dynamic_ref,
    quantize_dynamic_triton,
)
