"""Cases of the ops between layers, run as their CUDA ops would."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import Structure, byref, c_bool, c_double, c_float, c_int32, c_int64, c_uint32, c_uint64
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from interpreter import GlobalMemory, Kernel, Launch
from torch import Tensor

from fastinfer.ops.catalog import OPS
from fastinfer.testing.case import Case

from .launchers import Launchers
from .runs import Run

_REFERENCE = {op.name: op.reference for op in OPS}
_MOST_PARTS = 32  # pointwise.h: kMostCatParts


class Rounding(Structure):
    """rounding.h."""

    _fields_ = [("low", c_float), ("high", c_float), ("zero_points", c_uint32)]


def rounding_of(zero_point: int, qmin: int = 0, qmax: int = 255) -> Rounding:
    """Return what rounding.h's function does."""
    return Rounding(qmin - zero_point, qmax - zero_point, zero_point * 0x01010101)


class PairCall(Structure):
    """pointwise.h."""

    _fields_ = [
        *((name, c_uint64) for name in ("x", "y", "out", "table")),
        ("count", c_int64),
        *((name, c_float) for name in ("x_multiplier", "y_multiplier")),
        *((name, c_int32) for name in ("x_zero_point", "y_zero_point")),
        ("rounding", Rounding),
        *((name, c_uint32) for name in ("channels", "pixels")),
        ("is_product", c_bool),
    ]


class LookupCall(Structure):
    """pointwise.h."""

    _fields_ = [("x", c_uint64), ("table", c_uint64), ("out", c_uint64), ("count", c_int64)]


class DequantizeCall(Structure):
    """pointwise.h."""

    _fields_ = [
        *(("x", c_uint64), ("out", c_uint64), ("count", c_int64)),
        *(("scale", c_float), ("zero_point", c_int32)),
    ]


class CatPart(Structure):
    """pointwise.h."""

    _fields_ = [
        *(("x", c_uint64), ("width", c_int64), ("column", c_int64)),
        *(("multiplier", c_float), ("zero_point", c_int32)),
    ]


class CatCall(Structure):
    """pointwise.h."""

    _fields_ = [
        *(("out", c_uint64), ("step", c_int64), ("width", c_int64), ("rows", c_int64)),
        *(("rounding", Rounding), ("count", c_int32), ("parts", CatPart * _MOST_PARTS)),
    ]


class PoolAxis(Structure):
    """pool.h."""

    _fields_ = [
        (name, c_int32) for name in ("size", "out", "kernel", "stride", "padding", "dilation")
    ]


class PoolCall(Structure):
    """pool.h."""

    _fields_ = [
        *(("x", c_uint64), ("out", c_uint64), ("images", c_int32), ("channels", c_int32)),
        *(("h", PoolAxis), ("w", PoolAxis)),
    ]


class AverageCall(Structure):
    """pool.h."""

    _fields_ = [
        *(("pool", PoolCall), ("multiplier", c_float), ("zero_point", c_int32)),
        *(("rounding", Rounding), ("count_include_pad", c_bool), ("sums", c_uint64)),
    ]


class UpsampleAxis(Structure):
    """upsample.h."""

    _fields_ = [("size", c_int32), ("out", c_int32), ("scale", c_float), ("offset", c_float)]


class UpsampleCall(Structure):
    """upsample.h."""

    _fields_ = [
        *(("x", c_uint64), ("out", c_uint64), ("images", c_int32), ("channels", c_int32)),
        *(("h", UpsampleAxis), ("w", UpsampleAxis), ("bilinear", c_bool)),
    ]


STRUCTS = (PairCall, LookupCall, DequantizeCall, CatCall, AverageCall, UpsampleCall)


def is_nhwc(t: Tensor) -> bool:
    """Return tensors.h's is_channels_last."""
    return (
        t.dim() == 4
        and not t.is_contiguous()
        and t.is_contiguous(memory_format=torch.channels_last)
    )


def in_memory(t: Tensor, nhwc: bool) -> np.ndarray:
    """Return an array of the elements in the order of memory."""
    return (t.permute(0, 2, 3, 1) if nhwc else t).contiguous().numpy()


def raw(t: Tensor, nhwc: bool) -> np.ndarray:
    """Return the bytes of a tensor in the order of memory."""
    return in_memory(t, nhwc).view(np.uint8).reshape(-1)


