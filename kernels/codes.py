"""Quantized results of kernels that compute whole rows: codes of a static scale, or of each row's.

The integers are those of fastinfer.ops.quantize for the same float32 values: one division for the
inverse, one product, clamp, round half to even. Kernels that end here are compiled without fused
multiply-adds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

#: How a row leaves: as floats, with the caller's scale, with a scale of its own.
FLOAT = tl.constexpr(0)
STATIC = tl.constexpr(1)
OF_ROW = tl.constexpr(2)
#: What codes are.
UINT8 = tl.constexpr(0)
INT8 = tl.constexpr(1)
FLOAT8 = tl.constexpr(2)


@dataclass(frozen=True)
class Codes:
    """How to quantize a result.

    scale: of a code's step; None: each row's own, from its range. zero_point: the code of 0, with a
    scale only. signed: int8, -127..127, symmetric; else uint8. float8: e4m3, -448..448, instead.
    """

    scale: float | None = None
    zero_point: int = 0
    signed: bool = False
    float8: bool = False

    def __post_init__(self) -> None:
        if self.scale is not None and not self.scale > 0:
            raise ValueError(f"Codes: expected scale > 0, got {self.scale}")
        if self.signed and self.float8:
            raise ValueError("Codes: expected signed or float8, got both")
        low, high = (0, 0) if self.signed or self.float8 or self.scale is None else (0, 255)
        if not low <= self.zero_point <= high:
            raise ValueError(
                f"Codes: expected zero_point in {low}..{high}, got {self.zero_point}; only uint8 "
                "codes of a static scale have one"
            )

    @property
    def dtype(self) -> torch.dtype:
        """Return the codes' dtype."""
        if self.float8:
            return torch.float8_e4m3fn
        return torch.int8 if self.signed else torch.uint8

    @property
    def most(self) -> float:
        """Return the largest code's magnitude."""
        return 448.0 if self.float8 else 127.0 if self.signed else 255.0


def is_of_row(codes: Codes | None) -> bool:
    """Return True where a row's codes depend on all of its values."""
    return codes is not None and codes.scale is None


class QuantizedRows(NamedTuple):
    """codes [*, n]; scale [*] float32 and zero_point [*] int32 of each row, None where not its own.

    Only uint8 codes have a zero_point.
    """

    codes: Tensor
    scale: Tensor | None
    zero_point: Tensor | None


class Result(NamedTuple):
    """Where a kernel writes rows, and its arguments for that, last in order."""

    out: Tensor
    scale: Tensor
    zero_point: Tensor
    step: float
    zero: int
    mode: int
    code: int

    @property
    def value(self) -> Tensor | QuantizedRows:
        """Return what the launcher returns."""
        if self.mode == 0:
            return self.out
        if self.mode == 1:
            return QuantizedRows(self.out, None, None)
        return QuantizedRows(self.out, self.scale, None if self.code else self.zero_point)


def check_float8(op: str, x: Tensor) -> None:
    """Raise where x's GPU has no e4m3."""
    if x.is_cuda and torch.cuda.get_device_capability(x.device) < (8, 9):
        major, minor = torch.cuda.get_device_capability(x.device)
        raise ValueError(
            f"{op}: expected a GPU of compute capability 8.9 or later for float8, got "
            f"{major}.{minor}; int8 codes and int8_linear serve it"
        )


def new_result(op: str, x: Tensor, codes: Codes | None) -> Result:
    """Return an empty result of x's shape [*, n]: x's dtype, or codes.

    Raises:
        ValueError: codes are float8, which x's GPU has not.
    """
    if codes is not None and codes.float8:
        check_float8(op, x)
    dtype = x.dtype if codes is None else codes.dtype
    out = torch.empty(x.shape, dtype=dtype, device=x.device)
    if codes is None:
        return Result(out, out, out, 1.0, 0, 0, 0)
    code = 2 if codes.float8 else int(codes.signed)
    if codes.scale is not None:
        return Result(out, out, out, codes.scale, codes.zero_point, 1, code)
    scale = torch.empty(x.shape[:-1], dtype=torch.float32, device=x.device)
    zero_point = scale if code else torch.empty_like(scale, dtype=torch.int32)
    return Result(out, scale, zero_point, 1.0, 0, 2, code)


@triton.jit
def round_to_codes(scaled, zero_point, low, high):
    """Return round half even of clamped float32, plus zero_point, as int32; NaN is `high`.

    The smaller of NaN and a number is the number. Adding 1.5 * 2^23, an even number, whose bits are
    0x4B400000, leaves the integer in the low bits: of a code that is stored in a byte, only this
    sum, a sum of integers and no conversion remain.
    """
    f = tl.maximum(tl.minimum(scaled, high), low) + 12582912.0
    return f.to(tl.int32, bitcast=True) - 0x4B400000 + zero_point


