"""Ops that look at whole rows, run as their CUDA ops would: norms, ranges, dynamic products."""

from __future__ import annotations

import ctypes
from ctypes import Structure, byref, c_float, c_int32, c_int64, c_uint64
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from interpreter import GlobalMemory
from torch import Tensor

from fastinfer.ops.catalog import OPS
from fastinfer.ops.quantize import quantize_rows
from fastinfer.testing.case import Case

from .launchers import KERNELS, GemmConfig, Launchers, Windows
from .runs import Run, Tile, bind_weight

_REFERENCE = {op.name: op.reference for op in OPS}


class NormRows(Structure):
    """float_rows.h."""

    _fields_ = [
        *((name, c_uint64) for name in ("x", "weight", "bias", "out")),
        *(("rows", c_int64), ("n", c_int32), ("eps", c_float)),
    ]


class SoftmaxRows(Structure):
    """float_rows.h."""

    _fields_ = [("x", c_uint64), ("out", c_uint64), ("rows", c_int64), ("n", c_int32)]


class RangeCall(Structure):
    """quantize_rows.h."""

    _fields_ = [
        *((name, c_uint64) for name in ("x", "out", "scale", "zero_point", "bounds")),
        *(("rows", c_int64), ("n", c_int64)),
        *((name, c_int32) for name in ("splits", "height", "width", "channels", "pad_h", "pad_w")),
    ]


def _check_sizes(launchers: Launchers) -> None:
    structs = (NormRows, SoftmaxRows, RangeCall)
    sizes = [launchers.library.ptx_rows_size(i) for i in range(len(structs))]
    assert [ctypes.sizeof(struct) for struct in structs] == sizes


def _raw(t: Tensor) -> np.ndarray:
    return t.contiguous().numpy().view(np.uint8).reshape(-1)


def _last(t: Tensor, dim: int) -> Tensor:
    """Return a tensor with its rows along the last dimension, as they lie in memory."""
    return t.movedim(dim, -1).contiguous()