class Binding:
    """What a case's call is made of: memory, the expected result, and where x and it lie."""

    def __init__(self, case: Case, launchers: Launchers, offset: int, splits: int):
        self.args = case.build()
        self.want = _REFERENCE[case.op](*self.args)
        self.launchers, self.offset, self.splits = launchers, offset, splits
        self.memory = GlobalMemory(1 << 22)
        sizes = [launchers.library.ptx_between_size(i) for i in range(len(STRUCTS))]
        assert [ctypes.sizeof(struct) for struct in STRUCTS] == sizes

    def add(self, t: Tensor, nhwc: bool, offset: int = 0) -> int:
        """Return the address of a copy of a tensor."""
        return self.memory.add(in_memory(t, nhwc), offset)

    def run(self, launched: tuple[Kernel, Launch], out: int, nhwc: bool) -> Run:
        """Return the run of a launch whose result lies at `out`."""
        return Run(*launched, self.memory, out, raw(self.want, nhwc))


def _pair(b: Binding, maps: tuple[Any, ...], table: Tensor | None, is_product: bool) -> Run:
    x, y = b.args[:2]
    nhwc, repeats = is_nhwc(x), x.shape != y.shape
    mx, zx, my, zy, zo, qmin, qmax = maps
    call = PairCall(
        x=b.add(x, nhwc, b.offset), y=b.add(y, nhwc and not repeats, b.offset),
        out=b.memory.add_result(x.numel(), b.offset), table=0 if table is None else
        b.add(table, False), count=x.numel(), x_multiplier=mx, y_multiplier=my, x_zero_point=zx,
        y_zero_point=zy, rounding=rounding_of(zo, qmin, qmax), is_product=is_product,
    )  # fmt: skip
    if repeats:
        call.channels = x.shape[1] if nhwc else 1
        call.pixels = x.shape[2] * x.shape[3]
    return b.run(b.launchers.launch("ptx_launch_pair", byref(call)), call.out, nhwc)


def _add(b: Binding) -> Run:
    return _pair(b, b.args[2:9], b.args[9], False)


def _mul(b: Binding) -> Run:
    multiplier, zx, zy, *rest = b.args[2:]
    return _pair(b, (multiplier, zx, 0, zy, *rest), None, True)


def _lookup(b: Binding) -> Run:
    x, table = b.args
    nhwc = is_nhwc(x)
    call = LookupCall(
        b.add(x, nhwc, b.offset), b.add(table, False),
        b.memory.add_result(x.numel(), b.offset), x.numel(),
    )  # fmt: skip
    return b.run(b.launchers.launch("ptx_launch_lookup", byref(call)), call.out, nhwc)


def _dequantize(b: Binding) -> Run:
    x, scale, zero_point = b.args
    nhwc = is_nhwc(x)
    call = DequantizeCall(
        b.add(x, nhwc, b.offset), b.memory.add_result(4 * x.numel()), x.numel(), scale, zero_point
    )
    return b.run(b.launchers.launch("ptx_launch_dequantize", byref(call)), call.out, nhwc)


def _cat(b: Binding) -> Run:
    xs, dim, multipliers, zero_points, zo = b.args
    nhwc = is_nhwc(xs[0])
    order = (0, 2, 3, 1) if nhwc else tuple(range(xs[0].dim()))
    place = order.index(dim)
    sizes = [xs[0].shape[d] for d in order]
    behind = int(np.prod(sizes[place + 1 :], initial=1))
    call = CatCall(rows=int(np.prod(sizes[:place], initial=1)), rounding=rounding_of(zo))
    for x, multiplier, zero_point in zip(xs, multipliers, zero_points, strict=True):
        width = x.shape[dim] * behind
        if width:
            call.parts[call.count] = CatPart(
                b.add(x, nhwc, b.offset), width, call.width, multiplier, zero_point
            )
            call.count += 1
            call.width += width
    call.step = call.width
    call.out = b.memory.add_result(b.want.numel(), b.offset)
    return b.run(b.launchers.launch("ptx_launch_cat", byref(call)), call.out, nhwc)


def _pool_call(b: Binding, axes: list[PoolAxis]) -> PoolCall:
    x = b.args[0]
    out = b.memory.add_result(b.want.numel(), b.offset)
    return PoolCall(b.add(x, True, b.offset), out, x.shape[0], x.shape[1], *axes)


