"""A case of fastinfer.testing.cases, run as its CUDA op would: memory, call, launch, comparison."""

from __future__ import annotations

from collections.abc import Callable
from ctypes import byref
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import torch
from interpreter import BEHIND, Counters, GlobalMemory, Kernel, Launch, run
from torch import Tensor

from fastinfer.ops.catalog import OPS
from fastinfer.testing.case import Case
from fastinfer.types.packed import OPS as PACKED_OPS
from fastinfer.types.packed import PackedHeader, unpack

from .launchers import KERNELS, SOURCES, GemmCall, GemmConfig, Launchers, QuantizeCall, Windows
from .weights import PADDING_AT, pack_for_cuda, padded_k, padded_run

_REFERENCE = {op.name: op.reference for op in OPS}


class Mismatch(AssertionError):
    """A kernel's result differs from its reference."""


@dataclass(frozen=True)
class Tile:
    """A GEMM kernel and its tile, as known_configs names them."""

    kernel: str
    block_m: int
    block_n: int
    cluster: int = 1

    def __str__(self) -> str:
        return f"{self.kernel}_{self.block_m}x{self.block_n}_c{self.cluster}"


@dataclass
class Run:
    """One launch, ready to be run: what it writes where, and what should be there."""

    kernel: Kernel
    launch: Launch
    memory: GlobalMemory
    out: int
    want: np.ndarray  # bytes
    more: tuple[tuple[int, np.ndarray], ...] = ()  # other results

    def check(self, find: Callable[[str], Kernel] | None = None, order: str = BEHIND) -> Counters:
        """Run once and compare; `find` gives another version of the kernel. Raises Mismatch."""
        kernel = self.kernel if find is None else find(self.kernel.name)
        counters = run(kernel, self.launch, self.memory, order=order)
        for out, want in ((self.out, self.want), *self.more):
            self._compare(out, want)
        return counters

    def _compare(self, out: int, want: np.ndarray) -> None:
        got, written = self.memory.result(out, want.size)
        if not written.all():
            raise Mismatch(f"{int((~written).sum())} of {written.size} bytes were not written")
        if (wrong := got != want).any():
            where = np.flatnonzero(wrong)
            raise Mismatch(
                f"{where.size} of {got.size} bytes differ, first at {where[0]}: "
                f"{got[where[0]]} != {want[where[0]]}"
            )


def _in_memory(t: Tensor, nhwc: bool) -> Tensor:
    return (t.permute(0, 2, 3, 1) if nhwc else t).contiguous()


def _bytes(t: Tensor) -> np.ndarray:
    return t.numpy().view(np.uint8).reshape(-1)


def prepare_gemm(
    case: Case, tile: Tile, launchers: Launchers, offset: int = 0, multiprocessors: int = 4
) -> Run:
    """Return the run of an int8_linear or int8_conv2d case on a tile.

    offset: x's distance from an aligned address. multiprocessors: of the device; few have blocks
    compute several tiles.
    """
    (x, _, residual, *rest), want, (buffer, header) = _build(case)
    is_conv = case.op == "int8_conv2d"
    result = _bytes(_in_memory(want, is_conv))
    memory = GlobalMemory(1 << 23)
    buffer, header = _with_sparse(buffer, header, tile, launchers)
    call = _call(header, launchers)
    # Kernels read whole words of x, of which some bytes may be beyond its ends.
    call.x = memory.add(_in_memory(x, is_conv).numpy(), offset, granule=4)
    call.packed = memory.add(buffer)
    call.residual = 0 if residual is None else memory.add(_in_memory(residual, is_conv).numpy())
    call.out = memory.add_result(result.size)
    call.m = want.numel() // header.n
    call.windows = _windows(x, want, rest) if is_conv else Windows(1, 1, header.k, *(1,) * 6, 0, 0,
                                                                   1, 1)  # fmt: skip
    source = launchers.row_source(call)
    if tile.kernel == "first":
        launched = launchers.launch("ptx_launch_first_conv", byref(call), multiprocessors)
        return Run(*launched, memory, call.out, result)
    config = GemmConfig(
        KERNELS.index(tile.kernel), source, tile.block_m, tile.block_n, tile.cluster
    )
    launchers.multiprocessors = multiprocessors
    kernel, launch = launchers.gemm(call, config)
    return Run(kernel, launch, memory, call.out, result)


def prepare_depthwise(
    case: Case, launchers: Launchers, strip: int, lanes: int, offset: int, rows: int | None
) -> Run:
    """Return the run of an int8_depthwise_conv2d case.

    strip, lanes: those forced, or 0. offset: x's distance from an aligned address. rows: of the
    grid, in place of one for each of the first 65535 images.
    """
    (x, _, residual, *geometry, float_output), want, (buffer, header) = _build(case)
    result = _bytes(_in_memory(want, True))
    memory = GlobalMemory(1 << 21)
    call = _call(header, launchers)
    call.x = memory.add(_in_memory(x, True).numpy(), offset)
    call.packed = memory.add(buffer)
    call.residual = 0 if residual is None else memory.add(_in_memory(residual, True).numpy())
    call.out = memory.add_result(result.size)
    call.m = want.numel() // header.n
    call.windows = _windows(x, want, [header.n, *geometry])
    kernel, launch = launchers.depthwise(call, float_output, strip, lanes)
    if rows is not None:
        launch = replace(launch, grid=(launch.grid[0], rows, 1))
    return Run(kernel, launch, memory, call.out, result)