def prepare_float_rows(case: Case, launchers: Launchers, offset: int) -> Run:
    """Return the run of a float_layer_norm or float_softmax case; offset: of x, in bytes."""
    _check_sizes(launchers)
    args = case.build()
    x, dim = args[0], args[-1]
    want = _raw(_last(_REFERENCE[case.op](*args), dim))
    memory = GlobalMemory(1 << 20)
    rows = _last(x, dim)
    n = rows.shape[-1]
    at, out = memory.add(rows.numpy(), offset), memory.add_result(want.size, offset)
    if case.op == "float_softmax":
        launched = launchers.launch(
            "ptx_launch_softmax", byref(SoftmaxRows(at, out, x.numel() // n, n))
        )
        return Run(*launched, memory, out, want)
    weight, bias = (0 if t is None else memory.add(t.numpy()) for t in args[1:3])
    call = NormRows(at, weight, bias, out, x.numel() // n, n, args[3])
    return Run(*launchers.launch("ptx_launch_layer_norm", byref(call)), memory, out, want)


def prepare_ranges(x: Tensor, launchers: Launchers, step: str, splits: int, pad: Any) -> Run:
    """Return the run of a kernel that quantizes rows by their own ranges.

    x: [rows, n], or with `pad` (height, width) images [N, C, H, W]. step: "rows", a block for each;
    "bounds", the least and the largest of each of `splits` shares; "codes", what follows it.
    """
    _check_sizes(launchers)
    nhwc = x.permute(0, 2, 3, 1) if pad else x
    rows = nhwc.reshape(x.shape[0], -1)
    q, scale, zero_point = quantize_rows(rows)
    memory = GlobalMemory(1 << 20)
    call = RangeCall(x=memory.add(rows.numpy()), rows=rows.shape[0], n=rows.shape[1], splits=splits)
    bounds = _bounds(rows, max(splits, 1))
    if step == "bounds":
        call.bounds = memory.add_result(bounds.nbytes)
        launched = launchers.launch("ptx_launch_find_bounds", byref(call))
        return Run(*launched, memory, call.bounds, bounds.view(np.uint8).reshape(-1))
    want = q.reshape(nhwc.shape)
    if pad:
        want = padded_images(want, zero_point, pad)
        call.channels, call.height, call.width = x.shape[1:]
        call.pad_h, call.pad_w = pad
    call.out = memory.add_result(want.numel())
    call.scale = memory.add_result(4 * rows.shape[0])
    call.zero_point = memory.add_result(4 * rows.shape[0])
    if step == "codes":
        call.bounds = memory.add(bounds)
    function = "ptx_launch_quantize_rows" if step == "rows" else "ptx_launch_quantize_split"
    more = ((call.scale, _raw(scale)), (call.zero_point, _raw(zero_point)))
    return Run(*launchers.launch(function, byref(call)), memory, call.out, _raw(want), more)


def _bounds(rows: Tensor, splits: int) -> np.ndarray:
    """Return [rows, splits, 2] float32: the least and the largest of zero and each share."""
    n = rows.shape[1]
    fours = -(-n // 4)
    ends = [min(fours * i // splits * 4, n) for i in range(splits + 1)]
    out = np.zeros((rows.shape[0], splits, 2), np.float32)
    for i in range(splits):
        part = rows[:, ends[i] : ends[i + 1]].numpy()
        if part.size:
            out[:, i, 0] = np.fmin(np.fmin.reduce(part, 1), np.float32(0))
            out[:, i, 1] = np.fmax(np.fmax.reduce(part, 1), np.float32(0))
    return out


def padded_images(q: Tensor, zero_point: Tensor, pad: tuple[int, int]) -> Tensor:
    """Return images [N, H, W, C] uint8 with a border of each one's zero point."""
    inside = F.pad(torch.ones_like(q), (0, 0, pad[1], pad[1], pad[0], pad[0])).bool()
    wide = F.pad(q, (0, 0, pad[1], pad[1], pad[0], pad[0]))
    return torch.where(inside, wide, zero_point.to(torch.uint8).view(-1, 1, 1, 1))


def prepare_dynamic(case: Case, tile: Tile | None, launchers: Launchers) -> Run:
    """Return the run of the product of an int8_linear_dynamic or int8_conv2d_dynamic case.

    tile: None for a depthwise convolution. Rows are quantized by the reference.
    """
    args = case.build()
    x, packed = args[:2]
    want = _REFERENCE[case.op](*args)
    is_conv = case.op == "int8_conv2d_dynamic"
    memory = GlobalMemory(1 << 22)
    buffer, header, call = bind_weight(packed, launchers)
    if is_conv:
        kernel, stride, padding, dilation = args[3:7]
        images = x.permute(0, 2, 3, 1)
        q, scale, zero_point = quantize_rows(images.reshape(x.shape[0], -1))
        codes = padded_images(q.reshape(images.shape), zero_point, tuple(padding))
        want = want.permute(0, 2, 3, 1).contiguous()
        call.rows_per_range = want.shape[1] * want.shape[2]
        call.windows = Windows(
            *codes.shape[1:3], x.shape[1], *want.shape[1:3], *kernel, *stride, 0, 0, *dilation
        )
    else:
        per_token = args[3]
        rows = x.reshape(-1, header.k)
        codes, scale, zero_point = quantize_rows(rows if per_token else rows.reshape(1, -1))
        call.rows_per_range = 1 if per_token else rows.shape[0]
        call.windows = Windows(1, 1, header.k, *(1,) * 6, 0, 0, 1, 1)
    call.x = memory.add(codes.contiguous().numpy(), granule=4)
    call.packed = memory.add(buffer)
    call.row_scale, call.row_zero_point = memory.add(scale.numpy()), memory.add(zero_point.numpy())
    call.out = memory.add_result(4 * want.numel())
    call.m = want.numel() // header.n
    launchers.multiprocessors = 4
    if tile is None:
        launched = launchers.depthwise(call, True, 0, 0)
    elif tile.kernel == "first":
        launched = launchers.launch("ptx_launch_first_conv", byref(call), 2)
    else:
        source = launchers.row_source(call)
        config = GemmConfig(
            KERNELS.index(tile.kernel), source, tile.block_m, tile.block_n, tile.cluster
        )
        launched = launchers.gemm(call, config)
    return Run(*launched, memory, call.out, _raw(want))