def _windows(b: Binding, dilation: list[int], ceil_mode: bool) -> list[PoolAxis]:
    x, kernel, stride, padding = b.args[:4]
    axes = []
    for i in range(2):
        window = (kernel[i], stride[i], padding[i], dilation[i])
        out = b.launchers.library.ptx_pooled_size(x.shape[2 + i], *window, ceil_mode)
        assert out == b.want.shape[2 + i]
        axes.append(PoolAxis(x.shape[2 + i], out, *window))
    return axes


def _max_pool(b: Binding) -> Run:
    call = _pool_call(b, _windows(b, *b.args[4:]))
    return b.run(b.launchers.launch("ptx_launch_max_pool", byref(call)), call.out, True)


def _avg_pool(b: Binding) -> Run:
    ceil_mode, include_pad, multiplier, zx, zo, qmin, qmax = b.args[4:]
    pool = _pool_call(b, _windows(b, [1, 1], ceil_mode))
    call = AverageCall(pool, multiplier, zx, rounding_of(zo, qmin, qmax), include_pad)
    return b.run(b.launchers.launch("ptx_launch_average", byref(call)), pool.out, True)


def _adaptive(b: Binding) -> Run:
    """The kernel that is chosen; or blocks that share a window, or what finishes their sums."""
    x, size, multiplier, zx, zo, qmin, qmax = b.args
    pool = _pool_call(b, [PoolAxis(x.shape[2 + i], size[i]) for i in range(2)])
    call = AverageCall(pool, multiplier, zx, rounding_of(zo, qmin, qmax), False)
    splits = b.splits or b.launchers.library.ptx_choose_splits(byref(pool), 4)
    if splits == 0:
        return b.run(b.launchers.launch("ptx_launch_average", byref(call)), pool.out, True)
    if splits == 1:
        launched = b.launchers.launch("ptx_launch_split_average", byref(call), 1)
        return b.run(launched, pool.out, True)
    sums = _sums(x, abs(splits))
    if splits < 0:
        call.sums = b.memory.add(sums)
        launched = b.launchers.launch("ptx_launch_finish_average", byref(call), -splits)
        return b.run(launched, pool.out, True)
    call.sums = b.memory.add_result(sums.nbytes)
    launched = b.launchers.launch("ptx_launch_split_average", byref(call), splits)
    return Run(*launched, b.memory, call.sums, sums.view(np.uint8).reshape(-1))


def _sums(x: Tensor, splits: int) -> np.ndarray:
    """Return [splits, N, C] int32: of each share of the pixels."""
    pixels = x.permute(0, 2, 3, 1).flatten(1, 2).numpy().astype(np.int32)
    ends = [i * pixels.shape[1] // splits for i in range(splits + 1)]
    parts = [pixels[:, a:b].sum(1, dtype=np.int32) for a, b in pairwise(ends)]
    return np.stack(parts)


def _upsample(b: Binding) -> Run:
    x, _, _, factors, bilinear, align_corners = b.args
    axes = []
    for i in range(2):
        axis = UpsampleAxis()
        b.launchers.library.ptx_upsample_axis(
            byref(axis), x.shape[2 + i], b.want.shape[2 + i],
            c_double(factors[i] if factors else 0.0), bilinear, align_corners,
        )  # fmt: skip
        axes.append(axis)
    call = UpsampleCall(
        b.add(x, True, b.offset), b.memory.add_result(b.want.numel(), b.offset), x.shape[0],
        x.shape[1], *axes, bilinear,
    )  # fmt: skip
    return b.run(b.launchers.launch("ptx_launch_upsample", byref(call)), call.out, True)


_BINDERS: dict[str, Callable[[Binding], Run]] = {
    "int8_add": _add,
    "int8_mul": _mul,
    "int8_lookup": _lookup,
    "dequantize": _dequantize,
    "int8_cat": _cat,
    "int8_max_pool2d": _max_pool,
    "int8_avg_pool2d": _avg_pool,
    "int8_adaptive_avg_pool2d": _adaptive,
    "int8_upsample2d": _upsample,
}


def prepare_between(case: Case, launchers: Launchers, offset: int, splits: int) -> Run:
    """Return the run of a case; offset: of x and the result from an aligned address.

    splits: of an average over whole images: blocks that share a window, negative for the kernel
    that finishes their sums, 0 for what is chosen.
    """
    return _BINDERS[case.op](Binding(case, launchers, offset, splits))