@triton.jit
def store_rows(
    y,
    row,
    column,
    row_inside,
    inside,
    n,
    out_ptr,
    scale_ptr,
    zero_point_ptr,
    step,
    zero,
    MODE: tl.constexpr,
    CODE: tl.constexpr,
):
    """Store float32 rows y [R, C] as MODE says; results are dense, n values a row.

    y is 0 outside the rows, or NaN: a row's range has 0 in it anyway, and NaN has none.
    """
    to = out_ptr + row[:, None] * n + column[None, :]
    if MODE == FLOAT:
        tl.store(to, y.to(out_ptr.dtype.element_ty), mask=inside)
    else:
        if MODE == STATIC:
            one = tl.full([1, 1], 1.0, tl.float32)
            inverse = tl.div_rn(one, tl.full([1, 1], step, tl.float32))
            zero_point = tl.full([1, 1], zero, tl.int32)
        else:
            if CODE != UINT8:
                largest = tl.maximum(tl.max(tl.abs(y), axis=1), 0.0)
                # float32(1 / 127), float32(1 / 448)
                scale = largest * (0.007874015718698502 if CODE == INT8 else 0.0022321429569274187)
            else:
                low = tl.minimum(tl.min(y, axis=1), 0.0)
                high = tl.maximum(tl.max(y, axis=1), 0.0)
                scale = (high - low) * 0.003921568859368563  # float32(1 / 255)
            scale = tl.where(scale > 0.0, scale, 1.0)
            tl.store(scale_ptr + row, scale, mask=row_inside)
            zero_point = tl.full([scale.shape[0]], 0, tl.int32)
            if CODE == UINT8:
                zero_point = round_to_codes(tl.div_rn(-low, scale), 0, 0.0, 255.0)
                tl.store(zero_point_ptr + row, zero_point, mask=row_inside)
            inverse = tl.div_rn(tl.full([scale.shape[0]], 1.0, tl.float32), scale)[:, None]
            zero_point = zero_point[:, None]
        if CODE == FLOAT8:
            codes = tl.maximum(tl.minimum(y * inverse, 448.0), -448.0)
        elif CODE == INT8:
            codes = round_to_codes(y * inverse, 0, -127.0, 127.0)
        else:
            least = (0 - zero_point).to(tl.float32)
            codes = round_to_codes(y * inverse, zero_point, least, least + 255.0)
        tl.store(to, codes.to(out_ptr.dtype.element_ty), mask=inside)


def _round(
    f: Tensor, zero_point: Tensor | int, low: Tensor | float, high: Tensor | float
) -> Tensor:
    low, high = (  # filled on the device: a copy from the host could not be captured in a graph
        v if isinstance(v, Tensor) else torch.full((), v, dtype=torch.float32, device=f.device)
        for v in (low, high)
    )
    clamped = torch.maximum(torch.minimum(torch.where(f.isnan(), high, f), high), low)
    return torch.round(clamped).to(torch.int32) + zero_point


def _round_float8(f: Tensor) -> Tensor:
    most = torch.full((), 448.0, dtype=torch.float32, device=f.device)
    clamped = torch.maximum(torch.minimum(torch.where(f.isnan(), most, f), most), -most)
    return clamped.to(torch.float8_e4m3fn)


def quantized_ref(y: Tensor, codes: Codes) -> QuantizedRows:
    """Return the codes of y [*, n] float32: what every fused kernel's integers are."""
    one = torch.ones((), dtype=torch.float32, device=y.device)
    if codes.scale is not None:
        inverse = one / torch.full((), codes.scale, dtype=torch.float32, device=y.device)
        if codes.float8:
            return QuantizedRows(_round_float8(y * inverse), None, None)
        low, high = (-127.0, 127.0) if codes.signed else (-codes.zero_point, 255 - codes.zero_point)
        q = _round(y * inverse, codes.zero_point, float(low), float(high))
        return QuantizedRows(q.to(codes.dtype), None, None)
    known = torch.where(y.isnan(), torch.zeros_like(y), y)
    high, low = known.amax(-1).clamp(min=0.0), known.amin(-1).clamp(max=0.0)
    is_symmetric = codes.signed or codes.float8
    width = torch.maximum(high, -low) if is_symmetric else high - low
    scale = width * (one / codes.most)
    scale = torch.where(scale > 0, scale, one)
    inverse = (one / scale)[..., None]
    if codes.float8:
        return QuantizedRows(_round_float8(y * inverse), scale, None)
    if codes.signed:
        q = _round(y * inverse, 0, -127.0, 127.0)
        return QuantizedRows(q.to(torch.int8), scale, None)
    zero_point = _round(-low / scale, 0, 0.0, 255.0)
    zero = zero_point[..., None]
    q = _round(y * inverse, zero, (-zero).float(), (255 - zero).float())
    return QuantizedRows(q.to(torch.uint8), scale, zero_point)


def result_ref(y: Tensor, dtype: torch.dtype, codes: Codes | None) -> Tensor | QuantizedRows:
    """Return float32 y as a kernel's result: rounded to dtype, or as codes."""
    return y.to(dtype) if codes is None else quantized_ref(y, codes)