@cache
def _build(case: Case) -> tuple[tuple[Any, ...], Tensor, tuple[np.ndarray, PackedHeader]]:
    """Return a case's arguments, its reference's result, and its weight for the CUDA kernels."""
    arguments = case.build()
    return arguments, _REFERENCE[case.op](*arguments), _pack_again(arguments[1])


def _pack_again(packed: Tensor) -> tuple[np.ndarray, PackedHeader]:
    """Return a weight packed for the CUDA kernels; fastinfer's own unpack must read it back."""
    parts = unpack(packed)
    buffer, header = pack_for_cuda(parts)
    again = unpack(torch.from_numpy(buffer.copy()))
    for name in ("weight", "bias", "multiplier", "residual_multiplier", "table", "float_bias"):
        assert torch.equal(getattr(again, name), getattr(parts, name)), name
    return buffer, header


def bind_weight(packed: Tensor, launchers: Launchers) -> tuple[np.ndarray, PackedHeader, GemmCall]:
    """Return a weight packed for the CUDA kernels, its header, and the call of a product."""
    buffer, header = _pack_again(packed)
    return buffer, header, _call(header, launchers)


def _with_sparse(
    buffer: np.ndarray, header: PackedHeader, tile: Tile, launchers: Launchers
) -> tuple[np.ndarray, PackedHeader]:
    """Return a weight with the section that a sparse kernel reads, as add_sparse of prepack.cpp."""
    if tile.kernel in ("mma", "wgmma", "first"):
        return buffer, header
    padded = padded_run(header.run), padded_k(header)
    parts = unpack(torch.from_numpy(buffer.copy()))
    weight = parts.weight.numpy()
    if weight.ndim == 4:
        weight = weight.transpose(0, 2, 3, 1)
    groups = weight.reshape(header.groups, header.n_per_group, -1)
    if tile.kernel in ("sparse_wgmma", "sparse_mma"):
        images = [launchers.pack_two_of_four(rows, header.run, padded) for rows in groups]
    else:
        of = [launchers.gather_steps(rows, header.run, padded, tile.block_n) for rows in groups]
        assert all(of), "too many inputs are kept"
        pixel = launchers.pixel_bytes(header.run) if PACKED_OPS[header.op] == "conv2d" else 128
        shape = (tile.block_n, max(of), pixel)
        images = [launchers.pack_gathered(rows, header.run, padded, shape) for rows in groups]
        header = replace(header, pixels=tile.block_n)
    image = np.concatenate(images)
    header = replace(
        header, index=buffer.size, index_bytes=image.size, total_bytes=buffer.size + image.size
    )
    start = np.frombuffer(header.to_bytes(), np.uint8)[:PADDING_AT]
    return np.concatenate([start, buffer[PADDING_AT:], image]), header


def _gather_steps(header: PackedHeader) -> int:
    """Return the steps of 32 kept inputs of a weight whose channels share them."""
    if not header.index or not header.pixels:
        return 0
    blocks = header.groups * -(-header.n_per_group // header.pixels) * -(-padded_k(header) // 128)
    return (header.index_bytes // blocks - 128) // (32 * header.pixels)


def _call(header: PackedHeader, launchers: Launchers) -> GemmCall:
    """Return what bind_call of packed_headers.cpp fills in."""
    return GemmCall(
        sparse=header.index,
        gather_channels=header.pixels if header.index else 0,
        gather_steps=_gather_steps(header),
        n=header.n_per_group,
        n_padded=header.panels_per_group * header.nr,
        run=header.run,
        run_padded=padded_run(header.run),
        k_padded=padded_k(header),
        groups=header.groups,
        pixel_bytes=launchers.pixel_bytes(header.run),
    )


def _windows(x: Tensor, want: Tensor, arguments: list[Any]) -> Windows:
    _, kernel_size, stride, padding, dilation = arguments[:5]
    return Windows(
        *x.shape[2:], x.shape[1], *want.shape[2:], *kernel_size, *stride, *padding, *dilation
    )


def source_of(run: Run) -> str:
    """Return the name of the row source that a GEMM's kernel was instantiated for."""
    found = run.kernel.name.partition("RowSourceE")[2]
    return SOURCES[int(found[0])] if found else "pixels"


def prepare_quantize(
    x: Tensor,
    launchers: Launchers,
    scale: float = 0.02,
    zero_point: int = 100,
    channels_last: bool = False,
    offsets: tuple[int, int] = (0, 0),
) -> Run:
    """Return the run of quantize on a contiguous tensor; offsets: of x and of the result."""
    want = _REFERENCE["quantize"](x, scale, zero_point, channels_last)
    types = (torch.float32, torch.float16, torch.bfloat16)
    result = _bytes(_in_memory(want, channels_last))
    memory = GlobalMemory(1 << 22)
    call = QuantizeCall(
        x=memory.add(x.view(torch.int16 if x.element_size() == 2 else x.dtype).numpy(), offsets[0]),
        type=types.index(x.dtype),
        out=memory.add_result(result.size, offsets[1]),
        count=x.numel(),
        inverse=float(np.float32(1) / np.float32(scale)),
        low=-zero_point,
        high=255 - zero_point,
        zero_point=zero_point,
    )
    if channels_last:
        call.images, call.channels = x.shape[:2]
        call.pixels = x.shape[2] * x.shape[3]
    kernel, launch = launchers.quantize(call)
    return Run(kernel, launch, memory, call.out, result)
